import RISCV

/// Several accesses off one base register, or others that are a known distance from it or at most so far, as elements of
/// small tables are, whose page is looked up once, by the first: from there on their address is in a host register, or in
/// a slot of the state while another group's is.
struct AccessGroup {
  /// Slots that there are.
  static let slotCount = 8
  var base: UInt8
  var isStore: Bool
  /// The bytes accessed, from what the base register holds at the first step: low..<high.
  var low: Int64
  var high: Int64
  /// What the base register's value was then, counted from its root.
  var distance: Int64
  var memberCount: Int
  var first: Int
  var last: Int
  /// Whether some of the accesses are off registers whose exact distance isn't known.
  var isSpread: Bool
  /// What the address is: the host's of the guest's address zero, where the base register lived in a host register at
  /// the first access, or some distance isn't known; else that of the lowest byte.
  var isRelative = false
  var needsSlot = false
  /// -1: none.
  var slot: Int8 = -1
  /// While slots are assigned: no later group has got the same one.
  var holdsSlot = false

  init(base: UInt8, isStore: Bool, low: Int64, high: Int64, isSpread: Bool, distance: Int64, at step: Int) {
    self.base = base
    self.isStore = isStore
    self.isSpread = isSpread
    self.low = low
    self.high = high
    self.distance = distance
    memberCount = 1
    first = step
    last = step
  }
}

extension Trace {
  /// The width in bytes of a plain access, and whether it stores; nil for other operations.
  static func plainAccess(_ operation: Operation) -> (width: Int64, isStore: Bool)? {
    switch operation {
    case .lb, .lbu: (1, false)
    case .lh, .lhu: (2, false)
    case .lw, .lwu, .flw: (4, false)
    case .ld, .fld: (8, false)
    case .sb: (1, true)
    case .sh: (2, true)
    case .sw, .fsw: (4, true)
    case .sd, .fsd: (8, true)
    default: nil
    }
  }

  /// The largest distance, in bytes, between the ends of the accesses of one group.
  private static let largestSpan: Int64 = 256
  /// The same where it has a table's elements.
  private static let largestTable: Int64 = 1024

  /// Finds the accesses of the trace that can share the look-up of their page.
  mutating func planGroups<Host: BackEnd & ~Copyable>(_ host: Host.Type) {
    openGroups.update(repeating: -1, count: Self.rootCount)
    var roots = Roots()
    for index in 0..<count {
      let step = steps[index]
      let i = step.instruction
      if let access = Self.plainAccess(i.operation), i.rs1 != 0 {
        join(index, i, access, roots)
      } else if step.effects.contains(.endsBlock), !step.effects.contains(.branches) {
        // What may change the address space, or what may be accessed in it.
        openGroups.update(repeating: -1, count: Self.rootCount)
      }
      roots.follow(step)
    }
    for index in 0..<groupCount {
      let first = groups[index].first
      if groups[index].memberCount == 1 {
        steps[first].group = -1
      } else if groups[index].base != steps[first].instruction.rs1 {
        steps[first].alsoReads(groups[index].base)
      }
    }
    assignSlots(host)
  }

  /// What registers have in common: a value from which each is a known distance away, or this and at most the spread.
  struct Roots {
    /// Numbers of the values, by register; those that registers begin with have the register's.
    private var numbers = InlineArray<32, Int16> { Int16($0) }
    private var distances = InlineArray<32, Int64>(repeating: 0)
    private var spreads = InlineArray<32, Int32>(repeating: 0)
    /// The largest that values can be which are zero at least; -1: unknown.
    private var limits = InlineArray<32, Int32> { $0 == 0 ? 0 : -1 }
    /// Of those with a spread: the register that the address was made from.
    private var tables = InlineArray<32, UInt8>(repeating: 0)
    private var count: Int16 = 32
    /// Beyond that they are of no use here.
    private static let largestLimit: Int64 = 4095

    @inline(__always)
    subscript(_ register: UInt8) -> (number: Int16, distance: Int64, spread: Int64) {
      (numbers[Int(register)], distances[Int(register)], Int64(spreads[Int(register)]))
    }

    /// The register that holds, still, what a register with a spread was made from; 0: none.
    @inline(__always)
    func table(of register: UInt8) -> UInt8 {
      let table = tables[Int(register)]
      return spreads[Int(table)] == 0 && numbers[Int(table)] == numbers[Int(register)] ? table : 0
    }

    @inline(__always)
    mutating func follow(_ step: Step) {
      if step.target == 0 { return }
      let i = step.instruction
      let (target, source) = (Int(step.target), Int(i.rs1))
      if i.operation == .addi, source != 0 {
        numbers[target] = numbers[source]
        distances[target] = distances[source] + i.immediate
        spreads[target] = spreads[source]
        tables[target] = tables[source]
        limits[target] = i.immediate == 0 ? limits[source] : -1
        return
      }
      let limit = limit(of: i)
      if let (table, spread) = element(i) {
        numbers[target] = numbers[Int(table)]
        distances[target] = distances[Int(table)]
        if spreads[Int(table)] == 0 { tables[target] = table } else { tables[target] = tables[Int(table)] }
        spreads[target] = spreads[Int(table)] + spread
      } else {
        numbers[target] = count
        distances[target] = 0
        spreads[target] = 0
        count += 1
      }
      limits[target] = limit
    }

    /// The table of an address that is the sum of one and an index with a limit, and how far the index reaches.
    @inline(__always)
    private func element(_ i: Instruction) -> (table: UInt8, spread: Int32)? {
      let shift: Int32
      switch i.operation {
      case .add: shift = 0
      case .sh1add: shift = 1
      case .sh2add: shift = 2
      case .sh3add: shift = 3
      default: return nil
      }
      var (table, index) = (i.rs2, i.rs1)
      if shift == 0, limits[Int(index)] < 0 { swap(&table, &index) }
      // Two indices, of which one may be a pointer for all that is known, aren't told apart.
      guard table != 0, index != 0, limits[Int(table)] < 0, limits[Int(index)] >= 0 else { return nil }
      let spread = limits[Int(index)] << shift
      return Int64(spreads[Int(table)] + spread) <= Self.largestLimit ? (table, spread) : nil
    }

    /// The largest that the result can be, -1 where that isn't known or is much.
    @inline(__always)
    private func limit(of i: Instruction) -> Int32 {
      let (left, right) = (Int64(limits[Int(i.rs1)]), Int64(limits[Int(i.rs2)]))
      let limit: Int64
      switch i.operation {
      case .andi where i.immediate >= 0: limit = left >= 0 ? min(left, i.immediate) : i.immediate
      case .lbu: limit = 255
      case .slt, .slti, .sltu, .sltiu: limit = 1
      case .slli where left >= 0 && i.immediate < 16: limit = left << i.immediate
      case .slliw where left >= 0 && i.immediate < 16: limit = left << i.immediate
      case .srli where left >= 0: limit = left >> i.immediate
      case .srli where i.immediate >= 52: limit = 1 << (64 - i.immediate) - 1
      case .srliw where i.immediate >= 20: limit = 1 << (32 - i.immediate) - 1
      case .and where left >= 0 && right >= 0: limit = min(left, right)
      case .and where left >= 0 || right >= 0: limit = max(left, right)
      default: return -1
      }
      return limit <= Self.largestLimit ? Int32(limit) : -1
    }
  }

  /// Lets a step join the group that is open for its base register's root, or opens one.
  private mutating func join(_ index: Int, _ i: Instruction, _ access: (width: Int64, isStore: Bool), _ roots: Roots) {
    let root = roots[i.rs1]
    let open = openGroups[Int(root.number)]
    if open >= 0 {
      let group = groups + Int(open)
      let offset = i.immediate + root.distance - group.pointee.distance
      let low = min(group.pointee.low, offset)
      let high = max(group.pointee.high, offset + root.spread + access.width)
      let isSpread = group.pointee.isSpread || root.spread > 0
      if high - low <= (isSpread ? Self.largestTable : Self.largestSpan) {
        group.pointee.isSpread = isSpread
        group.pointee.low = low
        group.pointee.high = high
        group.pointee.isStore = group.pointee.isStore || access.isStore
        group.pointee.last = index
        group.pointee.memberCount += 1
        steps[index].group = open
        steps[index].groupOffset = offset
        return
      }
    }
    let base = root.spread > 0 ? roots.table(of: i.rs1) : i.rs1
    let offset = i.immediate + root.distance - roots[base].distance
    guard base != 0, root.spread + access.width <= Self.largestTable, Int32(exactly: offset) != nil else { return }
    (groups + groupCount).initialize(
      to: AccessGroup(
        base: base, isStore: access.isStore, low: offset, high: offset + root.spread + access.width,
        isSpread: root.spread > 0, distance: roots[base].distance, at: index))
    openGroups[Int(root.number)] = Int16(groupCount)
    steps[index].group = Int16(groupCount)
    steps[index].groupOffset = offset
    groupCount += 1
  }

  /// Gives a slot to each group whose address doesn't stay in its host register from its first access to its last; a group for which
  /// there is none left is dissolved.
  private mutating func assignSlots<Host: BackEnd & ~Copyable>(_ host: Host.Type) {
    var loaded: Int16 = -1
    for index in 0..<count {
      if host.losesGroupAddress(steps[index].instruction) { loaded = -1 }
      let group = steps[index].group
      if group < 0 { continue }
      if groups[Int(group)].first != index, loaded != group { groups[Int(group)].needsSlot = true }
      loaded = group
    }
    var free = UInt32(1) << UInt32(AccessGroup.slotCount) - 1
    for index in 0..<groupCount where groups[index].needsSlot {
      for earlier in 0..<index where groups[earlier].holdsSlot && groups[earlier].last < groups[index].first {
        free |= 1 << UInt32(groups[earlier].slot)
        groups[earlier].holdsSlot = false
      }
      if free == 0 {
        for step in groups[index].first...groups[index].last where steps[step].group == Int16(index) {
          steps[step].group = -1
        }
      } else {
        groups[index].slot = Int8(free.trailingZeroBitCount)
        groups[index].holdsSlot = true
        free &= free - 1
      }
    }
  }
}

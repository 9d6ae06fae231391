import RISCV

/// Several accesses off one base register, or others that are a known distance from it, whose page is looked up once, by
/// the first: from there on their address is in a host register, or in a slot of the state while another group's is.
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
  /// What the address is: the host's of the guest's address zero, where the base register lived in a host register at
  /// the first access; else that of the lowest byte.
  var isRelative = false
  var needsSlot = false
  /// -1: none.
  var slot: Int8 = -1
  /// While slots are assigned: no later group has got the same one.
  var holdsSlot = false

  init(base: UInt8, isStore: Bool, low: Int64, high: Int64, distance: Int64, at step: Int) {
    self.base = base
    self.isStore = isStore
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

  /// Finds the accesses of the trace that can share the look-up of their page.
  mutating func planGroups<Host: BackEnd & ~Copyable>(_ host: Host.Type) {
    openGroups.update(repeating: -1, count: Self.rootCount)
    var roots = Roots()
    for index in 0..<count {
      let step = steps[index]
      let i = step.instruction
      if let access = Self.plainAccess(i.operation), i.rs1 != 0 {
        join(index, i, access, roots[i.rs1])
      } else if step.effects.contains(.endsBlock), !step.effects.contains(.branches) {
        // What may change the address space, or what may be accessed in it.
        openGroups.update(repeating: -1, count: Self.rootCount)
      }
      roots.follow(step)
    }
    for index in 0..<groupCount where groups[index].memberCount == 1 { steps[groups[index].first].group = -1 }
    assignSlots(host)
  }

  /// What registers have in common: a value from which each is a known distance away.
  struct Roots {
    /// Numbers of the values, by register; those that registers begin with have the register's.
    private var numbers = InlineArray<32, Int16> { Int16($0) }
    private var distances = InlineArray<32, Int64>(repeating: 0)
    private var count: Int16 = 32

    @inline(__always)
    subscript(_ register: UInt8) -> (number: Int16, distance: Int64) {
      (numbers[Int(register)], distances[Int(register)])
    }

    @inline(__always)
    mutating func follow(_ step: Step) {
      if step.target == 0 { return }
      let i = step.instruction
      if i.operation == .addi, i.rs1 != 0 {
        numbers[Int(i.rd)] = numbers[Int(i.rs1)]
        distances[Int(i.rd)] = distances[Int(i.rs1)] + i.immediate
      } else {
        numbers[Int(step.target)] = count
        distances[Int(step.target)] = 0
        count += 1
      }
    }
  }

  /// Lets a step join the group that is open for its base register's root, or opens one.
  private mutating func join(
    _ index: Int, _ i: Instruction, _ access: (width: Int64, isStore: Bool), _ root: (number: Int16, distance: Int64)
  ) {
    let open = openGroups[Int(root.number)]
    if open >= 0 {
      let group = groups + Int(open)
      let offset = i.immediate + root.distance - group.pointee.distance
      let low = min(group.pointee.low, offset)
      let high = max(group.pointee.high, offset + access.width)
      if high - low <= Self.largestSpan {
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
    (groups + groupCount).initialize(
      to: AccessGroup(
        base: i.rs1, isStore: access.isStore, low: i.immediate, high: i.immediate + access.width,
        distance: root.distance, at: index))
    openGroups[Int(root.number)] = Int16(groupCount)
    steps[index].group = Int16(groupCount)
    steps[index].groupOffset = i.immediate
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

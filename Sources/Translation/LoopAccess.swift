import Hart
import RISCV

/// Accesses of a loop off one register that each turn moves by the same distance, or doesn't change: their page is looked
/// up before many turns, as many as are certain to stay on it.
struct LoopAccess {
  var base: UInt8
  var isStore = false
  /// The bytes accessed in a turn, from what the base register holds at its begin: low..<high.
  var low: Int64 = .max
  var high: Int64 = .min
  /// What a turn adds to the base register.
  var stride: Int64 = 0
}

/// A loop of one block is made twice. The first turn takes the plain version, whose accesses are looked up one by one,
/// as do turns that cross a page's end. From then on, look-ups before the loop find out for how many turns all pages
/// are certain; the second version counts these down in place of the stretch's instructions, of which the rest waits in
/// `loopRest`, and looks nothing up.
extension BlockTranslator {
  /// Bytes that a turn may access off one register, and move it by.
  private static let largestLoopSpan: Int64 = 1024
  private static let largestStride: Int64 = 256

  /// Finds out which accesses of the trace, which is a loop, can be looked up before it.
  mutating func planLoopAccesses() {
    loopAccessCount = 0
    guard stepCount <= Self.maximumLength else { return }
    for index in 0..<stepCount {
      steps[index].loopAccess = -1
      // What may change what may be accessed.
      let effects = steps[index].effects
      if effects.contains(.endsBlock), !effects.contains(.branches) { return }
    }
    // What a turn adds to registers that keep the same root.
    var roots = Roots()
    for index in 0..<stepCount { roots.follow(steps[index]) }
    var strides = InlineArray<32, Int64?>(repeating: nil)
    for register in UInt8(1)..<32 where roots[register].number == Int16(register) {
      let stride = roots[register].distance
      if abs(stride) <= Self.largestStride { strides[Int(register)] = stride }
    }
    roots = Roots()
    var indices = InlineArray<32, Int8>(repeating: -1)
    for index in 0..<stepCount {
      let i = steps[index].instruction
      if let access = Self.plainAccess(i.operation), i.rs1 != 0, roots[i.rs1].number < 32 {
        let (root, distance) = roots[i.rs1]
        if indices[Int(root)] < 0, let stride = strides[Int(root)], loopAccessCount < StateLayout.loopAddendCount {
          indices[Int(root)] = Int8(loopAccessCount)
          loopAccesses[loopAccessCount] = LoopAccess(base: UInt8(root), stride: stride)
          loopAccessCount += 1
        }
        if indices[Int(root)] >= 0 {
          let number = Int(indices[Int(root)])
          let offset = i.immediate + distance
          let low = min(loopAccesses[number].low, offset)
          let high = max(loopAccesses[number].high, offset + access.width)
          if high - low <= Self.largestLoopSpan {
            loopAccesses[number].low = low
            loopAccesses[number].high = high
            if access.isStore { loopAccesses[number].isStore = true }
            steps[index].loopAccess = Int8(number)
          }
        }
      }
      roots.follow(steps[index])
    }
    removeMixed()
  }

  /// All accesses of a group are looked up before the loop, or none: those in it share a look-up.
  private mutating func removeMixed() {
    var isPlain = InlineArray<8, Bool>(repeating: false)
    var changes = true
    while changes {
      changes = false
      for index in 0..<stepCount where steps[index].group >= 0 && steps[index].loopAccess >= 0 {
        let number = Int(steps[index].loopAccess)
        if isPlain[number] { continue }
        for other in 0..<stepCount where steps[other].group == steps[index].group && steps[other].loopAccess != number {
          isPlain[number] = true
        }
        if isPlain[number] { changes = true }
      }
      for index in 0..<stepCount where steps[index].loopAccess >= 0 && isPlain[Int(steps[index].loopAccess)] {
        steps[index].loopAccess = -1
      }
    }
    var isAny = false
    for number in 0..<loopAccessCount {
      if isPlain[number] { loopAccesses[number].base = 0 } else { isAny = true }
    }
    if !isAny { loopAccessCount = 0 }
    keepsAddend =
      placeCount < RegisterMap.places.count
      && !(0..<stepCount).contains { steps[$0].group >= 0 && steps[$0].loopAccess < 0 }
  }

  /// Goes to the next turn of the loop.
  mutating func emitTurn(_ head: Assembler.Label?, _ map: RegisterMap) {
    assembler.convert(registers, to: map)
    if let head { assembler.jump(head) } else { turn = assembler.jump() }
  }

  /// The same where a condition holds.
  mutating func emitTurn(_ head: Assembler.Label?, _ map: RegisterMap, if condition: HostCondition) {
    if registers.isSettled(as: map) {
      if let head { assembler.jump(head, if: condition) } else { turn = assembler.jump(if: condition) }
    } else {
      let inverted = assembler.jump(if: condition.inverted)
      emitTurn(head, map)
      assembler.fillHere(inverted)
    }
  }

  /// Emits the look-ups and the head of the second version of the loop; `otherwise`: the first one.
  mutating func emitLoopLookups(_ map: RegisterMap, otherwise plain: Assembler.Label) {
    registers = map
    pending = RegisterMap.none
    let again = assembler.here
    unextended = loopUnextended
    extendAll()
    let turns = StateLayout.loopRest
    // As many as the stretch has instructions for. A power of two in place of the loop's length is on the safe side.
    let count = located(RegisterMap.remaining)
    if let count { assembler.move(.rax, count) } else { assembler.load(.rax, StateLayout.remaining) }
    assembler.arithmetic(.compare, .rax, immediate: Int32(stepCount))
    assembler.jump(plain, if: .less)
    assembler.shift(.right, .rax, by: Self.shift(covering: Int64(stepCount)))
    // At least one.
    assembler.arithmetic(.compare, .rax, immediate: 1)
    assembler.arithmetic(.addWithCarry, .rax, immediate: 0)
    assembler.store(turns, .rax)
    for index in 0..<loopAccessCount where loopAccesses[index].base != 0 { emitLoopLookup(index, otherwise: plain) }
    assembler.load(.rax, turns)
    assembler.moveImmediate(.rcx, UInt64(stepCount))
    assembler.multiply(.rax, .rcx)
    if let count {
      assembler.arithmetic(.sub, count, .rax)
      assembler.store(StateLayout.loopRest, count)
      assembler.move(count, .rax)
    } else {
      assembler.load(.rcx, StateLayout.remaining)
      assembler.arithmetic(.sub, .rcx, .rax)
      assembler.store(StateLayout.loopRest, .rcx)
      assembler.store(StateLayout.remaining, .rax)
    }
    countsDown = true
    loop = (assembler.here, map)
    takeSnapshot()
    if let count {
      assembler.arithmetic(.sub, count, immediate: Int32(stepCount))
    } else {
      assembler.arithmetic(.sub, StateLayout.remaining, immediate: Int32(stepCount))
    }
    postpone(.lookUpAgain(assembler.jump(if: .less), again))
  }

  /// Looks up one register's page, and lowers the number of turns to what stays on it.
  private mutating func emitLoopLookup(_ index: Int, otherwise plain: Assembler.Label) {
    let access = loopAccesses[index]
    let lastFit = Int32(4096 - (access.high - access.low))
    if let base = located(access.base) {
      assembler.loadAddress(.rax, HostAddress(base, Int32(access.low)))
    } else {
      assembler.load(.rax, StateLayout.integer(access.base))
      if access.low != 0 { assembler.arithmetic(.add, .rax, immediate: Int32(access.low)) }
    }
    emitEntry(of: .rax, access.isStore ? StateLayout.writeEntries : StateLayout.readEntries)
    assembler.arithmetic(.sub, .rax, HostAddress(.rcx, 0))
    assembler.arithmetic(.compare, .rax, immediate: lastFit)
    assembler.jump(plain, if: .above)
    assembler.load(.rcx, HostAddress(.rcx, 8))
    assembler.store(StateLayout.loopAddend(index), .rcx)
    if access.stride == 0 { return }
    if access.stride > 0 {
      assembler.negate(.rax, .long)
      assembler.arithmetic(.add, .rax, immediate: lastFit, .long)
    }
    assembler.shift(.right, .rax, by: Self.shift(covering: abs(access.stride)), .long)
    assembler.arithmetic(.add, .rax, immediate: 1, .long)
    assembler.load(.rcx, StateLayout.loopRest)
    assembler.arithmetic(.compare, .rax, .rcx)
    assembler.move(.rcx, .rax, if: .below)
    assembler.store(StateLayout.loopRest, .rcx)
  }

  /// The least shift whose power of two isn't below `value`.
  private static func shift(covering value: Int64) -> UInt8 { UInt8(64 - (value - 1).leadingZeroBitCount) }

  /// The count of instructions left becomes the stretch's again, where the registers are as at a block's borders.
  mutating func countWhole() {
    if countsDown { assembler.arithmetic(.add, PinnedRegisters.remaining, StateLayout.loopRest) }
  }

  /// The same at the loop's head, which has counted a turn that isn't to be.
  mutating func endCountDown(_ map: RegisterMap) {
    assembler.load(.rax, StateLayout.loopRest)
    assembler.arithmetic(.add, .rax, immediate: Int32(stepCount))
    if let count = map.host(RegisterMap.remaining) {
      assembler.arithmetic(.add, count, .rax)
    } else {
      assembler.arithmetic(.add, StateLayout.remaining, .rax)
    }
  }
}

import Hart
import RISCV

/// A loop of one block is made twice. The first turn takes the plain version, whose accesses are looked up one by one,
/// as do turns that cross a page's end. From then on, look-ups before the loop find out for how many turns all pages
/// are certain; the second version counts these down in place of the stretch's instructions, of which the rest waits in
/// `loopRest`, and looks nothing up.
extension X86BackEnd {
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
    assembler.arithmetic(.compare, .rax, immediate: Int32(trace.count))
    assembler.jump(plain, if: .less)
    assembler.shift(.right, .rax, by: Self.shift(covering: Int64(trace.count)))
    // At least one.
    assembler.arithmetic(.compare, .rax, immediate: 1)
    assembler.arithmetic(.addWithCarry, .rax, immediate: 0)
    assembler.store(turns, .rax)
    for index in 0..<trace.loopAccessCount where trace.loopAccesses[index].base != 0 {
      emitLoopLookup(index, otherwise: plain)
    }
    assembler.load(.rax, turns)
    assembler.moveImmediate(.rcx, UInt64(trace.count))
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
      assembler.arithmetic(.sub, count, immediate: Int32(trace.count))
    } else {
      assembler.arithmetic(.sub, StateLayout.remaining, immediate: Int32(trace.count))
    }
    postpone(.lookUpAgain(assembler.jump(if: .less), again))
  }

  /// Looks up one register's page, and lowers the number of turns to what stays on it.
  private mutating func emitLoopLookup(_ index: Int, otherwise plain: Assembler.Label) {
    let access = trace.loopAccesses[index]
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
    assembler.arithmetic(.add, .rax, immediate: Int32(trace.count))
    if let count = map.host(RegisterMap.remaining) {
      assembler.arithmetic(.add, count, .rax)
    } else {
      assembler.arithmetic(.add, StateLayout.remaining, .rax)
    }
  }
}

import RISCV

/// What happens to registers' values after each step: for those who give registers places.
extension Trace {
  /// What happens next to a register's value: the step that reads it, if this is less than `lastEvent`.
  typealias Event = UInt16
  static let lastEvent: Event = 0xFF00
  /// It is overwritten, and nobody can have seen it till then.
  static let overwritten: Event = 0xFFFD
  /// It is overwritten, but the block may be left before.
  static let overwrittenLater: Event = 0xFFFE
  /// Nothing until the block's end.
  static let untouched: Event = 0xFFFF

  /// Registers in a row of `events`, and two places for what a back end keeps in registers beside them.
  static let eventStride = 34

  /// The integer registers that an instruction reads, a bit each.
  static func integerSources(_ i: Instruction, _ effects: Effects) -> UInt32 {
    switch i.operation {
    case .csrrwi, .csrrsi, .csrrci: return 0
    case .csrrw, .csrrs, .csrrc: return 1 << UInt32(i.rs1) & ~1
    default: break
    }
    if effects.contains(.usesFloatingPoint) {
      switch i.operation {
      case .fld, .flw, .fsd, .fsw, .fmv_d_x, .fmv_w_x, .fcvt_d_w, .fcvt_d_wu, .fcvt_d_l, .fcvt_d_lu, .fcvt_s_w,
        .fcvt_s_wu, .fcvt_s_l, .fcvt_s_lu:
        return 1 << UInt32(i.rs1) & ~1
      default: return 0
      }
    }
    return (1 << UInt32(i.rs1) | 1 << UInt32(i.rs2)) & ~1
  }

  /// Whether the block may be left at a step, or others see the registers there.
  func isExit(_ step: Step, at index: Int) -> Bool {
    if step.effects == .writesInteger { return false }
    if step.instruction.operation == .jal, step.instruction.rd == 0, index + 1 < count { return false }
    if step.group >= 0, groups[Int(step.group)].first != index,
      !step.effects.contains(.usesFloatingPoint)
    {
      return false
    }
    return true
  }

  /// Fills `events`: for each step, what happens next to each register before it, the step itself included. A loop goes
  /// on from its end at its begin.
  mutating func planEvents(isLoop: Bool) {
    let last = events + count * Self.eventStride
    last.update(repeating: Self.untouched, count: Self.eventStride)
    fillEvents()
    guard isLoop else { return }
    for register in 0..<Self.eventStride where events[register] < Self.lastEvent {
      last[register] = events[register] + Event(count)
    }
    fillEvents()
  }

  private mutating func fillEvents() {
    var index = count
    while index > 0 {
      index -= 1
      let row = events + index * Self.eventStride
      row.update(from: row + Self.eventStride, count: Self.eventStride)
      row[Int(steps[index].target)] = Self.overwritten
      row[0] = Self.untouched
      if isExit(steps[index], at: index) {
        for register in 1..<32 where row[register] == Self.overwritten { row[register] = Self.overwrittenLater }
      }
      var sources = steps[index].sources
      while sources != 0 {
        row[sources.trailingZeroBitCount] = Event(index)
        sources &= sources - 1
      }
    }
  }

  /// What happens to a register from the step `index` on.
  @inline(__always)
  func event(_ register: UInt8, from index: Int) -> Event { events[index * Self.eventStride + Int(register)] }

  /// How many steps from `index` on read a register before it is overwritten, as far as `limit`.
  @inline(__always)
  func reads(of register: UInt8, from index: Int, limit: Int) -> Int {
    var reads = 0
    var next = event(register, from: index)
    while reads < limit, next < Self.lastEvent {
      reads += 1
      if Int(next) >= count { break }
      next = event(register, from: Int(next) + 1)
    }
    return reads
  }
}

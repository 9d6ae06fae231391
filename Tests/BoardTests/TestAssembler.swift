import RISCV

/// A few instructions one after the other, for programs of a handful of lines.
struct TestAssembler {
  private(set) var words: [UInt32] = []

  static let zero: UInt8 = 0
  static let ra: UInt8 = 1
  static let t0: UInt8 = 5, t1: UInt8 = 6, t2: UInt8 = 7
  static let a0: UInt8 = 10, a1: UInt8 = 11, a2: UInt8 = 12, a3: UInt8 = 13, a6: UInt8 = 16, a7: UInt8 = 17

  mutating func emit(
    _ operation: Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, immediate: Int64 = 0
  ) {
    guard let word = Encoder.encode(operation, rd: rd, rs1: rs1, rs2: rs2, immediate: immediate) else {
      fatalError("no encoding for \(operation)")
    }
    words.append(word)
  }

  /// Loads any constant.
  mutating func li(_ rd: UInt8, _ value: UInt64) {
    let signed = Int64(bitPattern: value)
    if (-2048...2047).contains(signed) { return emit(.addi, rd: rd, immediate: signed) }
    let low = Int64(Int16(truncatingIfNeeded: signed << 4) >> 4)
    let high = signed &- low
    if let upper = Int32(exactly: high) {
      emit(.lui, rd: rd, immediate: Int64(upper))
      return emit(.addiw, rd: rd, rs1: rd, immediate: low)
    }
    li(rd, UInt64(bitPattern: high >> 12))
    emit(.slli, rd: rd, rs1: rd, immediate: 12)
    emit(.addi, rd: rd, rs1: rd, immediate: low)
  }

  /// Stores `value` at `address`. Changes t0 and t1.
  mutating func store(_ value: UInt64, at address: UInt64, as operation: Operation = .sd) {
    li(TestAssembler.t0, address)
    li(TestAssembler.t1, value)
    emit(operation, rs1: TestAssembler.t0, rs2: TestAssembler.t1)
  }

  /// A semihosting call.
  mutating func semihost(_ operation: UInt64, _ parameter: UInt64) {
    li(TestAssembler.a0, operation)
    li(TestAssembler.a1, parameter)
    emit(.slli, immediate: 0x1F)
    emit(.ebreak)
    emit(.srai, immediate: 7)
  }

  /// An SBI call.
  mutating func sbi(_ identifier: UInt64, _ function: UInt64, _ arguments: UInt64...) {
    for (index, argument) in arguments.enumerated() { li(TestAssembler.a0 + UInt8(index), argument) }
    li(TestAssembler.a6, function)
    li(TestAssembler.a7, identifier)
    emit(.ecall)
  }

  /// Waits for ever.
  mutating func halt() {
    emit(.wfi)
    emit(.jal, immediate: -4)
  }
}

/// One decoded instruction. A compressed encoding is expanded: its operation and operands are those of the instruction
/// that it stands for, only `length` and `bits` tell the difference. Fields that the operation doesn't have are 0.
public struct Instruction: Hashable, Sendable {
  public var operation: Operation
  /// Register numbers, 0...31, of the integer or of the floating-point registers as the operation demands.
  public var rd: UInt8
  /// For csrrwi, csrrsi, csrrci: the 5-bit immediate.
  public var rs1: UInt8
  public var rs2: UInt8
  public var rs3: UInt8
  /// The rm field of floating-point operations that round: 0...4 as in frm, 7 = whatever frm says.
  public var roundingMode: UInt8
  /// 2 or 4 bytes.
  public var length: UInt8
  /// Sign-extended and scaled: what is added to pc or to a register, lui's value, a shift amount. For csr*: the CSR's
  /// number; for lr, sc and amo*: aq << 1 | rl; for fence: the 12 bits fm, predecessors, successors.
  public var immediate: Int64
  /// The encoding; of a compressed one the low 16 bits.
  public var bits: UInt32

  public init(
    operation: Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, rs3: UInt8 = 0, roundingMode: UInt8 = 0,
    immediate: Int64 = 0, length: UInt8 = 4, bits: UInt32 = 0
  ) {
    self.operation = operation
    self.rd = rd
    self.rs1 = rs1
    self.rs2 = rs2
    self.rs3 = rs3
    self.roundingMode = roundingMode
    self.length = length
    self.immediate = immediate
    self.bits = bits
  }
}

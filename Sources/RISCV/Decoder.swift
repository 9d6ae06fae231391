/// Turns encodings into instructions, for one set of extensions. A decoder is a few pointers to tables that are made
/// once per set and live as long as the process: copying and calling it costs no reference counting.
public struct Decoder: Sendable {
  let tables: DecoderTables

  public init(extensions: ExtensionSet) {
    tables = DecoderTables.shared(for: extensions)
  }

  /// The instruction at the start of `bits`. Where the two lowest bits aren't 11 it has 16 bits and the rest is ignored.
  /// An encoding that is reserved, or not of the decoder's extensions, gives the operation `.reserved`.
  public func decode(_ bits: UInt32) -> Instruction {
    let compressed = bits & 3 != 3
    let word = compressed ? bits & 0xffff : bits
    let row = tables.row(covering: word, compressed: compressed)
    guard row != DecoderTables.noRow else {
      return Instruction(operation: .reserved, length: compressed ? 2 : 4, bits: word)
    }
    let record = tables.records + Int(row)
    return Instruction(
      operation: record.pointee.operation,
      rd: record.pointee.rd.number(in: word),
      rs1: record.pointee.rs1.number(in: word),
      rs2: record.pointee.rs2.number(in: word),
      rs3: record.pointee.rs3.number(in: word),
      roundingMode: UInt8(truncatingIfNeeded: word >> 12) & record.pointee.roundingModeMask,
      immediate: tables.immediate(of: record, in: word),
      length: compressed ? 2 : 4,
      bits: word)
  }

  /// The table's row that `bits` belongs to; nil where `decode` says `.reserved`.
  package func pattern(_ bits: UInt32) -> InstructionPattern? {
    let compressed = bits & 3 != 3
    let row = tables.row(covering: compressed ? bits & 0xffff : bits, compressed: compressed)
    return row == DecoderTables.noRow ? nil : InstructionPattern.all[Int(row)]
  }
}

extension RegisterField {
  @inline(__always)
  func number(in bits: UInt32) -> UInt8 {
    UInt8(truncatingIfNeeded: bits &>> UInt32(shift)) & mask | base
  }
}

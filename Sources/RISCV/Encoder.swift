/// Turns instructions into encodings, by the same table that decodes them: for tests, stubs and generated code.
public enum Encoder {
  /// The 32-bit encoding of what `instruction` does; its `length` and `bits` play no part. Nil when an operand has no
  /// place in the encoding (an immediate out of range or odd, a register above 31, a reserved rounding mode).
  public static func encode(_ instruction: Instruction) -> UInt32? {
    instruction.operation.pattern?.encode(instruction)
  }

  /// The 32-bit encoding of `operation` with these operands, which mean what they mean in `Instruction`.
  public static func encode(
    _ operation: Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, rs3: UInt8 = 0, roundingMode: UInt8 = 0,
    immediate: Int64 = 0
  ) -> UInt32? {
    encode(
      Instruction(
        operation: operation, rd: rd, rs1: rs1, rs2: rs2, rs3: rs3, roundingMode: roundingMode, immediate: immediate))
  }

  /// A 16-bit encoding of what `instruction` does; nil when there is none.
  public static func encodeCompressed(_ instruction: Instruction) -> UInt16? {
    for row in InstructionPattern.all where row.length == 2 && row.operation == instruction.operation {
      // Rows of fewer mask bits cover encodings that mean another one.
      if let bits = row.encode(instruction), InstructionPattern.mostSpecific(for: bits)?.mask == row.mask {
        return UInt16(truncatingIfNeeded: bits)
      }
    }
    return nil
  }
}

extension InstructionPattern {
  /// The encoding of this row with the operands of `instruction`; nil when they don't fit.
  package func encode(_ instruction: Instruction) -> UInt32? {
    var bits = match
    bits |= format.rd.bits(for: instruction.rd)
    bits |= format.rs1.bits(for: instruction.rs1)
    bits |= format.rs2.bits(for: instruction.rs2)
    bits |= format.rs3.bits(for: instruction.rs3)
    bits |= format.immediate.insert(instruction.immediate)
    if format.hasRoundingMode {
      guard instruction.roundingMode < 5 || instruction.roundingMode == 7 else { return nil }
      bits |= UInt32(instruction.roundingMode) << 12
    }
    guard nonZero == 0 || bits & nonZero != 0, instruction.immediate <= largest else { return nil }
    // What doesn't read back didn't fit.
    guard
      format.rd.number(in: bits) == instruction.rd,
      format.rs1.number(in: bits) == instruction.rs1,
      format.rs2.number(in: bits) == instruction.rs2,
      format.rs3.number(in: bits) == instruction.rs3,
      format.immediate.extract(from: bits) == instruction.immediate,
      covers(bits)
    else { return nil }
    return bits
  }

  fileprivate static func mostSpecific(for bits: UInt32) -> InstructionPattern? {
    all.lazy.filter { $0.covers(bits) }.max { $0.mask.nonzeroBitCount < $1.mask.nonzeroBitCount }
  }
}

extension RegisterField {
  fileprivate func bits(for number: UInt8) -> UInt32 { UInt32(number & mask) << shift }
}

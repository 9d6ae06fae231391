import RISCV
import Testing

@Suite struct EncoderTests {
  let decoder = Decoder(extensions: .yadori)

  @Test func encodesWhatTheSpecificationShows() {
    #expect(Encoder.encode(.addi) == 0x0000_0013)
    #expect(Encoder.encode(.addi, rd: 10, rs1: 11, immediate: -1) == 0xfff5_8513)
    #expect(Encoder.encode(.jalr, rs1: 1) == 0x0000_8067)
    #expect(Encoder.encode(.lui, rd: 5, immediate: -0x8000_0000) == 0x8000_02b7)
    #expect(Encoder.encode(.jal, rd: 1, immediate: -4) == 0xffdf_f0ef)
    #expect(Encoder.encode(.csrrw, rs1: 5, immediate: 0x305) == 0x3052_9073)
    #expect(Encoder.encode(.fence, immediate: 0x0ff) == 0x0ff0_000f)
    #expect(Encoder.encode(.fmadd_d, rd: 10, rs1: 11, rs2: 12, rs3: 13, roundingMode: 1) == 0x6ac5_9543)
    #expect(Encoder.encode(.mret) == 0x3020_0073)
    #expect(Encoder.encodeCompressed(Instruction(operation: .jalr, rs1: 1)) == 0x8082)
    #expect(Encoder.encodeCompressed(Instruction(operation: .addi, rd: 2, rs1: 2, immediate: -64)) == 0x7139)
  }

  @Test func refusesOperandsThatDoNotFit() {
    #expect(Encoder.encode(.reserved) == nil)
    #expect(Encoder.encode(.addi, immediate: 2048) == nil)
    #expect(Encoder.encode(.addi, immediate: -2049) == nil)
    #expect(Encoder.encode(.slli, immediate: 64) == nil)
    #expect(Encoder.encode(.slliw, immediate: 32) == nil)
    #expect(Encoder.encode(.aes64ks1i, immediate: 11) == nil)
    #expect(Encoder.encode(.beq, immediate: 3) == nil)
    #expect(Encoder.encode(.beq, immediate: 4096) == nil)
    #expect(Encoder.encode(.jal, immediate: -0x10_0002) == nil)
    #expect(Encoder.encode(.lui, immediate: 1) == nil)
    #expect(Encoder.encode(.lui, immediate: 0x8000_0000) == nil)
    #expect(Encoder.encode(.add, rd: 32) == nil)
    #expect(Encoder.encode(.ecall, rd: 1) == nil)
    #expect(Encoder.encode(.fadd_s, roundingMode: 5) == nil)
    #expect(Encoder.encode(.fsgnj_s, rs3: 1) == nil)
    // sp needs another encoding, x0 would be c.ebreak, and there is no odd offset.
    #expect(Encoder.encodeCompressed(Instruction(operation: .lui, rd: 2, immediate: 0x1000)) == nil)
    #expect(Encoder.encodeCompressed(Instruction(operation: .jalr, rd: 1)) == nil)
    #expect(Encoder.encodeCompressed(Instruction(operation: .ld, rd: 8, rs1: 8, immediate: 4)) == nil)
    #expect(Encoder.encodeCompressed(Instruction(operation: .mul)) == nil)
  }

  @Test func whatIsDecodedIsEncodedAgain() {
    for word in SampleWords.ofRows(perRow: 100, seed: 4) + SampleWords.random(20_000, seed: 5) {
      let instruction = decoder.decode(word)
      guard instruction.operation != .reserved else { continue }
      // Ignored fields aren't kept.
      let ignored: UInt32 =
        switch instruction.operation {
        case .fence: 0x000f_8f80
        case .fence_i: 0xffff_8f80
        default: 0
        }
      #expect(Encoder.encode(instruction) == word & ~ignored, "0x\(String(word, radix: 16))")
    }
  }

  @Test func compressedEncodingsAreEncodedAgain() throws {
    for word in SampleWords.compressed {
      var instruction = decoder.decode(word)
      guard instruction.operation != .reserved else { continue }
      // There may be another encoding of the same instruction.
      let again = decoder.decode(UInt32(try #require(Encoder.encodeCompressed(instruction))))
      instruction.bits = again.bits
      #expect(again == instruction, "0x\(String(word, radix: 16))")
      // It does what the base instruction does.
      var base = decoder.decode(try #require(Encoder.encode(instruction)))
      base.length = 2
      base.bits = again.bits
      // Some 16-bit encodings expand to what as 32 bits is a hint with a name of its own.
      if base.operation == instruction.operation { #expect(base == instruction) }
    }
  }
}

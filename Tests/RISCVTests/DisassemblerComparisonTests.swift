import RISCV
import Testing

/// Our disassembler, and so our decoder, against LLVM's.
@Suite struct DisassemblerComparisonTests {
  let objdump: Objdump

  init() throws { objdump = try Objdump() }

  @Test(arguments: [false, true])
  func allCompressedEncodings(aliases: Bool) throws {
    try compare(SampleWords.compressed, width: 2, aliases: aliases)
  }

  @Test(arguments: [false, true])
  func randomEncodings(aliases: Bool) throws {
    try compare(SampleWords.random(100_000, seed: 1), width: 4, aliases: aliases)
  }

  @Test(arguments: [false, true])
  func encodingsOfEachRow(aliases: Bool) throws {
    try compare(SampleWords.ofRows(perRow: 100, seed: 2), width: 4, aliases: aliases)
  }

  @Test(arguments: [false, true])
  func everyOpcode(aliases: Bool) throws {
    try compare(SampleWords.ofOpcodes(seed: 3), width: 4, aliases: aliases)
  }

  @Test(arguments: [false, true])
  func controlRegisters(aliases: Bool) throws {
    try compare(SampleWords.controlRegisters, width: 4, aliases: aliases)
  }

  private func compare(_ words: [UInt32], width: Int, aliases: Bool) throws {
    let disassembler = Disassembler(extensions: .yadori, aliases: aliases)
    let theirs = try objdump.disassemble(words, width: width, aliases: aliases)
    var differences: [String] = []
    var instructions = 0
    for (index, word) in words.enumerated() {
      let ours = disassembler.text(word, at: UInt64(index * width))
      if ours != Disassembler.unknown { instructions += 1 }
      if ours != theirs[index] && !isKnownDifference(word, ours: ours, theirs: theirs[index]) {
        differences.append("0x\(String(word, radix: 16)): ours '\(ours)', theirs '\(theirs[index])'")
      }
    }
    #expect(
      differences.isEmpty, "\(differences.count) of \(words.count):\n\(differences.prefix(20).joined(separator: "\n"))")
    #expect(instructions > words.count / 20, "a sample without instructions proves nothing")
  }

  private func isKnownDifference(_ word: UInt32, ours: String, theirs: String) -> Bool {
    // LLVM knows fences only with the fields that it writes itself; the specification (2.7 and "Zifencei") has harts
    // ignore them.
    if theirs == Disassembler.unknown, word & 0x7f == 0x0f, word >> 12 & 7 <= 1 {
      return ours.hasPrefix("fence")
    }
    // AES has 11 numbers of rounds; LLVM shows the others too.
    if ours == Disassembler.unknown, theirs.hasPrefix("aes64ks1i"), word >> 20 & 15 > 10 { return true }
    // Of extensions that LLVM doesn't tell from those that it was asked for: H, debug mode.
    if ours == Disassembler.unknown {
      return ["hinval.", "dret"].contains { theirs.hasPrefix($0) }
    }
    return false
  }
}

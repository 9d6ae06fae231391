import Bus
import Hart
import HostSystem
import RISCV
import Testing
import Translation

/// Translated code and what it was made from.
@Suite struct CodeChangeTests {
  private let base = TranslationHarness.base

  @Test func codeIsTranslatedAnewAfterAFence() throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    // A function in another page, called in a loop with a fence.
    harness.place([encode(.jal, rd: 1, 0x2000), encode(.fence_i), encode(.jal, -8)])
    harness.place([encode(.addi, rd: 5, rs1: 5, 1), encode(.jalr, rs1: 1)], at: base + 0x2000)
    _ = harness.hart.run(limit: 500)
    #expect(harness.hart[x: 5] == 100)
    harness.place([encode(.addi, rd: 5, rs1: 5, 3)], at: base + 0x2000)
    _ = harness.hart.run(limit: 500)
    #expect(harness.hart[x: 5] == 400)
  }

  @Test func codeThatStoresIntoItselfRunsAsStored() throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    // Each turn adds one to the immediate of the instruction at 16, then executes it.
    harness.hart[x: 6] = base
    harness.hart[x: 8] = 1 << 20
    harness.place([
      encode(.lw, rd: 7, rs1: 6, 16), encode(.addw, rd: 7, rs1: 7, rs2: 8), encode(.sw, rs1: 6, rs2: 7, 16),
      encode(.fence_i), encode(.addi, rd: 5, rs1: 0, 0), encode(.jal, -20),
    ])
    _ = harness.hart.run(limit: 6 * 50)
    #expect(harness.hart[x: 5] == 50)
  }

  @Test func aPageThatIsMappedElsewhereIsLeft() throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    harness.enterSupervisorMode()
    let hart = harness.hart
    // The page at 0x3000 holds x5 += 1, the one at 0x4000 x5 += 2; both return.
    for page in [UInt64(1), 2] {
      harness.place(
        [encode(.addi, rd: 5, rs1: 5, Int64(page)), encode(.jalr, rs1: 1)], at: base + 0x2000 + page * 0x1000)
    }
    // x6: the table's entry of 0x3000; x7: what it is to be.
    let entry = base + (12 << 20) + 8192 + 3 * 8
    hart[x: 6] = entry
    hart[x: 7] = ((base + 0x4000) >> 12) << 10 | 0xCF
    // The table lies outside of what is mapped: the test stores for the guest.
    harness.place([encode(.jal, rd: 1, 0x3000), encode(.sfence_vma), encode(.jal, -8)])
    _ = hart.run(limit: 500)
    #expect(hart[x: 5] == 100)
    #expect(harness.memory.store(hart[x: 7], at: PhysicalAddress(entry)))
    _ = hart.run(limit: 500)
    #expect(hart[x: 5] == 300)
  }

  @Test func aHartWithoutRoomForMoreCodeBeginsAnew() throws {
    let harness = try TranslationHarness(.interpreter)
    harness.hart.engine = try Translator(harness.hart, threshold: 1, codeSize: 1 << 20)
    // 2 MiB of jumps over an instruction: more than 1 MiB holds, executed twice.
    var words: [UInt32] = []
    for _ in 0..<120_000 { words += [encode(.addi, rd: 5, rs1: 5, 1), encode(.bne, rs1: 0, rs2: 0, 8)] }
    words.append(encode(.jal, 0))
    harness.place(words, at: base + (4 << 20))
    for turn in 1...2 {
      harness.hart.pc = base + (4 << 20)
      _ = harness.hart.run(limit: 240_000)
      #expect(harness.hart[x: 5] == UInt64(120_000 * turn))
    }
  }
}

import Bus
import Hart
import HostSystem
import RISCV
import Testing
import Translation

/// Translated code and what it was made from.
@Suite struct CodeChangeTests {
  private let base = TranslationHarness.base

  @Test(arguments: [false, true])
  func codeIsTranslatedAnewAfterAFence(isAlone: Bool) throws {
    let harness = try TranslationHarness(.translator(threshold: 1), isAlone: isAlone)
    // A function in another page, called in a loop with a fence.
    harness.place([encode(.jal, rd: 1, 0x2000), encode(.fence_i), encode(.jal, -8)])
    harness.place([encode(.addi, rd: 5, rs1: 5, 1), encode(.jalr, rs1: 1)], at: base + 0x2000)
    _ = harness.hart.run(limit: 500)
    #expect(harness.hart[x: 5] == 100)
    harness.place([encode(.addi, rd: 5, rs1: 5, 3)], at: base + 0x2000)
    // The first turn has no fence before it, and may see either.
    _ = harness.hart.run(limit: 5)
    let before = harness.hart[x: 5]
    _ = harness.hart.run(limit: 500)
    #expect(harness.hart[x: 5] == before + 300)
  }

  @Test(arguments: [false, true])
  func codeThatStoresIntoItselfRunsAsStored(isAlone: Bool) throws {
    let harness = try TranslationHarness(.translator(threshold: 1), isAlone: isAlone)
    // Each turn adds one to the immediate of the instruction at 16, then executes it.
    harness.hart[x: 6] = base
    harness.hart[x: 8] = 1 << 20
    harness.place([
      encode(.lw, rd: 7, rs1: 6, 16), encode(.addw, rd: 7, rs1: 7, rs2: 8), encode(.sw, rs1: 6, rs2: 7, 16),
      encode(.fence_i), encode(.addi, rd: 5, rs1: 0, 0), encode(.jal, -20),
    ])
    // Longer than it takes until all translations for stores are forgotten.
    for turns in [50, 5000] {
      _ = harness.hart.run(limit: UInt64(6 * turns))
    }
    #expect(harness.hart[x: 5] == 5050 & 0xFFF)
  }

  /// An instruction of which half stands in the next page: that half changes, then the whole next page.
  @Test(arguments: [false, true])
  func anInstructionAcrossAPagesEndFollowsBothPages(isAlone: Bool) throws {
    let harness = try TranslationHarness(.translator(threshold: 1), isAlone: isAlone)
    harness.enterSupervisorMode()
    let hart = harness.hart
    func half(_ value: UInt32, at address: UInt64) {
      #expect(harness.memory.store(UInt16(truncatingIfNeeded: value), at: PhysicalAddress(address)))
    }
    // At 0x2FFE: x5 += 1, then a return at 0x3002.
    let one = encode(.addi, rd: 5, rs1: 5, 1)
    half(one, at: base + 0x2FFE)
    half(one >> 16, at: base + 0x3000)
    harness.place([encode(.jalr, rs1: 1)], at: base + 0x3002)
    harness.place([encode(.jal, rd: 1, 0x2FFE), encode(.fence_i), encode(.sfence_vma), encode(.jal, -12)])
    _ = hart.run(limit: 600)
    #expect(hart[x: 5] == 100)
    func fence() {
      hart.pc = base + 4
      _ = hart.run(limit: 3)
    }
    // It becomes x5 += 17.
    half(encode(.addi, rd: 5, rs1: 5, 17) >> 16, at: base + 0x3000)
    fence()
    _ = hart.run(limit: 600)
    #expect(hart[x: 5] == 1800)
    // The page behind becomes another: x5 += 33, and x5 += 1000 before the return.
    half(encode(.addi, rd: 5, rs1: 5, 33) >> 16, at: base + 0x4000)
    harness.place([encode(.addi, rd: 5, rs1: 5, 1000), encode(.jalr, rs1: 1)], at: base + 0x4002)
    let entry = base + (12 << 20) + 8192 + 3 * 8
    #expect(harness.memory.store(((base + 0x4000) >> 12) << 10 | 0xCF, at: PhysicalAddress(entry)))
    fence()
    _ = hart.run(limit: 700)
    #expect(hart[x: 5] == 1800 + 103_300)
    // And is gone: the instruction's second half can't be fetched.
    #expect(harness.memory.store(UInt64(0), at: PhysicalAddress(entry)))
    fence()
    _ = hart.run(limit: 2)
    #expect(hart.readCSR(0x342) == 12 && hart.readCSR(0x343) == base + 0x3000)
    #expect(hart.readCSR(0x341) == base + 0x2FFE)
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

  /// A function switches to another address space, in which other code stands where it is to return to.
  @Test func aReturnLeadsIntoTheAddressSpaceThatHolds() throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    harness.enterSupervisorMode()
    let hart = harness.hart
    // The second one has the page at 0x5000 where the first has that at 0.
    let root = base + (12 << 20) + 0x10000
    func map(_ address: UInt64, _ entry: UInt64) { #expect(harness.memory.store(entry, at: PhysicalAddress(address))) }
    map(root + 2 * 8, ((root + 0x1000) >> 12) << 10 | 1)
    map(root + 0x1000, ((root + 0x2000) >> 12) << 10 | 1)
    for index in 0..<UInt64(512) {
      map(root + 0x2000 + index * 8, ((base >> 12) + (index == 0 ? 5 : index)) << 10 | 0xCF)
    }
    hart[x: 6] = 8 << 60 | 1 << 44 | root >> 12
    harness.place([encode(.csrrw, rd: 6, rs1: 6, 0x180), encode(.jalr, rs1: 1)], at: base + 0x3000)
    for (page, sum) in [(UInt64(0), Int64(1)), (5, 100)] {
      harness.place(
        [encode(.jal, rd: 1, 0x3000), encode(.addi, rd: 5, rs1: 5, sum), encode(.jal, -8)], at: base + page * 0x1000)
    }
    _ = hart.run(limit: 500)
    #expect(hart[x: 5] == 50 * 101 && hart.pc == base)
  }

  /// A trap's handler returns to where the user's code would: it may not execute that.
  @Test func aHandlerDoesNotReturnIntoUsersCode() throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    harness.enterSupervisorMode()
    let hart = harness.hart
    for page in [UInt64(0), 3] {
      let entry = base + (12 << 20) + 8192 + page * 8
      #expect(harness.memory.store(((base >> 12) + page) << 10 | 0xDF, at: PhysicalAddress(entry)))
    }
    hart.writeCSR(0x302, 0xB3FF)
    hart.writeCSR(0x105, base + 0x6000)
    hart.privilege = .user
    harness.place([encode(.jal, rd: 1, 0x3000), encode(.addi, rd: 5, rs1: 5, 1)])
    harness.place([encode(.ecall)], at: base + 0x3000)
    harness.place([encode(.addi, rd: 7, rs1: 7, 1), encode(.jalr, rs1: 1)], at: base + 0x6000)
    // Each fault counts, too.
    _ = hart.run(limit: 20)
    #expect(hart[x: 5] == 0 && hart[x: 7] > 5)
    #expect(hart.readCSR(0x142) == 12 && hart.readCSR(0x143) == base + 4 && hart.readCSR(0x141) == base + 4)
  }

  /// With 1 MiB several times; with 6 MiB, after complete code has moved to large pages where the host has any.
  @Test(arguments: [1 << 20, 6 << 20])
  func aHartWithoutRoomForMoreCodeBeginsAnew(codeSize: Int) throws {
    let harness = try TranslationHarness(.interpreter)
    let translator = try Translator(harness.hart, threshold: 1, codeSize: codeSize, quietLimit: 1)
    harness.hart.engine = translator
    // 1 MiB of code: more than there is room for, executed several times. Branches have most of theirs behind blocks, the
    // combination of bytes has it in them.
    let other = codeSize > 4 << 20 ? encode(.orc_b, rd: 6, rs1: 5) : encode(.bne, rs1: 0, rs2: 0, 8)
    var words: [UInt32] = []
    for _ in 0..<120_000 { words += [encode(.addi, rd: 5, rs1: 5, 1), other] }
    words.append(encode(.jal, 0))
    harness.place(words, at: base + (4 << 20))
    var mostSettled = 0
    for turn in 1...4 {
      harness.hart.pc = base + (4 << 20)
      for _ in 0..<24 {
        _ = harness.hart.run(limit: 10_000)
        mostSettled = max(mostSettled, translator.metrics.settledBytes)
      }
      #expect(harness.hart[x: 5] == UInt64(120_000 * turn))
    }
    #expect(translator.metrics.flushes > 0)
    #expect((mostSettled > 0) == (HostResources.hasLargePages && codeSize > 4 << 20))
  }
}

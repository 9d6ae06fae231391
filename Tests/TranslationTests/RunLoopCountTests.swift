import Bus
import CountingSupport
import Glibc
import Hart
import RISCV
import Testing
import Translation

/// The run loop allocates nothing and counts no references, once everything that runs has been seen.
@Suite(.serialized, .enabled(if: counting_is_possible() == 1, "this Swift runtime doesn't let itself be counted"))
struct RunLoopCountTests {
  static let engines: [EngineChoice] = [.interpreter, .translator(threshold: 1)]

  /// Runs the program for a while, then counts for as long again, beside what a run of nothing takes.
  private func expectNothing(
    _ harness: TranslationHarness, instructions: UInt64 = 300_000, location: SourceLocation = #_sourceLocation
  ) {
    let hart = harness.hart
    // Often enough that a stretch has ended at each place, and code begins there.
    for _ in 0..<20 { _ = hart.run(limit: instructions / 3 + 1) }
    counting_begin()
    _ = hart.run(limit: 0)
    let entry = counting_end()
    counting_begin()
    _ = hart.run(limit: instructions)
    var result = counting_end()
    result.retains &-= entry.retains
    result.releases &-= entry.releases
    let counts = "allocations \(result.allocations), retains \(result.retains), releases \(result.releases)"
    let stack = withUnsafeBytes(of: &result.stack) { stack in
      stack.bindMemory(to: UInt.self).prefix { $0 != 0 }.map { String(cString: counting_name($0)) }
    }
    #expect(
      result.allocations == 0 && result.retains == 0 && result.releases == 0,
      "\(counts), the first in \(stack.joined(separator: "\n"))", sourceLocation: location)
  }

  /// Loads, stores, calls and arithmetic.
  @Test(arguments: engines) func plainCode(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    harness.hart[x: 6] = TranslationHarness.data
    harness.place([
      encode(.ld, rd: 7, rs1: 6, 8), encode(.add, rd: 7, rs1: 7, rs2: 5), encode(.sd, rs1: 6, rs2: 7, 16),
      encode(.sb, rs1: 6, rs2: 7, 2045), encode(.lw, rd: 8, rs1: 6, 2046), encode(.mul, rd: 5, rs1: 5, rs2: 7),
      encode(.jal, rd: 1, 0x1000), encode(.jal, -28),
    ])
    harness.place([encode(.addi, rd: 5, rs1: 5, 1), encode(.jalr, rs1: 1)], at: TranslationHarness.base + 0x1018)
    expectNothing(harness)
  }

  /// Walks over more pages than there are remembered translations: each access takes the slow path.
  @Test(arguments: engines) func pagesThatAreNotRemembered(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    harness.enterSupervisorMode()
    let hart = harness.hart
    hart[x: 9] = TranslationHarness.base + 0x10000
    hart[x: 10] = TranslationHarness.base + (11 << 20)
    hart[x: 11] = 4096
    harness.place([
      encode(.addi, rd: 6, rs1: 9, 0),
      encode(.ld, rd: 7, rs1: 6, 8), encode(.sd, rs1: 6, rs2: 7, 16), encode(.amoadd_w, rd: 7, rs1: 6, rs2: 0),
      encode(.add, rd: 6, rs1: 6, rs2: 11), encode(.bltu, rs1: 6, rs2: 10, -16), encode(.jal, -24),
    ])
    expectNothing(harness)
  }

  /// Traps of all kinds, with a return.
  @Test(arguments: engines) func trapsAndCalls(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    // 64 MiB above the start: nothing is there.
    harness.hart[x: 6] = TranslationHarness.base + (64 << 20)
    harness.place([
      encode(.ecall), encode(.ld, rd: 7, rs1: 6), encode(.sd, rs1: 6, rs2: 7), encode(.ebreak), 0xFFFF_FFFF,
      encode(.jal, -20),
    ])
    expectNothing(harness)
  }

  /// The same from S-mode, where loads and stores fault in the page tables.
  @Test(arguments: engines) func pageFaults(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    harness.enterSupervisorMode()
    harness.hart[x: 6] = 0x4000_0000
    harness.place([
      encode(.ld, rd: 7, rs1: 6), encode(.sd, rs1: 6, rs2: 7), encode(.ecall), encode(.sfence_vma, rs1: 6),
      encode(.jal, -16),
    ])
    expectNothing(harness, instructions: 50_000)
  }

  /// A timer that interrupts every few microseconds.
  @Test(arguments: engines) func timerInterrupts(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    let hart = harness.hart
    // The handler asks for the next and counts in x29.
    harness.place(
      [
        encode(.csrrs, rd: 30, 0xC01), encode(.addi, rd: 30, rs1: 30, 50), encode(.csrrw, rs1: 30, 0x14D),
        encode(.addi, rd: 29, rs1: 29, 1), encode(.mret),
      ], at: TranslationHarness.handler)
    hart.writeCSR(0x30A, 1 << 63)
    hart.writeCSR(0x14D, 0)
    hart.writeCSR(0x304, 1 << 5)
    hart.writeCSR(0x300, 1 << 3)
    harness.place([encode(.addi, rd: 5, rs1: 5, 1), encode(.jal, -4)])
    expectNothing(harness, instructions: 3_000_000)
    #expect(hart[x: 29] > 10)
  }

  /// Control registers, fences, floating point that the interpreter does.
  @Test(arguments: engines) func systemInstructions(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    harness.place([
      encode(.csrrw, rd: 5, rs1: 6, 0x340), encode(.csrrs, rd: 7, 0xC01), encode(.fence_i), encode(.sfence_vma),
      encode(.fadd_d, rd: 1, rs1: 1, rs2: 2), encode(.fsqrt_d, rd: 3, rs1: 4), encode(.fmin_d, rd: 5, rs1: 3, rs2: 1),
      encode(.csrrwi, rd: 0, rs1: 1, 0x002), encode(.fadd_d, rd: 1, rs1: 1, rs2: 2), encode(.csrrwi, rd: 0, 0x002),
      encode(.jal, -40),
    ])
    expectNothing(harness, instructions: 50_000)
  }
}

import Bus
import Foundation
import Hart
import HostSystem
import RISCV
import Testing
import Translation

/// What is told about translated code: counts, samples and names.
@Suite struct MeasurementTests {
  private let base = TranslationHarness.base

  @Test func metricsAddUp() throws {
    let harness = try TranslationHarness(.interpreter)
    let translator = try Translator(harness.hart, threshold: 1, codeSize: 1 << 20)
    harness.hart.engine = translator
    #expect(translator.metrics.blocks == 0 && translator.metrics.pages == 0 && translator.metrics.entries == 0)
    // A call into another page and back; the called page changes later.
    harness.place([encode(.jal, rd: 1, 0x2000), encode(.fence_i), encode(.jal, -8)])
    harness.place([encode(.addi, rd: 5, rs1: 5, 1), encode(.jalr, rs1: 1)], at: base + 0x2000)
    _ = harness.hart.run(limit: 500)
    let first = translator.metrics
    #expect(first.pages == 2 && first.forgottenPages == 0 && first.flushes == 0)
    #expect(first.blocks >= 3 && first.instructions >= first.blocks - 1 && first.entries >= 1)
    #expect(first.codeBytes > 0 && first.codeBytes <= first.codeLimit && first.codeLimit == 1 << 20)
    #expect(first.pageBytes > 0 && first.pageBytes % first.pages == 0)
    harness.place([encode(.addi, rd: 5, rs1: 5, 3)], at: base + 0x2000)
    _ = harness.hart.run(limit: 500)
    let second = translator.metrics
    #expect(second.forgottenPages == 1 && second.blocks > first.blocks && second.codeBytes > first.codeBytes)
    // More code than fits.
    var words: [UInt32] = []
    for _ in 0..<60_000 { words += [encode(.addi, rd: 5, rs1: 5, 1), encode(.bne, rs1: 0, rs2: 0, 8)] }
    words.append(encode(.jal, 0))
    harness.place(words, at: base + (4 << 20))
    harness.hart.pc = base + (4 << 20)
    _ = harness.hart.run(limit: 120_000)
    let third = translator.metrics
    #expect(third.flushes > 0 && third.codeBytes <= third.codeLimit && third.instructions >= 120_000)
    #expect((third + second).blocks == third.blocks + second.blocks)
  }

  /// Samples taken as often as the host can name instructions of the program, and leave its results as they are.
  @Test(arguments: [EngineChoice.interpreter, .translator(threshold: 2)])
  func samplesAreOfTheProgramAndChangeNothing(engine: EngineChoice) throws {
    let instructions: UInt64 = 3_000_000
    func make(_ engine: EngineChoice) throws -> TranslationHarness {
      let harness = try TranslationHarness(engine)
      harness.hart[x: 6] = TranslationHarness.data
      harness.hart[x: 9] = TranslationHarness.data
      harness.place([
        encode(.jal, rd: 1, 0x1010), encode(.ld, rd: 7, rs1: 6, 8), encode(.add, rd: 7, rs1: 7, rs2: 5),
        encode(.sd, rs1: 6, rs2: 7, 16), encode(.csrrs, rd: 8, 0x340), encode(.ecall), encode(.jal, -24),
      ])
      harness.place(
        [encode(.addi, rd: 5, rs1: 5, 1), encode(.sd, rs1: 6, rs2: 5, 8), encode(.jalr, rs1: 1)], at: base + 0x1010)
      return harness
    }
    let plain = try make(.interpreter)
    _ = plain.hart.run(limit: instructions)

    let harness = try make(engine)
    let sampler = try HartSampler(harness.hart)
    var places: [UInt64: Int] = [:]
    sampler.attach()
    // Asked from another thread; the samples are taken on this one.
    let asking = HostThread(name: "asking") {
      for _ in 0..<4000 {
        sampler.ask()
        usleep(20)
      }
    }
    for _ in 0..<30 {
      _ = harness.hart.run(limit: instructions / 30)
      sampler.drain { places[$0.pc, default: 0] += 1 }
    }
    asking.join()
    sampler.detach()
    sampler.drain { places[$0.pc, default: 0] += 1 }
    #expect(harness.description() == plain.description())
    #expect(!places.isEmpty)
    let program = Set(
      stride(from: base, to: base + 28, by: 4).map { $0 } + stride(from: base + 0x1010, to: base + 0x101C, by: 4)
        + stride(from: TranslationHarness.handler, to: TranslationHarness.handler + 16, by: 4))
    #expect(places.keys.allSatisfy { program.contains($0) })
  }
}

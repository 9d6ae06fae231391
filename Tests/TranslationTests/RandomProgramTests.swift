import Bus
import Foundation
import Hart
import RISCV
import Testing
import Translation

/// The translator against the interpreter: the same program, the same number of instructions, the same state.
@Suite struct RandomProgramTests {
  /// Values that arithmetic finds interesting, integers and floating point of both widths.
  private static let values: [UInt64] = [
    0, 1, ~0, 0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF, 0xFFFF_FFFF_8000_0000,
    0x3FF0_0000_0000_0000, 0xBFF8_0000_0000_0000, 0x7FF0_0000_0000_0000, 0xFFF0_0000_0000_0000,
    0x7FF8_0000_0000_0001, 0x7FF0_0000_0000_0001, 0x0000_0000_0000_0001, 0x0010_0000_0000_0000,
    0xFFFF_FFFF_3F80_0000, 0xFFFF_FFFF_C0A0_0000, 0xFFFF_FFFF_7F80_0000, 0xFFFF_FFFF_7FC0_0001,
    0xFFFF_FFFF_7F80_0001, 0xFFFF_FFFF_0000_0001, 0x43E0_0000_0000_0000, 0xC3E0_0000_0000_0000, 64, 63, 33,
  ]

  private static func run(
    _ engine: EngineChoice, seed: UInt64, limits: [UInt64], beginningWith kept: KeptCode? = nil,
    keepingAt path: String? = nil
  ) throws -> [[String]] {
    let harness = try TranslationHarness(engine)
    var translator: Translator?
    if kept != nil || path != nil {
      let made = try Translator(harness.hart, threshold: 1, codeSize: 4 << 20, beginningWith: kept)
      harness.hart.engine = made
      translator = made
    }
    defer { if let path { #expect(throws: Never.self) { try translator?.keepCode(at: path) } } }
    let program = RandomProgram(seed: seed, count: 900, turns: 60, data: TranslationHarness.data)
    // Anywhere in a page, so that its border falls on everything; on odd half-words, too.
    let start = TranslationHarness.base + (seed &* 37 % 1024) * 4 + seed % 2 * 2
    harness.place(program.words, at: start)
    harness.hart.pc = start
    if seed % 4 >= 2 { harness.enterSupervisorMode() }
    var generator = SeededGenerator(seed: seed ^ 0xABCD)
    for index in 1..<32 {
      let isPlain = Bool.random(using: &generator)
      harness.hart[x: index] = isPlain ? generator.next() : values.randomElement(using: &generator)!
    }
    for index in 0..<32 {
      let isPlain = Int.random(in: 0..<4, using: &generator) == 0
      harness.hart[f: index] = isPlain ? generator.next() : values.randomElement(using: &generator)!
    }
    harness.hart[x: 1] = TranslationHarness.base
    for offset in stride(from: UInt64(0), to: 8192, by: 8) {
      let isPlain = Bool.random(using: &generator)
      let value = isPlain ? generator.next() : values.randomElement(using: &generator)!
      #expect(harness.memory.store(value, at: PhysicalAddress(TranslationHarness.data - 4096 + offset)))
    }
    return limits.map { limit in
      _ = harness.hart.run(limit: limit)
      if let audit = harness.hart.engine as? AuditEngine {
        #expect(audit.difference == nil, "seed \(seed)")
        #expect(audit.unconfirmedCount == 0, "seed \(seed)")
      }
      return harness.description()
    }
  }

  /// The first difference between two runs, with the instruction before it; nil when there is none.
  private static func difference(seed: UInt64, limits: [UInt64]) throws -> String? {
    let expected = try run(.interpreter, seed: seed, limits: limits)
    let actual = try run(.translator(threshold: 1), seed: seed, limits: limits)
    for (step, (left, right)) in zip(expected, actual).enumerated() where left != right {
      let lines = zip(left, right).filter { $0 != $1 }.prefix(5).map { "\($0) | \($1)" }
      return "seed \(seed), stop \(step): " + lines.joined(separator: "; ")
    }
    return nil
  }

  /// How many programs: more on request, for a long run.
  private static let programCount =
    ProcessInfo.processInfo.environment["YADORI_RANDOM_PROGRAMS"].flatMap { Int($0) } ?? 250

  @Test func translatedProgramsEndAsInterpretedOnes() throws {
    for seed in 0..<UInt64(Self.programCount) {
      if let difference = try Self.difference(seed: seed, limits: [777, 10_001, 30_000]) {
        let first = try Self.firstWrongInstruction(seed: seed)
        Issue.record("\(difference)\n\(first)")
        return
      }
    }
  }

  /// What a run of a part of the program has kept serves a run of it all.
  @Test func programsWithKeptCodeEndAsInterpretedOnes() throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("kept-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: file) }
    for seed in 0..<UInt64(min(Self.programCount, 1000)) {
      _ = try Self.run(.interpreter, seed: seed, limits: [3_000 + seed % 7 * 2_000], keepingAt: file)
      let kept = try #require(KeptCode(path: file))
      #expect(kept.waitUntilChecked())
      let limits: [UInt64] = [777, 10_001, 30_000]
      let actual = try Self.run(.interpreter, seed: seed, limits: limits, beginningWith: kept)
      #expect(try Self.run(.interpreter, seed: seed, limits: limits) == actual, "seed \(seed)")
    }
  }

  @Test func auditedProgramsEndAsInterpretedOnes() throws {
    for seed in 0..<UInt64(Self.programCount) {
      // Traps and stretches fall on other places than in the test above.
      let limits: [UInt64] = [1, 95, 4096, 30_000]
      let (expected, actual) = try (
        Self.run(.interpreter, seed: seed, limits: limits), Self.run(.audit(threshold: 1), seed: seed, limits: limits)
      )
      #expect(expected == actual, "seed \(seed)")
    }
  }

  /// Narrows a difference down to the instruction after which it shows.
  private static func firstWrongInstruction(seed: UInt64) throws -> String {
    var (low, high): (UInt64, UInt64) = (0, 50_000)
    while high - low > 1 {
      let middle = (low + high) / 2
      if try difference(seed: seed, limits: [middle]) == nil { low = middle } else { high = middle }
    }
    let harness = try TranslationHarness(.interpreter)
    let program = RandomProgram(seed: seed, count: 900, turns: 60, data: TranslationHarness.data)
    let start = TranslationHarness.base + (seed &* 37 % 1024) * 4 + seed % 2 * 2
    let before = try run(.interpreter, seed: seed, limits: [low])[0][0]
    harness.place(program.words, at: start)
    let pc = UInt64(before.split(separator: " ")[1], radix: 16)!
    let bits = harness.memory.load(PhysicalAddress(pc), as: UInt32.self) ?? 0
    let text = Disassembler().text(bits, at: pc)
    return "after \(high) instructions, \(before): \(text): \(try difference(seed: seed, limits: [high]) ?? "")"
  }
}

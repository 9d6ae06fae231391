import Foundation
import Testing

/// Every unprivileged instruction that computes, compared case by case with an independent implementation.
@Suite(
  .enabled(
    if: HostTool.clang.exists && HostTool.objcopy.exists && HostTool.qemu.exists,
    "needs clang, llvm-objcopy and qemu-riscv64 in PATH"))
struct InstructionComparisonTests {
  @Test func integerInstructionsAgreeWithQEMU() throws { try compareWithQEMU(IntegerProbes.all()) }
  @Test func compressedInstructionsAgreeWithQEMU() throws { try compareWithQEMU(CompressedProbes.all()) }
  @Test func memoryInstructionsAgreeWithQEMU() throws { try compareWithQEMU(MemoryProbes.all()) }
  @Test func floatingPointInstructionsAgreeWithQEMU() throws { try compareWithQEMU(FloatingPointProbes.all()) }

  /// What the QEMU of Debian 12 doesn't know (Zicond) or gets wrong (ctzw of a number whose low word is zero), against
  /// its definition.
  @Test func otherInstructionsAgreeWithTheirDefinition() throws {
    var generator = SeededGenerator(seed: 5)
    let twoOperands: [(String, (UInt64, UInt64) -> UInt64)] = [
      ("czero.eqz", { $1 == 0 ? 0 : $0 }), ("czero.nez", { $1 != 0 ? 0 : $0 }),
    ]
    for (name, definition) in twoOperands {
      let probes = IntegerProbes.twoOperandProbes(&generator) { "\(name) \($0), \($1), \($2)" }
      try compareWithDefinition(probes) { definition($0[0], $0[1]) }
    }
    var probes = IntegerProbes.oneOperandProbes(&generator) { "ctzw \($0), \($1)" }
    probes[0].words += (0..<64).map { 1 << $0 }
    try compareWithDefinition(probes) { UInt64(UInt32(truncatingIfNeeded: $0[0]).trailingZeroBitCount) }
  }

  /// `definition` makes the destination (the probe's first output) of the operands.
  private func compareWithDefinition(_ probes: [Probe], _ definition: ([UInt64]) -> UInt64) throws {
    let expected = probes.flatMap { probe in
      (0..<probe.caseCount).flatMap { index -> [UInt64] in
        // Where two operands are one register, the later load counts; x0 is zero.
        var registers: [String: UInt64] = [:]
        for (position, register) in probe.inputs.enumerated() {
          registers[register] = probe.words[index * probe.inputWords + position]
        }
        registers["x0"] = 0
        registers[probe.outputs[0]] = definition(probe.inputs.map { registers[$0]! })
        registers["x0"] = 0
        return probe.outputs.map { registers[$0]! }
      }
    }
    try inTemporaryDirectory { directory in
      let program = try ProbeProgram(probes, in: directory)
      compare(program, expected, try program.resultsOfHart(), with: "its definition")
    }
  }

  private func compareWithQEMU(_ probes: [Probe]) throws {
    try inTemporaryDirectory { directory in
      let program = try ProbeProgram(probes, in: directory)
      compare(program, try program.resultsOfQEMU(), try program.resultsOfHart(), with: "QEMU")
    }
  }

  private func compare(_ program: ProbeProgram, _ expected: [UInt64], _ actual: [UInt64], with name: String) {
    #expect(expected.count == actual.count)
    guard expected.count == actual.count else { return }
    var position = 0
    for probe in program.probes {
      var differences = 0
      for index in 0..<probe.caseCount {
        let range = position..<position + probe.outputWords
        position = range.upperBound
        if expected[range] == actual[range] { continue }
        differences += 1
        if differences > 3 { continue }
        let operands = probe.words[index * probe.inputWords..<(index + 1) * probe.inputWords]
        Issue.record(
          """
          \(probe.assembly) with \(probe.describe(operands, registers: probe.inputs)):
          \(name): \(probe.describe(expected[range], registers: probe.outputs))
          the hart: \(probe.describe(actual[range], registers: probe.outputs))
          """)
      }
      if differences > 3 { Issue.record("\(probe.assembly): \(differences) of \(probe.caseCount) cases differ") }
    }
  }

  private func inTemporaryDirectory(_ body: (URL) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("probes-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    try body(directory)
  }
}

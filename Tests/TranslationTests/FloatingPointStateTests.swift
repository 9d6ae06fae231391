import Hart
import RISCV
import Testing
import Translation

/// mstatus.FS (Privileged Architecture, 3.1.6.6): generated code notes exceptions in the host's registers first, and who
/// looks at sstatus must not see that.
@Suite struct FloatingPointStateTests {
  private static let sstatus: Int64 = 0x100

  /// A comparison with a NaN makes FS dirty, and nothing else does.
  private func run(_ engine: EngineChoice, _ program: [UInt32]) throws -> (TranslationHarness, [String]) {
    let harness = try TranslationHarness(engine)
    harness.hart[f: 1] = 0x7FF8_0000_0000_0000
    harness.hart[x: 12] = 1 << 13
    harness.place([encode(.flt_d, rd: 10, rs1: 1, rs2: 2)] + program + [encode(.jal, 0)])
    _ = harness.hart.run(limit: 20)
    return (harness, harness.description())
  }

  @Test func anExceptionIsSeenInTheStatusRead() throws {
    let program = [encode(.csrrs, rd: 11, Self.sstatus)]
    let (harness, expected) = try run(.interpreter, program)
    #expect(harness.hart[x: 11] >> 63 == 1)
    #expect(try run(.translator(threshold: 1), program).1 == expected)
  }

  /// FS is written as initial after an exception made it dirty, and stays so.
  @Test(arguments: [RISCV.Operation.csrrw, .csrrc, .csrrs])
  func anExceptionIsOlderThanAWrittenStatus(operation: RISCV.Operation) throws {
    for rd in [UInt8(0), 11] {
      let program = [
        encode(operation, rd: rd, rs1: 12, Self.sstatus), encode(.csrrs, rd: 13, Self.sstatus),
      ]
      #expect(try run(.translator(threshold: 1), program).1 == run(.interpreter, program).1)
    }
  }
}

import Bus
import Hart
import RISCV
import Testing
import Translation

/// Accesses by the same register share one look-up.
@Suite struct AccessGroupTests {
  /// Stores that share a look-up, of pages that are looked up for the first time.
  @Test(arguments: 0..<32 as Range<UInt8>) func storesThatShareALookUpStoreTheirRegister(register: UInt8) throws {
    let harness = try TranslationHarness(.translator(threshold: 1))
    let value = 0x1234_5678_9ABC_DEF0 + UInt64(register)
    harness.hart[f: Int(register)] = value
    harness.hart[x: 6] = TranslationHarness.data
    harness.place([
      encode(.fsw, rs1: 6, rs2: register, 8), encode(.fsd, rs1: 6, rs2: register, 16), encode(.jal, 0),
    ])
    _ = harness.hart.run(limit: 100)
    func loaded(_ offset: UInt64) -> UInt64? {
      harness.memory.load(PhysicalAddress(TranslationHarness.data + offset), as: UInt64.self)
    }
    #expect(loaded(8) == value & 0xFFFF_FFFF)
    #expect(loaded(16) == value)
  }
}

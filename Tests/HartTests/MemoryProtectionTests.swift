import Bus
import Hart
import Testing

/// Physical memory protection finer than a page (Privileged Architecture, 3.7).
@Suite struct MemoryProtectionTests {
  let harness: HartHarness
  static let base = HartHarness.base
  static let handler = HartHarness.base + 0x2000
  static let forbidden = HartHarness.base + 0x100

  /// Four bytes at `forbidden` may be neither read, written nor fetched, not even by M-mode; all else is free.
  init() throws {
    harness = try HartHarness()
    let hart = harness.hart
    hart.writeCSR(0x305, Self.handler)
    hart.writeCSR(0x3B0, Self.forbidden >> 2)
    hart.writeCSR(0x3A0, 0x90)
    // A handler that stays where it is.
    harness.place([0x0000_006F], at: Self.handler)
  }

  private func expectTrap(_ cause: UInt64, value: UInt64, at pc: UInt64) {
    #expect(harness.csr(0x342) == cause)
    #expect(harness.csr(0x343) == value)
    #expect(harness.csr(0x341) == pc)
    #expect(harness.hart.pc == Self.handler)
  }

  @Test func jumpIntoForbiddenBytesOfTheSamePageFaults() {
    // jal x0, 0x100; the target would be an addi.
    harness.place([0x1000_006F])
    harness.place([0x0010_0093], at: Self.forbidden)
    harness.step(3)
    expectTrap(1, value: Self.forbidden, at: Self.forbidden)
    #expect(harness.hart[x: 1] == 0)
  }

  @Test func runningIntoForbiddenBytesFaults() {
    let start = Self.forbidden - 8
    harness.place([0x0010_8093, 0x0010_8093, 0x0010_8093], at: start)
    harness.hart.pc = start
    harness.step(5)
    expectTrap(1, value: Self.forbidden, at: Self.forbidden)
    #expect(harness.hart[x: 1] == 2)
  }

  @Test func compressedInstructionsRunIntoForbiddenBytesToo() {
    let start = Self.forbidden - 4
    // c.addi x1, 1, four times.
    harness.place([0x0085_0085, 0x0085_0085], at: start)
    harness.hart.pc = start
    harness.step(5)
    expectTrap(1, value: Self.forbidden, at: Self.forbidden)
    #expect(harness.hart[x: 1] == 2)
  }

  @Test func loopsInAPageOfMixedProtectionGoOn() {
    // addi x1, x1, 1; addi x2, x2, 2; bne x1, x3, -8; c.j .
    harness.place([0x0010_8093, 0x0021_0113, 0xFE30_9CE3, 0xA001])
    harness.hart[x: 3] = 100
    harness.step(305)
    #expect(harness.hart[x: 1] == 100)
    #expect(harness.hart[x: 2] == 200)
    #expect(harness.hart.pc == Self.base + 12)
    #expect(harness.csr(0x342) == 0)
  }

  @Test func anUnlockedEntryDoesNotBindMachineMode() throws {
    let free = try HartHarness()
    free.hart.writeCSR(0x305, Self.handler)
    free.hart.writeCSR(0x3B0, Self.forbidden >> 2)
    free.hart.writeCSR(0x3A0, 0x10)
    free.place([0x1000_006F])
    free.place([0x0010_0093, 0x0000_006F], at: Self.forbidden)
    free.step(4)
    #expect(free.hart[x: 1] == 1)
    #expect(free.csr(0x342) == 0)
  }

  @Test func dataAccessesNearbyAreUnaffected() {
    // lw x1, 0xfc(x5); lw x2, 0x104(x5); lw x3, 0x100(x5)
    harness.place([0x0FC2_A083, 0x1042_A103, 0x1002_A183])
    harness.hart[x: 5] = Self.base
    harness.store(0x1111_1111, at: Self.base + 0xF8 + 4)
    harness.store(0x2222_2222, at: Self.base + 0x104)
    harness.step(5)
    #expect(harness.hart[x: 1] == 0x1111_1111)
    #expect(harness.hart[x: 2] == 0x2222_2222)
    expectTrap(5, value: Self.forbidden, at: Self.base + 8)
  }
}

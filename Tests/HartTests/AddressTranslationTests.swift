import Bus
import Hart
import Testing

/// Bits of a page table entry, for tests.
private enum PTE {
  static let v: UInt64 = 1, r: UInt64 = 2, w: UInt64 = 4, x: UInt64 = 8, u: UInt64 = 16, a: UInt64 = 64, d: UInt64 = 128
  static let rwx = v | r | w | x | a | d
  static let napot: UInt64 = 1 << 63
  static func to(_ physical: UInt64, _ flags: UInt64) -> UInt64 { (physical >> 12) << 10 | flags }
}

/// Address translation against tables written by hand (Privileged Architecture, chapter 12).
@Suite struct AddressTranslationTests {
  let harness: HartHarness
  /// Physical places: the root table, one table per further level, and what is mapped.
  let root: UInt64 = 0x8010_0000
  let tables: [UInt64] = [0x8010_1000, 0x8010_2000, 0x8010_3000, 0x8010_4000]
  let target: UInt64 = 0x8020_0000

  init() throws {
    harness = try HartHarness()
    harness.hart.writeCSR(0x3A0, 0x1F)
    harness.hart.writeCSR(0x3B0, ~0)
    harness.hart.privilege = .supervisor
  }

  private func activate(_ mode: UInt64) { harness.hart.writeCSR(0x180, mode << 60 | root >> 12) }

  /// Maps the 4 KiB page of `address` in a table of `levels` levels.
  private func map(_ address: UInt64, levels: Int, entry: UInt64) {
    var table = root
    for level in stride(from: levels - 1, to: 0, by: -1) {
      let next = tables[levels - 1 - level]
      harness.store(PTE.to(next, PTE.v), at: table + (address >> UInt64(12 + 9 * level) & 0x1FF) * 8)
      table = next
    }
    harness.store(entry, at: table + (address >> 12 & 0x1FF) * 8)
  }

  private func physical(_ address: UInt64) -> UInt64? {
    harness.hart.physicalAddress(ofVirtual: address)?.rawValue
  }

  @Test(arguments: [(8, 3, UInt64(0x12_3456_7000)), (9, 4, 0x7FFF_1234_5000), (10, 5, 0xFF_FFFF_1234_5000)])
  func walksEveryLevel(mode: UInt64, levels: Int, address: UInt64) {
    map(address, levels: levels, entry: PTE.to(target, PTE.rwx))
    activate(mode)
    #expect(physical(address + 0x123) == target + 0x123)
    #expect(physical(address + 0x1000) == nil)
  }

  @Test func addressesMustBeSignExtended() {
    map(0x40_0000_0000 - 0x1000, levels: 3, entry: PTE.to(target, PTE.rwx))
    activate(8)
    #expect(physical(0x3F_FFFF_F000) == target)
    #expect(physical(0x7F_FFFF_F000) == nil)
    #expect(physical(0xFFFF_FF80_0000_0000 - 0x1000) == nil)
  }

  @Test func superpagesCoverTheirRangeAndMustBeAligned() {
    harness.store(PTE.to(0x8000_0000, PTE.rwx), at: root + 8)
    activate(8)
    #expect(physical(0x4000_0000 + 0x20_1234) == 0x8020_1234)
    harness.store(PTE.to(0x8020_0000, PTE.rwx), at: root + 8)
    #expect(physical(0x4000_0000) == nil)
  }

  @Test func accessedAndDirtyBitsAreSoftwaresBusinessUnlessItSaysOtherwise() {
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.rwx & ~PTE.a))
    activate(8)
    harness.hart.writeCSR(0x30A, 0)
    #expect(physical(0x1000) == nil)
    harness.hart.writeCSR(0x30A, 1 << 61)
    #expect(physical(0x1000) == target)
    #expect(harness.load(tables[1] + 8) == PTE.to(target, PTE.rwx))
  }

  @Test func userPagesNeedSUM() {
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.rwx | PTE.u))
    activate(8)
    #expect(physical(0x1000) == nil)
    harness.hart.writeCSR(0x100, 1 << 18)
    #expect(physical(0x1000) == target)
    harness.hart.writeCSR(0x100, 0)
    harness.hart.privilege = .user
    #expect(physical(0x1000) == target)
  }

  @Test func supervisorPagesAreNotForUsers() {
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.rwx))
    activate(8)
    harness.hart.privilege = .user
    #expect(physical(0x1000) == nil)
  }

  @Test func executablePagesAreReadableWithMXR() {
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.v | PTE.x | PTE.a))
    activate(8)
    #expect(physical(0x1000) == nil)
    harness.hart.writeCSR(0x100, 1 << 19)
    #expect(physical(0x1000) == target)
  }

  @Test(arguments: [PTE.v | PTE.w | PTE.a | PTE.d, PTE.rwx | 1 << 54, PTE.rwx | 1 << 60, PTE.rwx & ~PTE.v])
  func reservedEntriesFault(flags: UInt64) {
    map(0x1000, levels: 3, entry: PTE.to(target, flags))
    activate(8)
    #expect(physical(0x1000) == nil)
  }

  @Test func contiguousPagesAre64KiB() {
    map(0x1_3000, levels: 3, entry: PTE.to(target | 0x8000, PTE.rwx) | PTE.napot)
    activate(8)
    #expect(physical(0x1_3456) == target + 0x3456)
    map(0x1_3000, levels: 3, entry: PTE.to(target | 0x4000, PTE.rwx) | PTE.napot)
    #expect(physical(0x1_3456) == nil)
  }

  @Test func memoryTypesNeedTheirSwitch() {
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.rwx) | 1 << 61)
    activate(8)
    #expect(physical(0x1000) == nil)
    harness.hart.writeCSR(0x30A, 1 << 62)
    #expect(physical(0x1000) == target)
    map(0x1000, levels: 3, entry: PTE.to(target, PTE.rwx) | 3 << 61)
    #expect(physical(0x1000) == nil)
  }

  @Test func unsupportedModesLeaveTheRegisterAlone() throws {
    activate(8)
    let before = harness.csr(0x180)
    harness.hart.writeCSR(0x180, 11 << 60 | 1)
    #expect(harness.csr(0x180) == before)
    let small = Hart(
      identifier: 0, addressSpace: harness.hart.addressSpace, clock: GuestClock(),
      configuration: HartConfiguration(virtualAddressBits: 39))
    small.writeCSR(0x180, 9 << 60)
    #expect(small.readCSR(0x180) == 0)
  }

  @Test func physicalProtectionDecidesByTheLowestMatchingEntry() {
    // Entry 0: 4 KiB at the target without permissions (NAPOT); entry 1: everything.
    harness.hart.writeCSR(0x3B0, (target >> 2) | 0x1FF)
    harness.hart.writeCSR(0x3B1, ~0)
    harness.hart.writeCSR(0x3A0, 0x1F18)
    #expect(physical(target) == nil)
    #expect(physical(target + 0x1000) == target + 0x1000)
    harness.hart.privilege = .machine
    #expect(physical(target) == target)
    // Locked entries bind M-mode too, and stay.
    harness.hart.writeCSR(0x3A0, 0x1F98)
    #expect(physical(target) == nil)
    harness.hart.writeCSR(0x3A0, 0x1F1F)
    #expect(harness.csr(0x3A0) & 0xFF == 0x98)
  }

  @Test func withoutAnyEntryOnlyMachineModePasses() throws {
    let bare = try HartHarness()
    #expect(bare.hart.physicalAddress(ofVirtual: target)?.rawValue == target)
    bare.hart.privilege = .supervisor
    #expect(bare.hart.physicalAddress(ofVirtual: target) == nil)
  }
}

import Bus
import Hart
import RISCV
import Testing
import Translation

/// More pages than the remembered translations have places for at first: what is found is what the page tables say, also
/// of pages that were remembered before there were more places.
@Suite struct TranslationGrowthTests {
  static let engines: [EngineChoice] = [.interpreter, .translator(threshold: 1)]

  /// A hart in S-mode with a page table (Sv39) of its own, that programs in the first megabyte of RAM see as it is.
  private final class Guest {
    static let list: UInt64 = TranslationHarness.base + (1 << 20)
    static let data: UInt64 = TranslationHarness.base + (4 << 20)
    static let dataPages: UInt64 = 1024
    private static let root = TranslationHarness.base + (8 << 20)
    let harness: TranslationHarness
    private var nextTable = Guest.root + 4096

    init(_ engine: EngineChoice) throws {
      harness = try TranslationHarness(engine)
      for page in 0..<Self.dataPages { harness.set(page + 1, at: Self.data + page * 4096) }
      for page in stride(from: TranslationHarness.base, to: Self.data, by: 4096) { map(page, to: page) }
      harness.place(Self.loads, at: TranslationHarness.base)
      harness.place(Self.fences, at: TranslationHarness.base + 0x1000)
      harness.place(Self.stores, at: TranslationHarness.base + 0x2000)
      harness.place([encode(.sfence_vma), encode(.jal, 0)], at: TranslationHarness.base + 0x3000)
      harness.hart.writeCSR(0x3A0, 0x1F)
      harness.hart.writeCSR(0x3B0, ~0)
      harness.hart.writeCSR(0x180, 8 << 60 | Self.root >> 12)
      harness.hart.privilege = .supervisor
    }

    /// Adds up the words at the listed addresses.
    private static let loads = [
      encode(.ld, rd: 9, rs1: 8, 0), encode(.ld, rd: 10, rs1: 9, 0), encode(.add, rd: 11, rs1: 11, rs2: 10),
      encode(.addi, rd: 8, rs1: 8, 8), encode(.addi, rd: 13, rs1: 13, -1), encode(.bne, rs1: 13, rs2: 0, -20),
      encode(.jal, 0),
    ]
    private static let fences = [
      encode(.ld, rd: 9, rs1: 8, 0), encode(.sfence_vma, rs1: 9), encode(.addi, rd: 8, rs1: 8, 8),
      encode(.addi, rd: 13, rs1: 13, -1), encode(.bne, rs1: 13, rs2: 0, -16), encode(.jal, 0),
    ]
    /// Writes to each the number of those that are left.
    private static let stores = [
      encode(.ld, rd: 9, rs1: 8, 0), encode(.sd, rs1: 9, rs2: 13, 8), encode(.addi, rd: 8, rs1: 8, 8),
      encode(.addi, rd: 13, rs1: 13, -1), encode(.bne, rs1: 13, rs2: 0, -16), encode(.jal, 0),
    ]

    /// Maps a page, without telling the hart.
    func map(_ address: UInt64, to physical: UInt64) {
      var table = Self.root
      for shift in [UInt64(30), 21] {
        let place = table + (address >> shift & 0x1FF) * 8
        if harness.get(place) == 0 {
          harness.set((nextTable >> 12) << 10 | 1, at: place)
          nextTable += 4096
        }
        table = (harness.get(place) >> 10) << 12
      }
      harness.set((physical >> 12) << 10 | 0xCF, at: table + (address >> 12 & 0x1FF) * 8)
    }

    func mapData(_ address: UInt64, to page: Int) { map(address, to: Self.data + UInt64(page) % Self.dataPages * 4096) }

    private func run(_ offset: UInt64, _ addresses: [UInt64], instructions: Int) {
      for (index, address) in addresses.enumerated() { harness.set(address, at: Self.list + UInt64(index) * 8) }
      harness.hart.pc = TranslationHarness.base + offset
      harness.hart[x: 8] = Self.list
      harness.hart[x: 11] = 0
      harness.hart[x: 13] = UInt64(addresses.count)
      _ = harness.hart.run(limit: UInt64(addresses.count * instructions + 2))
      #expect(harness.hart[x: 13] == 0)
    }

    func sum(_ addresses: [UInt64]) -> UInt64 {
      run(0, addresses, instructions: 6)
      return harness.hart[x: 11]
    }

    func fence(_ addresses: [UInt64]) { run(0x1000, addresses, instructions: 5) }
    func store(_ addresses: [UInt64]) { run(0x2000, addresses, instructions: 5) }

    func fenceAll() {
      harness.hart.pc = TranslationHarness.base + 0x3000
      _ = harness.hart.run(limit: 2)
    }
  }

  /// The sum of the numbers in these data pages.
  private func expected(_ pages: [Int]) -> UInt64 {
    pages.reduce(0) { $0 + UInt64($1) % Guest.dataPages + 1 }
  }

  @Test(arguments: engines)
  func manyPagesInARow(engine: EngineChoice) throws {
    let guest = try Guest(engine)
    let addresses = (0..<UInt64(16384)).map { 0x4000_0000 + $0 * 4096 }
    var pages = Array(addresses.indices)
    for (index, address) in addresses.enumerated() { guest.mapData(address, to: pages[index]) }
    // Remembered before there are more places.
    #expect(guest.sum(Array(addresses[..<16])) == expected(Array(pages[..<16])))
    for _ in 0..<3 { #expect(guest.sum(addresses) == expected(pages)) }

    // Some of those, and of others, lead elsewhere; a fence of each.
    let changed = [0, 1, 7, 15] + stride(from: 500, to: 16384, by: 331)
    for index in changed {
      pages[index] += 5
      guest.mapData(addresses[index], to: pages[index])
    }
    guest.fence(changed.map { addresses[$0] })
    #expect(guest.sum(addresses) == expected(pages))
    #expect(guest.sum(changed.map { addresses[$0] }) == expected(changed.map { pages[$0] }))

    // All of them, and one fence.
    for index in addresses.indices {
      pages[index] += 3
      guest.mapData(addresses[index], to: pages[index])
    }
    guest.fenceAll()
    for _ in 0..<2 { #expect(guest.sum(addresses) == expected(pages)) }
  }

  /// Few enough that what is remembered of them is forgotten one by one; they take each other's places in all tables but the
  /// largest.
  @Test(arguments: engines, [UInt64(1024), 4096])
  func fewPagesThatTakeEachOthersPlaces(engine: EngineChoice, stride: UInt64) throws {
    let guest = try Guest(engine)
    let addresses = (0..<UInt64(600)).map { 0x1_0000_0000 + $0 * stride * 4096 }
    var pages = addresses.indices.map { $0 * 7 }
    for (index, address) in addresses.enumerated() { guest.mapData(address, to: pages[index]) }
    for _ in 0..<4 { #expect(guest.sum(addresses) == expected(pages)) }
    for round in 0..<3 {
      for index in addresses.indices {
        pages[index] += 11
        guest.mapData(addresses[index], to: pages[index])
      }
      if round == 1 { guest.fence(addresses) } else { guest.fenceAll() }
      for _ in 0..<2 { #expect(guest.sum(addresses) == expected(pages)) }
    }
  }

  /// What was remembered before there were more places stands where it stood, and nobody looks there for it any more: pages
  /// that nothing has taken that place from since.
  @Test(arguments: engines, [(640, true), (640, false), (2048, true), (2048, false)])
  func whatStandsInAnOldPlaceIsNotFound(engine: EngineChoice, others: (count: Int, isFencedAlone: Bool)) throws {
    let guest = try Guest(engine)
    // Bits 12 to 23 of the address, and those from 24 on; places are these, one exclusive or the other.
    func address(_ low: UInt64, _ high: UInt64) -> UInt64 { high << 24 | low << 12 }
    let old = (0..<UInt64(64)).map { address(0x400 | $0, 256) }
    // These take each other's places, which have bit 9, and none of theirs.
    let growing = (0..<UInt64(others.count)).map { address(512 + $0 / 128, 256 + $0 % 128) }
    // And these only those that are looked at first.
    let hiding = (0..<UInt64(64)).map { address($0, 512) }
    for (index, address) in (old + growing + hiding).enumerated() { guest.mapData(address, to: index) }
    #expect(guest.sum(old) == expected(Array(0..<64)))
    #expect(guest.sum(growing) == expected(Array(64..<64 + others.count)))
    for (index, address) in old.enumerated() { guest.mapData(address, to: index + 500) }
    if others.isFencedAlone { guest.fence(old) } else { guest.fenceAll() }
    #expect(guest.sum(hiding) == expected(Array(64 + others.count..<128 + others.count)))
    #expect(guest.sum(old) == expected(Array(500..<564)))
  }

  @Test(arguments: engines)
  func storesGoWhereTheTablesSay(engine: EngineChoice) throws {
    let guest = try Guest(engine)
    let addresses = (0..<UInt64(1000)).map { 0x1_0000_0000 + $0 * 1025 * 4096 }
    for round in 0..<4 {
      for (index, address) in addresses.enumerated() { guest.mapData(address, to: index + 300 * round) }
      if round > 0 { guest.fenceAll() }
      for _ in 0..<2 { guest.store(addresses) }
      for index in addresses.indices {
        let page = UInt64(index + 300 * round) % Guest.dataPages
        #expect(guest.harness.get(Guest.data + page * 4096 + 8) == UInt64(1000 - index))
      }
      for page in 0..<Guest.dataPages { guest.harness.set(0, at: Guest.data + page * 4096 + 8) }
    }
  }

  /// What was remembered in smaller tables isn't found in the larger ones after a reset, either.
  @Test(arguments: engines)
  func aResetForgetsThem(engine: EngineChoice) throws {
    let guest = try Guest(engine)
    let addresses = (0..<UInt64(4096)).map { 0x4000_0000 + $0 * 4096 }
    for (index, address) in addresses.enumerated() { guest.mapData(address, to: index) }
    for _ in 0..<2 { #expect(guest.sum(addresses) == expected(Array(addresses.indices))) }
    let satp = guest.harness.hart.readCSR(0x180)!
    guest.harness.hart.reset()
    for (index, address) in addresses.enumerated() { guest.mapData(address, to: index + 1) }
    #expect(guest.harness.hart.start(at: TranslationHarness.base, privilege: .machine, argument: 0))
    _ = guest.harness.hart.run(limit: 0)
    guest.harness.hart.writeCSR(0x3A0, 0x1F)
    guest.harness.hart.writeCSR(0x3B0, ~0)
    guest.harness.hart.writeCSR(0x180, satp)
    guest.harness.hart.privilege = .supervisor
    for _ in 0..<2 { #expect(guest.sum(addresses) == expected(addresses.indices.map { $0 + 1 })) }
  }

  /// Code in more pages than are remembered at first, each of which jumps to the next; some change before and after there
  /// is room for all, each time before a FENCE.I.
  @Test(arguments: engines) func codeInManyPagesIsWhatStandsThere(engine: EngineChoice) throws {
    let harness = try TranslationHarness(engine)
    harness.enterSupervisorMode()
    let first = TranslationHarness.base + (4 << 20)
    var steps = [Int64](repeating: 1, count: 1500)
    func place(_ page: Int) {
      let next = page == steps.count - 1 ? encode(.jalr, rs1: 1) : encode(.jal, 4092)
      harness.place([encode(.addi, rd: 5, rs1: 5, steps[page]), next], at: first + UInt64(page) * 4096)
    }
    steps.indices.forEach(place)
    harness.hart[x: 7] = first
    harness.place([encode(.fence_i), encode(.jalr, rd: 1, rs1: 7), encode(.jal, -8)])
    var sum: Int64 = 0
    for round in 0..<6 {
      _ = harness.hart.run(limit: UInt64(2 * steps.count + 3))
      sum += steps.reduce(0, +)
      #expect(harness.hart[x: 5] == UInt64(sum), "round \(round)")
      for page in [round, 200 + round, 512 + round, 1490 + round] {
        steps[page] += 10
        place(page)
      }
    }
  }
}

extension TranslationHarness {
  fileprivate func get(_ address: UInt64) -> UInt64 { memory.load(PhysicalAddress(address), as: UInt64.self)! }
  fileprivate func set(_ value: UInt64, at address: UInt64) { _ = memory.store(value, at: PhysicalAddress(address)) }
}

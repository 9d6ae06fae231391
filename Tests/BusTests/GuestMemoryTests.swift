import Bus
import HostSystem
import Testing

struct GuestMemoryTests {
  static let base: UInt64 = 0x8000_0000
  static let size: UInt64 = 0x1_0000
  static let end: UInt64 = base + size
  static let outside: [(UInt64, UInt64)] = [
    (end, 1), (end - 1, 2), (base - 1, 1), (base - 1, 2), (0, 1), (.max, 1), (.max, 2), (base, size + 1),
    (base + 1, size), (base, .max), (base + 1, .max), (.max, .max), (base - 8, 16), (base + 8, .max - 7),
  ]
  static let inside: [(UInt64, UInt64)] = [(base, size), (base, 0), (end - 1, 1), (end, 0)]
  let memory: GuestMemory

  init() throws {
    memory = try GuestMemory(base: PhysicalAddress(GuestMemoryTests.base), size: GuestMemoryTests.size)
  }

  @Test func isZeroAndKeepsWhatIsStored() {
    let address = PhysicalAddress(GuestMemoryTests.base + 8)
    #expect(memory.load(address, as: UInt64.self) == 0)
    #expect(memory.store(UInt64(0x0102_0304_0506_0708), at: address))
    #expect(memory.load(address, as: UInt64.self) == 0x0102_0304_0506_0708)
    // Little-endian, and any alignment.
    #expect(memory.load(address + 1, as: UInt32.self) == 0x0405_0607)
  }

  @Test(arguments: outside)
  func nothingOutsideIsReached(address: UInt64, count: UInt64) {
    #expect(memory.bytes(at: PhysicalAddress(address), count: count) == nil)
  }

  @Test(arguments: inside)
  func everythingInsideIs(address: UInt64, count: UInt64) throws {
    let bytes = try #require(memory.bytes(at: PhysicalAddress(address), count: count))
    #expect(bytes.count == Int(count))
    #expect(bytes.baseAddress == memory.host + Int(address - GuestMemoryTests.base))
  }

  @Test func anAccessAcrossTheEndDoesNothing() {
    let last = PhysicalAddress(GuestMemoryTests.base + GuestMemoryTests.size - 4)
    #expect(memory.load(last, as: UInt64.self) == nil)
    #expect(!memory.store(UInt64.max, at: last))
    #expect(memory.load(last, as: UInt32.self) == 0)
    let source: [UInt8] = [1, 2, 3, 4, 5]
    #expect(source.withUnsafeBytes { !memory.copy($0, to: last) })
    #expect(memory.load(last, as: UInt32.self) == 0)
    #expect(source[..<4].withUnsafeBytes { memory.copy($0, to: last) })
    #expect(memory.load(last, as: UInt32.self) == 0x0403_0201)
  }

  @Test func addressesWrapAsGuestArithmeticDoes() {
    #expect(PhysicalAddress(.max) + 1 == PhysicalAddress(0))
    #expect(PhysicalAddress(0x8000_0000).description == "0x80000000")
  }

  @Test func moreThanTheHostCanMapIsAnError() {
    #expect(throws: HostError.self) { _ = try GuestMemory(base: PhysicalAddress(0), size: 1 << 62) }
  }
}

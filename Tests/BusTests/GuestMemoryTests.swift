import Bus
import Foundation
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

  // MARK: what has changed since a file was shown

  private static let page = MemoryMapping.pageSize

  /// 64 pages, of which a file of four, without zeroes, is shown from page 8 on.
  private func memoryOfFile() throws -> GuestMemory {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("ram-\(UUID().uuidString)").path
    #expect(FileManager.default.createFile(atPath: path, contents: Data(repeating: 0x11, count: 4 * Self.page)))
    defer { unlink(path) }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    let memory = try GuestMemory(base: PhysicalAddress(Self.base), size: UInt64(64 * Self.page))
    try memory.show(descriptor, at: 8 * Self.page, offset: 0, count: 4 * Self.page)
    return memory
  }

  private func pages(_ memory: GuestMemory, _ first: Int, _ count: Int = 1) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: memory.host + first * Self.page, count: count * Self.page)
  }

  @Test func nothingHasChangedWhereNobodyWrote() throws {
    let memory = try memoryOfFile()
    #expect(memory.changedPages() == [])
    // Reading changes nothing, either of the file or of what is zero.
    #expect(pages(memory, 7, 6).reduce(0) { $0 + Int($1) } == 4 * Self.page * 0x11)
    #expect(memory.changedPages() == [])
  }

  @Test func pagesOverAFileCountWhateverIsWrittenAndOthersWhereTheyAreNotZero() throws {
    let memory = try memoryOfFile()
    pages(memory, 9)[17] = 0x11
    pages(memory, 10).initializeMemory(as: UInt8.self, repeating: 0)
    pages(memory, 20)[Self.page - 1] = 1
    pages(memory, 21)[0] = 1
    pages(memory, 22).initializeMemory(as: UInt8.self, repeating: 0)
    pages(memory, 63)[1] = 1
    #expect(memory.changedPages() == [9..<11, 20..<22, 63..<64])
    // Neighbours of the file's parts, on both sides.
    pages(memory, 7)[0] = 1
    pages(memory, 8)[0] = 1
    pages(memory, 12)[0] = 1
    #expect(memory.changedPages() == [7..<11, 12..<13, 20..<22, 63..<64])
  }

  @Test func releasedPagesAreAsTheFileHasThem() throws {
    let memory = try memoryOfFile()
    for page in [8, 9, 11, 30, 31] { pages(memory, page)[0] = 5 }
    memory.release(pages(memory, 9))
    memory.release(pages(memory, 30))
    #expect(pages(memory, 9)[0] == 0x11 && pages(memory, 30)[0] == 0)
    #expect(memory.changedPages() == [8..<9, 11..<12, 31..<32])
  }

  /// Parts of a file may be shown in any order.
  @Test func partsThatAreShownInAnotherOrderAreKnown() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("ram-\(UUID().uuidString)").path
    #expect(FileManager.default.createFile(atPath: path, contents: Data(repeating: 0x11, count: 8 * Self.page)))
    defer { unlink(path) }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    defer { close(descriptor) }
    let memory = try GuestMemory(base: PhysicalAddress(Self.base), size: UInt64(64 * Self.page))
    try memory.show(descriptor, at: 40 * Self.page, offset: 0, count: 2 * Self.page)
    try memory.show(descriptor, at: 4 * Self.page, offset: 2 * Self.page, count: 2 * Self.page)
    for page in [4, 5, 6, 40, 42] { pages(memory, page).initializeMemory(as: UInt8.self, repeating: 0) }
    #expect(memory.changedPages() == [4..<6, 40..<41])
  }
}

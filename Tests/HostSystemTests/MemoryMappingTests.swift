import Foundation
import HostSystem
import Testing

struct MemoryMappingTests {
  @Test func isZeroWritableAndWholePages() throws {
    let mapping = try MemoryMapping(anonymous: 1)
    #expect(mapping.count == MemoryMapping.pageSize)
    #expect(mapping.base.load(as: UInt64.self) == 0)
    mapping.base.storeBytes(of: 0x1234, as: UInt64.self)
    #expect(mapping.base.load(as: UInt64.self) == 0x1234)
  }

  @Test(arguments: [0, -1, .min, .max, .max - 1])
  func refusesAbsurdSizes(count: Int) {
    #expect(throws: HostError.self) { _ = try MemoryMapping(anonymous: count) }
  }

  @Test func releasedPagesReadAsZeroAndOthersStay() throws {
    let page = MemoryMapping.pageSize
    let mapping = try MemoryMapping(anonymous: 4 * page)
    let bytes = UnsafeMutableRawBufferPointer(start: mapping.base, count: mapping.count)
    func fill() { for index in bytes.indices { bytes[index] = 0xAA } }
    func zeroPages() -> [Int] { (0..<4).filter { bytes[$0 * page..<($0 + 1) * page].allSatisfy { $0 == 0 } } }
    fill()
    mapping.release(offset: page, count: 2 * page)
    #expect(zeroPages() == [1, 2])
    // Only whole pages inside the range go, and nothing outside the mapping is touched.
    fill()
    mapping.release(offset: 1, count: 2 * page)
    #expect(zeroPages() == [1])
    #expect(bytes[0] == 0xAA && bytes[2 * page] == 0xAA)
    fill()
    mapping.release(offset: 3 * page, count: .max)
    mapping.release(offset: -page, count: page)
    mapping.release(offset: 4 * page, count: page)
    mapping.release(offset: 0, count: -1)
    #expect(zeroPages() == [3])
  }

  @Test func ownPagesAreThoseThatAreOfNoFile() throws {
    let page = MemoryMapping.pageSize
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("pages-\(UUID().uuidString)").path
    #expect(FileManager.default.createFile(atPath: path, contents: Data(repeating: 0x11, count: 4 * page)))
    defer { unlink(path) }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    let mapping = try MemoryMapping(anonymous: 16 * page)
    func write(_ number: Int) { (mapping.base + number * page).storeBytes(of: 7, as: UInt8.self) }
    func read(_ number: Int) -> UInt8 { (mapping.base + number * page).load(as: UInt8.self) }
    #expect(mapping.ownPages() == [])
    try mapping.show(descriptor, at: 4 * page, offset: 0, count: 4 * page)
    #expect(read(5) == 0x11 && mapping.ownPages() == [])
    for number in [0, 1, 3, 4, 7, 8, 15] { write(number) }
    #expect(mapping.ownPages() == [0..<2, 3..<5, 7..<9, 15..<16])
    mapping.release(offset: page, count: page)
    mapping.release(offset: 7 * page, count: page)
    #expect(read(7) == 0x11)
    #expect(mapping.ownPages() == [0..<1, 3..<5, 8..<9, 15..<16])
  }
}

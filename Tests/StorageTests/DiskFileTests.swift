import Foundation
import HostSystem
import Storage
import Testing

/// Files that are read without their holes.
@Suite struct DiskFileTests {
  private let folder = try! ImageFolder()
  private static let page = MemoryMapping.pageSize

  /// A file of so many pages, of which these aren't holes: each has its number and one as every byte. `rest`: bytes behind
  /// the last page.
  private func file(pages: Int, content: [Int], rest: Int = 0) throws -> DiskFile {
    let path = folder["file-\(UUID().uuidString)"]
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try handle.truncate(atOffset: UInt64(pages * Self.page))
    for page in content {
      try handle.seek(toOffset: UInt64(page * Self.page))
      try handle.write(contentsOf: Data(repeating: UInt8(page + 1), count: Self.page))
    }
    if rest > 0 {
      try handle.seekToEnd()
      try handle.write(contentsOf: Data(repeating: 0xEE, count: rest))
    }
    try handle.close()
    return try DiskFile(path: path, readOnly: true)
  }

  /// What both ways of reading give, and how many bytes they say it is.
  private func expectSame(
    _ file: DiskFile, at offset: Int, count: Int, location: SourceLocation = #_sourceLocation
  ) throws {
    var (whole, content) = ([UInt8](repeating: 0, count: count), [UInt8](repeating: 0, count: count))
    let read = try whole.withUnsafeMutableBytes { try file.read(at: UInt64(offset), into: $0) }
    let found = try content.withUnsafeMutableBytes { try file.readContent(at: UInt64(offset), into: $0) }
    #expect(found == read && content == whole, "\(count) bytes at \(offset)", sourceLocation: location)
  }

  @Test(arguments: [
    (0, [], 0), (0, [], 5), (8, [], 0), (8, [], 100), (8, [0, 7], 0), (8, [1, 2, 5], 0), (8, [3], 777),
    (8, [0, 1, 2, 3, 4, 5, 6, 7], 0), (64, [0, 31, 32, 63], 1),
  ])
  func itIsWhatIsInTheFile(pages: Int, content: [Int], rest: Int) throws {
    let file = try file(pages: pages, content: content, rest: rest)
    defer { file.close() }
    let size = pages * Self.page + rest
    for offset in [0, 1, Self.page - 1, Self.page, 3 * Self.page + 17, max(0, size - 1), size, size + Self.page] {
      for count in [0, 1, Self.page, 2 * Self.page + 3, size, size + 2 * Self.page] {
        try expectSame(file, at: offset, count: count)
      }
    }
  }

  /// The memory that stands for holes stays what it was: nobody's.
  @Test func holesArentTouched() throws {
    let file = try file(pages: 32, content: [4, 5, 20])
    defer { file.close() }
    let memory = try MemoryMapping(anonymous: 32 * Self.page)
    let buffer = UnsafeMutableRawBufferPointer(start: memory.base, count: memory.count)
    #expect(try file.readContent(at: 0, into: buffer) == memory.count)
    #expect(memory.ownPages() == [4..<6, 20..<21])
    #expect(buffer[4 * Self.page] == 5 && buffer[21 * Self.page - 1] == 21)
  }
}

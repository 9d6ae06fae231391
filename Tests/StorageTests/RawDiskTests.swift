import Foundation
import Storage
import Testing

@Suite struct RawDiskTests {
  let folder = try! ImageFolder()

  @Test func keepsWhatIsWritten() throws {
    var random = SeededGenerator(seed: 7)
    var content = random.bytes(1 << 20)
    try folder.write(content, to: folder["disk.raw"])
    let disk = try DiskImage.open(path: folder["disk.raw"])
    #expect(disk.byteCount == 1 << 20)
    #expect(!disk.isReadOnly)
    try disk.write([UInt8](repeating: 1, count: 1024), at: 4096)
    content.replaceSubrange(4096..<5120, with: repeatElement(1, count: 1024))
    for mayUnmap in [false, true] {
      let offset = mayUnmap ? 100 << 10 : 200 << 10
      try disk.writeZeroes(at: UInt64(offset) + 512, count: 20 << 10, mayUnmap: mayUnmap)
      content.replaceSubrange((offset + 512)..<(offset + 512 + 20 << 10), with: repeatElement(0, count: 20 << 10))
    }
    #expect(try disk.allBytes() == content)
    try disk.discard(at: 512 << 10, count: 64 << 10)
    content.replaceSubrange((512 << 10)..<(576 << 10), with: try disk.bytes(at: 512 << 10, count: 64 << 10))
    try disk.flush()
    try disk.close()
    #expect(try folder.bytes(folder["disk.raw"]) == content)
  }

  @Test func padsTheLastSector() throws {
    try folder.write([UInt8](repeating: 7, count: 1000), to: folder["disk.raw"])
    let disk = try DiskImage.open(path: folder["disk.raw"])
    #expect(disk.byteCount == 1024)
    #expect(try disk.allBytes() == [UInt8](repeating: 7, count: 1000) + [UInt8](repeating: 0, count: 24))
    try disk.write([UInt8](repeating: 8, count: 512), at: 512)
    try disk.close()
    #expect(try folder.bytes(folder["disk.raw"]).count == 1024)
  }

  /// More pieces than the host takes at once, of several sizes, in any order in memory, up to a last sector that the file
  /// doesn't fill.
  @Test(arguments: [DiskFormat.raw, .qcow2])
  func transfersScatteredPieces(format: DiskFormat) throws {
    var random = SeededGenerator(seed: 8)
    let sizes = (0..<1500).map { 512 * (1 + $0 % 5) }
    let total = sizes.reduce(0, +)
    var content = random.bytes(total + 2048)
    if format == .raw {
      content.removeLast(100)
      try folder.write(content, to: folder["disk"])
    } else {
      try DiskImage.create(path: folder["disk"], format: format, size: UInt64(content.count))
    }
    let disk = try DiskImage.open(path: folder["disk"], format: format)
    if format == .qcow2 { try disk.write(content, at: 0) }
    content += [UInt8](repeating: 0, count: Int(disk.byteCount) - content.count)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: total, alignment: 512)
    defer { memory.deallocate() }
    /// The pieces lie in memory in the opposite order of that on the disk.
    var end = total
    let pieces = sizes.map { size in
      end -= size
      return UnsafeMutableRawBufferPointer(rebasing: memory[end..<end + size])
    }
    try disk.read(at: 2048, into: pieces)
    #expect(pieces.flatMap { [UInt8]($0) } == Array(content[2048...]))
    let fresh = random.bytes(total)
    memory.copyBytes(from: fresh)
    try disk.write(at: 512, from: pieces.map { UnsafeRawBufferPointer($0) })
    content.replaceSubrange(512..<512 + total, with: pieces.flatMap { [UInt8]($0) })
    #expect(try disk.allBytes() == content)
    let sources = pieces.map { UnsafeRawBufferPointer($0) }
    #expect(storageError { try disk.write(at: 4096, from: sources) }?.code == .outOfRange)
    #expect(storageError { try disk.read(at: 4096, into: pieces) }?.code == .outOfRange)
    try disk.close()
  }

  @Test func refusesWhatIsOutside() throws {
    try DiskImage.create(path: folder["disk.raw"], format: .raw, size: 4096)
    try DiskImage.create(path: folder["disk.qcow2"], format: .qcow2, size: 4096)
    for name in ["disk.raw", "disk.qcow2"] {
      let disk = try DiskImage.open(path: folder[name])
      let ranges: [(UInt64, UInt64)] = [
        (4096, 512), (3584, 1024), (100, 512), (0, 100), (.max - 511, 512), (.max & ~511, 1024), (0, 1 << 40),
      ]
      for (offset, count) in ranges {
        #expect(storageError { try disk.discard(at: offset, count: count) }?.code == .outOfRange)
        #expect(storageError { try disk.writeZeroes(at: offset, count: count, mayUnmap: true) }?.code == .outOfRange)
        guard count < 1 << 20 else { continue }
        #expect(storageError { _ = try disk.bytes(at: offset, count: Int(count)) }?.code == .outOfRange)
        let bytes = [UInt8](repeating: 1, count: Int(count))
        #expect(storageError { try disk.write(bytes, at: offset) }?.code == .outOfRange)
      }
      try disk.discard(at: 4096, count: 0)
      try disk.close()
      let reader = try DiskImage.open(path: folder[name], readOnly: true)
      #expect(reader.isReadOnly)
      #expect(storageError { try reader.write([UInt8](repeating: 1, count: 512), at: 0) }?.code == .readOnly)
      #expect(storageError { try reader.discard(at: 0, count: 512) }?.code == .readOnly)
      try reader.flush()
      try reader.close()
    }
  }

  @Test func aGuestCannotMakeItsRawDiskAnImageWithABackingFile() throws {
    try DiskImage.create(path: folder["disk.raw"], format: .raw, size: 4096)
    var header = [UInt8](repeating: 0, count: 512)
    header.replaceSubrange(0..<4, with: [0x51, 0x46, 0x49, 0xFB])
    let probed = try DiskImage.open(path: folder["disk.raw"])
    #expect(storageError { try probed.write(header, at: 0) }?.code == .notPermitted)
    try probed.write(header, at: 512)
    try probed.close()
    let earlier = try DiskImage.open(path: folder["disk.raw"], format: .raw, wasProbed: true)
    #expect(storageError { try earlier.write(header, at: 0) }?.code == .notPermitted)
    try earlier.close()
    let named = try DiskImage.open(path: folder["disk.raw"], format: .raw)
    try named.write(header, at: 0)
    try named.close()
    // What was found out at first is kept to.
    let refusal = storageError { _ = try DiskImage.open(path: folder["disk.raw"], format: .raw, wasProbed: true) }
    #expect(refusal?.code == .notPermitted && refusal?.message.contains("was a raw disk") == true)
    try DiskImage.open(path: folder["disk.raw"], format: .raw).close()
  }

  /// A guest that may write to all of its raw disk has a file of the host be named there as what is behind it.
  @Test func whatAGuestWroteToItsRawDiskIsNoHeader() throws {
    try folder.write([UInt8](repeating: 7, count: 1024), to: folder["secret"])
    try DiskImage.create(path: folder["disk"], format: .qcow2, size: nil, backing: (folder["secret"], .raw))
    #expect(DiskImage.backingFiles(of: folder["disk"], format: nil) == [folder["secret"]])
    #expect(DiskImage.backingFiles(of: folder["disk"], format: .raw) == [])
    let information = try DiskImage.information(path: folder["disk"], format: .raw)
    #expect(information.format == .raw && information.backingPath == nil)
    #expect(information.virtualSize == UInt64(try folder.bytes(folder["disk"]).count))
    // Behind an image that says what it stands on.
    try DiskImage.create(path: folder["top"], format: .qcow2, size: nil, backing: (folder["disk"], .raw))
    #expect(DiskImage.backingFiles(of: folder["top"], format: .qcow2) == [folder["disk"]])
    // A folder isn't behind anything.
    try DiskImage.create(path: folder["above"], format: .qcow2, size: nil, backing: (folder["secret"], .raw))
    try FileManager.default.removeItem(atPath: folder["secret"])
    try FileManager.default.createDirectory(atPath: folder["secret"], withIntermediateDirectories: false)
    #expect(DiskImage.backingFiles(of: folder["above"], format: .qcow2) == [])
  }

  @Test func refusesWhatIsNoFile() throws {
    #expect(storageError { _ = try DiskImage.open(path: folder["gone"]) }?.message.contains(folder["gone"]) == true)
    #expect(storageError { _ = try DiskImage.open(path: folder.path) }?.code == .invalidArgument)
    #expect(storageError { _ = try DiskImage.open(path: folder.path, readOnly: true) }?.code == .invalidArgument)
    try folder.run("mkfifo", [folder["pipe"]])
    #expect(storageError { _ = try DiskImage.open(path: folder["pipe"]) }?.code == .invalidArgument)
    #expect(storageError { _ = try DiskImage.open(path: "/dev/null") }?.code == .invalidArgument)
  }
}

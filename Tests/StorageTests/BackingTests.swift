import Foundation
import Storage
import Testing

@Suite struct BackingTests {
  let folder = try! ImageFolder()

  @Test func showsTheBackingFileUntilWritten() throws {
    var random = SeededGenerator(seed: 6)
    let base = random.bytes(3 << 20 + 512)
    try folder.write(base, to: folder["base.raw"])
    // A relative name is relative to the image's folder, not to this process's.
    try DiskImage.create(path: folder["middle.qcow2"], format: .qcow2, size: nil, backing: ("base.raw", .raw))
    try DiskImage.create(path: folder["top.qcow2"], format: .qcow2, size: 8 << 20, backing: ("middle.qcow2", nil))
    let information = try DiskImage.information(path: folder["top.qcow2"])
    #expect(information.backingPath == "middle.qcow2")
    #expect(information.backingFormat == "qcow2")

    let middle = try DiskImage.open(path: folder["middle.qcow2"])
    #expect(middle.byteCount == UInt64(base.count))
    var expected = base
    try middle.write([UInt8](repeating: 1, count: 1024), at: 100 << 10)
    expected.replaceSubrange((100 << 10)..<(101 << 10), with: repeatElement(1, count: 1024))
    try middle.close()

    expected += repeatElement(0, count: 8 << 20 - expected.count)
    let top = try DiskImage.open(path: folder["top.qcow2"])
    #expect(try top.allBytes() == expected)
    func put(_ value: UInt8, _ offset: Int, _ count: Int) throws {
      try top.write([UInt8](repeating: value, count: count), at: UInt64(offset))
      expected.replaceSubrange(offset..<(offset + count), with: repeatElement(value, count: count))
    }
    try put(2, 512, 512)
    try put(3, 200_192, 300_032)
    try put(4, 3 << 20, 4096)  // over the end of the backing file
    try put(5, 7 << 20 + 512, 512)  // where it doesn't reach
    try top.writeZeroes(at: 1 << 20, count: 128 << 10, mayUnmap: true)
    expected.replaceSubrange((1 << 20)..<(1 << 20 + 128 << 10), with: repeatElement(0, count: 128 << 10))
    try top.discard(at: 192 << 10, count: 64 << 10)
    expected.replaceSubrange((192 << 10)..<(256 << 10), with: repeatElement(0, count: 64 << 10))
    #expect(try top.allBytes() == expected)
    try top.close()
    try folder.check(folder["top.qcow2"])
    try folder.check(folder["middle.qcow2"])
    #expect(try folder.content(folder["top.qcow2"]) == expected)
    #expect(try folder.bytes(folder["base.raw"]) == base)
  }

  @Test func readsChainsOfQemu() throws {
    try folder.qemuImg("create", "-q", "-f", "qcow2", folder["base.qcow2"], "4M")
    try folder.qemuIO(folder["base.qcow2"], "write -P 1 0 2M")
    try folder.qemuImg(
      "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-F", "qcow2", "-b", "base.qcow2", folder["top.qcow2"])
    try folder.qemuIO(folder["top.qcow2"], "write -P 2 1M 512")
    let top = try DiskImage.open(path: folder["top.qcow2"])
    try top.writeZeroes(at: 0, count: 64 << 10, mayUnmap: true)
    try top.discard(at: 512 << 10, count: 64 << 10)
    var expected = [UInt8](repeating: 1, count: 2 << 20) + [UInt8](repeating: 0, count: 2 << 20)
    expected.replaceSubrange((1 << 20)..<(1 << 20 + 512), with: repeatElement(2, count: 512))
    expected.replaceSubrange(0..<(64 << 10), with: repeatElement(0, count: 64 << 10))
    #expect(try top.allBytes() == expected)
    try top.close()
    try folder.check(folder["top.qcow2"])
    #expect(try folder.content(folder["top.qcow2"]) == expected)
  }

  @Test func refusesLoops() throws {
    try folder.write([UInt8](repeating: 0, count: 512), to: folder["b.qcow2"])
    try DiskImage.create(path: folder["a.qcow2"], format: .qcow2, size: 1 << 20, backing: ("b.qcow2", .raw))
    try FileManager.default.removeItem(atPath: folder["b.qcow2"])
    try folder.qemuImg(
      "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "a.qcow2", folder["b.qcow2"], "1M")
    try folder.qemuImg("rebase", "-u", "-F", "qcow2", "-b", "b.qcow2", folder["a.qcow2"])
    for readOnly in [false, true] {
      let error = storageError { _ = try DiskImage.open(path: folder["a.qcow2"], readOnly: readOnly) }
      #expect(error?.code == .corrupt)
      #expect(error?.message.contains("back to itself") == true)
    }
    try folder.qemuImg("rebase", "-u", "-F", "qcow2", "-b", "a.qcow2", folder["a.qcow2"])
    #expect(storageError { _ = try DiskImage.open(path: folder["a.qcow2"]) }?.code == .corrupt)
  }

  @Test func refusesEndlessChains() throws {
    try DiskImage.create(path: folder["0.qcow2"], format: .qcow2, size: 1 << 20, options: .init(clusterSize: 512))
    for number in 1...70 {
      try folder.qemuImg(
        "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "\(number - 1).qcow2", folder["\(number).qcow2"], "1M"
      )
    }
    try DiskImage.open(path: folder["60.qcow2"]).close()
    let error = storageError { _ = try DiskImage.open(path: folder["70.qcow2"]) }
    #expect(error?.message.contains("64 images") == true)
  }

  @Test func namesWhatIsMissing() throws {
    func backed(by name: String, _ format: String) throws -> StorageError? {
      let image = folder["\(UUID().uuidString).qcow2"]
      try folder.qemuImg("create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", name, image, "1M")
      let error = storageError { _ = try DiskImage.open(path: image) }
      #expect(error?.message.contains(image) == true)
      return error
    }
    #expect(try backed(by: "gone.raw", "raw")?.code == .notFound)
    #expect(try backed(by: "nbd://localhost/disk", "raw")?.code == .unsupported)
    #expect(try backed(by: "json:{\"driver\":\"null-co\"}", "raw")?.code == .unsupported)
    #expect(try backed(by: "disk.vmdk", "vmdk")?.code == .unsupported)
  }

  // MARK: headers of more than a page

  /// An image of one byte over and over, and one before it that shows it, whose header is made anew: with an extension
  /// that nobody knows in front, of so many bytes, and the name at another place (nil: behind the extensions).
  private func imageWithHeader(extensionOf count: Int?, nameAt place: Int?, version: Int = 3) throws -> String {
    try folder.write([UInt8](repeating: 0x42, count: 1 << 20), to: folder["shown.raw"])
    let path = folder["long-\(UUID().uuidString).qcow2"]
    try DiskImage.create(
      path: path, format: .qcow2, size: nil, backing: ("shown.raw", .raw), options: .init(version: version))
    var bytes = try folder.bytes(path)
    func set(_ offset: Int, _ value: UInt64, size: Int) {
      for index in 0..<size {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (size - 1 - index)))
      }
    }
    var position = version == 2 ? 72 : 104
    bytes.replaceSubrange(position..<65536, with: repeatElement(0, count: 65536 - position))
    func add(_ kind: UInt64, _ content: [UInt8]) {
      set(position, kind, size: 4)
      set(position + 4, UInt64(content.count), size: 4)
      bytes.replaceSubrange(position + 8..<position + 8 + content.count, with: content)
      position += 8 + (content.count + 7) / 8 * 8
    }
    if let count { add(0x1234_5678, [UInt8](repeating: 0xAB, count: count)) }
    add(0xE279_2ACA, Array("raw".utf8))
    let name = Array("shown.raw".utf8)
    let start = place ?? position + 8
    set(8, UInt64(start), size: 8)
    set(16, UInt64(name.count), size: 4)
    bytes.replaceSubrange(start..<start + name.count, with: name)
    try folder.write(bytes, to: path)
    return path
  }

  @Test(
    arguments: [
      (nil, nil), (nil, 4080), (nil, 4087), (nil, 4088), (nil, 4095), (nil, 4096), (nil, 5000), (nil, 65527),
      (3900, nil),
      (4000, nil), (6001, nil), (60_000, nil), (3000, 9000),
    ] as [(Int?, Int?)])
  func aNameAnywhereInTheFirstClusterIsRead(count: Int?, place: Int?) throws {
    for version in [2, 3] {
      let path = try imageWithHeader(extensionOf: count, nameAt: place, version: version)
      #expect(DiskImage.backingFiles(of: path, format: .qcow2) == [folder["shown.raw"]])
      try folder.qemuImg("check", "-q", "-f", "qcow2", path)
      let disk = try DiskImage.open(path: path)
      #expect(try disk.bytes(at: 4096, count: 4096) == [UInt8](repeating: 0x42, count: 4096))
      // A commit writes no header that says less.
      try disk.write([UInt8](repeating: 1, count: 512), at: 0)
      try disk.close()
      #expect(DiskImage.backingFiles(of: path, format: .qcow2) == [folder["shown.raw"]])
      try folder.qemuIO(path, "read -P 1 0 512", "read -P 0x42 512 1048064")
    }
  }

  @Test func anExtensionBeyondAPageIsReadWithoutABackingFile() throws {
    for count in [4000, 5000, 65_000] {
      let path = folder["alone-\(count).qcow2"]
      try DiskImage.create(path: path, format: .qcow2, size: 1 << 20)
      var bytes = try folder.bytes(path)
      let length = (0..<4).map { UInt8(count >> (8 * (3 - $0)) & 0xFF) }
      bytes.replaceSubrange(104..<112, with: [0x12, 0x34, 0x56, 0x78] + length)
      try folder.write(bytes, to: path)
      let disk = try DiskImage.open(path: path)
      #expect(try disk.bytes(at: 0, count: 512) == [UInt8](repeating: 0, count: 512))
      try disk.close()
    }
    // One that doesn't fit is refused where the name is behind it, too.
    let path = try imageWithHeader(extensionOf: 5000, nameAt: 4000)
    #expect(storageError { try DiskImage.open(path: path).close() }?.message.contains("extension") == true)
  }
}

import Foundation
import Storage
import Testing

/// Images that we made, seen by QEMU's tools.
@Suite struct CreationTests {
  let folder = try! ImageFolder()

  @Test(arguments: [512, 1024, 4096, 65536, 2 << 20], [2, 3])
  func makesSoundImages(clusterSize: Int, version: Int) throws {
    let image = folder["image.qcow2"]
    let size: UInt64 = clusterSize < 4096 ? 600 << 20 : 3 << 40
    try DiskImage.create(
      path: image, format: .qcow2, size: size, options: .init(clusterSize: clusterSize, version: version))
    try folder.check(image)
    let information = try DiskImage.information(path: image)
    #expect(information.virtualSize == size)
    #expect(information.format == .qcow2)
    #expect(information.qcow2?.clusterSize == clusterSize)
    #expect(information.qcow2?.version == version)
    #expect(information.allocatedSize < 20 << 20)
    let disk = try DiskImage.open(path: image)
    try disk.write([UInt8](repeating: 1, count: 4096), at: size - 4096)
    try disk.write([UInt8](repeating: 2, count: 1 << 20), at: size / 2)
    try disk.close()
    try folder.check(image)
    try folder.qemuIO(image, "read -P 1 \(size - 4096) 4096", "read -P 2 \(size / 2) 1M", "read -P 0 0 1M")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["image.qcow2"])
  }

  @Test func makesLazyRefcountsOnlyWhenAsked() throws {
    try DiskImage.create(path: folder["a.qcow2"], format: .qcow2, size: 1 << 20)
    try DiskImage.create(
      path: folder["b.qcow2"], format: .qcow2, size: 1 << 20, options: .init(lazyRefcounts: true))
    #expect(try DiskImage.information(path: folder["a.qcow2"]).qcow2?.lazyRefcounts == false)
    #expect(try DiskImage.information(path: folder["b.qcow2"]).qcow2?.lazyRefcounts == true)
    #expect(try folder.qemuImg("info", folder["b.qcow2"]).contains("lazy refcounts: true"))
    let disk = try DiskImage.open(path: folder["b.qcow2"])
    try disk.write([UInt8](repeating: 1, count: 4096), at: 0)
    try disk.flush()
    #expect(try DiskImage.information(path: folder["b.qcow2"]).qcow2?.isDirty == false)
    try disk.close()
    try folder.check(folder["b.qcow2"])
  }

  @Test func makesRawImages() throws {
    try DiskImage.create(path: folder["a.raw"], format: .raw, size: 1_000_000)
    let information = try DiskImage.information(path: folder["a.raw"])
    #expect(information.format == .raw)
    #expect(information.virtualSize == 1_000_448)
    #expect(information.allocatedSize == 0)
  }

  @Test func growsTheRefcountTable() throws {
    // With clusters of 512 bytes one cluster of the table counts 8 MiB of file.
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 64 << 20, options: .init(clusterSize: 512))
    let disk = try DiskImage.open(path: image)
    var random = SeededGenerator(seed: 5)
    let content = random.bytes(40 << 20)
    for start in stride(from: 0, to: content.count, by: 1 << 20) {
      try disk.write(Array(content[start..<(start + 1 << 20)]), at: UInt64(start))
      if start >> 20 % 7 == 3 { try disk.flush() }
    }
    #expect(try disk.bytes(at: 0, count: content.count) == content)
    try disk.close()
    try folder.check(image)
    #expect(try folder.content(image).starts(with: content))
  }

  @Test func refusesImpossibleImages() throws {
    let path = folder["image.qcow2"]
    #expect(storageError { try DiskImage.create(path: path, format: .qcow2, size: 0) }?.code == .invalidArgument)
    #expect(storageError { try DiskImage.create(path: path, format: .raw, size: nil) }?.code == .invalidArgument)
    #expect(storageError { try DiskImage.create(path: path, format: .raw, size: .max) }?.code == .invalidArgument)
    for clusterSize in [0, 3, 256, 4 << 20, -512] {
      let error = storageError {
        try DiskImage.create(path: path, format: .qcow2, size: 1 << 20, options: .init(clusterSize: clusterSize))
      }
      #expect(error?.message.contains("\(clusterSize) bytes") == true)
    }
    let large = storageError {
      try DiskImage.create(path: path, format: .qcow2, size: 1 << 50, options: .init(clusterSize: 512))
    }
    #expect(large?.code == .invalidArgument)
    let backed = storageError {
      try DiskImage.create(path: path, format: .raw, size: 1 << 20, backing: ("base.raw", .raw))
    }
    #expect(backed?.code == .invalidArgument)
    let missing = storageError {
      try DiskImage.create(path: path, format: .qcow2, size: 1 << 20, backing: ("base.raw", nil))
    }
    #expect(missing?.code == .notFound)
    #expect(missing?.message.contains(folder["base.raw"]) == true)
    #expect(storageError { try DiskImage.create(path: "/nowhere/x.raw", format: .raw, size: 512) }?.code == .notFound)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)

    try folder.write([1], to: path)
    #expect(storageError { try DiskImage.create(path: path, format: .qcow2, size: 1 << 20) }?.code == .exists)
    #expect(try folder.bytes(path) == [1])
  }

  /// The tables of an empty image are zeroes but for a few entries.
  @Test func whatIsZeroInANewImageIsAHole() throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 1 << 40)
    let size = try #require(
      try FileManager.default.attributesOfItem(atPath: image)[.size] as? Int)
    let allocated = try DiskImage.information(path: image).allocatedSize
    #expect(allocated < size / 8, "\(allocated) of \(size) bytes")
    try folder.check(image)
    let disk = try DiskImage.open(path: image)
    try disk.write([UInt8](repeating: 7, count: 4096), at: 1 << 39)
    try disk.close()
    try folder.check(image)
    let again = try DiskImage.open(path: image, readOnly: true)
    #expect(try again.bytes(at: 1 << 39, count: 4096) == [UInt8](repeating: 7, count: 4096))
    #expect(try again.bytes(at: 0, count: 4096) == [UInt8](repeating: 0, count: 4096))
    try again.close()
  }
}

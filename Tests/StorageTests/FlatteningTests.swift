import Foundation
import Storage
import Testing

/// Images that take the place of a chain, looked at by qemu-img as well.
@Suite struct FlatteningTests {
  let folder = try! ImageFolder()

  private func fill(_ disk: any BlockStorage, seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<40 {
      let count = Int.random(in: 1...200, using: &random) * 512
      let offset = UInt64.random(in: 0...(disk.byteCount - UInt64(count)) / 512, using: &random) * 512
      switch Int.random(in: 0..<4, using: &random) {
      case 0: try disk.writeZeroes(at: offset, count: UInt64(count), mayUnmap: true)
      case 1: try disk.discard(at: offset, count: UInt64(count))
      default: try disk.write(random.bytes(count), at: offset)
      }
    }
  }

  /// Image, two layers above it with clusters of other sizes, the upper one larger than the lower.
  @Test(arguments: [(9, 16), (16, 12), (16, 16), (21, 21)], [0, 512, 70_144])
  func showsWhatTheChainShowed(bits: (Int, Int), beyond: UInt64) throws {
    var random = SeededGenerator(seed: 11)
    let size: UInt64 = 5 << 20
    try folder.write(random.bytes(Int(size)), to: folder["image.raw"])
    var options = DiskImage.CreationOptions()
    options.clusterSize = 1 << bits.0
    try DiskImage.create(
      path: folder["low.qcow2"], format: .qcow2, size: size - beyond, backing: ("image.raw", .raw), options: options)
    let low = try DiskImage.open(path: folder["low.qcow2"])
    try fill(low, seed: 1)
    try low.close()
    options.clusterSize = 1 << bits.1
    try DiskImage.create(
      path: folder["top.qcow2"], format: .qcow2, size: size, backing: (folder["low.qcow2"], .qcow2), options: options)
    let top = try DiskImage.open(path: folder["top.qcow2"])
    try fill(top, seed: 2)
    let expected = try top.allBytes()
    try DiskImage.flatten(top, downTo: folder["low.qcow2"], to: folder["flat.qcow2"])
    try DiskImage.flatten(top, downTo: folder["top.qcow2"], to: folder["same.qcow2"])
    #expect(throws: StorageError.self) {
      try DiskImage.flatten(top, downTo: folder["image.qcow2"], to: folder["none.qcow2"])
    }
    #expect(throws: StorageError.self) {
      try DiskImage.flatten(top, downTo: folder["low.qcow2"], to: folder["flat.qcow2"])
    }
    try top.close()
    #expect(try folder.content(folder["same.qcow2"]) == expected)
    #expect(try DiskImage.information(path: folder["same.qcow2"]).backingPath == folder["low.qcow2"])
    try FileManager.default.removeItem(atPath: folder["low.qcow2"])
    try folder.check(folder["flat.qcow2"])
    #expect(try folder.content(folder["flat.qcow2"]) == expected)
    #expect(try DiskImage.information(path: folder["flat.qcow2"]).backingPath == folder["image.raw"])
  }

  @Test(arguments: [16, 21])
  func takesInARawBase(bits: Int) throws {
    var random = SeededGenerator(seed: 3)
    try folder.write(
      [UInt8](repeating: 0, count: 1 << 20) + random.bytes(1 << 20) + [UInt8](repeating: 0, count: 512),
      to: folder["base.raw"])
    var options = DiskImage.CreationOptions()
    options.clusterSize = 1 << bits
    try DiskImage.create(
      path: folder["top.qcow2"], format: .qcow2, size: 5 << 20, backing: (folder["base.raw"], .raw), options: options)
    let top = try DiskImage.open(path: folder["top.qcow2"])
    try fill(top, seed: 4)
    let expected = try top.allBytes()
    try DiskImage.flatten(top, downTo: folder["base.raw"], to: folder["flat.qcow2"])
    try top.close()
    try FileManager.default.removeItem(atPath: folder["base.raw"])
    try folder.check(folder["flat.qcow2"])
    #expect(try folder.content(folder["flat.qcow2"]) == expected)
    #expect(try DiskImage.information(path: folder["flat.qcow2"]).backingPath == nil)
  }

  /// Whoever uses the library may say where a disk is from where it is itself.
  @Test func relativePathsLeadToTheSameFromElsewhere() throws {
    try folder.write([UInt8](repeating: 5, count: 1 << 20), to: folder["base.raw"])
    try DiskImage.create(path: folder["top.qcow2"], format: .qcow2, size: nil, backing: ("base.raw", .raw))
    let depth = FileManager.default.currentDirectoryPath.split(separator: "/").count
    let relative = String(repeating: "../", count: depth) + folder["top.qcow2"].drop { $0 == "/" }
    let top = try DiskImage.open(path: relative)
    try FileManager.default.createDirectory(atPath: folder["elsewhere"], withIntermediateDirectories: false)
    try DiskImage.flatten(top, downTo: relative, to: folder["elsewhere/flat.qcow2"])
    try top.close()
    #expect(try folder.content(folder["elsewhere/flat.qcow2"]) == folder.bytes(folder["base.raw"]))
  }
}

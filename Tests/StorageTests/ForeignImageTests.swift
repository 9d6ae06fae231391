import Foundation
import Storage
import Testing

/// Images that QEMU's tools made, read and written by ours.
@Suite struct ForeignImageTests {
  let folder = try! ImageFolder()

  private func source(_ count: Int, seed: UInt64) throws -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    var bytes = [UInt8](repeating: 0, count: count)
    // Data, then a gap, then data again, so that an image has allocated and unallocated clusters.
    let part = count / 5
    bytes.replaceSubrange(0..<part, with: random.bytes(part))
    bytes.replaceSubrange((3 * part)..<(4 * part), with: random.bytes(part))
    return bytes
  }

  static let layouts = [
    "compat=0.10", "compat=1.1", "compat=1.1,lazy_refcounts=on", "cluster_size=512", "cluster_size=4k",
    "cluster_size=2M", "preallocation=metadata", "preallocation=falloc", "preallocation=full", "refcount_bits=1",
    "refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=32", "refcount_bits=64",
    "compat=0.10,cluster_size=1k",
  ]

  @Test(arguments: layouts)
  func readsAndWrites(layout: String) throws {
    var content = try source(5 << 20, seed: 1)
    try folder.write(content, to: folder["source.raw"])
    let image = folder["image.qcow2"]
    try folder.qemuImg("convert", "-f", "raw", "-O", "qcow2", "-o", layout, folder["source.raw"], image)

    let disk = try DiskImage.open(path: image)
    #expect(disk.byteCount == 5 << 20)
    #expect(try disk.allBytes() == content)
    var random = SeededGenerator(seed: 2)
    for _ in 0..<40 {
      let offset = Int.random(in: 0..<(content.count / 512 - 300), using: &random) * 512
      let bytes = random.bytes(Int.random(in: 1...300, using: &random) * 512)
      try disk.write(bytes, at: UInt64(offset))
      content.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    }
    try disk.discard(at: 0, count: 3 << 20)
    content.replaceSubrange(0..<(3 << 20), with: try disk.bytes(at: 0, count: 3 << 20))
    try disk.writeZeroes(at: 512 * 7001, count: 512 * 900, mayUnmap: false)
    content.replaceSubrange((512 * 7001)..<(512 * 7901), with: repeatElement(0, count: 512 * 900))
    #expect(try disk.allBytes() == content)
    try disk.close()
    try folder.check(image)
    #expect(try folder.content(image) == content)
  }

  @Test(arguments: ["zlib", "zstd"], [512, 4096, 65536, 2 << 20])
  func readsCompressedClusters(method: String, clusterSize: Int) throws {
    var content = try source(5 << 20, seed: 3)
    try folder.write(content, to: folder["source.raw"])
    let image = folder["image.qcow2"]
    try folder.qemuImg(
      "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=\(method),cluster_size=\(clusterSize)",
      folder["source.raw"], image)
    #expect(try DiskImage.information(path: image).qcow2?.compressionType == method)

    let reader = try DiskImage.open(path: image, readOnly: true)
    #expect(try reader.allBytes() == content)
    #expect(try reader.bytes(at: 512 * 777, count: 1024) == Array(content[(512 * 777)..<(512 * 779)]))
    try reader.close()

    let disk = try DiskImage.open(path: image)
    var random = SeededGenerator(seed: 4)
    for _ in 0..<30 {
      let offset = Int.random(in: 0..<(content.count / 512 - 20), using: &random) * 512
      let bytes = random.bytes(Int.random(in: 1...20, using: &random) * 512)
      try disk.write(bytes, at: UInt64(offset))
      content.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    }
    try disk.discard(at: 3 << 20, count: 512 << 10)
    content.replaceSubrange((3 << 20)..<(3 << 20 + 512 << 10), with: try disk.bytes(at: 3 << 20, count: 512 << 10))
    try disk.close()
    try folder.check(image)
    #expect(try folder.content(image) == content)
  }

  @Test func readsZeroClusters() throws {
    let image = folder["image.qcow2"]
    try folder.qemuImg("create", "-q", "-f", "qcow2", image, "4M")
    try folder.qemuIO(image, "write -P 7 0 4M", "write -z 128k 256k", "write -z -u 1M 256k", "discard 2M 64k")
    let disk = try DiskImage.open(path: image)
    var expected = [UInt8](repeating: 7, count: 4 << 20)
    for range in [(128 << 10)..<(384 << 10), (1 << 20)..<(1280 << 10), (2 << 20)..<(2 << 20 + 64 << 10)] {
      expected.replaceSubrange(range, with: repeatElement(0, count: range.count))
    }
    #expect(try disk.allBytes() == expected)
    try disk.write([UInt8](repeating: 9, count: 1024), at: 128 << 10 + 512)
    expected.replaceSubrange((128 << 10 + 512)..<(128 << 10 + 1536), with: repeatElement(9, count: 1024))
    try disk.discard(at: 192 << 10, count: 64 << 10)
    #expect(try disk.allBytes() == expected)
    try disk.close()
    try folder.check(image)
    #expect(try folder.content(image) == expected)
  }

  @Test(arguments: ["1.1", "0.10"])
  func keepsInternalSnapshots(version: String) throws {
    let image = folder["image.qcow2"]
    try folder.qemuImg("create", "-q", "-f", "qcow2", "-o", "compat=\(version)", image, "8M")
    try folder.qemuIO(image, "write -P 1 0 2M", "write -P 2 4M 1M")
    try folder.qemuImg("snapshot", "-c", "before", image)
    try folder.qemuIO(image, "write -P 3 1M 64k")
    try folder.qemuImg("snapshot", "-c", "between", image)
    let between = try folder.content(image)

    let disk = try DiskImage.open(path: image)
    #expect(try disk.allBytes() == between)
    try disk.write([UInt8](repeating: 4, count: 300 << 9), at: 1 << 20 - 512)
    try disk.discard(at: 4 << 20, count: 512 << 10)
    try disk.write([UInt8](repeating: 5, count: 4096), at: 6 << 20)
    try disk.flush()
    try disk.write([UInt8](repeating: 6, count: 4096), at: 1 << 20)
    let now = try disk.allBytes()
    try disk.close()
    try folder.check(image)
    #expect(try folder.content(image) == now)
    #expect(try DiskImage.information(path: image).qcow2?.snapshotCount == 2)
    try folder.qemuImg("snapshot", "-a", "between", image)
    #expect(try folder.content(image) == between)
    try folder.qemuImg("snapshot", "-d", "between", image)
    try folder.qemuImg("snapshot", "-d", "before", image)
    try folder.check(image)
  }

  @Test func rebuildsRefcountsOfADirtyImage() throws {
    let image = folder["image.qcow2"]
    try folder.qemuImg("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "64M")
    // qemu-io kills itself before it writes the refcounts.
    _ = try? folder.qemuIO(image, "write -P 5 0 3M", "write -P 6 32M 1M", "flush", "sigraise 9")
    #expect(try DiskImage.information(path: image).qcow2?.isDirty == true)
    #expect(throws: ImageFolder.ToolFailure.self) { try folder.check(image) }

    let reader = try DiskImage.open(path: image, readOnly: true)
    let content = try reader.allBytes()
    #expect(content[0] == 5 && content[32 << 20] == 6)
    try reader.close()

    let disk = try DiskImage.open(path: image)
    #expect(try disk.allBytes() == content)
    try disk.write([UInt8](repeating: 8, count: 1 << 20), at: 16 << 20)
    try disk.close()
    try folder.check(image)
    #expect(try DiskImage.information(path: image).qcow2?.isDirty == false)
    #expect(try folder.content(image)[16 << 20] == 8)
  }

  @Test func dropsUnknownAutoclearFeatures() throws {
    let image = folder["image.qcow2"]
    try folder.qemuImg("create", "-q", "-f", "qcow2", image, "1M")
    var bytes = try folder.bytes(image)
    bytes[88] = 0x80
    try folder.write(bytes, to: image)
    let disk = try DiskImage.open(path: image)
    try disk.close()
    #expect(try folder.bytes(image)[88] == 0)
    try folder.check(image)
  }
}

import Foundation
import Storage
import Testing

/// Random operations on a disk and on an array; both must agree, and QEMU's tools must find the image sound.
@Suite struct RandomOperationTests {
  let folder = try! ImageFolder()

  struct Layout: CustomTestStringConvertible {
    var clusterSize: Int
    var version = 3
    var backing: DiskFormat?
    /// Little memory for tables makes them leave it often, and commits come by themselves.
    var tableMemory = 32 << 20
    var refcountBits = 16

    var testDescription: String {
      "clusters of \(clusterSize), version \(version), \(refcountBits) refcount bits, "
        + "backing \(backing?.rawValue ?? "none"), \(tableMemory) bytes for tables"
    }
  }

  static let layouts = [
    Layout(clusterSize: 65536), Layout(clusterSize: 65536, backing: .raw), Layout(clusterSize: 4096, backing: .qcow2),
    Layout(clusterSize: 512, tableMemory: 0), Layout(clusterSize: 512, backing: .raw, tableMemory: 0),
    Layout(clusterSize: 1024, version: 2, tableMemory: 0), Layout(clusterSize: 4096, version: 2, backing: .raw),
    Layout(clusterSize: 512, tableMemory: 0, refcountBits: 1),
    Layout(clusterSize: 512, tableMemory: 0, refcountBits: 64),
    Layout(clusterSize: 1 << 20),
  ]

  @Test(arguments: layouts, [11, 12, 13])
  func agreesWithAnArray(layout: Layout, seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let size = (3 << 20) + 512 * Int.random(in: 0..<200, using: &random)
    var model = [UInt8](repeating: 0, count: size)
    let image = folder["image.qcow2"]
    var options = ["create", "-q", "-f", "qcow2", "-o"]
    options.append(
      "cluster_size=\(layout.clusterSize),compat=\(layout.version == 2 ? "0.10" : "1.1"),"
        + "refcount_bits=\(layout.refcountBits)")
    if let backing = layout.backing {
      let base = random.bytes(2 << 20)
      model.replaceSubrange(0..<base.count, with: base)
      try folder.write(base, to: folder["base.raw"])
      if backing == .qcow2 {
        try folder.qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", folder["base.raw"], folder["base.qcow2"])
      }
      options += ["-F", backing.rawValue, "-b", folder["base.\(backing.rawValue)"]]
    }
    try folder.run("qemu-img", options + [image, "\(size)"])

    func open() throws -> any BlockStorage {
      let backing = try layout.backing.map {
        try DiskImage.open(path: folder["base.\($0.rawValue)"], readOnly: true, format: $0)
      }
      return try Qcow2Disk(
        DiskFile(path: image, readOnly: false), backing: backing, tableMemory: layout.tableMemory)
    }
    var disk = try open()
    for step in 0..<400 {
      let sectors = Int.random(in: 1...(Bool.random(using: &random) ? 8 : 800), using: &random)
      let first = Int.random(in: 0..<(size / 512 - sectors + 1), using: &random)
      let range = (first * 512)..<((first + sectors) * 512)
      let offset = UInt64(range.lowerBound)
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<50:
        let bytes = random.bytes(range.count)
        try disk.write(bytes, at: offset)
        model.replaceSubrange(range, with: bytes)
      case 50..<75:
        let same = try disk.bytes(at: offset, count: range.count) == Array(model[range])
        try #require(same, "seed \(seed), step \(step)")
      case 75..<83:
        try disk.discard(at: offset, count: UInt64(range.count))
        let after = try disk.bytes(at: offset, count: range.count)
        let isSound = zip(after, model[range]).allSatisfy { $0 == 0 || $0 == $1 }
        try #require(isSound, "seed \(seed), step \(step)")
        model.replaceSubrange(range, with: after)
      case 83..<91:
        try disk.writeZeroes(at: offset, count: UInt64(range.count), mayUnmap: Bool.random(using: &random))
        model.replaceSubrange(range, with: repeatElement(0, count: range.count))
      case 91..<97: try disk.flush()
      default:
        try disk.close()
        if step % 4 == 0 { try folder.check(image) }
        disk = try open()
      }
    }
    let isEqual = try disk.allBytes() == model
    #expect(isEqual, "seed \(seed)")
    try disk.close()
    try folder.check(image)
    let isEqualForQemu = try folder.content(image) == model
    #expect(isEqualForQemu, "seed \(seed)")
  }

  @Test func spaceGoesBackToTheHost() throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 64 << 20)
    let disk = try DiskImage.open(path: image)
    var random = SeededGenerator(seed: 14)
    try disk.write(random.bytes(32 << 20), at: 0)
    try disk.flush()
    #expect(try DiskImage.information(path: image).allocatedSize > 32 << 20)
    try disk.discard(at: 0, count: 64 << 20)
    try disk.flush()
    #expect(try DiskImage.information(path: image).allocatedSize < 4 << 20)
    // The freed clusters are used again.
    try disk.write(random.bytes(32 << 20), at: 0)
    try disk.close()
    #expect(try folder.bytes(image).count < 36 << 20)
    try folder.check(image)
  }

  @Test func metadataDoesNotMakeTheFileGrow() throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 64 << 20, options: .init(clusterSize: 4096))
    let disk = try DiskImage.open(path: image)
    try disk.write([UInt8](repeating: 1, count: 64 << 20), at: 0)
    try disk.flush()
    let before = try DiskImage.information(path: image).allocatedSize
    for round in 0..<500 {
      let offset = UInt64(round % 16) * 4 << 20
      try disk.discard(at: offset, count: 4096)
      try disk.write([UInt8](repeating: UInt8(round & 0xFF), count: 4096), at: offset)
      try disk.flush()
    }
    try disk.close()
    #expect(try DiskImage.information(path: image).allocatedSize < before + 1 << 20)
    try folder.check(image)
  }
}

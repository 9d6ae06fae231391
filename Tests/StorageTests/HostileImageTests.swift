import Foundation
import Storage
import Testing

/// qcow2 images that somebody made to do harm, or that were cut or damaged: they are refused with one line, or their
/// reads fail; nothing else happens.
@Suite struct HostileImageTests {
  let folder = try! ImageFolder()

  /// The bytes of an image, with the numbers in them.
  struct Bytes {
    var all: [UInt8]

    func number(_ offset: Int, _ size: Int = 8) -> UInt64 {
      all[offset..<(offset + size)].reduce(0) { $0 << 8 | UInt64($1) }
    }

    mutating func set(_ offset: Int, _ value: UInt64, size: Int = 8) {
      for index in 0..<size { all[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (size - 1 - index))) }
    }

    var l1: Int { Int(number(40)) }
    var refcountTable: Int { Int(number(48)) }
    var refcountBlock: Int { Int(number(refcountTable)) }
    func l2(_ index: Int) -> Int { Int(number(l1 + 8 * index) & 0x00FF_FFFF_FFFF_FE00) }
  }

  private static let clusterSize = 4096
  /// Each L2 table maps 2 MiB.
  private static let size: UInt64 = 8 << 20

  private func sound(version: Int = 3) throws -> Bytes {
    let path = folder["sound-\(UUID().uuidString).qcow2"]
    try DiskImage.create(
      path: path, format: .qcow2, size: Self.size, options: .init(clusterSize: Self.clusterSize, version: version))
    let disk = try DiskImage.open(path: path)
    var random = SeededGenerator(seed: 1)
    for offset in stride(from: UInt64(0), to: Self.size, by: 1 << 20) { try disk.write(random.bytes(8192), at: offset) }
    try disk.close()
    try folder.check(path)
    return Bytes(all: try folder.bytes(path))
  }

  struct Damage: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var word: String
    var change: @Sendable (inout Bytes) -> Void

    init(_ name: String, says word: String, _ change: @escaping @Sendable (inout Bytes) -> Void) {
      testDescription = name
      self.word = word
      self.change = change
    }
  }

  /// What must be refused when an image is opened for writing.
  static let refused: [Damage] = [
    Damage("version 9", says: "version 9") { $0.set(4, 9, size: 4) },
    Damage("clusters of one byte", says: "clusters of 2^0") { $0.set(20, 0, size: 4) },
    Damage("clusters of 2^63 bytes", says: "clusters of 2^63") { $0.set(20, 63, size: 4) },
    Damage("clusters of 2^(2^32-1) bytes", says: "clusters of 2^4294967295") { $0.set(20, 0xFFFF_FFFF, size: 4) },
    Damage("a disk of 2^64-1 bytes", says: "a disk of 18446744073709551615 bytes") { $0.set(24, .max) },
    Damage("a disk larger than its L1 table", says: "L1 entries") { $0.set(24, 1 << 40) },
    Damage("encrypted", says: "encrypted") { $0.set(32, 1, size: 4) },
    Damage("an L1 table of 2^32-1 entries", says: "L1 table of 4294967295") { $0.set(36, 0xFFFF_FFFF, size: 4) },
    Damage("an L1 table longer than the file", says: "L1 table") { $0.set(36, 4 << 20, size: 4) },
    Damage("an L1 table beyond the end", says: "L1 table") { $0.set(40, 1 << 40) },
    Damage("an L1 table at 2^63", says: "tables") { $0.set(40, 1 << 63) },
    Damage("an L1 table between clusters", says: "tables") { $0.set(40, $0.number(40) + 512) },
    Damage("an L1 table over the header", says: "tables") { $0.set(40, 0) },
    Damage("the L1 table as refcount table", says: "") { $0.set(48, $0.number(40)) },
    Damage("a refcount table beyond the end", says: "refcount table") { $0.set(48, 1 << 40) },
    Damage("a refcount table of 2^32-1 clusters", says: "refcount table") { $0.set(56, 0xFFFF_FFFF, size: 4) },
    Damage("no refcount table", says: "refcount table") { $0.set(56, 0, size: 4) },
    Damage("2^32-1 snapshots", says: "4294967295 snapshots") { $0.set(60, 0xFFFF_FFFF, size: 4) },
    Damage("snapshots beyond the end", says: "snapshot") {
      $0.set(60, 1, size: 4)
      $0.set(64, 1 << 40)
    },
    Damage("snapshots that are data", says: "") {
      $0.set(60, 1000, size: 4)
      $0.set(64, UInt64($0.all.count - 4096))
    },
    Damage("an unknown feature", says: "bit 40") { $0.set(72, 1 << 40) },
    Damage("data in another file", says: "another file") { $0.set(72, 4) },
    Damage("marked corrupt", says: "marked corrupt") { $0.set(72, 2) },
    Damage("refcounts of 2^200 bits", says: "refcounts of 2^200") { $0.set(96, 200, size: 4) },
    Damage("a header of 2^32-8 bytes", says: "4294967288 bytes long") { $0.set(100, 0xFFFF_FFF8, size: 4) },
    Damage("a header extension of 2^32-1 bytes", says: "extension") {
      $0.set(104, 0xE279_2ACA, size: 4)
      $0.set(108, 0xFFFF_FFFF, size: 4)
    },
    Damage("a backing file's name beyond the header", says: "backing file's name") {
      $0.set(8, 1 << 60)
      $0.set(16, 10, size: 4)
    },
    Damage("a backing file's name of 2^32-1 bytes", says: "backing file's name") {
      $0.set(8, 512)
      $0.set(16, 0xFFFF_FFFF, size: 4)
    },
    Damage("an L2 table that is the L1 table", says: "overlaps") { $0.set($0.l1, $0.number(40) | 1 << 63) },
    Damage("an L2 table that is the refcount table", says: "overlaps") { $0.set($0.l1, $0.number(48) | 1 << 63) },
    Damage("one L2 table for two places", says: "overlaps") { $0.set($0.l1 + 8, $0.number($0.l1)) },
    Damage("one L2 table for two places, refcounts to be rebuilt", says: "overlaps") {
      $0.set($0.l1 + 8, $0.number($0.l1))
      $0.set(72, 1)
    },
    Damage("an L2 table beyond the end", says: "beyond its end") { $0.set($0.l1, 1 << 50 | 1 << 63) },
    Damage("an L2 table between clusters", says: "L2 table 0") { $0.set($0.l1, $0.number($0.l1) + 512) },
    Damage("a refcount block that is the refcount table", says: "") { $0.set($0.refcountTable, $0.number(48)) },
    Damage("a refcount block that is the L1 table", says: "") { $0.set($0.refcountTable, $0.number(40)) },
    Damage("a refcount block beyond the end", says: "refcount block 0") { $0.set($0.refcountTable, 1 << 50) },
    Damage("a refcount block between clusters", says: "refcount block 0") {
      $0.set($0.refcountTable, $0.number($0.refcountTable) + 8)
    },
    Damage("tables that are counted as free", says: "counted as free") { bytes in
      for offset in 0..<4096 { bytes.all[bytes.refcountBlock + offset] = 0 }
    },
    Damage("cut after the header", says: "") { $0.all.removeSubrange(4096...) },
    Damage("cut in the header", says: "header") { $0.all.removeSubrange(90...) },
  ]

  private func write(_ bytes: Bytes) throws -> String {
    let path = folder["hostile-\(UUID().uuidString).qcow2"]
    try folder.write(bytes.all, to: path)
    return path
  }

  @Test(arguments: refused)
  func isRefused(damage: Damage) throws {
    var bytes = try sound()
    damage.change(&bytes)
    let path = try write(bytes)
    let error = storageError { try DiskImage.open(path: path).close() }
    #expect(error?.code == .corrupt || error?.code == .unsupported, "\(String(describing: error))")
    #expect(error?.message.contains(path) == true)
    if !damage.word.isEmpty { #expect(error?.message.contains(damage.word) == true, "\(String(describing: error))") }
    #expect(try folder.bytes(path) == bytes.all, "the file was changed")
    // Without writing, less has to be right: any answer will do that isn't a crash.
    if let disk = try? DiskImage.open(path: path, readOnly: true) { _ = try? disk.allBytes() }
  }

  /// Header extensions fill the first cluster, whatever its size; nobody reads all of it without need.
  @Test(arguments: [1000, 3984, 4000, 5000, 60_000])
  func extensionsAreFoundBehindLongOnes(length: Int) throws {
    let path = folder["image.qcow2"]
    try DiskImage.create(path: path, format: .qcow2, size: 1 << 20, options: .init(clusterSize: 65536))
    var bytes = Bytes(all: try folder.bytes(path))
    let begin = Int(bytes.number(100, 4))
    bytes.set(begin, 0x1234_5678, size: 4)
    bytes.set(begin + 4, UInt64(length), size: 4)
    try folder.write(bytes.all, to: path)
    try DiskImage.open(path: path).close()
    // And now one that says that the image is encrypted.
    bytes.set(begin + 8 + length, 0x0537_BE77, size: 4)
    bytes.set(begin + 12 + length, 16, size: 4)
    try folder.write(bytes.all, to: path)
    #expect(storageError { try DiskImage.open(path: path).close() }?.message.contains("encrypted") == true)
    bytes.set(begin + 4, 65536, size: 4)
    try folder.write(bytes.all, to: path)
    #expect(storageError { try DiskImage.open(path: path).close() }?.message.contains("doesn't fit") == true)
  }

  /// Damage that shows where a guest reads.
  @Test(arguments: [
    Damage("data beyond the end", says: "beyond its end") { $0.set($0.l2(0), 1 << 50 | 1 << 63) },
    Damage("data between clusters", says: "where no cluster begins") { $0.set($0.l2(0), $0.number($0.l2(0)) + 512) },
    Damage("a compressed cluster beyond the end", says: "can't be expanded") { $0.set($0.l2(0), 1 << 62 | 1 << 50) },
    Damage("a compressed cluster that is something else", says: "can't be expanded") {
      $0.set($0.l2(0), 1 << 62 | UInt64($0.refcountBlock))
    },
  ])
  func readsFail(damage: Damage) throws {
    var bytes = try sound()
    damage.change(&bytes)
    let path = try write(bytes)
    let disk = try DiskImage.open(path: path)
    let error = storageError { _ = try disk.bytes(at: 0, count: 4096) }
    #expect(error?.code == .corrupt)
    #expect(error?.message.contains(path) == true && error?.message.contains(damage.word) == true)
    // The rest of the disk is as it was.
    var random = SeededGenerator(seed: 1)
    _ = random.bytes(8192)
    #expect(try disk.bytes(at: 1 << 20, count: 8192) == random.bytes(8192))
    try? disk.close()
  }

  @Test(arguments: [2, 3])
  func everyTruncationIsSurvived(version: Int) throws {
    let bytes = try sound(version: version)
    for count in Array(stride(from: 0, to: 120, by: 7)) + Array(stride(from: 120, to: bytes.all.count, by: 1999)) {
      let path = try write(Bytes(all: Array(bytes.all[..<count])))
      for readOnly in [true, false] { exercise(path, readOnly: readOnly, format: .qcow2) }
      try FileManager.default.removeItem(atPath: path)
    }
  }

  @Test(arguments: 1...200 as ClosedRange<UInt64>)
  func randomDamageIsSurvived(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var bytes = try sound(version: seed % 4 == 0 ? 2 : 3)
    let places = [0, bytes.l1, bytes.l2(0), bytes.l2(3), bytes.refcountTable, bytes.refcountBlock]
    let interesting: [UInt64] = [
      0, 1, 512, 4096, 4097, .max, 1 << 62, 1 << 63, 1 << 62 | 4096, 1 << 63 | UInt64(bytes.l1),
      1 << 63 | UInt64(bytes.l2(0)), 1 << 56 - 4096, UInt64(bytes.all.count), 1 << 63 | UInt64(bytes.all.count - 4096),
    ]
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      let place = places.randomElement(using: &random)!
      let length = place == 0 ? 112 : 64
      let offset = place + Int.random(in: 0..<length, using: &random)
      switch Int.random(in: 0..<3, using: &random) {
      case 0: bytes.all[offset] ^= UInt8(1 << Int.random(in: 0..<8, using: &random))
      case 1: bytes.set(offset & ~7, interesting.randomElement(using: &random)!)
      default: bytes.set(offset & ~3, UInt64(UInt32.random(in: 0 ... .max, using: &random)), size: 4)
      }
    }
    let path = try write(bytes)
    for readOnly in [true, false] { exercise(path, readOnly: readOnly, format: nil) }
  }

  /// Opens and uses an image. Errors are right if they are `StorageError`s.
  private func exercise(_ path: String, readOnly: Bool, format: DiskFormat?) {
    func attempt<Result>(_ body: () throws -> Result) -> Result? {
      do { return try body() } catch {
        #expect(error is StorageError, "\(error)")
        return nil
      }
    }
    guard let disk = attempt({ try DiskImage.open(path: path, readOnly: readOnly, format: format) }) else { return }
    let end = min(disk.byteCount, Self.size)
    for offset in stride(from: UInt64(0), to: end &- end % 65536, by: 65536) {
      _ = attempt { try disk.bytes(at: offset, count: 65536) }
    }
    if !readOnly, end >= 1 << 20 {
      for offset in stride(from: UInt64(0), to: end - 65536, by: 512 << 10) {
        _ = attempt { try disk.write([UInt8](repeating: 1, count: 8192), at: offset) }
        _ = attempt { try disk.discard(at: offset + 8192, count: 16384) }
      }
      _ = attempt { try disk.flush() }
    }
    _ = attempt { try disk.close() }
  }
}

/// The header of a qcow2 image with its extensions, checked as far as it can be without the tables it points to.
///
/// Source: docs/interop/qcow2.txt of QEMU, "Header", "Header extensions".
struct Qcow2Header {
  static let magic: UInt32 = 0x5146_49FB

  /// What a reader must understand to use the image at all.
  enum Incompatible {
    static let dirty: UInt64 = 1 << 0
    static let corrupt: UInt64 = 1 << 1
    static let externalData: UInt64 = 1 << 2
    static let compressionType: UInt64 = 1 << 3
    static let extendedL2: UInt64 = 1 << 4
  }
  static let compatibleLazyRefcounts: UInt64 = 1 << 0
  static let autoclearBitmaps: UInt64 = 1 << 0

  enum Compression: UInt8 { case zlib, zstd }

  private enum Extension {
    static let backingFormat: UInt32 = 0xE279_2ACA
    static let bitmaps: UInt32 = 0x2385_2875
    static let encryption: UInt32 = 0x0537_BE77
    static let externalData: UInt32 = 0x4441_5441
  }

  /// Tables larger than these are refused, as every known writer does: 32 MiB of L1, 8 MiB of refcount table.
  static let maximumL1Size = (32 << 20) / 8
  static let maximumRefcountTableBytes: UInt64 = 8 << 20

  var version: UInt32 = 3
  var clusterBits: Int = 16
  var size: UInt64 = 0
  var l1Size = 0
  var l1Offset: UInt64 = 0
  var refcountTableOffset: UInt64 = 0
  var refcountTableClusters = 0
  var snapshotCount = 0
  var snapshotsOffset: UInt64 = 0
  var incompatible: UInt64 = 0
  var compatible: UInt64 = 0
  var autoclear: UInt64 = 0
  var refcountOrder = 4
  var compression = Compression.zlib
  var backingName: String?
  var backingFormat: String?
  var hasBitmaps = false

  var clusterSize: Int { 1 << clusterBits }
  /// 8-byte entries that fit in one cluster.
  var entriesPerCluster: Int { 1 << (clusterBits - 3) }
  /// Bytes of the disk that one L2 table maps.
  var bytesPerL2: UInt64 { UInt64(1) << UInt64(clusterBits * 2 - 3) }
  var refcountsPerBlock: Int { 1 << (clusterBits + 3 - refcountOrder) }
  var isDirty: Bool { incompatible & Incompatible.dirty != 0 }
  var isCorrupt: Bool { incompatible & Incompatible.corrupt != 0 }

  init() {}

  /// Reads and checks the header of `file`.
  init(reading file: DiskFile) throws {
    let path = file.path
    var start = [UInt8](repeating: 0, count: 112)
    let count = try start.withUnsafeMutableBytes { try file.read(at: 0, into: $0) }
    guard count >= 72, start.bigEndian32(at: 0) == Qcow2Header.magic else {
      throw StorageError(.corrupt, "\(path) isn't a whole qcow2 image: its header is cut short")
    }
    version = start.bigEndian32(at: 4)
    guard version == 2 || version == 3 else {
      throw StorageError(
        .unsupported, "\(path) is a qcow2 image of version \(version); convert it to version 3 with qemu-img amend")
    }
    try readFixedPart(start, path)
    try readFeatures(start, available: count, path)
    try checkTables(path)
    let headerLength = version == 2 ? 72 : Int(start.bigEndian32(at: 100))
    try readExtensions(file, headerLength: headerLength, start)
  }

  private mutating func readFixedPart(_ start: [UInt8], _ path: String) throws {
    let bits = start.bigEndian32(at: 20)
    guard (9...21).contains(bits) else {
      throw StorageError(.corrupt, "\(path): the header claims clusters of 2^\(bits) bytes; 2^9 to 2^21 are possible")
    }
    clusterBits = Int(bits)
    size = start.bigEndian64(at: 24)
    guard size <= UInt64(Int64.max) - 511 else {
      throw StorageError(.corrupt, "\(path): the header claims a disk of \(size) bytes, more than there can be")
    }
    guard start.bigEndian32(at: 32) == 0 else {
      throw StorageError(.unsupported, "\(path) is encrypted, which isn't supported; decrypt it with qemu-img convert")
    }
    let l1 = start.bigEndian32(at: 36)
    guard l1 <= Qcow2Header.maximumL1Size else {
      throw StorageError(.corrupt, "\(path): the header claims an L1 table of \(l1) entries, more than there can be")
    }
    l1Size = Int(l1)
    l1Offset = start.bigEndian64(at: 40)
    refcountTableOffset = start.bigEndian64(at: 48)
    let clusters = start.bigEndian32(at: 56)
    guard clusters > 0, UInt64(clusters) << UInt64(clusterBits) <= Qcow2Header.maximumRefcountTableBytes else {
      throw StorageError(
        .corrupt, "\(path): the header claims a refcount table of \(clusters) clusters, which can't be")
    }
    refcountTableClusters = Int(clusters)
    let snapshots = start.bigEndian32(at: 60)
    guard snapshots <= 65536 else {
      throw StorageError(.corrupt, "\(path): the header claims \(snapshots) snapshots, more than there can be")
    }
    snapshotCount = Int(snapshots)
    snapshotsOffset = start.bigEndian64(at: 64)
  }

  private mutating func readFeatures(_ start: [UInt8], available: Int, _ path: String) throws {
    guard version == 3 else { return }
    guard available >= 104 else {
      throw StorageError(.corrupt, "\(path) isn't a whole qcow2 image: its header is cut short")
    }
    incompatible = start.bigEndian64(at: 72)
    compatible = start.bigEndian64(at: 80)
    autoclear = start.bigEndian64(at: 88)
    let order = start.bigEndian32(at: 96)
    guard order <= 6 else {
      throw StorageError(.corrupt, "\(path): the header claims refcounts of 2^\(order) bits; up to 64 are possible")
    }
    refcountOrder = Int(order)
    let length = start.bigEndian32(at: 100)
    guard length >= 104, length % 8 == 0, length <= clusterSize else {
      throw StorageError(.corrupt, "\(path): the header claims to be \(length) bytes long, which can't be")
    }
    if incompatible & Incompatible.externalData != 0 {
      throw StorageError(
        .unsupported,
        "\(path) keeps its data in another file, which isn't supported; make it whole with qemu-img convert")
    }
    if incompatible & Incompatible.extendedL2 != 0 {
      throw StorageError(
        .unsupported, "\(path) has extended L2 entries (subclusters), which aren't supported; convert it without them")
    }
    let unknown = incompatible & ~0b1_1111
    if unknown != 0 {
      throw StorageError(
        .unsupported,
        "\(path) needs the incompatible feature of bit \(unknown.trailingZeroBitCount), which isn't known here; "
          + "convert it with the program that made it")
    }
    let type = length > 104 && available > 104 ? start[104] : 0
    guard let known = Compression(rawValue: type) else {
      throw StorageError(
        .unsupported, "\(path) has clusters compressed by method \(type); zlib (0) and zstd (1) are known")
    }
    compression = known
    guard (incompatible & Incompatible.compressionType != 0) == (known != .zlib) else {
      throw StorageError(
        .corrupt, "\(path): the header's compression type and its feature bit 3 contradict each other")
    }
  }

  private func checkTables(_ path: String) throws {
    let mask = UInt64(clusterSize - 1)
    guard l1Offset & mask == 0, l1Offset > 0 || l1Size == 0, refcountTableOffset & mask == 0, refcountTableOffset > 0,
      max(l1Offset, refcountTableOffset, snapshotsOffset) < 1 << 56
    else {
      throw StorageError(.corrupt, "\(path): the header points to tables where none can be")
    }
    let needed = (size + bytesPerL2 - 1) >> UInt64(clusterBits * 2 - 3)
    guard UInt64(l1Size) >= needed else {
      throw StorageError(
        .corrupt, "\(path): a disk of \(size) bytes needs \(needed) L1 entries, and the header has only \(l1Size)")
    }
    guard snapshotCount == 0 || (snapshotsOffset & 7 == 0 && snapshotsOffset > 0) else {
      throw StorageError(.corrupt, "\(path): the header points to snapshots where none can be")
    }
  }

  private mutating func readExtensions(_ file: DiskFile, headerLength: Int, _ start: [UInt8]) throws {
    // All of the cluster is seldom used.
    if clusterSize > 4096, try readExtensions(file, headerLength: headerLength, start, within: 4096) { return }
    _ = try readExtensions(file, headerLength: headerLength, start, within: clusterSize)
  }

  /// Looks at the image's first bytes only. False: there may be more behind them.
  private mutating func readExtensions(
    _ file: DiskFile, headerLength: Int, _ start: [UInt8], within count: Int
  ) throws -> Bool {
    let path = file.path
    let isAll = count == clusterSize
    let nameOffset = start.bigEndian64(at: 8)
    let nameLength = Int(start.bigEndian32(at: 16))
    let nameEnd = nameOffset.addingReportingOverflow(UInt64(nameLength)).partialValue
    if !isAll, nameOffset > UInt64(count) || nameEnd > UInt64(count) { return false }
    var cluster = [UInt8](repeating: 0, count: count)
    let available = try cluster.withUnsafeMutableBytes { try file.read(at: 0, into: $0) }
    var end = available
    if nameOffset != 0 {
      guard nameLength <= 1023, nameOffset >= UInt64(headerLength), nameOffset <= UInt64(available),
        Int(nameOffset) + nameLength <= available
      else {
        throw StorageError(.corrupt, "\(path): the header points to a backing file's name where none can be")
      }
      end = Int(nameOffset)
      if nameLength > 0 {
        backingName = try Qcow2Header.text(cluster[end..<(end + nameLength)], "backing file's name", path)
      }
    }
    // They end before the name, at the end of the cluster, or where one says so.
    let mayGoOn = !isAll && nameOffset == 0 && available == count
    var position = headerLength
    while position + 8 <= end {
      let kind = cluster.bigEndian32(at: position)
      let length = Int(cluster.bigEndian32(at: position + 4))
      if kind == 0 { return true }
      position += 8
      guard length <= end - position else {
        if mayGoOn { return false }
        throw StorageError(.corrupt, "\(path): a header extension of \(length) bytes doesn't fit in the header")
      }
      let content = cluster[position..<(position + length)]
      switch kind {
      case Extension.backingFormat: backingFormat = try Qcow2Header.text(content, "backing file's format", path)
      case Extension.bitmaps: hasBitmaps = autoclear & Qcow2Header.autoclearBitmaps != 0
      case Extension.encryption, Extension.externalData:
        throw StorageError(.unsupported, "\(path) is encrypted or keeps its data elsewhere, which isn't supported")
      default: break
      }
      position += (length + 7) & ~7
    }
    return !mayGoOn
  }

  private static func text(_ bytes: ArraySlice<UInt8>, _ what: String, _ path: String) throws -> String {
    guard !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else {
      throw StorageError(.corrupt, "\(path): the \(what) isn't text")
    }
    return text
  }

  /// The header as it stands in the file. `backingName` follows the extensions.
  func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBigEndian(Qcow2Header.magic)
    bytes.appendBigEndian(version)
    bytes.appendBigEndian(UInt64(0))
    bytes.appendBigEndian(UInt32(0))
    bytes.appendBigEndian(UInt32(clusterBits))
    bytes.appendBigEndian(size)
    bytes.appendBigEndian(UInt32(0))
    bytes += tablePointers
    if version == 3 {
      bytes += features
      bytes.appendBigEndian(UInt32(refcountOrder))
      bytes.appendBigEndian(UInt32(104))
    }
    if let backingFormat {
      bytes.appendBigEndian(Extension.backingFormat)
      bytes.appendBigEndian(UInt32(backingFormat.utf8.count))
      bytes += backingFormat.utf8
      bytes += repeatElement(0, count: -bytes.count & 7)
    }
    bytes.appendBigEndian(UInt64(0))
    if let backingName {
      var position: [UInt8] = []
      position.appendBigEndian(UInt64(bytes.count))
      position.appendBigEndian(UInt32(backingName.utf8.count))
      bytes.replaceSubrange(8..<20, with: position)
      bytes += backingName.utf8
    }
    return bytes
  }

  /// Bytes 36 to 72: where the tables are.
  private var tablePointers: [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBigEndian(UInt32(l1Size))
    bytes.appendBigEndian(l1Offset)
    bytes.appendBigEndian(refcountTableOffset)
    bytes.appendBigEndian(UInt32(refcountTableClusters))
    bytes.appendBigEndian(UInt32(snapshotCount))
    bytes.appendBigEndian(snapshotsOffset)
    return bytes
  }

  /// Bytes 72 to 96 of version 3.
  private var features: [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendBigEndian(incompatible)
    bytes.appendBigEndian(compatible)
    bytes.appendBigEndian(autoclear)
    return bytes
  }

  /// The part that changes while a disk is used. It lies inside the first sector, so that one write of it takes effect
  /// as a whole or not at all.
  static let changingPartOffset: UInt64 = 36
  var changingPart: [UInt8] { version == 3 ? tablePointers + features : tablePointers }
}

extension [UInt8] {
  func bigEndian32(at offset: Int) -> UInt32 {
    withUnsafeBytes { UInt32(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
  }

  func bigEndian64(at offset: Int) -> UInt64 {
    withUnsafeBytes { UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
  }

  mutating func appendBigEndian(_ value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}

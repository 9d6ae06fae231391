import Glibc

/// A disk in a qcow2 image of version 2 or 3.
///
/// Data goes to the file at once: over the old data where a cluster belongs to this disk alone, else into a cluster that
/// the committed image doesn't use. What maps the disk to clusters (L1, L2 tables, refcounts) changes in memory, and
/// `flush` commits it: the changed tables are written to clusters that the committed image doesn't use either, then
/// everything is made stable, then one write of the header's first sector points to the new tables, and is made stable.
/// So the file is a sound image without leaked clusters at every moment, whether the process or the host dies.
///
/// Source: docs/interop/qcow2.txt.
package final class Qcow2Disk: BlockStorage {
  package let byteCount: UInt64
  package var isReadOnly: Bool { file.isReadOnly }

  let file: DiskFile
  var header: Qcow2Header
  let backing: (any BlockStorage)?
  let clusterMask: UInt64
  let clusterShift: UInt64
  let l2Shift: UInt64

  /// L2 tables that are kept in memory.
  let tableCapacity: Int
  var l1: Qcow2Table
  let l2Tables: Qcow2TableCache
  var changedL2: [Qcow2Table] = []
  /// nil when the disk is read-only.
  var refcounts: Qcow2Refcounts?
  /// From this cluster on the file has never held data, so that it reads as zeroes.
  var pristineFrom: UInt64 = 0
  /// Clusters that a discard has freed; their space goes back to the host after the commit.
  var holes: [Range<UInt64>] = []
  var headerIsChanged = false
  /// Why nothing can be written any more: after a failed flush nobody knows what is on the host's disk.
  var failure: StorageError?
  var compressed: CompressedClusters
  private var buffers: (head: UnsafeMutableRawBufferPointer, tail: UnsafeMutableRawBufferPointer)?

  static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
  static let exclusive: UInt64 = 1 << 63
  static let compressedFlag: UInt64 = 1 << 62
  static let zeroFlag: UInt64 = 1

  /// Takes over `file`. `backing` is what unallocated clusters show. `tableMemory`: bytes for L2 tables and as much for
  /// refcounts; half of it may wait for a commit.
  package convenience init(_ file: DiskFile, backing: (any BlockStorage)? = nil, tableMemory: Int) throws {
    try self.init(file, Qcow2Header(reading: file), backing: backing, tableMemory: tableMemory)
  }

  init(
    _ file: DiskFile, _ header: Qcow2Header, backing: (any BlockStorage)?, tableMemory: Int = 32 << 20
  ) throws {
    self.file = file
    self.header = header
    self.backing = backing
    byteCount = (header.size + 511) / 512 * 512
    clusterMask = UInt64(header.clusterSize - 1)
    clusterShift = UInt64(header.clusterBits)
    l2Shift = UInt64(header.clusterBits * 2 - 3)
    tableCapacity = max(4, tableMemory >> header.clusterBits)
    l2Tables = Qcow2TableCache(capacity: tableCapacity)
    compressed = CompressedClusters(header.compression, clusterSize: header.clusterSize)
    if header.l1Size == 0 {
      l1 = Qcow2Table(index: 0, byteCount: header.clusterSize)
    } else {
      l1 = try Qcow2Table(
        reading: file, index: 0, at: header.l1Offset, byteCount: header.l1Size * 8, clusterBits: header.clusterBits,
        what: "L1 table")
    }
    try checkL1()
    if !file.isReadOnly { try prepareForWriting() }
  }

  deinit {
    buffers?.head.deallocate()
    buffers?.tail.deallocate()
  }

  private func checkL1() throws {
    let fileSize = try file.byteCount()
    for index in 0..<header.l1Size {
      let location = l1.entry(index) & Qcow2Disk.offsetMask
      if location == 0 { continue }
      guard location & clusterMask == 0 else {
        throw StorageError(.corrupt, "\(file.path): L2 table \(index) is said to be at \(location), where none can be")
      }
      guard location < fileSize, fileSize - location >= UInt64(header.clusterSize) else {
        throw StorageError(.corrupt, "\(file.path) is cut short: its L2 table \(index) lies beyond its end")
      }
    }
  }

  private func prepareForWriting() throws {
    if header.isCorrupt {
      throw StorageError(
        .corrupt, "\(file.path) is marked corrupt; repair it with qemu-img check -r all, or open it read-only")
    }
    if header.hasBitmaps {
      throw StorageError(
        .unsupported,
        "\(file.path) has dirty bitmaps, which a write would make wrong; remove them with qemu-img bitmap --remove, "
          + "or open it read-only")
    }
    pristineFrom = try (file.byteCount() + clusterMask) >> clusterShift
    let refcounts = try Qcow2Refcounts(file, header, capacity: tableCapacity)
    self.refcounts = refcounts
    if header.autoclear != 0 {
      // Features that a program which doesn't know them must switch off before it writes.
      header.autoclear = 0
      headerIsChanged = true
    }
    if header.isDirty {
      try rebuildRefcounts()
      try commit()
    } else {
      try checkMetadataIsCounted(refcounts)
    }
  }

  /// The tables must be counted as used and must not overlap, else the allocator would give their clusters to the guest.
  private func checkMetadataIsCounted(_ refcounts: Qcow2Refcounts) throws {
    var seen: Set<UInt64> = []
    func note(_ cluster: UInt64, _ what: String) throws {
      guard seen.insert(cluster).inserted else {
        throw StorageError(
          .corrupt, "\(file.path): its \(what) overlaps another table; repair it with qemu-img check -r all")
      }
      guard try refcounts.count(of: cluster) > 0 else {
        throw StorageError(
          .corrupt, "\(file.path): its \(what) is counted as free; repair it with qemu-img check -r all")
      }
    }
    try note(0, "header")
    for cluster in 0..<UInt64(l1.locationClusters) { try note(l1.location >> clusterShift + cluster, "L1 table") }
    for cluster in refcounts.ownClusters { try note(cluster, "refcount table") }
    for index in 0..<header.l1Size {
      let location = l1.entry(index) & Qcow2Disk.offsetMask
      if location != 0 { try note(location >> clusterShift, "L2 table \(index)") }
    }
    for part in try snapshotTables() {
      for cluster in clusters(at: part.offset, count: part.byteCount) { try note(cluster, "table of snapshots") }
    }
  }

  // MARK: BlockStorage

  package func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    try checkRange(offset, UInt64(buffer.count), in: file.path)
    try readContent(at: offset, into: buffer)
  }

  package func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws {
    try checkWritable(offset, UInt64(buffer.count), in: file.path)
    try checkUsable()
    try writeContent(at: offset, from: buffer)
  }

  package func flush() throws {
    if isReadOnly { return }
    try checkUsable()
    try commit()
  }

  package func discard(at offset: UInt64, count: UInt64) throws {
    try checkWritable(offset, count, in: file.path)
    try checkUsable()
    try discardContent(at: offset, count: count)
  }

  package func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws {
    try checkWritable(offset, count, in: file.path)
    try checkUsable()
    try zeroContent(at: offset, count: count, mayUnmap: mayUnmap)
  }

  package func close() throws {
    defer { file.close() }
    var problem: Error?
    do { try flush() } catch { problem = error }
    do { try backing?.close() } catch { problem = problem ?? error }
    if let problem { throw problem }
  }

  private func checkUsable() throws {
    if let failure { throw failure }
  }

  /// Room for the parts of a cluster before and after what a guest writes.
  func scratch() -> (head: UnsafeMutableRawBufferPointer, tail: UnsafeMutableRawBufferPointer) {
    if let buffers { return buffers }
    func make() -> UnsafeMutableRawBufferPointer { .allocate(byteCount: header.clusterSize, alignment: 4096) }
    let made = (head: make(), tail: make())
    buffers = made
    return made
  }
}

/// Counting anew which clusters are in use, for an image whose last user kept its refcounts in memory ("lazy refcounts")
/// and didn't get to write them.
extension Qcow2Disk {
  private static let maximumSnapshotL1Bytes: UInt64 = 1 << 30
  private static let maximumTablesToCount = 1 << 22

  /// The clusters that a range of the file touches.
  func clusters(at offset: UInt64, count: UInt64) -> Range<UInt64> {
    (offset >> clusterShift)..<((offset + count + clusterMask) >> clusterShift)
  }

  /// The table of internal snapshots and the L1 table of each, in the file.
  func snapshotTables() throws -> [(offset: UInt64, byteCount: UInt64, isL1: Bool)] {
    if header.snapshotCount == 0 { return [] }
    var result: [(offset: UInt64, byteCount: UInt64, isL1: Bool)] = []
    var position = header.snapshotsOffset
    var total: UInt64 = 0
    for number in 0..<header.snapshotCount {
      var entry = [UInt8](repeating: 0, count: 40)
      let count = try entry.withUnsafeMutableBytes { try file.read(at: position, into: $0) }
      guard count == entry.count else {
        throw StorageError(.corrupt, "\(file.path) is cut short: snapshot \(number) lies beyond its end")
      }
      let offset = entry.bigEndian64(at: 0)
      let byteCount = UInt64(entry.bigEndian32(at: 8)) * 8
      let lengths = entry.bigEndian32(at: 12)
      let extra = UInt64(entry.bigEndian32(at: 36))
      total += byteCount
      guard offset & clusterMask == 0, offset < 1 << 56, byteCount <= UInt64(Qcow2Header.maximumL1Size * 8),
        total <= Qcow2Disk.maximumSnapshotL1Bytes, extra <= 1024
      else {
        throw StorageError(.corrupt, "\(file.path): the L1 table of snapshot \(number) can't be where it is said to be")
      }
      result.append((offset, byteCount, true))
      position = (position + 40 + extra + UInt64(lengths >> 16) + UInt64(lengths & 0xFFFF) + 7) & ~7
    }
    return [(header.snapshotsOffset, position - header.snapshotsOffset, false)] + result
  }

  /// Counts every reference, sets the flags that say which clusters are exclusive, and clears the dirty bit. A commit
  /// has to follow.
  func rebuildRefcounts() throws {
    guard let refcounts else { return }
    let snapshots = try snapshotTables()
    refcounts.startRebuilding()
    var tablesLeft = Qcow2Disk.maximumTablesToCount
    try refcounts.addReference(to: 0)
    for cluster in clusters(at: l1.location, count: UInt64(header.l1Size) * 8) {
      try refcounts.addReference(to: cluster)
    }
    try countReferences(of: l1, entries: header.l1Size, refcounts, &tablesLeft)
    for part in snapshots {
      for cluster in clusters(at: part.offset, count: part.byteCount) { try refcounts.addReference(to: cluster) }
      if part.isL1, part.byteCount > 0 {
        let table = try Qcow2Table(
          reading: file, index: 0, at: part.offset, byteCount: Int(part.byteCount), clusterBits: header.clusterBits,
          what: "L1 table of a snapshot")
        try countReferences(of: table, entries: Int(part.byteCount / 8), refcounts, &tablesLeft)
      }
    }
    try markExclusiveClusters(refcounts)
    header.incompatible &= ~Qcow2Header.Incompatible.dirty
    headerIsChanged = true
  }

  private func countReferences(
    of table: Qcow2Table, entries: Int, _ refcounts: Qcow2Refcounts, _ tablesLeft: inout Int
  ) throws {
    var seen: Set<UInt64> = []
    for index in 0..<entries {
      let location = table.entry(index) & Qcow2Disk.offsetMask
      if location == 0 { continue }
      // Besides, a small file could ask for any amount of counting.
      guard seen.insert(location).inserted else {
        throw StorageError(
          .corrupt, "\(file.path): its L2 table \(index) overlaps another table; repair it with qemu-img check -r all")
      }
      tablesLeft -= 1
      guard tablesLeft > 0 else {
        throw StorageError(.corrupt, "\(file.path) is too large to count; repair it with qemu-img check -r all")
      }
      let l2 = try Qcow2Table(
        reading: file, index: index, at: location, byteCount: header.clusterSize, clusterBits: header.clusterBits,
        what: "L2 table \(index)")
      try refcounts.addReference(to: location >> clusterShift)
      for slot in 0..<header.entriesPerCluster where l2.entry(slot) != 0 {
        for cluster in try clusters(of: l2.entry(slot)) { try refcounts.addReference(to: cluster) }
      }
    }
  }

  /// The clusters that an L2 entry refers to.
  private func clusters(of entry: UInt64) throws -> Range<UInt64> {
    if entry & Qcow2Disk.compressedFlag != 0 {
      let (offset, count) = CompressedClusters.extent(of: entry, clusterBits: header.clusterBits)
      return clusters(at: offset, count: UInt64(count))
    }
    let host = entry & Qcow2Disk.offsetMask
    guard host & clusterMask == 0 else {
      throw StorageError(.corrupt, "\(file.path): data is said to be at \(host), where no cluster begins")
    }
    return clusters(at: host, count: host == 0 ? 0 : 1)
  }

  private func markExclusiveClusters(_ refcounts: Qcow2Refcounts) throws {
    for index in 0..<header.l1Size {
      let entry = l1.entry(index)
      let location = entry & Qcow2Disk.offsetMask
      guard location != 0, let table = try l2Table(index) else { continue }
      for slot in 0..<header.entriesPerCluster {
        let old = table.entry(slot)
        guard old & Qcow2Disk.compressedFlag == 0, old & Qcow2Disk.offsetMask != 0 else { continue }
        let count = try refcounts.count(of: (old & Qcow2Disk.offsetMask) >> clusterShift)
        let new = count == 1 ? old | Qcow2Disk.exclusive : old & ~Qcow2Disk.exclusive
        if new != old { try l2TableForWriting(index).setEntry(slot, new) }
      }
      let isExclusive = try refcounts.count(of: location >> clusterShift) == 1
      if isExclusive != (entry & Qcow2Disk.exclusive != 0) {
        l1.setEntry(index, isExclusive ? entry | Qcow2Disk.exclusive : entry & ~Qcow2Disk.exclusive)
        l1.isInTransaction = true
      }
      try commitWhenLarge()
    }
  }
}

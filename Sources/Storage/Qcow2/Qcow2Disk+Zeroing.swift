extension Qcow2Disk {
  /// Gives back the clusters that lie wholly inside a range; parts of clusters keep their content. Version 2 can't hide
  /// a backing file's content without data, so there clusters in front of one stay.
  func discardContent(at offset: UInt64, count: UInt64) throws {
    let (_, whole, _) = parts(of: offset, count)
    try forEachCluster(in: whole, skippingUnmapped: true) { position, entry in
      let covers = backingCovers(position)
      if covers, header.version < 3 { return nil }
      return covers ? Qcow2Disk.zeroFlag : 0
    }
  }

  /// Makes a range read as zeroes.
  func zeroContent(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws {
    let (head, whole, tail) = parts(of: offset, count)
    try writeZeroData(head)
    if header.version >= 3 {
      try forEachCluster(in: whole, skippingUnmapped: backing == nil) { position, entry in
        let plain = backingCovers(position) ? Qcow2Disk.zeroFlag : 0
        switch try classify(entry) {
        case .zero: return nil
        case .unallocated: return plain
        case .data(_, isExclusive: true) where !mayUnmap: return entry | Qcow2Disk.zeroFlag
        case .data, .compressed: return plain
        }
      }
    } else if mayUnmap, backing == nil {
      try discardContent(at: whole.lowerBound, count: UInt64(whole.count))
    } else {
      try writeZeroData(whole)
    }
    try writeZeroData(tail)
  }

  /// The range's part in a cluster that it doesn't begin, its whole clusters, and its part in a cluster that it doesn't
  /// end. A last cluster that goes beyond the end of the disk counts as whole.
  private func parts(of offset: UInt64, _ count: UInt64) -> (Range<UInt64>, Range<UInt64>, Range<UInt64>) {
    let end = offset + count
    let first = (offset + clusterMask) & ~clusterMask
    let last = end == byteCount ? end : end & ~clusterMask
    if first > last { return (offset..<end, end..<end, end..<end) }
    return (offset..<first, first..<last, last..<end)
  }

  /// Goes over whole clusters; `change` gives the new L2 entry for a position and its entry, or nil to keep it.
  private func forEachCluster(
    in range: Range<UInt64>, skippingUnmapped: Bool, _ change: (UInt64, UInt64) throws -> UInt64?
  ) throws {
    var position = range.lowerBound
    while position < range.upperBound {
      let index = Int(position >> l2Shift)
      let tableEnd = min(range.upperBound, UInt64(index + 1) << l2Shift)
      let existing = try l2Table(index)
      // Without a table every cluster is unmapped, and beyond the backing file that is as good as zeroes.
      if existing == nil, skippingUnmapped || !backingCovers(position) {
        position = tableEnd
        continue
      }
      try commitWhenLarge()
      while position < tableEnd {
        let slot = Int(position & (header.bytesPerL2 - 1)) >> header.clusterBits
        let entry = existing?.entry(slot) ?? 0
        let isUnmapped = entry & (Qcow2Disk.offsetMask | Qcow2Disk.compressedFlag | Qcow2Disk.zeroFlag) == 0
        if !(isUnmapped && skippingUnmapped), let new = try change(position, entry), new != entry {
          let table = try l2TableForWriting(index)
          if new & Qcow2Disk.offsetMask == 0, let freed = try release(entry) { noteHole(freed) }
          table.setEntry(slot, new)
        }
        position += clusterMask + 1
      }
      position = tableEnd
    }
  }

  private func noteHole(_ cluster: UInt64) {
    if let last = holes.last, last.upperBound == cluster {
      holes[holes.count - 1] = last.lowerBound..<(cluster + 1)
    } else {
      holes.append(cluster..<(cluster + 1))
    }
  }

  private func writeZeroData(_ range: Range<UInt64>) throws {
    var position = range.lowerBound
    let zeroes = [UInt8](repeating: 0, count: Int(min(UInt64(range.count), 1 << 20)))
    try zeroes.withUnsafeBytes { bytes in
      while position < range.upperBound {
        let (extent, length) = try extent(at: position, limit: min(range.upperBound - position, UInt64(bytes.count)))
        switch extent {
        case .zero: break
        case .unallocated where !backingCovers(position): break
        default: try writeContent(at: position, from: UnsafeRawBufferPointer(rebasing: bytes[..<Int(length)]))
        }
        position += length
      }
    }
  }
}

import Glibc

extension Qcow2Disk {
  /// Writes a range that lies inside the disk.
  func writeContent(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws {
    try commitWhenLarge()
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
      let (extent, length) = try extent(at: position, limit: UInt64(rest.count))
      if case .data(let host, isExclusive: true) = extent {
        try file.write(at: host, UnsafeRawBufferPointer(rebasing: rest[..<Int(length)]))
        done += Int(length)
      } else {
        done += try writeToNewClusters(at: position, from: rest, known: length)
      }
    }
  }

  /// Writes the beginning of `buffer` to clusters taken into use for it, as many as are neighbours, and returns the
  /// number of bytes written. `known`: bytes from `offset` on that are known not to be writable in place.
  private func writeToNewClusters(at offset: UInt64, from buffer: UnsafeRawBufferPointer, known: UInt64) throws -> Int {
    guard let refcounts else { return buffer.count }
    let wanted = try newLength(at: offset, count: UInt64(buffer.count), known: known)
    let clusterSize = clusterMask + 1
    let inCluster = offset & clusterMask
    let table = try l2TableForWriting(Int(offset >> l2Shift))
    let clusters = try refcounts.allocate(upTo: Int((inCluster + wanted + clusterMask) >> clusterShift))
    var linked = clusters.lowerBound
    do {
      let length = min(wanted, UInt64(clusters.count) * clusterSize - inCluster)
      try write(
        UnsafeRawBufferPointer(rebasing: buffer[..<Int(length)]), at: offset, to: clusters.lowerBound << clusterShift)
      var index = Int(offset & (header.bytesPerL2 - 1)) >> header.clusterBits
      while linked < clusters.upperBound {
        try release(table.entry(index))
        table.setEntry(index, linked << clusterShift | Qcow2Disk.exclusive)
        linked += 1
        index += 1
      }
      return Int(length)
    } catch {
      try refcounts.unallocate(linked..<clusters.upperBound)
      throw error
    }
  }

  /// How far from `offset` on the same L2 table has only clusters that can't be written in place.
  private func newLength(at offset: UInt64, count: UInt64, known: UInt64) throws -> UInt64 {
    let limit = min(count, header.bytesPerL2 - offset & (header.bytesPerL2 - 1))
    var length = min(known, limit)
    while length < limit {
      let (extent, more) = try extent(at: offset + length, limit: limit - length)
      if case .data(_, isExclusive: true) = extent { break }
      length += more
    }
    return length
  }

  /// Writes `bytes` into new clusters that begin at `host`, together with what the disk shows before and after them in
  /// the same clusters.
  private func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, to host: UInt64) throws {
    let clusterSize = clusterMask + 1
    let end = offset + UInt64(bytes.count)
    let headCount = offset & clusterMask
    let tailCount = (clusterSize - end & clusterMask) & clusterMask
    let isPristine = host >> clusterShift >= pristineFrom
    pristineFrom = max(pristineFrom, (host + headCount + UInt64(bytes.count) + clusterMask) >> clusterShift)
    if headCount == 0, tailCount == 0 { return try file.write(at: host, bytes) }
    let (head, tail) = scratch()
    var pieces = [bytes]
    var start = host + headCount
    if headCount > 0, try !(isPristine && showsZeroes(at: offset - headCount)) {
      let part = UnsafeMutableRawBufferPointer(rebasing: head[..<Int(headCount)])
      try readContent(at: offset - headCount, into: part)
      pieces.insert(UnsafeRawBufferPointer(part), at: 0)
      start = host
    }
    if tailCount > 0, try !(isPristine && showsZeroes(at: end - 1 & ~clusterMask)) {
      let part = UnsafeMutableRawBufferPointer(rebasing: tail[..<Int(tailCount)])
      // The last cluster may go beyond the end of the disk.
      let inside = Int(min(tailCount, byteCount - end))
      try readContent(at: end, into: UnsafeMutableRawBufferPointer(rebasing: part[..<inside]))
      if inside < part.count { memset(part.baseAddress! + inside, 0, part.count - inside) }
      pieces.append(UnsafeRawBufferPointer(part))
    }
    try file.write(at: start, pieces)
  }

  /// Whether the cluster at `offset` is known to read as zeroes now.
  private func showsZeroes(at offset: UInt64) throws -> Bool {
    switch try extent(at: offset & ~clusterMask, limit: 1).0 {
    case .zero: true
    case .unallocated: !backingCovers(offset & ~clusterMask)
    case .data, .compressed: false
    }
  }

  /// The L2 table of an L1 index, on the list of those that the next commit writes; a new one where there is none.
  func l2TableForWriting(_ index: Int) throws -> Qcow2Table {
    let table: Qcow2Table
    if let existing = try l2Table(index) {
      table = existing
    } else {
      table = Qcow2Table(index: index, byteCount: header.clusterSize)
      keep(table)
    }
    if !table.isInTransaction {
      table.isInTransaction = true
      changedL2.append(table)
    }
    return table
  }

  /// Lets go of the clusters that an L2 entry refers to. Returns the cluster that became free, if it was one of its own.
  @discardableResult
  func release(_ entry: UInt64) throws -> UInt64? {
    guard let refcounts else { return nil }
    if entry & Qcow2Disk.compressedFlag != 0 {
      let (offset, count) = CompressedClusters.extent(of: entry, clusterBits: header.clusterBits)
      for cluster in (offset >> clusterShift)...((offset + UInt64(count) - 1) >> clusterShift) {
        try refcounts.release(cluster)
      }
      return nil
    }
    let host = entry & Qcow2Disk.offsetMask
    if host == 0 { return nil }
    guard host & clusterMask == 0 else {
      throw StorageError(.corrupt, "\(file.path): data is said to be at \(host), where no cluster begins")
    }
    return try refcounts.release(host >> clusterShift) ? host >> clusterShift : nil
  }
}

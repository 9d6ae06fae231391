import Glibc

/// What a stretch of the disk is in the image.
enum Qcow2Extent {
  /// At this offset of the file. `isExclusive`: nothing else (a snapshot) uses the cluster, so it may be written over.
  case data(UInt64, isExclusive: Bool)
  case zero
  /// Shows the backing file, or zeroes.
  case unallocated
  /// One compressed cluster, described by this L2 entry.
  case compressed(UInt64)
}

extension Qcow2Disk {
  // MARK: Mapping

  /// The L2 table of an L1 index, nil when there is none.
  func l2Table(_ index: Int) throws -> Qcow2Table? {
    if let table = l2Tables.table(at: index) { return table }
    let location = l1.entry(index) & Qcow2Disk.offsetMask
    if location == 0 { return nil }
    let table = try Qcow2Table(
      reading: file, index: index, at: location, byteCount: header.clusterSize, clusterBits: header.clusterBits,
      what: "L2 table \(index)")
    keep(table)
    return table
  }

  func keep(_ table: Qcow2Table) {
    if let evicted = l2Tables.insert(table) { refcounts?.forgetTwin(of: evicted) }
  }

  func classify(_ entry: UInt64) throws -> Qcow2Extent {
    if entry & Qcow2Disk.compressedFlag != 0 { return .compressed(entry) }
    if entry & Qcow2Disk.zeroFlag != 0, header.version >= 3 { return .zero }
    let host = entry & Qcow2Disk.offsetMask
    if host == 0 { return .unallocated }
    guard host & clusterMask == 0 else {
      throw StorageError(.corrupt, "\(file.path): data is said to be at \(host), where no cluster begins")
    }
    return .data(host, isExclusive: entry & Qcow2Disk.exclusive != 0)
  }

  /// What is at `offset`, and for how many of the next `limit` bytes that goes on (neighbours in the file for data).
  func extent(at offset: UInt64, limit: UInt64) throws -> (Qcow2Extent, UInt64) {
    let inTable = offset & (header.bytesPerL2 - 1)
    let available = min(limit, header.bytesPerL2 - inTable)
    guard let table = try l2Table(Int(offset >> l2Shift)) else { return (.unallocated, available) }
    var index = Int(inTable >> clusterShift)
    let inCluster = offset & clusterMask
    let first = try classify(table.entry(index))
    var count = clusterMask + 1 - inCluster
    if case .compressed = first { return (first, min(count, available)) }
    while count < available {
      index += 1
      let next = try classify(table.entry(index))
      switch (first, next) {
      case (.data(let start, let exclusive), .data(let host, let other))
      where exclusive == other && start + inCluster + count == host:
        break
      case (.zero, .zero), (.unallocated, .unallocated): break
      default: return (moved(first, by: inCluster), count)
      }
      count += clusterMask + 1
    }
    return (moved(first, by: inCluster), min(count, available))
  }

  private func moved(_ extent: Qcow2Extent, by bytes: UInt64) -> Qcow2Extent {
    if case .data(let host, let exclusive) = extent { return .data(host + bytes, isExclusive: exclusive) }
    return extent
  }

  // MARK: Content

  /// Reads a range that lies inside the disk.
  func readContent(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let (extent, length) = try extent(at: position, limit: UInt64(buffer.count - done))
      let part = UnsafeMutableRawBufferPointer(rebasing: buffer[done..<(done + Int(length))])
      switch extent {
      case .data(let host, _): try readData(at: host, into: part)
      case .zero: memset(part.baseAddress!, 0, part.count)
      case .unallocated: try readBacking(at: position, into: part)
      case .compressed(let entry):
        try compressed.read(
          entry, from: Int(position & clusterMask), into: part, clusterBits: header.clusterBits, in: file)
      }
      done += Int(length)
    }
  }

  private func readData(at host: UInt64, into part: UnsafeMutableRawBufferPointer) throws {
    let count = try file.read(at: host, into: part)
    if count == part.count { return }
    // The last cluster of a file needn't be whole, but it must begin inside the file.
    let lastCluster = (host + UInt64(part.count) - 1) & ~clusterMask
    guard try file.byteCount() > lastCluster else {
      throw StorageError(.corrupt, "\(file.path) is cut short: data at \(lastCluster) lies beyond its end")
    }
    memset(part.baseAddress! + count, 0, part.count - count)
  }

  private func readBacking(at offset: UInt64, into part: UnsafeMutableRawBufferPointer) throws {
    var count = 0
    if let backing, offset < backing.byteCount {
      count = Int(min(UInt64(part.count), backing.byteCount - offset))
      try backing.read(at: offset, into: UnsafeMutableRawBufferPointer(rebasing: part[..<count]))
    }
    if count < part.count { memset(part.baseAddress! + count, 0, part.count - count) }
  }

  /// Whether unallocated clusters from `offset` on show something of the backing file.
  func backingCovers(_ offset: UInt64) -> Bool {
    if let backing { return offset < backing.byteCount }
    return false
  }
}

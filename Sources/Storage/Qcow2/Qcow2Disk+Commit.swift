extension Qcow2Disk {
  /// Bounds the memory that waits for a commit, for guests that never flush.
  func commitWhenLarge() throws {
    if changedL2.count >= tableCapacity / 2 || holes.count >= 1 << 16 || refcounts?.isTransactionLarge == true {
      try commit()
    }
  }

  /// Makes everything written so far stable, and the changed tables part of the image.
  func commit() throws {
    guard let refcounts else { return }
    guard !changedL2.isEmpty || l1.isInTransaction || refcounts.hasChanges || headerIsChanged else {
      return try failing { try file.synchronize() }
    }
    var next = header
    do {
      try place(refcounts)
    } catch let error as StorageError where error.code == .corrupt {
      failure = error
      throw error
    }
    let tables = changedL2 + (l1.isInTransaction ? [l1] : []) + refcounts.tablesInTransaction
    // Nothing refers to these places yet, so when the host's disk is full here, the commit can be tried again.
    for table in tables {
      for range in table.rangesToWrite {
        let part = UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(table.memory)[range])
        try file.write(at: table.target + UInt64(range.lowerBound), part)
      }
    }
    if l1.isInTransaction { next.l1Offset = l1.target }
    if refcounts.table.isInTransaction {
      next.refcountTableOffset = refcounts.table.target
      next.refcountTableClusters = refcounts.table.memory.count >> header.clusterBits
    }
    try failing {
      try file.synchronize()
      try next.changingPart.withUnsafeBytes { try file.write(at: Qcow2Header.changingPartOffset, $0) }
      try file.synchronize()
    }
    header = next
    headerIsChanged = false
    refcounts.finish(tables)
    for table in tables {
      pristineFrom = max(pristineFrom, (table.location >> clusterShift) + UInt64(table.locationClusters))
    }
    changedL2 = []
    try giveBackHoles()
  }

  private func place(_ refcounts: Qcow2Refcounts) throws {
    for table in changedL2 where table.target == 0 {
      try refcounts.place(table)
      l1.setEntry(table.index, table.target | Qcow2Disk.exclusive)
      l1.isInTransaction = true
    }
    if l1.isInTransaction { try refcounts.place(l1) }
    try refcounts.placeOwnTables()
  }

  /// After the host has failed to make something stable, nobody knows what is on its disk, and trying again proves
  /// nothing: the host forgets what it couldn't write.
  private func failing(_ body: () throws -> Void) throws {
    do {
      try body()
    } catch {
      failure = StorageError(
        .hostFailure, "\(file.path) can't be written any more since a flush failed (\(error)); check the host's disk")
      throw error
    }
  }

  /// The committed image doesn't use these clusters, and neither does anything else yet.
  private func giveBackHoles() throws {
    let freed = holes
    holes = []
    for hole in freed {
      let count = UInt64(hole.count) << clusterShift
      guard try file.punchHole(at: hole.lowerBound << clusterShift, count: count) else { return }
    }
  }
}

/// Which clusters of a qcow2 image are in use: the refcount table and its blocks, and the allocator that works on them.
///
/// A cluster that the committed image still uses is never given out, even when this transaction has let go of it: it
/// waits in `limbo` until the commit. That, with tables that are never written over, is why the file is at every moment
/// a sound image: either the one of the last commit or the next one.
///
/// Source: docs/interop/qcow2.txt, "Host cluster management".
final class Qcow2Refcounts {
  private let file: DiskFile
  private let clusterBits: Int
  private let order: Int
  private let blockEntries: UInt64
  private(set) var table: Qcow2Table
  private let blocks: Qcow2TableCache
  private let capacity: Int
  private var changedBlocks: [Qcow2Table] = []
  private var limbo: Set<UInt64> = []
  private var twins: Set<UInt64> = []
  /// No cluster below this number can be given out.
  private var freeHint: UInt64 = 0

  private static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00

  /// Reads the refcount table of the image.
  init(_ file: DiskFile, _ header: Qcow2Header, capacity: Int) throws {
    self.file = file
    clusterBits = header.clusterBits
    order = header.refcountOrder
    blockEntries = UInt64(header.refcountsPerBlock)
    blocks = Qcow2TableCache(capacity: capacity)
    self.capacity = max(4, capacity)
    table = try Qcow2Table(
      reading: file, index: 0, at: header.refcountTableOffset, byteCount: header.refcountTableClusters << clusterBits,
      clusterBits: clusterBits, what: "refcount table")
    let fileSize = try file.byteCount()
    for index in 0..<tableEntries where table.entry(index) != 0 {
      let location = table.entry(index)
      guard location % UInt64(1 << clusterBits) == 0, location < fileSize else {
        throw StorageError(.corrupt, "\(file.path): refcount block \(index) isn't inside the file")
      }
    }
  }

  private var tableEntries: Int { table.memory.count / 8 }

  /// Clusters of the table and the blocks, as the file has them now.
  var ownClusters: [UInt64] {
    let first = table.location >> UInt64(clusterBits)
    return (0..<UInt64(table.locationClusters)).map { first + $0 }
      + (0..<tableEntries).compactMap {
        table.entry($0) == 0 ? nil : table.entry($0) >> UInt64(clusterBits)
      }
  }

  // MARK: Counts

  func count(of cluster: UInt64) throws -> UInt64 {
    guard let index = Int(exactly: cluster / blockEntries), let block = try block(index) else { return 0 }
    return value(block, Int(cluster % blockEntries))
  }

  private func block(_ index: Int) throws -> Qcow2Table? {
    if let block = blocks.table(at: index) { return block }
    guard index < tableEntries else { return nil }
    let location = table.entry(index) & Qcow2Refcounts.offsetMask
    guard location != 0 else { return nil }
    let block = try Qcow2Table(
      reading: file, index: index, at: location, byteCount: 1 << clusterBits, clusterBits: clusterBits,
      what: "refcount block \(index)")
    keep(block)
    return block
  }

  private func keep(_ block: Qcow2Table) {
    if let evicted = blocks.insert(block) { forgetTwin(of: evicted) }
  }

  private func makeBlock(_ index: Int) throws -> Qcow2Table {
    if index >= tableEntries { try growTable(toHold: index) }
    let block = Qcow2Table(index: index, byteCount: 1 << clusterBits)
    addToTransaction(block)
    keep(block)
    return block
  }

  private func addToTransaction(_ block: Qcow2Table) {
    if block.isInTransaction { return }
    block.isInTransaction = true
    changedBlocks.append(block)
  }

  private func growTable(toHold index: Int) throws {
    let old = table
    let clusterSize = 1 << clusterBits
    let entries = max(index + 1, tableEntries + tableEntries / 2)
    let byteCount = (entries * 8 + clusterSize - 1) / clusterSize * clusterSize
    guard UInt64(byteCount) <= Qcow2Header.maximumRefcountTableBytes else {
      throw StorageError(
        .noSpace, "\(file.path) can't grow further with its cluster size; convert it to an image with larger clusters")
    }
    let grown = Qcow2Table(
      index: 0, byteCount: byteCount, location: old.location, locationClusters: old.locationClusters)
    grown.memory.copyMemory(from: UnsafeRawBufferPointer(old.memory))
    grown.noteWholeChange()
    grown.isInTransaction = true
    // Placed earlier in this transaction: its old location is released already, its new one isn't needed.
    grown.locationIsReleased = old.locationIsReleased
    let unneeded = old.target
    forgetTwin(of: old)
    table = grown
    if unneeded != 0 {
      let first = unneeded >> UInt64(clusterBits)
      try unallocate(first..<(first + UInt64(old.memory.count >> clusterBits)))
    }
  }

  private func setCount(of cluster: UInt64, to count: UInt64) throws {
    guard let index = Int(exactly: cluster / blockEntries) else {
      throw StorageError(.corrupt, "\(file.path): cluster \(cluster) can't be")
    }
    let block = try block(index) ?? makeBlock(index)
    addToTransaction(block)
    setValue(block, Int(cluster % blockEntries), count)
  }

  private func value(_ block: Qcow2Table, _ index: Int) -> UInt64 {
    let base = block.memory.baseAddress!
    switch order {
    case 6: return block.entry(index)
    case 5: return UInt64(UInt32(bigEndian: base.load(fromByteOffset: index &* 4, as: UInt32.self)))
    case 4: return UInt64(UInt16(bigEndian: base.load(fromByteOffset: index &* 2, as: UInt16.self)))
    default:
      let bits = 1 << order
      let bit = index &* bits
      return UInt64(base.load(fromByteOffset: bit >> 3, as: UInt8.self)) >> UInt64(bit & 7) & ((1 << UInt64(bits)) - 1)
    }
  }

  private func setValue(_ block: Qcow2Table, _ index: Int, _ value: UInt64) {
    let base = block.memory.baseAddress!
    let bits = 1 << order
    let byte = (index &* bits) >> 3
    switch order {
    case 6: base.storeBytes(of: value.bigEndian, toByteOffset: byte, as: UInt64.self)
    case 5: base.storeBytes(of: UInt32(truncatingIfNeeded: value).bigEndian, toByteOffset: byte, as: UInt32.self)
    case 4: base.storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: byte, as: UInt16.self)
    default:
      let shift = UInt64((index &* bits) & 7)
      let mask = ((UInt64(1) << UInt64(bits)) - 1) << shift
      let old = UInt64(base.load(fromByteOffset: byte, as: UInt8.self))
      base.storeBytes(
        of: UInt8(truncatingIfNeeded: old & ~mask | (value << shift & mask)), toByteOffset: byte, as: UInt8.self)
    }
    block.noteChange(atByte: byte)
  }

  // MARK: Giving out and taking back

  /// Takes at least one and at most `count` neighbouring clusters into use. Where no data has been before, the file has
  /// a hole or ends.
  func allocate(upTo count: Int) throws -> Range<UInt64> { try allocate(minimum: 1, maximum: count) }

  private func allocate(minimum: Int, maximum: Int) throws -> Range<UInt64> {
    let run = try findRun(minimum: UInt64(minimum), maximum: UInt64(maximum))
    for cluster in run { try setCount(of: cluster, to: 1) }
    if minimum == 1 || run.lowerBound == freeHint { freeHint = run.upperBound }
    return run
  }

  private func findRun(minimum: UInt64, maximum: UInt64) throws -> Range<UInt64> {
    let limit = UInt64(1) << UInt64(56 - clusterBits)
    var start = freeHint
    var cluster = freeHint
    while cluster < limit {
      let block = try block(Int(cluster / blockEntries))
      let blockEnd = (cluster / blockEntries + 1) * blockEntries
      while cluster < blockEnd {
        let isFree = block.map { value($0, Int(cluster % blockEntries)) == 0 } ?? true
        if isFree, !limbo.contains(cluster), !twins.contains(cluster) {
          cluster += 1
          if cluster - start == maximum { return start..<cluster }
        } else {
          if cluster - start >= minimum { return start..<cluster }
          cluster += 1
          start = cluster
        }
      }
    }
    throw StorageError(.noSpace, "\(file.path) can't grow further")
  }

  /// Takes back clusters that this transaction gave out and that nothing refers to.
  func unallocate(_ clusters: Range<UInt64>) throws {
    for cluster in clusters { try setCount(of: cluster, to: 0) }
    if !clusters.isEmpty { freeHint = min(freeHint, clusters.lowerBound) }
  }

  /// One reference to `cluster` less. Returns whether that was the last one.
  @discardableResult
  func release(_ cluster: UInt64) throws -> Bool {
    let count = try count(of: cluster)
    guard count > 0 else {
      throw StorageError(
        .corrupt, "\(file.path): cluster \(cluster) is used but counted as free; repair it with qemu-img check -r all")
    }
    try setCount(of: cluster, to: count - 1)
    if count == 1 { limbo.insert(cluster) }
    return count == 1
  }

  /// One reference more, while the counts are rebuilt.
  func addReference(to cluster: UInt64) throws {
    let count = try count(of: cluster)
    guard order == 6 || count < (UInt64(1) << UInt64(1 << order)) - 1 else {
      throw StorageError(.corrupt, "\(file.path): cluster \(cluster) is used more often than its refcount can say")
    }
    guard changedBlocks.count < max(4, (256 << 20) >> clusterBits) else {
      throw StorageError(
        .corrupt, "\(file.path): its clusters are too scattered to count; repair it with qemu-img check -r all")
    }
    try setCount(of: cluster, to: count + 1)
  }

  /// Forgets all counts, to count anew with `addReference`. The places of the old tables stay untouched until the
  /// commit.
  func startRebuilding() {
    limbo.formUnion(ownClusters)
    blocks.removeAll()
    changedBlocks = []
    let old = table
    table = Qcow2Table(index: 0, byteCount: old.memory.count, location: old.location)
    table.noteWholeChange()
    table.isInTransaction = true
    table.locationIsReleased = true
  }

  // MARK: Commit

  /// The transaction is large enough to be committed before more is added.
  var isTransactionLarge: Bool { limbo.count >= 1 << 16 || changedBlocks.count >= capacity / 2 }

  var hasChanges: Bool { !changedBlocks.isEmpty || table.isInTransaction }

  /// Decides where the next commit writes `table`, and lets go of the place it has now.
  func place(_ table: Qcow2Table) throws {
    guard table.target == 0 else { return }
    let clusters = table.memory.count >> clusterBits
    if table.twin != 0 {
      let first = table.twin >> UInt64(clusterBits)
      for cluster in first..<(first + UInt64(clusters)) { try setCount(of: cluster, to: 1) }
      table.target = table.twin
    } else {
      table.target = try allocate(minimum: clusters, maximum: clusters).lowerBound << UInt64(clusterBits)
    }
    guard table.location != 0, !table.locationIsReleased else { return }
    table.locationIsReleased = true
    let first = table.location >> UInt64(clusterBits)
    var isFree = true
    for cluster in first..<(first + UInt64(table.locationClusters)) {
      if try !release(cluster) { isFree = false }
    }
    table.leavesFreePlace = isFree && table.locationClusters == clusters
  }

  /// Places the changed blocks and the table. Placing changes counts, which may change more blocks, until none is left.
  func placeOwnTables() throws {
    var next = 0
    repeat {
      while next < changedBlocks.count {
        let block = changedBlocks[next]
        try place(block)
        table.setEntry(block.index, block.target)
        table.isInTransaction = true
        next += 1
      }
      if table.isInTransaction { try place(table) }
    } while next < changedBlocks.count || (table.isInTransaction && table.target == 0)
  }

  /// Everything of its own that the commit writes.
  var tablesInTransaction: [Qcow2Table] { changedBlocks + (table.isInTransaction ? [table] : []) }

  /// The commit is on stable storage: the old places are free.
  func finish(_ tables: [Qcow2Table]) {
    for table in tables {
      removeTwin(table.target, table.memory.count >> clusterBits)
      let changed = table.forgetChanges()
      if table.leavesFreePlace {
        table.twin = table.location
        table.twinStale = changed
        let first = table.location >> UInt64(clusterBits)
        twins.formUnion(first..<(first + UInt64(table.locationClusters)))
      } else {
        table.twin = 0
      }
      table.location = table.target
      table.locationClusters = table.memory.count >> clusterBits
      table.target = 0
      table.leavesFreePlace = false
      table.locationIsReleased = false
      table.isInTransaction = false
    }
    changedBlocks = []
    for cluster in limbo where !twins.contains(cluster) { freeHint = min(freeHint, cluster) }
    limbo.removeAll(keepingCapacity: limbo.count < 1024)
  }

  /// The table leaves memory, so its twin's content can't be followed any more.
  func forgetTwin(of table: Qcow2Table) {
    guard table.twin != 0 else { return }
    removeTwin(table.twin, table.memory.count >> clusterBits)
    freeHint = min(freeHint, table.twin >> UInt64(clusterBits))
    table.twin = 0
  }

  private func removeTwin(_ location: UInt64, _ clusters: Int) {
    let first = location >> UInt64(clusterBits)
    for cluster in first..<(first + UInt64(clusters)) { twins.remove(cluster) }
  }
}

extension Qcow2Table {
  /// Reads a whole table from the file.
  convenience init(
    reading file: DiskFile, index: Int, at location: UInt64, byteCount: Int, clusterBits: Int, what: String
  ) throws {
    let cluster = 1 << clusterBits
    guard location & UInt64(cluster - 1) == 0, location > 0, location < 1 << 56 else {
      throw StorageError(.corrupt, "\(file.path): the \(what) is said to be at \(location), where none can be")
    }
    let clusters = (byteCount + cluster - 1) / cluster
    self.init(index: index, byteCount: clusters * cluster, location: location, locationClusters: clusters)
    let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<byteCount])
    let isLarge = byteCount >= Self.leastMapped
    let count = try isLarge ? file.readContent(at: location, into: part) : file.read(at: location, into: part)
    guard count == byteCount else {
      throw StorageError(.corrupt, "\(file.path) is cut short: its \(what) lies beyond its end")
    }
  }
}

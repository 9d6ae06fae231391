import Glibc

/// A metadata table of a qcow2 image in memory, in the byte order of the file: the L1 table, the refcount table, an L2
/// table or a refcount block.
///
/// A table is never written over: a commit writes its new content to other clusters (`target`), and the place it leaves
/// stays reserved for it (`twin`), so that the commit after that one has to write only what has changed since.
final class Qcow2Table {
  static let pageSize = 4096
  /// Bytes from which on a table has pages of its own, of which those aren't touched that are all zero.
  static let leastMapped = 64 << 10

  /// Position in the table above: L1 index, or refcount table index. 0 for the two top tables.
  let index: Int
  let memory: UnsafeMutableRawBufferPointer
  /// Where the committed image has this table, 0: nowhere yet.
  var location: UInt64
  /// Whole clusters at `location`.
  var locationClusters: Int
  /// Where this transaction puts it, 0: not decided.
  var target: UInt64 = 0
  /// Whether this transaction has let go of `location`, and whether it is all free then.
  var locationIsReleased = false
  var leavesFreePlace = false
  /// The place it had before, free but kept for it, 0: none.
  var twin: UInt64 = 0
  /// Pages that differ from the committed content.
  private(set) var changed = PageSet()
  /// Pages in which the twin differs from the committed content.
  var twinStale = PageSet()
  /// Whether it is on the list of tables that the next commit writes.
  var isInTransaction = false
  /// Used since the cache last looked for room.
  var isRecent = true

  init(index: Int, byteCount: Int, location: UInt64 = 0, locationClusters: Int = 0) {
    self.index = index
    self.location = location
    self.locationClusters = locationClusters
    if byteCount < Self.leastMapped {
      memory = .allocate(byteCount: byteCount, alignment: 4096)
      memset(memory.baseAddress!, 0, byteCount)
      return
    }
    // Zero, without being touched.
    let flags = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS)
    guard let base = mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, -1, 0), base != MAP_FAILED else {
      fatalError("no memory for a disk's tables")
    }
    memory = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
  }

  deinit {
    if memory.count < Self.leastMapped { memory.deallocate() } else { munmap(memory.baseAddress!, memory.count) }
  }

  /// A 64-bit entry. Indices come from this program's own arithmetic, not from the image.
  @inline(__always)
  func entry(_ index: Int) -> UInt64 {
    assert(index >= 0 && index * 8 < memory.count)
    return UInt64(bigEndian: memory.baseAddress!.load(fromByteOffset: index &* 8, as: UInt64.self))
  }

  @inline(__always)
  func setEntry(_ index: Int, _ value: UInt64) {
    assert(index >= 0 && index * 8 < memory.count)
    memory.baseAddress!.storeBytes(of: value.bigEndian, toByteOffset: index &* 8, as: UInt64.self)
    noteChange(atByte: index &* 8)
  }

  @inline(__always)
  func noteChange(atByte offset: Int) { changed.insert(offset / Qcow2Table.pageSize) }

  func noteWholeChange() { changed.insertAll(below: pageCount) }

  /// The transaction is committed: `location` holds what memory holds.
  func forgetChanges() -> PageSet {
    defer { changed = PageSet() }
    return changed
  }

  var pageCount: Int { (memory.count + Qcow2Table.pageSize - 1) / Qcow2Table.pageSize }

  /// The byte ranges that must be written at `target`.
  var rangesToWrite: [Range<Int>] {
    let pages = target == twin && twin != 0 ? changed.union(twinStale) : PageSet(all: pageCount)
    return pages.ranges(below: pageCount).map {
      ($0.lowerBound * Qcow2Table.pageSize)..<min($0.upperBound * Qcow2Table.pageSize, memory.count)
    }
  }
}

/// A set of page numbers of one table.
struct PageSet: Equatable {
  private var words: [UInt64] = []

  init() {}

  init(all count: Int) { insertAll(below: count) }

  mutating func insert(_ page: Int) {
    let word = page >> 6
    if word >= words.count { words += repeatElement(0, count: word + 1 - words.count) }
    words[word] |= 1 << UInt64(page & 63)
  }

  mutating func insertAll(below count: Int) {
    for page in 0..<count { insert(page) }
  }

  func contains(_ page: Int) -> Bool { page >> 6 < words.count && words[page >> 6] >> UInt64(page & 63) & 1 == 1 }

  func union(_ other: PageSet) -> PageSet {
    var result = words.count >= other.words.count ? self : other
    let shorter = words.count >= other.words.count ? other : self
    for (index, word) in shorter.words.enumerated() { result.words[index] |= word }
    return result
  }

  /// Runs of neighbours.
  func ranges(below count: Int) -> [Range<Int>] {
    var result: [Range<Int>] = []
    for page in 0..<count where contains(page) {
      if let last = result.last, last.upperBound == page {
        result[result.count - 1] = last.lowerBound..<(page + 1)
      } else {
        result.append(page..<(page + 1))
      }
    }
    return result
  }
}

/// Tables of one kind that are in memory. Those that the next commit writes stay; of the others, as many as fit.
final class Qcow2TableCache {
  private let capacity: Int
  private var tables: [Int: Qcow2Table] = [:]
  private var ring: [Qcow2Table] = []
  private var hand = 0
  private var latest: Qcow2Table?

  init(capacity: Int) { self.capacity = max(capacity, 4) }

  var count: Int { ring.count }

  func table(at index: Int) -> Qcow2Table? {
    if let latest, latest.index == index { return latest }
    guard let table = tables[index] else { return nil }
    table.isRecent = true
    latest = table
    return table
  }

  /// Adds a table, and returns one that had to go for it.
  func insert(_ table: Qcow2Table) -> Qcow2Table? {
    latest = table
    tables[table.index] = table
    if ring.count >= capacity, let place = placeToReuse() {
      let old = ring[place]
      ring[place] = table
      tables[old.index] = nil
      return old
    }
    ring.append(table)
    return nil
  }

  /// Clock with a second chance, among the tables that no transaction needs.
  private func placeToReuse() -> Int? {
    for _ in 0..<(ring.count * 2) {
      hand = hand + 1 < ring.count ? hand + 1 : 0
      let table = ring[hand]
      if table.isInTransaction { continue }
      if !table.isRecent { return hand }
      table.isRecent = false
    }
    return nil
  }

  func removeAll() {
    tables = [:]
    ring = []
    hand = 0
    latest = nil
  }
}

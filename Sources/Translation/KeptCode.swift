import CHost
import Glibc
import HostSystem
import Synchronization

/// Code that translators made in an earlier run, kept in a file: later runs begin with it, so that what is the same
/// (a kernel, libraries, programs) is translated once for all of them. Blocks hold nothing that depends on where their
/// page lies, so code is found by what stands in the page, every byte of which is compared.
///
/// The file is a cache, made for one build of this program and one kind of host: what doesn't fit or is damaged is taken
/// for no file. It holds the code memory's two halves and the stubs, mapped as they are, the pages' content, for each page
/// its entry points and waiting jumps, and a table to find it by its content. It is as trustworthy as the program itself: only its user may write it, and only from
/// what may harm nobody but the machines that begin with it.
package final class KeptCode: @unchecked Sendable {
  /// The words of the file's last page.
  struct Trailer {
    static let byteCount = 4096
    static let magic: UInt64 = 0x6564_6F43_7470_656B  // "keptCode"
    static let version: UInt64 = 2

    var codeCount = 0
    /// As `BackEnd.sharedBytes`, `frontBytes`, `behindBytes` and `stubBytes` say.
    var shared = 0
    var front = 0
    var behind = 0
    var stubs = 0
    var pageCount = 0
    /// The records' 32-bit words.
    var recordWords = 0
    /// Of all that stands before the trailer.
    var checksum: UInt32 = 0

    var behindOffset: Int { (front + CodeMemory.largePage - 1) & ~(CodeMemory.largePage - 1) }
    var stubOffset: Int { behindOffset + Self.wholePages(behind) }
    var sourceOffset: Int { stubOffset + Self.wholePages(stubs) }
    var recordOffset: Int { sourceOffset + pageCount * 4096 }
    /// The table's places: a power of two.
    var bucketCount: Int {
      var count = 64
      while count < pageCount * 2 { count *= 2 }
      return count
    }
    var bucketOffset: Int { recordOffset + Self.wholePages(recordWords * 4) }
    var trailerOffset: Int { bucketOffset + Self.wholePages(bucketCount * MemoryLayout<Bucket>.stride) }

    static func wholePages(_ count: Int) -> Int { (count + 4095) & ~4095 }

    private var words: [UInt64] {
      [Self.magic, Self.version] + KeptCode.program
        + [
          UInt64(codeCount), UInt64(shared), UInt64(front), UInt64(behind), UInt64(stubs), UInt64(pageCount),
          UInt64(recordWords), UInt64(checksum),
        ]
    }

    var bytes: [UInt8] {
      var bytes = words.withUnsafeBytes { Array($0) }
      let checksum = bytes.withUnsafeBytes { chost_crc32c(0, $0.baseAddress, $0.count) }
      bytes += withUnsafeBytes(of: UInt64(checksum)) { Array($0) }
      return bytes + [UInt8](repeating: 0, count: Self.byteCount - bytes.count)
    }

    init() {}

    /// Nil where it isn't one for this program and host, or can't be true for a file of `fileSize` bytes.
    init?(_ bytes: [UInt8], fileSize: Int) {
      let words = bytes.withUnsafeBytes { bytes in
        (0..<16).map { bytes.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self) }
      }
      let first = 2 + KeptCode.program.count
      let numbers = words[first..<first + 8].map { Int(truncatingIfNeeded: $0) }
      guard numbers.allSatisfy({ $0 >= 0 && $0 < 1 << 40 }) else { return nil }
      codeCount = numbers[0]
      shared = numbers[1]
      front = numbers[2]
      behind = numbers[3]
      stubs = numbers[4]
      pageCount = numbers[5]
      recordWords = numbers[6]
      checksum = UInt32(truncatingIfNeeded: numbers[7])
      guard self.bytes == bytes, shared % 4096 == 0, shared <= front, front <= codeCount / 2,
        behind <= codeCount / 16 * 7, stubs <= codeCount / 16,
        fileSize == trailerOffset + Self.byteCount
      else { return nil }
    }
  }

  /// A place of the table, which has open addressing.
  struct Bucket {
    /// Where in the records the page's stands; -1: nothing.
    var record: Int32 = -1
    var page: Int32 = -1
  }

  /// What code depends on besides the guest's: the build of the program that made it, and the host's instructions.
  static let program: [UInt64] = {
    var status = stat()
    guard stat("/proc/self/exe", &status) == 0 else { return [0, 0, 0, .random(in: 0 ... .max)] }
    let time = UInt64(bitPattern: Int64(status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec))
    return [UInt64(status.st_size), time, HostInstructions.hasAES ? 1 : 0, 0]
  }()

  /// Below zero: it isn't needed any more.
  private var descriptor: Int32
  private let trailer: Trailer
  /// What isn't code, mapped: the pages' content, the records and the table.
  private let sources: UnsafeRawPointer
  /// The records and the table: there, or a copy of them.
  private let tables: UnsafeRawPointer
  private let isCopied: Bool
  private var mappedCount: Int { trailer.trailerOffset - trailer.sourceOffset }
  private let isReady = Atomic<Bool>(false)
  private var checking: HostThread?

  /// Opens a file; nil where there is none that fits. It is checked by a thread of its own, and nothing is found before.
  ///
  /// - Parameter isCopied: whether nothing is believed that who can write to the file could change: then what is used of it,
  ///   but for code, is copied and looked through at once. Its checksum isn't looked at, and no thread is made.
  package init?(path: String, isCopied: Bool = false) {
    let descriptor = chost_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0)
    guard descriptor >= 0 else { return nil }
    guard let trailer = Self.readTrailer(descriptor),
      trailer.pageCount > 0,
      let sources = mmap(
        nil, trailer.trailerOffset - trailer.sourceOffset, PROT_READ, Int32(MAP_PRIVATE), descriptor,
        off_t(trailer.sourceOffset)), sources != MAP_FAILED
    else {
      close(descriptor)
      return nil
    }
    self.descriptor = descriptor
    self.trailer = trailer
    self.sources = UnsafeRawPointer(sources)
    self.isCopied = isCopied
    let offset = trailer.recordOffset - trailer.sourceOffset
    if isCopied {
      let count = trailer.trailerOffset - trailer.recordOffset
      let copy = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
      tables = UnsafeRawPointer(copy)
      guard CodeMemory.read(descriptor, at: trailer.recordOffset, copy, copy + count), isWithinBounds() else {
        return nil
      }
      isReady.store(true, ordering: .releasing)
      return
    }
    tables = UnsafeRawPointer(sources) + offset
    if DamageCheck.isNoted(descriptor) {
      isReady.store(true, ordering: .releasing)
    } else {
      checking = HostThread(name: "kept code") { [self] in
        let state = DamageCheck.FileState(descriptor)
        guard agreesWithChecksum(), isWithinBounds() else { return }
        DamageCheck.note(descriptor, asOf: state)
        isReady.store(true, ordering: .releasing)
      }
    }
  }

  /// Closes the file, when its code is shown wherever it is to be. Only of one that is copied.
  func closeFile() {
    precondition(isCopied, "it may be looked at still")
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
  }

  /// Whether there is a file that fits. Its checksum isn't looked at.
  package static func fits(_ path: String) -> Bool {
    let descriptor = chost_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return readTrailer(descriptor) != nil
  }

  private static func readTrailer(_ descriptor: Int32) -> Trailer? {
    var status = stat()
    var last = [UInt8](repeating: 0, count: Trailer.byteCount)
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size >= Trailer.byteCount,
      pread(descriptor, &last, last.count, status.st_size - Trailer.byteCount) == last.count
    else { return nil }
    return Trailer(last, fileSize: Int(status.st_size))
  }

  /// Waits for the check. Whether what is in the file is found from now on.
  @discardableResult
  package func waitUntilChecked() -> Bool {
    checking?.join()
    return isReady.load(ordering: .acquiring)
  }

  /// The first of the files that fits.
  static func first(of paths: [String], areCopied: Bool = false) -> KeptCode? {
    for path in paths { if let kept = KeptCode(path: path, isCopied: areCopied) { return kept } }
    return nil
  }

  deinit {
    munmap(UnsafeMutableRawPointer(mutating: sources), mappedCount)
    if isCopied { tables.deallocate() }
    if descriptor >= 0 { close(descriptor) }
  }

  /// Maps the code; false where it doesn't fit, or the host doesn't let it.
  func show(in code: CodeMemory, sharedBytes: Int) -> Bool {
    guard trailer.codeCount == code.count, trailer.shared == sharedBytes else { return false }
    return code.show(
      descriptor, front: .init(offset: 0, count: trailer.front),
      behind: .init(offset: trailer.behindOffset, count: trailer.behind),
      stubs: .init(offset: trailer.stubOffset, count: trailer.stubs))
  }

  var front: Int { trailer.front }
  var behind: Int { trailer.behind }
  var stubs: Int { trailer.stubs }

  // MARK: records: the checksum of the page's content, the number of entry points, that of waiting jumps; then each of
  // these as the half-word's index and the place in the code memory

  private static let recordHead = 3

  private var records: UnsafePointer<UInt32> {
    tables.assumingMemoryBound(to: UInt32.self)
  }

  private var buckets: UnsafePointer<Bucket> {
    (tables + trailer.bucketOffset - trailer.recordOffset).assumingMemoryBound(to: Bucket.self)
  }

  private func agreesWithChecksum() -> Bool {
    let count = trailer.trailerOffset
    guard let all = mmap(nil, count, PROT_READ, Int32(MAP_PRIVATE), descriptor, 0), all != MAP_FAILED else {
      return false
    }
    defer { munmap(all, count) }
    return chost_crc32c(0, all, count) == trailer.checksum
  }

  /// Looks through the records and the table. False: they can't be true.
  private func isWithinBounds() -> Bool {
    var place = 0
    var places: [Int] = []
    for _ in 0..<trailer.pageCount {
      guard place + Self.recordHead <= trailer.recordWords else { return false }
      let (entries, jumps) = (Int(records[place + 1]), Int(records[place + 2]))
      let end = place + Self.recordHead + 2 * (entries + jumps)
      guard end <= trailer.recordWords else { return false }
      for pair in 0..<entries + jumps {
        let (index, location) = (records[end - 2 * pair - 2], Int(records[end - 2 * pair - 1]))
        let isInFront = location >= trailer.shared && location <= trailer.front - HostJump.size
        let isBehind =
          location >= trailer.codeCount / 2 && location <= trailer.codeCount / 2 + trailer.behind - HostJump.size
        guard index < 2048, isInFront || (isBehind && pair < jumps) else { return false }
      }
      places.append(place)
      place = end
    }
    let used = (0..<trailer.bucketCount).map { buckets[$0] }.filter { $0.record >= 0 }
    return used.count == places.count
      && used.allSatisfy { places.indices.contains(Int($0.page)) && places[Int($0.page)] == Int($0.record) }
  }

  /// What is kept for one page.
  struct Record {
    typealias Pair = (index: Int, place: Int)
    fileprivate let words: UnsafePointer<UInt32>
    let entryCount: Int
    let jumpCount: Int

    func entry(_ number: Int) -> Pair { pair(number) }
    func jump(_ number: Int) -> Pair { pair(entryCount + number) }
    private func pair(_ number: Int) -> Pair { (Int(words[2 * number]), Int(words[2 * number + 1])) }
  }

  enum Search {
    /// The file is still being checked.
    case notYet
    case nothing
    case found(Record)
  }

  /// What is kept for a page with this content (4096 bytes).
  func find(_ source: UnsafeRawPointer) -> Search {
    guard isReady.load(ordering: .acquiring) else { return .notYet }
    guard let bucket = bucket(for: source) else { return .nothing }
    let record = records + Int(bucket.record)
    return .found(Record(words: record + Self.recordHead, entryCount: Int(record[1]), jumpCount: Int(record[2])))
  }

  /// The kept page with this content (4096 bytes), which stays as long as this does; nil: there is none, as far as is
  /// known.
  func content(equalTo source: UnsafeRawPointer) -> UnsafeRawPointer? {
    guard isReady.load(ordering: .acquiring), let bucket = bucket(for: source) else { return nil }
    return sources + Int(bucket.page) * 4096
  }

  private func bucket(for source: UnsafeRawPointer) -> Bucket? {
    let mask = trailer.bucketCount - 1
    let checksum = chost_crc32c(0, source, 4096)
    var place = Int(checksum) & mask
    while buckets[place].record >= 0 {
      let kept = sources + Int(buckets[place].page) * 4096
      if records[Int(buckets[place].record)] == checksum, kept == source || memcmp(kept, source, 4096) == 0 {
        return buckets[place]
      }
      place = (place + 1) & mask
    }
    return nil
  }

  // MARK: writing

  /// Collects pages, and writes the file.
  struct Writer {
    private var sources: [UnsafeRawPointer] = []
    private var records: [UInt32] = []
    private var known: Set<UInt32> = []

    /// Adds a page's code. The content stays where it is until the file is written. One of two pages with equal content
    /// is enough.
    mutating func add(_ source: UnsafeRawPointer, entries: [Record.Pair], jumps: [Record.Pair]) {
      let checksum = chost_crc32c(0, source, 4096)
      guard known.insert(checksum).inserted else { return }
      sources.append(source)
      records += [checksum, UInt32(entries.count), UInt32(jumps.count)]
      for pair in entries + jumps { records += [UInt32(pair.index), UInt32(pair.place)] }
    }

    /// The table of the pages that were added.
    private func buckets(_ count: Int) -> [Bucket] {
      var buckets = [Bucket](repeating: Bucket(), count: count)
      var record = 0
      for page in sources.indices {
        var place = Int(records[record]) & (count - 1)
        while buckets[place].record >= 0 { place = (place + 1) & (count - 1) }
        buckets[place] = Bucket(record: Int32(record), page: Int32(page))
        record += KeptCode.recordHead + 2 * Int(records[record + 1] + records[record + 2])
      }
      return buckets
    }

    /// Writes the file. Throws `HostError`.
    func write(to path: String, _ code: CodeMemory, shared: Int, front: Int, behind: Int, stubs: Int) throws {
      let writer = try AtomicFileWriter(path: path, permissions: 0o600)
      var trailer = Trailer()
      trailer.codeCount = code.count
      trailer.shared = shared
      trailer.front = front
      trailer.behind = behind
      trailer.stubs = stubs
      trailer.pageCount = sources.count
      trailer.recordWords = records.count
      let zeroes = [UInt8](repeating: 0, count: max(shared, CodeMemory.largePage))
      func write(_ start: UnsafeRawPointer?, _ count: Int) throws {
        try writer.write(UnsafeRawBufferPointer(start: start, count: count))
        trailer.checksum = chost_crc32c(trailer.checksum, start, count)
      }
      func fill(_ count: Int, to end: Int? = nil) throws {
        try write(zeroes, (end ?? Trailer.wholePages(count)) - count)
      }
      let base = UnsafeRawPointer(bitPattern: code.executable)!
      try write(zeroes, shared)
      try write(base + shared, front - shared)
      try fill(front, to: trailer.behindOffset)
      try write(base + (code.middle - code.writable), behind)
      try fill(behind)
      try write(base + (code.stubs - code.writable), stubs)
      try fill(stubs)
      for source in sources { try write(source, 4096) }
      try records.withUnsafeBytes { try write($0.baseAddress, $0.count) }
      try fill(records.count * 4)
      let buckets = buckets(trailer.bucketCount)
      try buckets.withUnsafeBytes { try write($0.baseAddress, $0.count) }
      try fill(buckets.count * MemoryLayout<Bucket>.stride)
      try writer.write(trailer.bytes)
      // What a failure of the host leaves of it is found damaged.
      try writer.commit(isDurable: false)
      let descriptor = chost_open(path, O_RDONLY, 0)
      if descriptor >= 0 {
        DamageCheck.note(descriptor, asOf: DamageCheck.FileState(descriptor))
        close(descriptor)
      }
    }
  }
}

import CHost
import Glibc

/// A private anonymous mapping of host memory, given out zeroed and only as it is touched; unmapped when it goes.
public struct MemoryMapping: ~Copyable {
  public let base: UnsafeMutableRawPointer
  /// Size in bytes, a multiple of the page size.
  public let count: Int

  /// Bytes in one of the host's pages.
  public static let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))

  /// Maps `count` bytes (rounded up to whole pages). Throws `HostError` when the host has no room.
  public init(anonymous count: Int) throws {
    let page = MemoryMapping.pageSize
    guard count > 0, count <= Int.max - page else {
      throw HostError(code: EINVAL, message: "can't map \(count) bytes of memory")
    }
    let rounded = (count + page - 1) / page * page
    let pointer = mmap(
      nil, rounded, PROT_READ | PROT_WRITE, Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE), -1, 0)
    guard let pointer, pointer != MAP_FAILED else {
      throw HostError.last("can't map \(rounded) bytes of memory")
    }
    // Guests jump about in their memory: fewer, larger pages save the host's address translation. Advice only.
    if rounded >= 64 << 20 { madvise(pointer, rounded, Int32(MADV_HUGEPAGE)) }
    base = pointer
    self.count = rounded
  }

  deinit { munmap(base, count) }

  /// Has the host gather what there is in large pages, if it can, and give large ones from now on. Advice only.
  public func useLargePages() {
    madvise(base, count, Int32(MADV_HUGEPAGE))
    // MADV_COLLAPSE, Linux 6.1
    madvise(base, count, 25)
  }

  /// Shows a part of a file in place of what is mapped at `start`. What is written there stays here. The file mustn't
  /// change any more; nothing of it is read now. `start`, `offset` (in the file) and `count` are multiples of the page
  /// size. Throws `HostError`.
  public func show(_ descriptor: Int32, at start: Int, offset: Int, count: Int) throws {
    precondition(start >= 0 && count > 0 && count <= self.count - start, "within the mapping")
    let place = mmap(
      base + start, count, PROT_READ | PROT_WRITE, Int32(MAP_PRIVATE) | Int32(MAP_FIXED) | Int32(MAP_NORESERVE),
      descriptor, off_t(offset))
    guard place == base + start else { throw HostError.last("can't map a file") }
  }

  /// How many of the pages in each piece of `size` bytes, a multiple of the page size, somebody has touched since the memory
  /// was new, or the page was given back: all others are zero. Where the host doesn't say, and where a file is shown, it may
  /// be less than there are that aren't zero. Nil: the host says nothing.
  public func touchedPages(inPiecesOf size: Int) -> [Int]? {
    var counts = [Int](repeating: 0, count: (count + size - 1) / size)
    return forEachPresentPage { page, _ in counts[page * Self.pageSize / size] += 1 } ? counts : nil
  }

  /// Runs of pages that are of no file: somebody has written them since a file was shown there, or touched them where none
  /// was. Nil: the host doesn't say.
  public func ownPages() -> [Range<Int>]? {
    var runs: [Range<Int>] = []
    let isKnown = forEachPresentPage { page, isOfFile in
      if !isOfFile { runs.add(page) }
    }
    return isKnown ? runs : nil
  }

  /// Calls `body` with the number of each page that is there, or was moved out to a disk, and whether it is a file's;
  /// proc_pid_pagemap(5). False: the host doesn't say.
  private func forEachPresentPage(_ body: (_ page: Int, _ isOfFile: Bool) -> Void) -> Bool {
    let descriptor = chost_open("/proc/self/pagemap", O_RDONLY, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let first = Int(bitPattern: base) / Self.pageSize
    let pages = count / Self.pageSize
    var entries = [UInt64](repeating: 0, count: 32768)
    for start in stride(from: 0, to: pages, by: entries.count) {
      let wanted = min(entries.count, pages - start)
      let got = entries.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress, wanted * 8, off_t((first + start) * 8))
      }
      guard got == wanted * 8 else { return false }
      for index in 0..<wanted where entries[index] >> 62 != 0 { body(start + index, entries[index] >> 61 & 1 != 0) }
    }
    return true
  }

  /// Gives the pages of a range back to the host; they read as zeroes afterwards. Only the whole pages inside the range
  /// and inside the mapping are released: an offset or a count may come from a guest (a memory balloon).
  public func release(offset: Int, count: Int) {
    let page = MemoryMapping.pageSize
    guard offset >= 0, count > 0, offset < self.count else { return }
    let end = offset + min(count, self.count - offset)
    let firstPage = (offset + page - 1) / page * page
    let lastPage = end / page * page
    guard firstPage < lastPage else { return }
    madvise(base + firstPage, lastPage - firstPage, Int32(MADV_DONTNEED))
  }
}

/// Runs of numbers, in order.
extension [Range<Int>] {
  /// Adds a number that is higher than all there are.
  public mutating func add(_ number: Int) {
    if let last, last.upperBound == number {
      self[count - 1] = last.lowerBound..<number + 1
    } else {
      append(number..<number + 1)
    }
  }
}

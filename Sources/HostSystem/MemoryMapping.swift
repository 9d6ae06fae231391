import CHost
import Glibc

/// A private anonymous mapping of host memory, given out zeroed and only as it is touched; unmapped when it goes.
public struct MemoryMapping: ~Copyable {
  public let base: UnsafeMutableRawPointer
  /// Size in bytes, a multiple of the page size.
  public let count: Int

  /// Maps `count` bytes (rounded up to whole pages). Throws `HostError` when the host has no room.
  public init(anonymous count: Int) throws {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let rounded = (count + page - 1) / page * page
    let pointer = mmap(
      nil, rounded, PROT_READ | PROT_WRITE, Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE), -1, 0)
    guard let pointer, pointer != MAP_FAILED else {
      throw HostError.last("can't map \(rounded) bytes of memory")
    }
    base = pointer
    self.count = rounded
  }

  deinit { munmap(base, count) }

  /// Gives the pages of a range back to the host; they read as zeroes afterwards. Offsets are whole pages.
  public func release(offset: Int, count: Int) {
    madvise(base + offset, count, Int32(MADV_DONTNEED))
  }
}

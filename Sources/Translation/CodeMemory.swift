import CHost
import Glibc
import HostSystem

/// Memory for generated code: shared anonymous memory mapped twice, once to be written and once to be executed, so that no
/// address is ever both. The executable mapping lies below 4 GiB, so that a code address fits 32 bits.
///
/// Not a memory file, which would do as well: perf(1) takes code in a file to have its symbols there, and looks into its
/// map of generated code (`PerfMap`) only for anonymous memory.
struct CodeMemory: ~Copyable {
  let writable: UnsafeMutablePointer<UInt8>
  let executable: UInt
  /// Size in bytes.
  let count: Int

  /// Throws `HostError` where the host refuses executable memory.
  init(count: Int) throws {
    let flags = Int32(MAP_SHARED) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE)
    let write = mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0)
    guard let write, write != MAP_FAILED else { throw HostError.last("can't map memory for generated code") }
    do {
      let place = try Self.reserveLow(count)
      guard chost_map_again(write, count, place) != nil, mprotect(place, count, PROT_READ | PROT_EXEC) == 0 else {
        let error = HostError.last(
          "this host doesn't let a program execute code that it made; use --engine interpreter")
        munmap(place, count)
        throw error
      }
      executable = UInt(bitPattern: place)
    } catch {
      munmap(write, count)
      throw error
    }
    writable = write.assumingMemoryBound(to: UInt8.self)
    self.count = count
  }

  /// The first place below 4 GiB that is free, taken.
  private static func reserveLow(_ count: Int) throws -> UnsafeMutableRawPointer {
    // MAP_FIXED_NOREPLACE of <linux/mman.h>: there or not at all.
    let flags = Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS) | Int32(MAP_NORESERVE) | 0x100000
    for address in stride(from: 1 << 28, through: (1 << 32) - count, by: 1 << 24) {
      let wanted = UnsafeMutableRawPointer(bitPattern: address)
      guard let found = mmap(wanted, count, PROT_NONE, flags, -1, 0), found != MAP_FAILED else {
        if errno == EEXIST { continue }
        break
      }
      // A kernel that doesn't know the flag takes the address for a wish.
      if found == wanted { return found }
      munmap(found, count)
      errno = ENOMEM
      break
    }
    throw HostError.last("no room below 4 GiB for generated code; use --engine interpreter")
  }

  /// What to add to a writable address to get the executable one.
  var executableOffset: Int { Int(bitPattern: executable) &- Int(bitPattern: writable) }

  deinit {
    munmap(writable, count)
    munmap(UnsafeMutableRawPointer(bitPattern: executable), count)
  }
}

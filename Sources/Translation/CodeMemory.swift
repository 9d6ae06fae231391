import CHost
import Glibc
import HostSystem

/// Memory for generated code: one memory file mapped twice, once to be written and once to be executed, so that no
/// address is ever both. The executable mapping lies below 4 GiB, so that a code address fits 32 bits.
struct CodeMemory: ~Copyable {
  let writable: UnsafeMutablePointer<UInt8>
  let executable: UInt
  /// Size in bytes.
  let count: Int

  /// Throws `HostError` where the host refuses executable memory.
  init(count: Int) throws {
    let descriptor = chost_memory_file("yadori-code")
    guard descriptor >= 0 else { throw HostError.last("can't make a memory file for generated code") }
    defer { close(descriptor) }
    guard ftruncate(descriptor, count) == 0 else {
      throw HostError.last("can't size the memory file for generated code")
    }
    let write = mmap(nil, count, PROT_READ | PROT_WRITE, Int32(MAP_SHARED), descriptor, 0)
    guard let write, write != MAP_FAILED else { throw HostError.last("can't map memory for generated code") }
    guard let execute = Self.mapLow(descriptor, count) else {
      let error = HostError.last("this host doesn't let a program execute code that it made; use --engine interpreter")
      munmap(write, count)
      throw error
    }
    writable = write.assumingMemoryBound(to: UInt8.self)
    executable = UInt(bitPattern: execute)
    self.count = count
  }

  /// Maps the file for execution at the first place below 4 GiB that is free; nil with errno when there is none.
  private static func mapLow(_ descriptor: Int32, _ count: Int) -> UnsafeMutableRawPointer? {
    // MAP_FIXED_NOREPLACE of <linux/mman.h>: there or not at all.
    let flags = Int32(MAP_SHARED) | 0x100000
    for address in stride(from: 1 << 28, through: (1 << 32) - count, by: 1 << 24) {
      let wanted = UnsafeMutableRawPointer(bitPattern: address)
      guard let found = mmap(wanted, count, PROT_READ | PROT_EXEC, flags, descriptor, 0), found != MAP_FAILED else {
        if errno == EEXIST { continue }
        return nil
      }
      // A kernel that doesn't know the flag takes the address for a wish.
      if found == wanted { return found }
      munmap(found, count)
      errno = ENOMEM
      return nil
    }
    return nil
  }

  /// What to add to a writable address to get the executable one.
  var executableOffset: Int { Int(bitPattern: executable) &- Int(bitPattern: writable) }

  deinit {
    munmap(writable, count)
    munmap(UnsafeMutableRawPointer(bitPattern: executable), count)
  }
}

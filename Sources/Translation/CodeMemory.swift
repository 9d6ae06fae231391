import CHost
import Glibc
import HostSystem

/// Memory for generated code: one memory file mapped twice, once to be written and once to be executed, so that no
/// address is ever both. The executable mapping lies below 2 GiB, so that a code address fits 32 bits.
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
    let execute = mmap(nil, count, PROT_READ | PROT_EXEC, Int32(MAP_SHARED) | Int32(MAP_32BIT), descriptor, 0)
    guard let execute, execute != MAP_FAILED else {
      munmap(write, count)
      throw HostError.last("this host doesn't let a program execute code that it made; use --engine interpreter")
    }
    writable = write.assumingMemoryBound(to: UInt8.self)
    executable = UInt(bitPattern: execute)
    self.count = count
  }

  /// What to add to a writable address to get the executable one.
  var executableOffset: Int { Int(bitPattern: executable) &- Int(bitPattern: writable) }

  deinit {
    munmap(writable, count)
    munmap(UnsafeMutableRawPointer(bitPattern: executable), count)
  }
}

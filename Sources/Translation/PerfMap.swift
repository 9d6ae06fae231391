import CHost
import Glibc
import HostSystem
import Synchronization

/// The file in which perf(1) looks for the names of generated code: a line for each block, in /tmp/perf-PID.map.
///
/// Lines are written as blocks are made. Code memory that has been full is used anew; perf takes what was written last.
package final class PerfMap: Sendable {
  package let path: String
  private let descriptor: Int32
  private let lines = Mutex<[UInt8]>([])

  /// Begins the file. Throws `HostError` where it can't be made.
  package init(path: String = "/tmp/perf-\(getpid()).map") throws {
    self.path = path
    // What another process left under this number isn't ours to write through.
    unlink(path)
    descriptor = chost_open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0o600)
    guard descriptor >= 0 else { throw HostError.last("can't make '\(path)'") }
  }

  deinit {
    flush()
    close(descriptor)
  }

  /// Writes a line for each block that `translator` makes; `name` gives the symbol of a guest's virtual address. Before
  /// the hart runs.
  package func follow(_ translator: Translator, name: @escaping @Sendable (UInt64) -> String?) {
    let map = translator.keepMap()
    let shared = map.places.pointee
    add("\(hexadecimal(shared.shared)) \(hexadecimal(shared.blocks - shared.shared)) yadori:shared")
    map.onBlock = { [self] block in
      let page = block.physicalAddress & ~0xFFF
      let offset = block.physicalAddress & 0xFFF
      var line = "\(hexadecimal(UInt64(block.address))) \(hexadecimal(UInt64(block.byteCount))) "
      line += "guest:0x\(hexadecimal(page))+0x\(hexadecimal(offset))"
      if let name = name(block.virtualAddress) { line += " \(name)" }
      add(line)
    }
  }

  private func add(_ line: String) {
    lines.withLock { lines in
      lines += Array(line.utf8) + [0x0A]
      if lines.count >= 4096 { write(&lines) }
    }
  }

  /// Writes what waits.
  package func flush() { lines.withLock { write(&$0) } }

  private func write(_ lines: inout [UInt8]) {
    // A map that isn't whole is worth more than a machine that stops for it.
    _ = lines.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    lines.removeAll(keepingCapacity: true)
  }

  private func hexadecimal(_ value: UInt64) -> String { String(value, radix: 16) }
}

import Glibc

/// Bytes that are written once, from the beginning to the end.
package protocol ByteSink: AnyObject {
  func write(_ bytes: UnsafeRawBufferPointer) throws
}

extension ByteSink {
  package func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }
}

package final class MemorySink: ByteSink {
  package private(set) var bytes: [UInt8] = []
  package init() {}
  package func write(_ bytes: UnsafeRawBufferPointer) throws { self.bytes.append(contentsOf: bytes) }
}

/// A new file of the host, written through a buffer. Its SHA-256 is known at the end.
package final class FileSink: ByteSink {
  private let descriptor: Int32
  private let path: String
  private var buffer: [UInt8] = []
  private var checksum: Checksum? = Checksum(.sha256)
  package private(set) var byteCount: UInt64 = 0
  private var isOpen = true
  private let leavesHoles: Bool
  /// Where the next bytes go in the file.
  private var position: off_t = 0

  private static let blockSize = 1 << 16
  private static let zeroes = [UInt8](repeating: 0, count: blockSize)

  /// - Parameters:
  ///   - mode: the permission bits of the file, before the umask.
  ///   - leavesHoles: whether long runs of zeroes take no space on the host.
  package init(path: String, mode: mode_t = 0o644, leavesHoles: Bool = false) throws {
    self.leavesHoles = leavesHoles
    descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    self.path = path
    if descriptor < 0 { throw ImageError.last("can't create \(path)") }
    buffer.reserveCapacity(1 << 20)
  }

  deinit { if isOpen { close(descriptor) } }

  package func write(_ bytes: UnsafeRawBufferPointer) throws {
    byteCount += UInt64(bytes.count)
    checksum?.update(bytes)
    if buffer.count + bytes.count > 1 << 20 { try drain() }
    if bytes.count >= 1 << 20 {
      try put(bytes)
    } else {
      buffer.append(contentsOf: bytes)
    }
  }

  private func drain() throws {
    try buffer.withUnsafeBytes { try put($0) }
    buffer.removeAll(keepingCapacity: true)
  }

  private func put(_ bytes: UnsafeRawBufferPointer) throws {
    var rest = bytes
    while rest.count > 0 {
      var wanted = rest.count
      if leavesHoles {
        // Up to the next multiple of a block, so that the holes lie where a file system can have them.
        wanted = min(wanted, Self.blockSize - Int(position) % Self.blockSize)
        if memcmp(rest.baseAddress!, Self.zeroes, wanted) == 0 {
          position += off_t(wanted)
          rest = UnsafeRawBufferPointer(rebasing: rest[wanted...])
          continue
        }
      }
      let count = pwrite(descriptor, rest.baseAddress, wanted, position)
      if count < 0 {
        if errno == EINTR { continue }
        throw ImageError.last("can't write \(path)")
      }
      position += off_t(count)
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  /// Writes what is left, makes it durable and closes the file. Returns the SHA-256 as lower-case hex digits.
  @discardableResult
  package func finish() throws -> String {
    try drain()
    if leavesHoles && ftruncate(descriptor, position) != 0 { throw ImageError.last("can't write \(path)") }
    if fsync(descriptor) != 0 && errno != EINVAL { throw ImageError.last("can't write \(path)") }
    isOpen = false
    if close(descriptor) != 0 { throw ImageError.last("can't write \(path)") }
    return checksum.take()!.finish()
  }
}

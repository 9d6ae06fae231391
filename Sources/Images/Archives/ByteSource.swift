import Glibc

/// Bytes that are read once, from the beginning to the end.
package protocol ByteSource: AnyObject {
  /// Reads at most `buffer.count` bytes. Returns how many, 0 at the end only.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

extension ByteSource {
  /// Fills the buffer unless the source ends before. Returns how many bytes were read.
  package func readFully(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    var filled = 0
    while filled < buffer.count {
      let count = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
      if count == 0 { break }
      filled += count
    }
    return filled
  }

  /// Exactly `count` bytes, or an error that names `what`.
  package func readExactly(_ count: Int, of what: @autoclosure () -> String) throws -> [UInt8] {
    var short = false
    let bytes = try [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      filled = try readFully(into: UnsafeMutableRawBufferPointer(buffer))
      short = filled < count
    }
    if short { throw ImageError(.corrupt, "\(what()) is cut short") }
    return bytes
  }

  /// Everything that is left, refused when that is more than `limit` bytes.
  package func readAll(limit: Int, of what: @autoclosure () -> String) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = try chunk.withUnsafeMutableBytes { try read(into: $0) }
      if count == 0 { return bytes }
      if bytes.count + count > limit { throw ImageError(.corrupt, "\(what()) is larger than \(limit) bytes") }
      bytes.append(contentsOf: chunk[..<count])
    }
  }

  package func skip(_ count: UInt64, of what: @autoclosure () -> String) throws {
    var left = count
    var chunk = [UInt8](repeating: 0, count: Int(min(count, 1 << 16)))
    while left > 0 {
      let wanted = Int(min(left, UInt64(chunk.count)))
      let read = try chunk.withUnsafeMutableBytes {
        try self.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<wanted]))
      }
      if read == 0 { throw ImageError(.corrupt, "\(what()) is cut short") }
      left -= UInt64(read)
    }
  }
}

/// A file of the host.
package final class FileSource: ByteSource {
  private let descriptor: Int32
  private let path: String
  /// How many bytes were read.
  package private(set) var position: UInt64 = 0

  package init(path: String) throws {
    descriptor = open(path, O_RDONLY | O_CLOEXEC)
    self.path = path
    if descriptor < 0 { throw ImageError.last("can't open \(path)") }
  }

  /// What a descriptor leads to, a pipe for example, which is closed in the end. `name` stands in errors.
  package init(descriptor: Int32, name: String) {
    self.descriptor = descriptor
    path = name
  }

  deinit { close(descriptor) }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    while true {
      let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      if count >= 0 {
        position += UInt64(count)
        return count
      }
      if errno != EINTR { throw ImageError.last("can't read \(path)") }
    }
  }
}

package final class MemorySource: ByteSource {
  private let bytes: [UInt8]
  private var position = 0

  package init(_ bytes: [UInt8]) { self.bytes = bytes }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let count = min(buffer.count, bytes.count - position)
    bytes.withUnsafeBytes { buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position..<position + count])) }
    position += count
    return count
  }
}

/// The next `count` bytes of another source.
package final class LimitedSource: ByteSource {
  private let base: ByteSource
  private let name: String
  package private(set) var remaining: UInt64

  /// - Parameter name: names the source in the error that comes when the base ends too early.
  package init(_ base: ByteSource, count: UInt64, name: String) {
    self.base = base
    self.name = name
    remaining = count
  }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let wanted = Int(min(UInt64(buffer.count), remaining))
    if wanted == 0 { return 0 }
    let count = try base.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]))
    if count == 0 { throw ImageError(.corrupt, "\(name) is cut short") }
    remaining -= UInt64(count)
    return count
  }
}

import Bus
import Foundation
import HostSystem

/// Of a machine that was itself restored, what its RAM has become since.
extension SavedMachine.Manifest {
  struct Changes: Codable {
    /// The number of the first page, of 4096 bytes, and how many there are, as little-endian 32-bit words, for each run;
    /// in order. The pages are in the file `memory-changes`.
    var runs: Data
    /// The files that RAM was restored from, of `memory` in this order.
    var base: [SavedMachine.MemoryFile]

    static let file = "memory-changes"

    init(_ runs: [Range<Int>], base: [SavedMachine.MemoryFile]) {
      self.base = base
      let words = runs.flatMap { [UInt32($0.lowerBound), UInt32($0.count)] }
      self.runs = words.withUnsafeBytes { Data($0) }
    }

    /// Nil: they can't be true of so many pages.
    func list(of pages: Int) -> [Range<Int>]? {
      var list: [Range<Int>] = []
      let words = runs.withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map {
          Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
        }
      }
      guard words.count % 2 == 0, runs.count % 8 == 0 else { return nil }
      for index in stride(from: 0, to: words.count, by: 2) {
        let (start, count) = (words[index], words[index + 1])
        guard count > 0, start >= (list.last?.upperBound ?? 0), start <= pages, count <= pages - start else {
          return nil
        }
        list.append(start..<start + count)
      }
      return list
    }
  }
}

extension SavedMachine {
  /// Nil: there are so many that they are no less work than all of RAM.
  static func changedPages(_ memory: GuestMemory) -> [Range<Int>]? {
    MemoryMapping.pageSize == pageSize ? memory.changedPages(atMost: largestChanges / pageSize) : nil
  }

  private static let pageSize = 4096
  private static let largestChanges = 64 << 20

  static func write(_ runs: [Range<Int>], of memory: GuestMemory, to descriptor: Int32) throws {
    var rest = runs.map { iovec(iov_base: memory.host + $0.lowerBound * pageSize, iov_len: $0.count * pageSize) }[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBufferPointer { writev(descriptor, $0.baseAddress, Int32(min($0.count, 1024))) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw HostError.last("can't write a file") }
      advance(&rest, by: count)
    }
  }

  /// Takes so many bytes from the begin of what is to be transferred.
  private static func advance(_ parts: inout ArraySlice<iovec>, by count: Int) {
    var count = count
    while let first = parts.first, count >= first.iov_len {
      count -= first.iov_len
      parts.removeFirst()
    }
    guard count > 0, let first = parts.first else { return }
    parts[parts.startIndex] = iovec(iov_base: first.iov_base + count, iov_len: first.iov_len - count)
  }

  /// Puts pages over what RAM was restored from.
  func restore(_ changes: Manifest.Changes, to memory: GuestMemory) throws {
    guard MemoryMapping.pageSize == Self.pageSize,
      let runs = changes.list(of: Int(memory.size) / Self.pageSize),
      let descriptor = try? folder.open(Manifest.Changes.file)
    else { throw Self.damaged(path) }
    defer { close(descriptor) }
    var rest = runs.map {
      iovec(iov_base: memory.host + $0.lowerBound * Self.pageSize, iov_len: $0.count * Self.pageSize)
    }[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBufferPointer { readv(descriptor, $0.baseAddress, Int32(min($0.count, 1024))) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw Self.damaged(path) }
      Self.advance(&rest, by: count)
    }
  }
}

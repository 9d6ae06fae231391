import CHost
import Foundation

/// Files that are mostly holes, or memory that is mostly zero: written and copied without what is zero, with a checksum
/// for each part, by which damage is found.
public enum SparseCopy {
  /// Bytes that have a checksum together.
  public static let chunkSize = 2 << 20
  /// Of a chunk that is all zero.
  public static let zeroChecksum: UInt32 = 0
  /// Of any other, where none was asked for.
  private static let absentChecksum: UInt32 = 1

  private static let blockSize = 4096
  private static let zeroes = [UInt8](repeating: 0, count: blockSize)

  /// CRC-32C of a chunk that isn't all zero, never `zeroChecksum`.
  private static func checksum(_ chunk: UnsafeRawBufferPointer) -> UInt32 {
    max(1, chost_crc32c(0, chunk.baseAddress, chunk.count))
  }

  public static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var rest = bytes
    while !rest.isEmpty {
      let count = min(rest.count, blockSize)
      if memcmp(rest.baseAddress!, zeroes, count) != 0 { return false }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
    return true
  }

  private static func chunks(of count: Int) -> Int { (count + chunkSize - 1) / chunkSize }

  /// Writes `bytes` to the new file `descriptor`, without what is zero. Returns the chunks' checksums. Throws `HostError`.
  public static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) throws -> [UInt32] {
    let work = [Int](repeating: 1, count: chunks(of: bytes.count))
    return try write(bytes, [0..<work.count], to: [descriptor], work, hasChecksums: true)[0]
  }

  /// Ranges of chunks, `most` at most, of about the same work each and none empty. `work` is that of each chunk.
  public static func parts(of work: [Int], most: Int) -> [Range<Int>] {
    let total = max(1, work.reduce(0, +))
    var parts: [Range<Int>] = []
    var (start, done) = (0, 0)
    for (chunk, own) in work.enumerated() {
      done += own
      let isLast = chunk == work.count - 1
      if isLast || (parts.count < most - 1 && done * most >= total * (parts.count + 1)) {
        parts.append(start..<chunk + 1)
        start = chunk + 1
      }
    }
    return parts
  }

  /// Writes `bytes` to new files, one for each of the `parts`, ranges of chunks that follow each other, without what is
  /// zero. Parts are written at the same time: the host lets one thread at a time write to a file. `work` is 0 for chunks
  /// that are known to be zero. Returns each part's chunks' checksums, which tell only what is zero where it
  /// `hasChecksums` not. Throws `HostError`.
  public static func write(
    _ bytes: UnsafeRawBufferPointer, _ parts: [Range<Int>], to descriptors: [Int32], _ work: [Int], hasChecksums: Bool
  ) throws -> [[UInt32]] {
    let source = UnsafeSendable(bytes)
    return try Array(zip(parts, descriptors)).mapConcurrently { chunks, descriptor in
      let begin = chunks.lowerBound * chunkSize
      guard ftruncate(descriptor, off_t(min(chunks.upperBound * chunkSize, source.value.count) - begin)) == 0 else {
        throw HostError.last("can't make room in a file")
      }
      return try chunks.map { chunk in
        let start = chunk * chunkSize
        if work[chunk] == 0 { return zeroChecksum }
        return try writeChunk(
          UnsafeRawBufferPointer(rebasing: source.value[start..<min(start + chunkSize, source.value.count)]),
          to: descriptor, at: start - begin, hasChecksum: hasChecksums)
      }
    }
  }

  /// Returns its checksum.
  private static func writeChunk(
    _ chunk: UnsafeRawBufferPointer, to descriptor: Int32, at start: Int, hasChecksum: Bool
  ) throws -> UInt32 {
    // From the first block that isn't zero to the next one that is.
    var run: Int?
    var hasContent = false
    for offset in stride(from: 0, to: chunk.count + blockSize, by: blockSize) {
      let end = min(offset + blockSize, chunk.count)
      let isContent = offset < chunk.count && !isZero(UnsafeRawBufferPointer(rebasing: chunk[offset..<end]))
      if isContent {
        run = run ?? offset
      } else if let begin = run {
        run = nil
        hasContent = true
        try put(
          UnsafeRawBufferPointer(rebasing: chunk[begin..<min(offset, chunk.count)]), to: descriptor, at: start + begin)
      }
    }
    if !hasContent { return zeroChecksum }
    return hasChecksum ? checksum(chunk) : absentChecksum
  }

  private static func put(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, at offset: Int) throws {
    var done = 0
    while done < bytes.count {
      let count = pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, offset + done)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw HostError.last("can't write a file") }
      done += count
    }
  }

  /// Copies the file `source` to the new file `target`, which shares its blocks where the file system can. Returns the
  /// chunks' checksums. Throws `HostError`.
  public static func copy(_ source: Int32, to target: Int32) throws -> [UInt32] {
    let isShared = chost_share_blocks(target, source) == 0
    return try FileMapping.withBytes(of: source) { isShared ? checksums(of: $0) : try write($0, to: target) }
  }

  /// The checksums of a file's chunks. Throws `HostError`.
  public static func checksums(of descriptor: Int32) throws -> [UInt32] {
    try FileMapping.withBytes(of: descriptor) { checksums(of: $0) }
  }

  private static func checksums(of bytes: UnsafeRawBufferPointer) -> [UInt32] {
    (0..<chunks(of: bytes.count)).map { index in
      let start = index * chunkSize
      let chunk = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + chunkSize, bytes.count)])
      return isZero(chunk) ? zeroChecksum : checksum(chunk)
    }
  }

  /// Whether a file is what these checksums were taken of. Looks at all of it, but for its holes.
  public static func agrees(_ descriptor: Int32, count: Int, _ checksums: [UInt32]) throws -> Bool {
    try FileMapping.withBytes(of: descriptor) { bytes in
      bytes.count == count && agrees(bytes, descriptor, checksums)
    }
  }

  private static func agrees(_ bytes: UnsafeRawBufferPointer, _ descriptor: Int32, _ checksums: [UInt32]) -> Bool {
    let count = bytes.count
    guard checksums.count == chunks(of: count) else { return false }
    let base = UnsafeSendable(bytes)
    let failures = UnsafeSendable(UnsafeMutablePointer<Bool>.allocate(capacity: max(1, checksums.count)))
    defer { failures.value.deallocate() }
    failures.value.initialize(repeating: false, count: max(1, checksums.count))
    // What should be all zero is a hole, or is looked at.
    let wanted = checksums.indices.filter {
      checksums[$0] != zeroChecksum || hasContent(descriptor, $0 * chunkSize)
    }
    DispatchQueue.concurrentPerform(iterations: wanted.count) { number in
      let index = wanted[number]
      let start = index * chunkSize
      let chunk = UnsafeRawBufferPointer(rebasing: base.value[start..<min(start + chunkSize, count)])
      let isRight =
        checksums[index] == zeroChecksum ? isZero(chunk) : checksum(chunk) == checksums[index]
      if !isRight { failures.value[index] = true }
    }
    return !checksums.indices.contains { failures.value[$0] }
  }

  /// Whether anything but a hole is in the chunk.
  private static func hasContent(_ descriptor: Int32, _ offset: Int) -> Bool {
    // SEEK_DATA
    let next = lseek(descriptor, off_t(offset), 3)
    return next >= 0 && next < offset + chunkSize
  }

  private struct UnsafeSendable<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
  }
}

/// A file of the host, mapped to be read.
public final class FileMapping {
  public let bytes: UnsafeRawBufferPointer

  /// Calls `body` with all that is in the file. Throws `HostError`, and what that throws.
  static func withBytes<Result>(
    of descriptor: Int32, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let mapping = try FileMapping(descriptor)
    return try withExtendedLifetime(mapping) { try body(mapping.bytes) }
  }

  /// Maps all of it. Throws `HostError`.
  public init(_ descriptor: Int32) throws {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw HostError.last("can't read a file") }
    let count = Int(status.st_size)
    if count == 0 {
      bytes = UnsafeRawBufferPointer(start: nil, count: 0)
      return
    }
    let mapped = mmap(nil, count, PROT_READ, Int32(MAP_SHARED), descriptor, 0)
    guard let mapped, mapped != MAP_FAILED else { throw HostError.last("can't read a file") }
    bytes = UnsafeRawBufferPointer(start: mapped, count: count)
  }

  deinit {
    if let base = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: base), bytes.count) }
  }
}

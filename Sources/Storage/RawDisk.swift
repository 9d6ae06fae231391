import Glibc

/// A disk whose bytes are the bytes of a file or block device.
///
/// A file that doesn't end with a whole sector is padded: the rest of its last sector reads as zeroes, and a write to
/// that sector makes the file longer.
final class RawDisk: BlockStorage {
  let byteCount: UInt64
  var isReadOnly: Bool { file.isReadOnly }
  let file: DiskFile
  private let refusesForeignHeader: Bool

  /// `isProbed`: nobody said that the image is raw. Then a guest may not turn it into another format, whose backing
  /// file would be any file of the host at the next start.
  init(_ file: DiskFile, isProbed: Bool) throws {
    self.file = file
    let size = try file.byteCount()
    guard size <= UInt64(Int64.max) - 511 else {
      throw StorageError(.corrupt, "\(file.path) claims \(size) bytes; give a disk image")
    }
    byteCount = (size + 511) / 512 * 512
    refusesForeignHeader = isProbed
  }

  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    try checkRange(offset, UInt64(buffer.count), in: file.path)
    try file.readZeroFilled(at: offset, into: buffer)
  }

  func read(at offset: UInt64, into pieces: [UnsafeMutableRawBufferPointer]) throws {
    try checkRange(offset, pieces.reduce(0) { $0 + UInt64($1.count) }, in: file.path)
    try file.readZeroFilled(at: offset, into: pieces)
  }

  func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws { try write(at: offset, from: [buffer]) }

  func write(at offset: UInt64, from pieces: [UnsafeRawBufferPointer]) throws {
    try checkWritable(offset, pieces.reduce(0) { $0 + UInt64($1.count) }, in: file.path)
    if refusesForeignHeader, offset == 0, let first = pieces.first, DiskFormat.probe(first) != .raw {
      throw StorageError(
        .notPermitted, "the guest may not write a qcow2 header over \(file.path); open it with the format raw")
    }
    try file.write(at: offset, pieces)
  }

  func flush() throws {
    if !isReadOnly { try file.synchronize() }
  }

  func discard(at offset: UInt64, count: UInt64) throws {
    try checkWritable(offset, count, in: file.path)
    if count > 0 { _ = try file.punchHole(at: offset, count: count) }
  }

  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws {
    try checkWritable(offset, count, in: file.path)
    if count == 0 { return }
    if mayUnmap, try file.punchHole(at: offset, count: count) { return }
    if try file.zeroRange(at: offset, count: count) { return }
    try writeZeroBytes(to: file, at: offset, count: count)
  }

  func close() throws {
    defer { file.close() }
    try flush()
  }
}

extension BlockStorage {
  /// Throws unless the range is in whole sectors and inside the disk.
  func checkRange(_ offset: UInt64, _ count: UInt64, in path: String) throws {
    let (end, overflow) = offset.addingReportingOverflow(count)
    guard offset % 512 == 0, count % 512 == 0, !overflow, end <= byteCount else {
      throw StorageError(.outOfRange, "\(path): \(count) bytes at \(offset) aren't sectors of this disk")
    }
  }

  func checkWritable(_ offset: UInt64, _ count: UInt64, in path: String) throws {
    guard !isReadOnly else { throw StorageError(.readOnly, "\(path) is open read-only") }
    try checkRange(offset, count, in: path)
  }
}

/// Writes zeroes as ordinary data, where the host knows no better way.
func writeZeroBytes(to file: DiskFile, at offset: UInt64, count: UInt64) throws {
  let zeroes = [UInt8](repeating: 0, count: Int(min(count, 1 << 20)))
  try zeroes.withUnsafeBytes { bytes in
    var done: UInt64 = 0
    while done < count {
      let part = min(count - done, UInt64(bytes.count))
      try file.write(at: offset + done, UnsafeRawBufferPointer(rebasing: bytes[..<Int(part)]))
      done += part
    }
  }
}

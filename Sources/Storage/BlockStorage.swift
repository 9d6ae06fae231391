/// A disk as devices see it, whatever file format holds it. Called on the machine's I/O thread only.
///
/// Offsets and counts are in bytes and multiples of 512; a range beyond the end is refused with an error.
public protocol BlockStorage: AnyObject {
  /// Size of the disk in bytes, a multiple of 512.
  var byteCount: UInt64 { get }
  var isReadOnly: Bool { get }
  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws
  func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws
  /// The same for bytes that follow each other on the disk, in several pieces of memory of whole sectors: guests' buffers
  /// are scattered.
  func read(at offset: UInt64, into pieces: [UnsafeMutableRawBufferPointer]) throws
  func write(at offset: UInt64, from pieces: [UnsafeRawBufferPointer]) throws
  /// Returns when everything written before survives a crash of this process and of the host.
  func flush() throws
  /// The range's content is no longer needed; it may read as anything old or as zeroes afterwards.
  func discard(at offset: UInt64, count: UInt64) throws
  /// The range reads as zeroes afterwards. `mayUnmap`: its space may be given back.
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws
  /// Flushes and lets go of the file and its lock. The disk isn't used afterwards.
  func close() throws
}

extension BlockStorage {
  public func read(at offset: UInt64, into pieces: [UnsafeMutableRawBufferPointer]) throws {
    var position = offset
    for piece in pieces {
      try read(at: position, into: piece)
      position += UInt64(piece.count)
    }
  }

  public func write(at offset: UInt64, from pieces: [UnsafeRawBufferPointer]) throws {
    var position = offset
    for piece in pieces {
      try write(at: position, from: piece)
      position += UInt64(piece.count)
    }
  }
}

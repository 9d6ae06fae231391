import CHost
import Glibc

/// An open file on the host that holds a disk image, with its lock: exclusive for writing, shared for reading. The lock
/// belongs to the open file description, so it goes with the last descriptor, whatever way the process ends.
package final class DiskFile {
  /// The path as the person gave it.
  package let path: String
  package let isReadOnly: Bool
  /// Tells apart files that are reached by different paths.
  package struct Identity: Hashable {
    let device: UInt64
    let node: UInt64
  }
  package let identity: Identity
  /// A change on its way to the file.
  package enum Change {
    case write(UInt64, [UnsafeRawBufferPointer])
    case hole(UInt64, UInt64)
    case zeroes(UInt64, UInt64)
    case synchronize
  }
  /// Told of every change before it is made; what it throws happens instead. Crash tests see the order of writes here.
  package var witness: ((Change) throws -> Void)?
  private var descriptor: Int32

  /// Opens `path`, which must be a regular file or a block device, and locks it (unless a look at it is all).
  package init(path: String, readOnly: Bool, isLocked: Bool = true) throws {
    self.path = path
    isReadOnly = readOnly
    // Without O_NONBLOCK, opening a FIFO would wait for its other end.
    descriptor = chost_open(path, (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK, 0)
    guard descriptor >= 0 else { throw DiskFile.openError(path, readOnly: readOnly) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let error = DiskFile.failure("can't examine \(path)")
      Glibc.close(descriptor)
      throw error
    }
    let kind = status.st_mode & S_IFMT
    guard kind == S_IFREG || kind == S_IFBLK else {
      Glibc.close(descriptor)
      throw StorageError(
        .invalidArgument, "\(path) is \(kind == S_IFDIR ? "a folder" : "no regular file"); give a disk image")
    }
    identity = Identity(device: UInt64(status.st_dev), node: UInt64(status.st_ino))
    guard !isLocked || DiskFile.lock(descriptor, readOnly: readOnly) else {
      let error = DiskFile.lockError(path, readOnly: readOnly)
      close()
      throw error
    }
  }

  deinit { close() }

  /// Takes the lock. A child process between its fork and its exec holds every lock of its parent for a moment, so a
  /// refusal counts only when it lasts.
  private static func lock(_ descriptor: Int32, readOnly: Bool) -> Bool {
    for attempt in 0..<20 {
      if chost_lock_file(descriptor, readOnly ? 0 : 1) == 0 { return true }
      guard errno == EAGAIN || errno == EACCES else { return false }
      if attempt < 19 { usleep(10_000) }
    }
    errno = EAGAIN
    return false
  }

  /// The file a path leads to, without opening it; nil when there is none.
  static func identity(of path: String) -> Identity? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    return Identity(device: UInt64(status.st_dev), node: UInt64(status.st_ino))
  }

  /// Lets go of the file and its lock.
  package func close() {
    if descriptor >= 0 { Glibc.close(descriptor) }
    descriptor = -1
  }

  /// Size in bytes, of a file or a block device.
  package func byteCount() throws -> UInt64 {
    let end = lseek(descriptor, 0, SEEK_END)
    guard end >= 0 else { throw DiskFile.failure("can't find the size of \(path)") }
    return UInt64(end)
  }

  /// Bytes that the file really occupies on the host.
  package func allocatedByteCount() throws -> UInt64 {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw DiskFile.failure("can't examine \(path)") }
    return UInt64(max(0, status.st_blocks)) &* 512
  }

  /// Reads until the buffer is full or the file ends. Returns the number of bytes read.
  package func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    guard let base = buffer.baseAddress, let start = off_t(exactly: offset) else { return 0 }
    var done = 0
    while done < buffer.count {
      let count = pread(descriptor, base + done, buffer.count - done, start &+ off_t(done))
      if count == 0 { break }
      if count < 0 {
        if errno == EINTR { continue }
        throw DiskFile.failure("can't read \(path)")
      }
      done += count
    }
    return done
  }

  /// The same for a buffer that is all zero, which isn't touched where the file has holes.
  package func readContent(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let size = try byteCount()
    guard offset < size else { return 0 }
    let count = Int(min(UInt64(buffer.count), size - offset))
    var done = 0
    while done < count {
      // SEEK_DATA and SEEK_HOLE, lseek(2)
      let start = lseek(descriptor, off_t(offset) + off_t(done), 3)
      if start < 0, errno == ENXIO { break }
      let first = start < 0 ? done : Int(start - off_t(offset))
      if first >= count { break }
      let hole = start < 0 ? -1 : lseek(descriptor, start, 4)
      let end = hole < 0 ? count : min(count, Int(hole - off_t(offset)))
      let wanted = UnsafeMutableRawBufferPointer(rebasing: buffer[first..<max(first, end)])
      let read = try read(at: offset + UInt64(first), into: wanted)
      if read < wanted.count { return first + read }
      guard end > first else { throw StorageError(.hostFailure, "\(path) changes while it is read") }
      done = end
    }
    return count
  }

  /// Fills the whole buffer; what lies beyond the end of the file reads as zeroes.
  func readZeroFilled(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    let count = try read(at: offset, into: buffer)
    if count < buffer.count { memset(buffer.baseAddress! + count, 0, buffer.count - count) }
  }

  /// The same for pieces one after the other, in as few calls as the host allows.
  func readZeroFilled(at offset: UInt64, into pieces: [UnsafeMutableRawBufferPointer]) throws {
    let vectors = pieces.filter { !$0.isEmpty }.map { iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
    var read = 0
    if let position = off_t(exactly: offset) {
      _ = try transfer(vectors, at: position) { vectors, count, position in
        let done = preadv(descriptor, vectors, count, position)
        if done < 0, errno != EINTR { throw DiskFile.failure("can't read \(path)") }
        read += max(0, done)
        return done
      }
    }
    for piece in pieces {
      let known = min(read, piece.count)
      read -= known
      if known < piece.count { memset(piece.baseAddress! + known, 0, piece.count - known) }
    }
  }

  /// Writes the pieces one after the other, beginning at `offset`, in as few calls as the host allows.
  package func write(at offset: UInt64, _ pieces: [UnsafeRawBufferPointer]) throws {
    try witness?(.write(offset, pieces))
    guard let position = off_t(exactly: offset) else {
      throw StorageError(.outOfRange, "\(path) would grow beyond what a file can hold")
    }
    let vectors = pieces.filter { !$0.isEmpty }.map {
      iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
    }
    let isWhole = try transfer(vectors, at: position) { vectors, count, position in
      let done = pwritev(descriptor, vectors, count, position)
      if done < 0, errno != EINTR { throw writeError() }
      return done
    }
    if !isWhole { throw StorageError(.hostFailure, "can't write \(path): the host took no bytes") }
  }

  /// Calls `body` with what is left of `vectors`, as many as the host takes at once, and the place in the file, until
  /// all are done. `body` returns how many bytes were; below 0: none, for it was interrupted. False where it returns 0.
  private func transfer(
    _ vectors: [iovec], at start: off_t, _ body: (UnsafePointer<iovec>, Int32, off_t) throws -> Int
  ) throws -> Bool {
    var vectors = vectors
    var position = start
    var first = 0
    while first < vectors.count {
      let count = try vectors.withUnsafeBufferPointer {
        try body($0.baseAddress! + first, Int32(min($0.count - first, 1024)), position)
      }
      if count < 0 { continue }
      if count == 0 { return false }
      position &+= off_t(count)
      var rest = count
      while first < vectors.count, rest >= vectors[first].iov_len {
        rest -= vectors[first].iov_len
        first += 1
      }
      if rest > 0 {
        vectors[first].iov_base += rest
        vectors[first].iov_len -= rest
      }
    }
    return true
  }

  func write(at offset: UInt64, _ bytes: UnsafeRawBufferPointer) throws { try write(at: offset, [bytes]) }

  /// Returns when everything written before is on stable storage (fdatasync).
  package func synchronize() throws {
    try witness?(.synchronize)
    while fdatasync(descriptor) != 0 {
      if errno == EINTR { continue }
      throw DiskFile.failure("can't flush \(path)")
    }
  }

  /// Gives the range's space back to the host; it reads as zeroes then. False when the file system can't.
  package func punchHole(at offset: UInt64, count: UInt64) throws -> Bool {
    try witness?(.hole(offset, count))
    return try allocate(chost_punch_hole(descriptor, Int64(clamping: offset), Int64(clamping: count)))
  }

  /// Makes the range read as zeroes and keeps its space. False when the file system can't.
  package func zeroRange(at offset: UInt64, count: UInt64) throws -> Bool {
    try witness?(.zeroes(offset, count))
    return try allocate(chost_zero_range(descriptor, Int64(clamping: offset), Int64(clamping: count)))
  }

  private func allocate(_ result: Int32) throws -> Bool {
    if result == 0 { return true }
    switch errno {
    case EOPNOTSUPP, ENOSYS, EINVAL, ENODEV, EPERM, EINTR: return false
    default: throw writeError()
    }
  }

  private func writeError() -> StorageError {
    errno == ENOSPC || errno == EDQUOT
      ? StorageError(.noSpace, "no space is left for \(path); free some on the disk that holds it")
      : DiskFile.failure("can't write \(path)")
  }

  /// The error that errno holds, after `action` failed.
  static func failure(_ action: String) -> StorageError {
    let code: StorageError.Code =
      switch errno {
      case ENOSPC, EDQUOT: .noSpace
      case EACCES, EPERM, EROFS: .notPermitted
      case ENOENT, ENOTDIR: .notFound
      case EEXIST: .exists
      default: .hostFailure
      }
    return StorageError(code, "\(action): \(String(cString: strerror(errno)))")
  }

  private static func openError(_ path: String, readOnly: Bool) -> StorageError {
    switch errno {
    case ENOENT, ENOTDIR: StorageError(.notFound, "there is no file \(path); check the path")
    case EISDIR: StorageError(.invalidArgument, "\(path) is a folder; give a disk image")
    case EACCES, EPERM, EROFS:
      StorageError(
        .notPermitted,
        readOnly
          ? "\(path) can't be read by this user; change its permissions"
          : "\(path) can't be written by this user; open it read-only or change its permissions")
    default: failure("can't open \(path)")
    }
  }

  private static func lockError(_ path: String, readOnly: Bool) -> StorageError {
    guard errno == EAGAIN || errno == EACCES else { return failure("can't lock \(path)") }
    return StorageError(
      .inUse,
      readOnly
        ? "\(path) is in use by another machine, which writes to it; stop it first"
        : "\(path) is in use by another machine; stop it first or open it read-only")
  }
}

import CHost
import Glibc

/// Writes a file so that its path shows either the whole new content or what was there before, whatever happens in
/// between: the bytes go to a hidden file beside it, which `commit` makes durable and renames. A writer that goes
/// without `commit` removes what it wrote.
public final class AtomicFileWriter {
  public let path: String
  private let temporaryPath: String
  private var descriptor: Int32

  /// Begins to write the file that `path` will name, with POSIX `permissions`. Throws `HostError` when the folder is
  /// missing or can't be written.
  public init(path: String, permissions: UInt32 = 0o644) throws {
    self.path = path
    let (folder, name) = AtomicFileWriter.split(path)
    guard !name.isEmpty, name != ".", name != ".." else {
      throw HostError(code: EISDIR, message: "can't write '\(path)': it names a folder")
    }
    let nonce = String(UInt64.random(in: 0...UInt64.max), radix: 36)
    // Names are 255 bytes at most; the temporary one is longer than the real one only where that fits.
    temporaryPath = folder + "/." + String(name.prefix(48)) + "." + nonce + ".partial"
    descriptor = chost_open(temporaryPath, O_WRONLY | O_CREAT | O_EXCL, permissions)
    guard descriptor >= 0 else { throw HostError.last("can't write '\(path)'") }
  }

  deinit { abandon() }

  /// Appends bytes. Throws `HostError` (a full disk, say); the file is then as good as abandoned.
  public func write(_ bytes: UnsafeRawBufferPointer) throws {
    precondition(descriptor >= 0, "written after commit or abandon")
    var rest = bytes
    while !rest.isEmpty {
      let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
      if count < 0 {
        if errno == EINTR { continue }
        throw HostError.last("can't write '\(path)'")
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  public func write(_ bytes: some Sequence<UInt8>) throws {
    try ContiguousArray(bytes).withUnsafeBytes { try write($0) }
  }

  /// Makes the content durable and gives it its name, replacing a file that has it.
  /// - Parameter isDurable: false for a file that may be damaged or gone after a failure of the host.
  public func commit(isDurable: Bool = true) throws {
    precondition(descriptor >= 0, "committed twice, or after abandon")
    guard !isDurable || fsync(descriptor) == 0 else {
      let error = HostError.last("can't write '\(path)'")
      abandon()
      throw error
    }
    // Some file systems (NFS, quotas) report a failed write only here.
    let closed = close(descriptor)
    descriptor = -1
    guard closed == 0, rename(temporaryPath, path) == 0 else {
      let error = HostError.last("can't write '\(path)'")
      unlink(temporaryPath)
      throw error
    }
    if isDurable { try AtomicFileWriter.synchronizeFolder(of: path) }
  }

  /// Removes what was written; the path stays as it was.
  public func abandon() {
    guard descriptor >= 0 else { return }
    close(descriptor)
    descriptor = -1
    unlink(temporaryPath)
  }

  /// Writes a whole file in one call.
  public static func write(_ bytes: some Sequence<UInt8>, to path: String, permissions: UInt32 = 0o644) throws {
    let writer = try AtomicFileWriter(path: path, permissions: permissions)
    try writer.write(bytes)
    try writer.commit()
  }

  /// Makes the names in the folder that holds `path` durable (after a rename, a creation or a removal there).
  public static func synchronizeFolder(of path: String) throws {
    let folder = split(path).folder
    let descriptor = chost_open(folder, O_RDONLY | O_DIRECTORY, 0)
    guard descriptor >= 0 else { throw HostError.last("can't open the folder '\(folder)'") }
    defer { close(descriptor) }
    // EINVAL: a file system that has nothing to synchronise for a folder.
    guard fsync(descriptor) == 0 || errno == EINVAL else { throw HostError.last("can't write the folder '\(folder)'") }
  }

  private static func split(_ path: String) -> (folder: String, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (".", path) }
    let folder = slash == path.startIndex ? "/" : String(path[..<slash])
    return (folder, String(path[path.index(after: slash)...]))
  }
}

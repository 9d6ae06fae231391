import CHost
import Glibc

/// A folder of the host that somebody who isn't trusted can write to, while it is used, too. What is in it is named by
/// relative paths without "..", at no step of which a link is followed, and nothing but regular files and folders is
/// opened: so nothing outside of it is read or changed, and nobody waits for the other end of a pipe.
public final class DistrustedFolder: Sendable {
  public let path: String
  private let descriptor: Int32

  /// The folder that `path` leads to; `path` itself is trusted. Throws `HostError`.
  public init(path: String) throws {
    self.path = path
    descriptor = Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw HostError.last("can't open the folder '\(path)'") }
  }

  private init(_ descriptor: Int32, _ path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  deinit { close(descriptor) }

  private func place(_ name: String) -> String { "\(path)/\(name)" }

  /// Calls `body` with the folder that holds the last part of `name`, and that part. Throws `HostError`.
  private func withParent<Result>(_ name: String, _ body: (Int32, String) throws -> Result) throws -> Result {
    let parts = name.split(separator: "/")
    guard let last = parts.last, !parts.contains("..") else {
      throw HostError(code: EINVAL, message: "'\(name)' names nothing in the folder '\(path)'")
    }
    var folder = descriptor
    defer { if folder != descriptor { close(folder) } }
    for part in parts.dropLast() {
      let next = openat(folder, String(part), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      guard next >= 0 else { throw HostError.last("can't open the folder of '\(place(name))'") }
      if folder != descriptor { close(folder) }
      folder = next
    }
    return try body(folder, String(last))
  }

  /// What there is under a name; nil: nothing that can be reached.
  public func status(_ name: String) -> stat? {
    var status = stat()
    let found = try? withParent(name) { fstatat($0, $1, &status, AT_SYMLINK_NOFOLLOW) }
    return found == 0 ? status : nil
  }

  public func isFolder(_ name: String) -> Bool { status(name).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false }
  public func isFile(_ name: String) -> Bool { status(name).map { $0.st_mode & S_IFMT == S_IFREG } ?? false }

  /// A folder in this one. Throws `HostError`.
  public func folder(_ name: String) throws -> DistrustedFolder {
    try withParent(name) { folder, last in
      let inner = openat(folder, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      guard inner >= 0 else { throw HostError.last("can't open the folder '\(place(name))'") }
      return DistrustedFolder(inner, place(name))
    }
  }

  /// Opens a regular file, for the caller to close. Throws `HostError`.
  /// - Parameter flags: how; O_CREAT makes it, for this user only.
  public func open(_ name: String, _ flags: Int32 = O_RDONLY) throws -> Int32 {
    try withParent(name) { folder, last in
      let file = openat(folder, last, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0o600)
      guard file >= 0 else { throw HostError.last("can't open '\(place(name))'") }
      var status = stat()
      guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
        close(file)
        throw HostError(code: EINVAL, message: "'\(place(name))' isn't a file; don't trust who made it")
      }
      return file
    }
  }

  /// All that is in a file. Throws `HostError`, also where that is more than so many bytes.
  public func contents(of name: String, atMost limit: Int) throws -> [UInt8] {
    let file = try open(name)
    defer { close(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(file, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw HostError.last("can't read '\(place(name))'") }
      if count == 0 { return bytes }
      bytes += buffer[..<count]
      guard bytes.count <= limit else {
        throw HostError(code: EFBIG, message: "'\(place(name))' is larger than such a file can be")
      }
    }
  }

  /// The names of what is in it, but for those that aren't text, sorted.
  public func names() -> [String] {
    Self.entries(descriptor).compactMap {
      String(validating: $0.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
    .sorted()
  }

  /// Names that end with a zero.
  private static func entries(_ folder: Int32) -> [[CChar]] {
    // With a place of its own to read on from.
    let descriptor = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0, let stream = fdopendir(descriptor) else {
      if descriptor >= 0 { close(descriptor) }
      return []
    }
    defer { closedir(stream) }
    let (dot, twoDots): ([CChar], [CChar]) = ([0x2E, 0], [0x2E, 0x2E, 0])
    let offset = MemoryLayout<dirent>.offset(of: \.d_name)!
    var names: [[CChar]] = []
    while let entry = readdir(stream) {
      let start = (UnsafeRawPointer(entry) + offset).assumingMemoryBound(to: CChar.self)
      let count = strnlen(start, Int(entry.pointee.d_reclen) - offset)
      let name: [CChar] = Array(UnsafeBufferPointer(start: start, count: count)) + [0]
      if name != dot, name != twoDots { names.append(name) }
    }
    return names
  }

  // MARK: changes

  /// Makes a folder, for this user only. Throws `HostError`.
  public func makeFolder(_ name: String) throws {
    try withParent(name) { folder, last in
      guard mkdirat(folder, last, 0o700) == 0 else { throw HostError.last("can't make the folder '\(place(name))'") }
    }
  }

  /// Makes a file, for this user only. Throws `HostError`, also where there is one.
  public func write(_ bytes: some Sequence<UInt8>, to name: String, isDurable: Bool) throws {
    let file = try open(name, O_WRONLY | O_CREAT | O_EXCL)
    defer { close(file) }
    try ContiguousArray(bytes).withUnsafeBytes { bytes in
      var done = 0
      while done < bytes.count {
        let count = Glibc.write(file, bytes.baseAddress! + done, bytes.count - done)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { throw HostError.last("can't write '\(place(name))'") }
        done += count
      }
    }
    guard !isDurable || fsync(file) == 0 else { throw HostError.last("can't write '\(place(name))'") }
  }

  /// Makes its names durable. Throws `HostError`.
  public func synchronize() throws {
    // EINVAL: a file system that has nothing to synchronise for a folder.
    guard fsync(descriptor) == 0 || errno == EINVAL else { throw HostError.last("can't write the folder '\(path)'") }
  }

  /// Gives a regular file a second name, in another folder; copies it where it can't have one there, if it may. Throws
  /// `HostError`.
  public func link(
    _ name: String, to target: DistrustedFolder, as newName: String, mayCopy: Bool = true
  ) throws {
    let file = try open(name)
    defer { close(file) }
    // The file that was looked at, whatever its name leads to by now.
    let linked = try target.withParent(newName) { folder, last in
      linkat(AT_FDCWD, "/proc/self/fd/\(file)", folder, last, AT_SYMLINK_FOLLOW)
    }
    if linked == 0 { return }
    guard mayCopy else { throw HostError.last("can't link '\(place(name))'") }
    try copy(file, of: name, to: target, as: newName, isDurable: false)
  }

  /// Copies a regular file to another folder. Throws `HostError`.
  public func copy(_ name: String, to target: DistrustedFolder, as newName: String, isDurable: Bool) throws {
    let file = try open(name)
    defer { close(file) }
    try copy(file, of: name, to: target, as: newName, isDurable: isDurable)
  }

  private func copy(
    _ file: Int32, of name: String, to target: DistrustedFolder, as newName: String, isDurable: Bool
  ) throws {
    let copy = try target.open(newName, O_RDWR | O_CREAT | O_EXCL)
    defer { close(copy) }
    do {
      _ = try SparseCopy.copy(file, to: copy)
    } catch let error as HostError {
      throw HostError(code: error.code, message: "can't copy '\(place(name))': \(error.message)")
    }
    guard !isDurable || fsync(copy) == 0 else { throw HostError.last("can't write '\(target.place(newName))'") }
  }

  /// Moves a regular file to another folder, or copies it to one of another file system. Throws `HostError`.
  public func take(_ name: String, to target: DistrustedFolder, as newName: String, isDurable: Bool) throws {
    let file = try open(name)
    defer { close(file) }
    do {
      try move(name, to: target, as: newName)
    } catch let error as HostError where error.code == EXDEV {
      return try copy(file, of: name, to: target, as: newName, isDurable: isDurable)
    }
    // What was moved may be something else than what was opened.
    guard target.isFile(newName) else {
      throw HostError(code: EINVAL, message: "'\(place(name))' isn't a file; don't trust who made it")
    }
  }

  /// Moves what has a name, whatever it is, in place of a file that has the new one. Throws `HostError`, with EXDEV where
  /// that is on another file system.
  /// - Parameter isExchange: whether it changes places with what has the new name.
  public func move(
    _ name: String, to target: DistrustedFolder, as newName: String, isExchange: Bool = false
  ) throws {
    try withParent(name) { folder, last in
      try target.withParent(newName) { newFolder, newLast in
        // RENAME_EXCHANGE
        guard chost_rename(folder, last, newFolder, newLast, isExchange ? 2 : 0) == 0 else {
          throw HostError.last("can't move '\(place(name))' to '\(target.place(newName))'")
        }
      }
    }
  }

  /// Deletes what has a name, with all that is in it where that is a folder. What isn't there is no error. Throws
  /// `HostError`.
  public func remove(_ name: String) throws {
    try withParent(name) { folder, last in
      var names = [Array(last.utf8CString)]
      while let next = names.popLast() {
        if unlinkat(folder, next, 0) == 0 || errno == ENOENT { continue }
        let inner = openat(folder, next, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard inner >= 0 else { throw HostError.last("can't remove '\(place(name))'") }
        defer { close(inner) }
        for entry in Self.entries(inner) where unlinkat(inner, entry, 0) != 0 && errno != ENOENT {
          // A folder. It comes up here, so that none is too deep.
          let moved = Array("\(Self.removedPrefix)\(UInt64.random(in: 0 ... .max))".utf8CString)
          guard renameat(inner, entry, folder, moved) == 0 else {
            throw HostError.last("can't remove '\(place(name))'")
          }
          names.append(moved)
        }
        guard unlinkat(folder, next, AT_REMOVEDIR) == 0 || errno == ENOENT else {
          throw HostError.last("can't remove '\(place(name))'")
        }
      }
    }
  }

  /// Deletes it, so that its name is gone at once, and what processes that were killed at that have left. Throws
  /// `HostError`.
  public func discard(_ name: String) throws {
    try move(name, to: self, as: "\(Self.removedPrefix)\(UInt64.random(in: 0 ... .max))")
    for name in names() where name.hasPrefix(Self.removedPrefix) { try? remove(name) }
  }

  /// What names begin with of what is being removed.
  public static let removedPrefix = ".removed-"
}

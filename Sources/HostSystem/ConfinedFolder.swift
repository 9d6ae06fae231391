import Glibc

/// A folder of the host, into which files come from somebody who isn't trusted: whatever their names and symbolic links
/// say, nothing outside of it is touched. Paths are relative, without "." and "..".
public final class ConfinedFolder {
  /// O_PATH of <fcntl.h>, which is behind _GNU_SOURCE: opens what a path names, not to read it.
  public static let pathOnly: Int32 = 0o10000000

  private let root: Int32
  private let path: String
  /// UTIME_OMIT: this time stays as it is.
  private static let unchanged = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)

  /// Throws `HostError` where there is no folder at `path`.
  public init(path: String) throws {
    self.path = path
    root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard root >= 0 else { throw HostError.last("can't open the folder '\(path)'") }
  }

  deinit { close(root) }

  private func failure(_ action: String, _ name: String) -> HostError { .last("can't \(action) '\(path)/\(name)'") }

  /// Calls `body` with the folder that holds the last part of `name`, and that part.
  private func withParent<Result>(_ name: String, _ body: (Int32, String) throws -> Result) throws -> Result {
    let parts = name.split(separator: "/")
    precondition(!parts.isEmpty && !parts.contains("..") && !parts.contains("."), "a relative path without dots")
    var folder = root
    defer { if folder != root { close(folder) } }
    for part in parts.dropLast() {
      let next = openat(folder, String(part), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      guard next >= 0 else { throw failure("open the folder of", name) }
      if folder != root { close(folder) }
      folder = next
    }
    return try body(folder, String(parts.last!))
  }

  /// Makes a folder, or takes the one that is there; what else is there is in the way.
  public func makeFolder(_ name: String, mode: mode_t) throws {
    try withParent(name) { folder, last in
      if mkdirat(folder, last, mode | 0o700) == 0 { return }
      let code = errno
      var status = stat()
      guard code == EEXIST, fstatat(folder, last, &status, AT_SYMLINK_NOFOLLOW) == 0,
        status.st_mode & S_IFMT == S_IFDIR
      else {
        errno = code
        throw failure("make the folder", name)
      }
    }
  }

  /// Makes a file, or replaces what is there, at once: `write` fills it beside. It gets this mode and time.
  public func makeFile(_ name: String, mode: mode_t, modified: Int, write: (Int32) throws -> Void) throws {
    try withParent(name) { folder, last in
      let beside = ".\(last.prefix(200)).\(UInt64.random(in: 0 ... .max))"
      let file = openat(folder, beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
      guard file >= 0 else { throw failure("make the file", name) }
      defer { close(file) }
      do {
        try write(file)
        let times = [Self.unchanged, timespec(tv_sec: modified, tv_nsec: 0)]
        guard fchmod(file, mode) == 0, futimens(file, times) == 0, renameat(folder, beside, folder, last) == 0 else {
          throw failure("write the file", name)
        }
      } catch {
        unlinkat(folder, beside, 0)
        throw error
      }
    }
  }

  public func makeSymbolicLink(_ name: String, to target: String) throws {
    try withParent(name) { folder, last in
      unlinkat(folder, last, 0)
      guard symlinkat(target, folder, last) == 0 else { throw failure("make the link", name) }
    }
  }

  /// Another name for a file that is here.
  public func makeLink(_ name: String, to target: String) throws {
    try withParent(target) { targetFolder, targetName in
      try withParent(name) { folder, last in
        unlinkat(folder, last, 0)
        guard linkat(targetFolder, targetName, folder, last, 0) == 0 else { throw failure("make the link", name) }
      }
    }
  }

  /// Gives a folder its mode and time, when all is in it.
  public func finishFolder(_ name: String, mode: mode_t, modified: Int) throws {
    try withParent(name) { folder, last in
      let made = openat(folder, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
      guard made >= 0 else { throw failure("open the folder", name) }
      defer { close(made) }
      let times = [Self.unchanged, timespec(tv_sec: modified, tv_nsec: 0)]
      guard futimens(made, times) == 0, fchmod(made, mode) == 0 else { throw failure("finish the folder", name) }
    }
  }
}

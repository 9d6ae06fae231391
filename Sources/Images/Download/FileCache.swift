import Foundation
import Glibc

/// The folder of downloaded files. A file is in it under its own name only when it is whole and checked; what is on its
/// way has the suffix `.part`.
package final class FileCache {
  package let folder: String
  private var lock: Int32 = -1

  /// `yadori` below XDG_CACHE_HOME or ~/.cache.
  package static func standardFolder(environment: [String: String] = ProcessInfo.processInfo.environment) -> String {
    if let folder = environment["XDG_CACHE_HOME"], folder.hasPrefix("/") { return folder + "/yadori" }
    return (environment["HOME"] ?? NSHomeDirectory()) + "/.cache/yadori"
  }

  /// Opens the cache, makes its folder where there is none, and keeps other processes from writing in it meanwhile.
  package init(folder: String = FileCache.standardFolder(), task: ImageTask) throws {
    self.folder = folder
    try makeFolder(folder)
    lock = open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    if lock < 0 { throw ImageError.last("can't open \(folder)/lock") }
    var waited = false
    while flock(lock, LOCK_EX | LOCK_NB) != 0 {
      if errno != EWOULDBLOCK && errno != EINTR { throw ImageError.last("can't lock \(folder)") }
      if !waited { task.warn("another yadori is downloading into \(folder); waiting for it") }
      waited = true
      try task.checkCancellation()
      usleep(200_000)
    }
  }

  deinit { if lock >= 0 { close(lock) } }

  package func path(_ name: String) throws -> String {
    guard let plain = TarEntry.normalized(name), !plain.isEmpty else {
      throw ImageError(.corrupt, "the archive names a file \(name), which can't be")
    }
    let path = "\(folder)/\(plain)"
    try makeFolder((path as NSString).deletingLastPathComponent)
    return path
  }
}

/// Makes a folder and those above it.
package func makeFolder(_ path: String) throws {
  do {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  } catch {
    var isFolder: ObjCBool = false
    if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue { return }
    throw ImageError(.inputOutput, "can't make the folder \(path): \(describe(error))")
  }
}

/// What Foundation has to say, in one line.
package func describe(_ error: Error) -> String {
  let native = error as NSError
  if let cause = native.userInfo[NSUnderlyingErrorKey] as? NSError, cause.domain == NSPOSIXErrorDomain {
    return String(cString: strerror(Int32(cause.code)))
  }
  if native.domain == NSPOSIXErrorDomain { return String(cString: strerror(Int32(native.code))) }
  return native.localizedDescription
}

/// The size of a file, nil where there is none.
package func fileByteCount(_ path: String) -> UInt64? {
  var status = stat()
  return stat(path, &status) == 0 ? UInt64(max(status.st_size, 0)) : nil
}

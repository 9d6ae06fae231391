import CHost
import Glibc

/// A refusal of the host, with what was asked of it. The message names the file, flag or field and says what to do.
public struct HostError: Error, CustomStringConvertible, Sendable {
  /// The host's error number (errno), 0 where there is none.
  public let code: Int32
  public let message: String

  public init(code: Int32 = 0, message: String) {
    self.code = code
    self.message = message
  }

  /// The error that errno holds now, after `action` failed ("can't open disk.raw").
  public static func last(_ action: String) -> HostError {
    let code = errno
    return HostError(code: code, message: "\(action): \(String(cString: strerror(code)))")
  }

  public var description: String { message }
}

/// Locks of whole files between processes (open file description locks, fcntl(2)).
public enum HostFileLock {
  /// Takes the lock of the file that `descriptor` names. False: somebody else holds it, as errno says.
  public static func lock(_ descriptor: Int32, exclusive: Bool) -> Bool {
    chost_lock_file(descriptor, exclusive ? 1 : 0) == 0
  }

  /// Takes it for writing as soon as nobody else holds it. False: it can't be had, as errno says.
  public static func waitAndLock(_ descriptor: Int32) -> Bool {
    while chost_wait_for_lock(descriptor) != 0 {
      if errno != EINTR { return false }
    }
    return true
  }

  /// Whether somebody else holds the lock, which isn't taken.
  public static func isHeld(_ descriptor: Int32) -> Bool { chost_is_locked(descriptor) == 1 }
}

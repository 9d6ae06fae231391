import CHost
import Foundation
import HostSystem
import Synchronization

/// A console that only writes: the guest's output goes to a file.
public final class FileConsole: ConsoleBackend {
  public let path: String
  private let descriptor: Int32
  private let firstFailure = Mutex<HostError?>(nil)

  /// Creates the file, or empties it unless `appending`. Throws `HostError` when it can't be written.
  public init(path: String, appending: Bool = false) throws {
    self.path = path
    descriptor = chost_open(path, O_WRONLY | O_CREAT | O_NOCTTY | (appending ? O_APPEND : O_TRUNC), 0o644)
    guard descriptor >= 0 else { throw HostError.last("can't write the console to '\(path)'") }
  }

  deinit { close(descriptor) }

  /// Why output was lost (a full disk), if any was. What follows the first failure isn't written.
  public var failure: HostError? { firstFailure.withLock { $0 } }

  public func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws { BrokenPipes.becomeErrors() }

  public func write(_ bytes: UnsafeRawBufferPointer) {
    firstFailure.withLock { failure in
      guard failure == nil else { return }
      var rest = bytes
      while !rest.isEmpty {
        let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else {
          failure = HostError.last("can't write the console to '\(path)'")
          return
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }

  public func guestHasRoom() {}

  public func stop() { fsync(descriptor) }
}

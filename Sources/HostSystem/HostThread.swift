import Foundation

/// A host thread with a name and an 8 MiB stack, started at once. `join` waits for its end.
public final class HostThread: @unchecked Sendable {
  private let finished = DispatchSemaphore(value: 0)

  /// Starts a thread named `name` that runs `body` once.
  public init(name: String, body: @escaping @Sendable () -> Void) {
    let finished = self.finished
    let thread = Thread {
      body()
      finished.signal()
    }
    thread.name = name
    thread.stackSize = 8 << 20
    thread.start()
  }

  /// Waits until `body` has returned.
  public func join() {
    finished.wait()
    finished.signal()
  }
}

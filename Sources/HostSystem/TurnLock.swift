import Synchronization

/// A lock that threads get in the order in which they ask for it, so that none takes it again and again while others
/// wait.
public final class TurnLock: @unchecked Sendable {
  /// The number that the next thread draws.
  private let next = Atomic<UInt32>(0)
  /// The number whose turn it is.
  private let current: UnsafeMutablePointer<UInt32>

  public init() {
    current = .allocate(capacity: 1)
    current.initialize(to: 0)
  }

  deinit { current.deallocate() }

  public func lock() {
    let number = next.add(1, ordering: .sequentiallyConsistent).oldValue
    while true {
      let now = HostThread.load(current)
      if now == number { return }
      HostThread.sleep(on: current, while: now, nanoseconds: nil)
    }
  }

  public func unlock() {
    HostThread.wake(current, isAsleep: next.load(ordering: .sequentiallyConsistent) != HostThread.load(current))
  }
}

import CHost
import Foundation
import Synchronization

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

// Sleeping on a word of memory (futex), for threads that wait for one another.
extension HostThread {
  /// Lets other threads of the host run.
  public static func yield() { sched_yield() }

  /// Reads a word that `wake` changes.
  public static func load(_ word: UnsafeMutablePointer<UInt32>) -> UInt32 {
    UnsafeMutableRawPointer(word).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(
      ordering: .sequentiallyConsistent)
  }

  /// Sleeps until `wake(word)`, unless the word has already changed from `value`; at most `nanoseconds`. May come back
  /// early.
  public static func sleep(on word: UnsafeMutablePointer<UInt32>, while value: UInt32, nanoseconds: UInt64?) {
    _ = chost_futex_wait(word, value, nanoseconds.map { Int64(clamping: $0) } ?? -1)
  }

  /// Changes the word, and wakes whoever sleeps on it where `isAsleep`, looked at after the change, says that it may.
  public static func wake(_ word: UnsafeMutablePointer<UInt32>, isAsleep: @autoclosure () -> Bool = true) {
    UnsafeMutableRawPointer(word).assumingMemoryBound(to: Atomic<UInt32>.self).pointee.add(
      1, ordering: .sequentiallyConsistent)
    if isAsleep() { _ = chost_futex_wake(word, Int32.max) }
  }
}

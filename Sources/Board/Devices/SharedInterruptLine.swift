import Bus
import Synchronization

/// One interrupt source that several devices pull: high while any of them is.
final class SharedInterruptLine: @unchecked Sendable {
  private struct Pullers {
    var levels: [Bool] = []
    var high = 0
  }

  private let output: InterruptLine
  private let pullers = Mutex(Pullers())

  init(_ output: InterruptLine) { self.output = output }

  /// A new device's end of the wire.
  func newEnd() -> InterruptLine {
    let index = pullers.withLock { pullers in
      pullers.levels.append(false)
      return pullers.levels.count - 1
    }
    return InterruptLine { [self] level in
      // The output is driven under the lock, so that levels reach it in the order they were decided.
      pullers.withLock { pullers in
        guard pullers.levels[index] != level else { return }
        pullers.levels[index] = level
        pullers.high += level ? 1 : -1
        output.set(pullers.high > 0)
      }
    }
  }
}

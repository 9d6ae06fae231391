import Bus
import Synchronization

/// An interrupt status register and the wire that it drives: the wire is high while a bit is set. Any thread.
///
/// The wire is driven without any lock held (see `VirtioTransport` for the rule). Order is kept by letting one thread
/// at a time drive it: whoever comes meanwhile leaves a note, and the one at work looks at the status again.
final class LevelInterrupt: @unchecked Sendable {
  static let usedBuffers: UInt32 = 1
  static let configuration: UInt32 = 2

  private let line: InterruptLine
  private let bits = Atomic<UInt32>(0)
  private let masked = Atomic<Bool>(false)
  private let notes = Atomic<UInt32>(0)

  init(line: InterruptLine) { self.line = line }

  var status: UInt32 { bits.load(ordering: .acquiring) }

  func raise(_ bit: UInt32) {
    bits.bitwiseOr(bit, ordering: .sequentiallyConsistent)
    settle()
  }

  func acknowledge(_ acknowledged: UInt32) {
    bits.bitwiseAnd(~acknowledged, ordering: .sequentiallyConsistent)
    settle()
  }

  /// Reads the status and clears it.
  func take() -> UInt32 {
    let status = bits.exchange(0, ordering: .sequentiallyConsistent)
    if status != 0 { settle() }
    return status
  }

  /// Keeps the wire low whatever the status is, while messages are used instead.
  func setMasked(_ value: Bool) {
    masked.store(value, ordering: .sequentiallyConsistent)
    settle()
  }

  func restore(status: UInt32, masked value: Bool) {
    bits.store(status & 3, ordering: .sequentiallyConsistent)
    masked.store(value, ordering: .sequentiallyConsistent)
    settle()
  }

  private func settle() {
    guard notes.wrappingAdd(1, ordering: .sequentiallyConsistent).oldValue == 0 else { return }
    var seen: UInt32 = 1
    while true {
      let level =
        bits.load(ordering: .sequentiallyConsistent) != 0 && !masked.load(ordering: .sequentiallyConsistent)
      line.set(level)
      let (done, found) = notes.compareExchange(expected: seen, desired: 0, ordering: .sequentiallyConsistent)
      if done { return }
      seen = found
    }
  }
}

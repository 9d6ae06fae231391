import Bus
import Synchronization

/// The core-local interruptor (SiFive CLINT; the ACLINT's MSWI and MTIMER at the same offsets): a software interrupt
/// and a timer for each hart, and the time.
public final class CLINT: BusDevice, StateKeeper, @unchecked Sendable {
  /// What the interruptor drives of one hart.
  public struct Target: Sendable {
    let softwareInterrupt: InterruptLine
    let timeCompare: @Sendable () -> UInt64
    let setTimeCompare: @Sendable (UInt64) -> Void

    public init(
      softwareInterrupt: InterruptLine, timeCompare: @escaping @Sendable () -> UInt64,
      setTimeCompare: @escaping @Sendable (UInt64) -> Void
    ) {
      self.softwareInterrupt = softwareInterrupt
      self.timeCompare = timeCompare
      self.setTimeCompare = setTimeCompare
    }
  }

  /// The msip registers. Time and comparators belong to the clock and the harts.
  public struct State: Codable {
    var softwareInterrupts: [Bool]
  }

  public static let stateVersion = 1
  public let stateIdentifier = "clint"

  private static let timeCompareBase: UInt64 = 0x4000
  private static let timeBase: UInt64 = 0xBFF8

  private let targets: [Target]
  private let clock: GuestClock
  private let state: Mutex<State>

  public init(targets: [Target], clock: GuestClock) {
    self.targets = targets
    self.clock = clock
    state = Mutex(State(softwareInterrupts: Array(repeating: false, count: targets.count)))
  }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return 0 }
    if offset < CLINT.timeCompareBase {
      let hart = Int(offset / 4)
      guard width == 4, hart < targets.count else { return 0 }
      return state.withLock { $0.softwareInterrupts[hart] ? 1 : 0 }
    }
    let value: UInt64
    if offset >= CLINT.timeBase {
      value = clock.ticks()
    } else {
      let hart = Int((offset - CLINT.timeCompareBase) / 8)
      guard hart < targets.count else { return 0 }
      value = targets[hart].timeCompare()
    }
    if width == 8 { return value }
    return offset % 8 == 0 ? value & 0xFFFF_FFFF : value >> 32
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    guard width == 4 || width == 8, offset % UInt64(width) == 0 else { return }
    if offset < CLINT.timeCompareBase {
      let hart = Int(offset / 4)
      guard width == 4, hart < targets.count else { return }
      state.withLock { state in
        state.softwareInterrupts[hart] = value & 1 != 0
        targets[hart].softwareInterrupt.set(value & 1 != 0)
      }
      return
    }
    if offset >= CLINT.timeBase {
      clock.set(CLINT.merge(value, into: clock.ticks(), offset: offset, width: width))
      // Each comparator looks at the new time.
      for target in targets { target.setTimeCompare(target.timeCompare()) }
      return
    }
    let hart = Int((offset - CLINT.timeCompareBase) / 8)
    guard hart < targets.count else { return }
    targets[hart].setTimeCompare(
      CLINT.merge(value, into: targets[hart].timeCompare(), offset: offset, width: width))
  }

  /// A register after a write of all of it, or of its lower or upper half.
  private static func merge(_ value: UInt64, into old: UInt64, offset: UInt64, width: Int) -> UInt64 {
    if width == 8 { return value }
    let low = value & 0xFFFF_FFFF
    return offset % 8 == 0 ? old & ~0xFFFF_FFFF | low : old & 0xFFFF_FFFF | low << 32
  }

  public func reset() {
    state.withLock { state in
      for hart in targets.indices {
        state.softwareInterrupts[hart] = false
        targets[hart].softwareInterrupt.set(false)
      }
    }
    for target in targets { target.setTimeCompare(.max) }
  }

  public func saveState() -> State { state.withLock { $0 } }

  public func restoreState(_ saved: State) throws {
    guard saved.softwareInterrupts.count == targets.count else {
      throw StateError("the saved machine has another number of harts")
    }
    state.withLock { state in
      state = saved
      for hart in targets.indices { targets[hart].softwareInterrupt.set(saved.softwareInterrupts[hart]) }
    }
  }
}

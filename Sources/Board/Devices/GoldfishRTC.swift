import Bus
import HostSystem
import Synchronization

/// The Goldfish real-time clock of Android's emulator (Linux, Documentation/devicetree/bindings/rtc/google,goldfish-rtc):
/// nanoseconds since 1970 in UTC, and one alarm.
public final class GoldfishRTC: BusDevice, StateKeeper, @unchecked Sendable {
  private enum Register: UInt64 {
    case timeLow = 0x00
    case timeHigh = 0x04
    case alarmLow = 0x08
    case alarmHigh = 0x0C
    case interruptEnabled = 0x10
    case clearAlarm = 0x14
    case alarmStatus = 0x18
    case clearInterrupt = 0x1C
  }

  public struct State: Codable {
    /// What the guest's setting of the clock added to the host's, in nanoseconds; wraps.
    var offset: UInt64 = 0
    /// The upper half that goes with the last TIME_LOW read.
    var latchedHigh: UInt32 = 0
    var alarm: UInt64 = 0
    var isAlarmArmed = false
    var isInterruptPending = false
    var isInterruptEnabled = false
  }

  public static let stateVersion = 1
  public let stateIdentifier = "rtc"

  private let wallClock: @Sendable () -> UInt64
  private let loop: EventLoop
  private let interrupt: InterruptLine
  private let state = Mutex(State())
  /// Used on the loop's thread only.
  private var timer: EventLoop.Token?

  /// `wallClock`: nanoseconds since 1970, the seam through which the date enters the machine.
  public init(wallClock: @escaping @Sendable () -> UInt64, loop: EventLoop, interrupt: InterruptLine) {
    self.wallClock = wallClock
    self.loop = loop
    self.interrupt = interrupt
  }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard let register = Register(rawValue: offset) else { return 0 }
    return state.withLock { state in
      switch register {
      case .timeLow:
        let now = wallClock() &+ state.offset
        state.latchedHigh = UInt32(truncatingIfNeeded: now >> 32)
        return now & 0xFFFF_FFFF
      case .timeHigh: return UInt64(state.latchedHigh)
      case .alarmLow: return state.alarm & 0xFFFF_FFFF
      case .alarmHigh: return state.alarm >> 32
      case .interruptEnabled: return state.isInterruptEnabled ? 1 : 0
      case .alarmStatus: return state.isAlarmArmed ? 1 : 0
      case .clearAlarm, .clearInterrupt: return 0
      }
    }
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    guard let register = Register(rawValue: offset) else { return }
    let low = value & 0xFFFF_FFFF
    state.withLock { state in
      switch register {
      case .timeLow:
        let now = wallClock() &+ state.offset
        state.offset &+= (now & ~0xFFFF_FFFF | low) &- now
        schedule()
      case .timeHigh:
        let now = wallClock() &+ state.offset
        state.offset &+= (now & 0xFFFF_FFFF | low << 32) &- now
        schedule()
      case .alarmLow:
        state.alarm = state.alarm & ~0xFFFF_FFFF | low
        state.isAlarmArmed = true
        schedule()
      case .alarmHigh: state.alarm = state.alarm & 0xFFFF_FFFF | low << 32
      case .clearAlarm: state.isAlarmArmed = false
      case .interruptEnabled: state.isInterruptEnabled = value & 1 != 0
      case .clearInterrupt: state.isInterruptPending = false
      case .alarmStatus: return
      }
      ringIfDue(&state)
      drive(state)
    }
  }

  private func drive(_ state: State) { interrupt.set(state.isInterruptPending && state.isInterruptEnabled) }

  private func ringIfDue(_ state: inout State) {
    guard state.isAlarmArmed, wallClock() &+ state.offset >= state.alarm else { return }
    state.isAlarmArmed = false
    state.isInterruptPending = true
  }

  private func schedule() { loop.perform { [weak self] in self?.setTimer() } }

  /// Waits for the alarm, at most an hour at a time: the wall clock may be set meanwhile.
  private func setTimer() {
    if let timer { loop.cancel(timer) }
    timer = nil
    let wait: UInt64? = state.withLock { state in
      ringIfDue(&state)
      drive(state)
      guard state.isAlarmArmed else { return nil }
      let now = wallClock() &+ state.offset
      return state.alarm > now ? min(state.alarm - now, 3_600_000_000_000) : 0
    }
    guard let wait else { return }
    timer = loop.after(nanoseconds: wait) { [weak self] in self?.setTimer() }
  }

  /// The date survives a reset, as a battery would have it.
  public func reset() {
    state.withLock { state in
      let offset = state.offset
      state = State()
      state.offset = offset
      drive(state)
    }
  }

  public func saveState() -> State { state.withLock { $0 } }

  public func restoreState(_ saved: State) {
    state.withLock { state in
      state = saved
      drive(state)
    }
    schedule()
  }
}

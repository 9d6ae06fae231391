import HostSystem
import Synchronization

/// The guest's time: the seam through which time enters a machine. 10 MHz ticks, as the device tree's
/// timebase-frequency says. Read from any thread.
public final class GuestClock: @unchecked Sendable {
  /// Ticks a second.
  public static let frequency: UInt64 = 10_000_000
  public static let nanosecondsPerTick: UInt64 = 1_000_000_000 / frequency

  /// Added to the host's clock (in ticks) to get the guest's; set anew at restore and by writes to mtime.
  private let offset: Atomic<UInt64>

  /// How much slower than the host's clock it goes.
  public let slowdown: UInt64

  /// A clock that reads `start` ticks now.
  public init(start: UInt64 = 0, slowdown: UInt64 = 1) {
    self.slowdown = slowdown
    offset = Atomic(start &- GuestClock.hostTicks(slowdown))
  }

  @inline(__always)
  private static func hostTicks(_ slowdown: UInt64) -> UInt64 {
    let ticks = MonotonicClock.nanoseconds() / nanosecondsPerTick
    return slowdown == 1 ? ticks : ticks / slowdown
  }

  /// Ticks since the guest's power-on, while it ran.
  @inline(__always)
  public func ticks() -> UInt64 { GuestClock.hostTicks(slowdown) &+ offset.load(ordering: .relaxed) }

  /// Makes the clock read `ticks` now.
  public func set(_ ticks: UInt64) { offset.store(ticks &- GuestClock.hostTicks(slowdown), ordering: .relaxed) }
}

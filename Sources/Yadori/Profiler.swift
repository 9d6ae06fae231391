import Foundation
import Hart
import HostSystem
import Synchronization
import Translation

/// Asks each hart that is awake where it is, about a thousand times a second, from a thread of its own.
final class Profiler: @unchecked Sendable {
  let samplers: [HartSampler]
  private let state: Mutex<Profile>
  private var thread: HostThread?
  private let isStopped = Atomic<Bool>(false)

  /// Not a divisor of what guests' timers count, lest samples keep step with them.
  private static let period: UInt64 = 1_003_000

  /// For harts that don't run yet.
  init(_ harts: [Hart]) throws {
    samplers = try harts.map { try HartSampler($0) }
    var profile = Profile()
    profile.hartCount = harts.count
    state = Mutex(profile)
  }

  var profile: Profile { state.withLock { $0 } }

  func start() {
    thread = HostThread(name: "profiler") { [self] in
      let start = MonotonicClock.nanoseconds()
      var next = start
      while !isStopped.load(ordering: .acquiring) {
        next += Self.period
        let now = MonotonicClock.nanoseconds()
        if next > now {
          Thread.sleep(forTimeInterval: Double(next - now) / 1e9)
        } else {
          // Too late for some: they are left out, not made up for.
          next = now
        }
        collect()
        for sampler in samplers {
          if sampler.hart.isAwake { sampler.ask() } else { state.withLock { $0.asleepCount += 1 } }
        }
      }
      state.withLock { $0.seconds = Double(MonotonicClock.nanoseconds() - start) / 1e9 }
    }
  }

  /// Asks no more. Before the harts' threads end.
  func stop() {
    isStopped.store(true, ordering: .releasing)
    thread?.join()
    collect()
  }

  private func collect() {
    state.withLock { profile in
      var lost = 0
      for sampler in samplers {
        sampler.drain { sample in
          let mode = Profile.Mode(rawValue: Int(sample.privilege)) ?? .machine
          // Without translation the other bits of satp mean nothing.
          let satp = mode == .machine || sample.satp >> 60 == 0 ? 0 : sample.satp
          profile.counts[.init(address: sample.pc, mode: mode, satp: satp), default: 0] += 1
          if sample.isGenerated { profile.generatedCount += 1 }
        }
        lost += sampler.lostCount
      }
      profile.lostCount = lost
    }
  }
}

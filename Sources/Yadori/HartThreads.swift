import Foundation
import Hart
import HostSystem
import Translation

/// The host threads that a machine's harts run on, and the brake that stops them all between two instructions.
final class HartThreads: @unchecked Sendable {
  private enum Phase { case running, paused, ended }

  private let harts: [Hart]
  private let condition = NSCondition()
  private var phase = Phase.paused
  private var parked: Int
  private var threads: [HostThread] = []
  /// The retired-instruction count of hart 0 at which it stops and `onLimit` is called, once.
  private var limit: UInt64?
  private let onLimit: @Sendable () -> Void
  private let samplers: [HartSampler]

  /// Threads for `harts`, parked until `resume`. `samplers`: one for each hart, or none.
  init(
    _ harts: [Hart], limit: UInt64? = nil, samplers: [HartSampler] = [], onLimit: @escaping @Sendable () -> Void
  ) {
    self.harts = harts
    self.samplers = samplers
    self.limit = limit
    self.onLimit = onLimit
    parked = harts.count
    threads = harts.map { hart in HostThread(name: "hart\(hart.identifier)") { [self] in body(hart) } }
  }

  private func body(_ hart: Hart) {
    let sampler = samplers.first { $0.hart === hart }
    sampler?.attach()
    defer { sampler?.detach() }
    while waitForTurn() {
      var budget: UInt64?
      if hart === harts[0], let limit {
        budget = limit > hart.retiredInstructions ? limit - hart.retiredInstructions : 0
      }
      let exit = hart.run(limit: budget)
      condition.lock()
      parked += 1
      let isLimit = exit == .instructionLimit
      if isLimit {
        limit = nil
        phase = .paused
        for other in harts { other.requestPause() }
      }
      condition.broadcast()
      condition.unlock()
      if isLimit { onLimit() }
    }
  }

  /// Parks the calling hart's thread until the harts run again. False: they are done.
  private func waitForTurn() -> Bool {
    condition.lock()
    defer { condition.unlock() }
    while phase == .paused { condition.wait() }
    if phase == .ended { return false }
    parked -= 1
    return true
  }

  /// Stops every hart between two instructions, and returns when all stand still. Not from a hart's own thread.
  func pause() {
    condition.lock()
    defer { condition.unlock() }
    if phase == .running {
      phase = .paused
      for hart in harts { hart.requestPause() }
    }
    while parked < harts.count { condition.wait() }
  }

  func resume() {
    condition.lock()
    defer { condition.unlock() }
    guard phase == .paused else { return }
    for hart in harts { hart.clearPause() }
    phase = .running
    condition.broadcast()
  }

  /// Ends the threads, and returns when they are gone. Not from a hart's own thread.
  func end() {
    pause()
    condition.lock()
    phase = .ended
    condition.broadcast()
    condition.unlock()
    for thread in threads { thread.join() }
  }
}

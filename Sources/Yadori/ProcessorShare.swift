import Foundation
import Hart
import HostSystem
import Synchronization

/// How much of the host's processors a machine may use: a cap, kept by its own account, and a weight against others, which
/// becomes another cap where they want more than there is (`ProcessorWeights`).
///
/// The account is the processor time of the whole process. It is looked at every half a millisecond or so of each hart;
/// when enough more was used than the cap gives, all harts stand still until it is made up for.
final class ProcessorShare: @unchecked Sendable {
  /// A rest ends after so many nanoseconds at the latest, that a new cap counts.
  private static let longestRest = 100_000_000.0
  /// Stretches of a hart between two looks.
  private static let interval = 16

  private let isLimited = Atomic<Bool>(false)
  private let account = Mutex(ProcessorAccount(limit: nil, weightLimit: nil, time: 0, used: 0))
  /// Nil: weights are the host's affair. Before harts run.
  var weights: ProcessorWeights?

  init(limit: Double?) { setLimit(limit) }

  func setLimit(_ limit: Double?) {
    account.withLock { account in
      account = ProcessorAccount(
        limit: limit, weightLimit: account.weightLimit, time: MonotonicClock.nanoseconds(), used: Self.used())
      isLimited.store(limit != nil || account.weightLimit != nil, ordering: .releasing)
    }
  }

  private func setWeightLimit(_ limit: Double?) {
    account.withLock { account in
      if account.limit == nil, account.weightLimit == nil, limit != nil {
        account.begin(time: MonotonicClock.nanoseconds(), used: Self.used())
      }
      // What is found out of a tenth of a second is rough.
      account.weightLimit = limit.map { limit in account.weightLimit.map { ($0 + limit) / 2 } ?? limit }
      isLimited.store(account.limit != nil || limit != nil, ordering: .releasing)
    }
  }

  /// Has a hart keep to it. Before it runs.
  func apply(to hart: Hart) {
    let before = hart.afterStretch
    var stretches = 0
    let delay = SchedulingDelay()
    hart.afterStretch = { [unowned self, unowned hart] in
      before?()
      stretches &+= 1
      if stretches % Self.interval != 0 { return }
      let isLimited = isLimited.load(ordering: .relaxed)
      guard isLimited || weights != nil else { return }
      let now = MonotonicClock.nanoseconds()
      if let missed = delay.look(at: now) {
        account.withLock { $0.withhold(missed) }
        if let weights, let limit = weights.look(missed: missed, at: now, used: Self.used) { setWeightLimit(limit) }
      }
      if isLimited { keepTo(hart) }
    }
  }

  private func keepTo(_ hart: Hart) {
    while true {
      let look = account.withLock { $0.look(time: MonotonicClock.nanoseconds(), used: Self.used()) }
      guard let (rest, isForWeight) = look else { return }
      if rest == 0 { return }
      let start = MonotonicClock.nanoseconds()
      let isOver = hart.rest(nanoseconds: UInt64(min(rest, Self.longestRest)))
      if isForWeight { weights?.addRest(MonotonicClock.nanoseconds() &- start) }
      if !isOver { return }
    }
  }

  /// Nanoseconds of processors that this process has used.
  private static func used() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// The niceness that stands for a weight (100: 0): each step is a quarter more or less, as Linux has it (sched(7)).
  static func niceness(weight: Int) -> Int32 {
    Int32(max(-20, min(19, (-log(Double(weight) / 100) / log(1.25)).rounded())))
  }

  /// Gives all threads of a process (nil: of this one) a weight against other processes. Throws `MachineError` where the
  /// host doesn't let it.
  static func setWeight(_ weight: Int, process: Int32? = nil) throws {
    let niceness = niceness(weight: weight)
    for thread in (try? HostResources.threads(of: process)) ?? [] {
      // A thread that has ended meanwhile needs none.
      if setpriority(__priority_which_t(PRIO_PROCESS.rawValue), id_t(thread), niceness) != 0, errno != ESRCH {
        throw MachineError(
          .permission,
          "this host lets nobody but root raise a weight; give 100 or less, or one that isn't above the last")
      }
    }
  }
}

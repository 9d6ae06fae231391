/// What a machine has used of the processors of its host, beside what a cap gives it: when it must stand still, and for how
/// long. Times are in nanoseconds, caps in processors.
package struct ProcessorAccount {
  /// Processors; nil: as many as there are.
  var limit: Double?
  /// The same for the sake of heavier machines.
  var weightLimit: Double?
  /// Nanoseconds that may be used at once, or that were used too much.
  private var balance = 0.0
  /// How many of them the host had its processors run something else in.
  private var withheld = 0.0
  /// More was used than may be, and isn't made up for yet.
  private var isOwing = false
  /// When it was looked at last, and what was used by then, in nanoseconds.
  private var time: UInt64
  private var used: UInt64

  /// Of so many nanoseconds a machine may make up for what it didn't use, where it didn't want to, and of so many more where
  /// it did: the host's processors go round among many, and move them between them now and then only. Together they are less
  /// than two points of five seconds, which nobody exceeds so.
  private static let idleAllowance = 50_000_000.0
  private static let longestWithheld = 50_000_000.0
  private static let leastAllowance = 2_000_000.0
  /// How long a full turn of running and standing still takes, about. Many short turns make work of their own, and the host
  /// doesn't move threads to a processor that is idle for a moment only.
  private static let turn = 10_000_000.0

  package init(limit: Double?, weightLimit: Double?, time: UInt64, used: UInt64) {
    (self.limit, self.weightLimit, self.time, self.used) = (limit, weightLimit, time, used)
  }

  /// Nothing is owed, from now on.
  package mutating func begin(time: UInt64, used: UInt64) {
    (balance, withheld, isOwing, self.time, self.used) = (0, 0, false, time, used)
  }

  /// A hart wanted to run for so many nanoseconds and wasn't let.
  package mutating func withhold(_ nanoseconds: UInt64) { withheld += Double(nanoseconds) }

  /// How many nanoseconds all harts must stand still from now on, 0 for none, and whether it is for the sake of
  /// heavier machines. Nil: there is no cap.
  package mutating func look(time: UInt64, used: UInt64) -> (rest: Double, isForWeight: Bool)? {
    guard let least = [limit, weightLimit].compactMap({ $0 }).min() else { return nil }
    let isForWeight = least == weightLimit
    // Those who are lighter than others aren't owed what they didn't get.
    let idle = isForWeight ? Self.leastAllowance : max(Self.leastAllowance, Self.idleAllowance * least)
    let owed = isForWeight ? 0 : min(withheld, Self.longestWithheld * least)
    balance = min(balance + Double(time - self.time) * least - Double(used - self.used), idle + owed)
    withheld = max(0, min(owed, balance - idle))
    (self.time, self.used) = (time, used)
    let rest = -balance / least
    isOwing = rest > (isOwing ? 0 : Self.turn * max(0.1, 1 - least))
    return (isOwing ? rest : 0, isForWeight)
  }
}

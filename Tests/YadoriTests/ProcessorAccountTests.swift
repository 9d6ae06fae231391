import Testing
import Yadori

/// A host that is played: what it lets a machine use, and what that makes of it.
private struct PlayedHost {
  var account: ProcessorAccount
  private var time: UInt64 = 0
  private(set) var used: UInt64 = 0
  private static let step: UInt64 = 500_000

  init(limit: Double?, weightLimit: Double? = nil) {
    account = ProcessorAccount(limit: limit, weightLimit: weightLimit, time: 0, used: 0)
  }

  /// A hart that wants to run all the time, for so many milliseconds. Returns processors used, and how often it stood still.
  mutating func run(milliseconds: UInt64) -> (processors: Double, rests: Int) {
    let (end, before, start) = (time + milliseconds * 1_000_000, used, time)
    var rests = 0
    while time < end {
      (time, used) = (time + Self.step, used + Self.step)
      while let rest = account.look(time: time, used: used)?.rest, rest > 0 {
        rests += 1
        time += UInt64(rest) + 1
      }
    }
    return (Double(used - before) / Double(time - start), rests)
  }

  /// Nobody wants to run.
  mutating func idle(milliseconds: UInt64) { time += milliseconds * 1_000_000 }

  /// It wants to, and other programs have the processors.
  mutating func wait(milliseconds: UInt64) {
    idle(milliseconds: milliseconds)
    account.withhold(milliseconds * 1_000_000)
  }
}

@Suite struct ProcessorAccountTests {
  @Test(arguments: [0.01, 0.05, 0.3, 0.8, 0.99]) func aCapIsKeptInTurnsThatTheHostCanFollow(cap: Double) {
    var host = PlayedHost(limit: cap)
    let (processors, rests) = host.run(milliseconds: 5000)
    #expect(abs(processors - cap) < 0.005)
    #expect(rests <= 550)
  }

  @Test func withoutACapNobodyStandsStill() {
    var host = PlayedHost(limit: nil)
    #expect(host.run(milliseconds: 1000).rests == 0)
    #expect(host.account.look(time: .max, used: 0) == nil)
  }

  @Test func whatTheHostWithheldIsMadeGood() {
    var host = PlayedHost(limit: 0.8)
    for _ in 0..<10 {
      host.wait(milliseconds: 80)
      _ = host.run(milliseconds: 420)
    }
    #expect(abs(Double(host.used) / 5e9 - 0.8) < 0.01)
  }

  @Test func whoDidNothingGetsLittleOfItLater() {
    var host = PlayedHost(limit: 0.8)
    host.idle(milliseconds: 10_000)
    #expect(host.run(milliseconds: 1000).processors < 0.85)
  }

  @Test func whatWasWithheldForLongIsLost() {
    var host = PlayedHost(limit: 0.5)
    host.wait(milliseconds: 60_000)
    #expect(host.run(milliseconds: 5000).processors < 0.52)
  }

  @Test func whoIsLighterThanOthersIsOwedNothing() {
    var host = PlayedHost(limit: 1.5, weightLimit: 0.5)
    host.wait(milliseconds: 1000)
    #expect(host.account.look(time: 1_000_000_000, used: 0)?.isForWeight == true)
    #expect(host.run(milliseconds: 1000).processors < 0.505)
  }
}

import Foundation
import HostSystem
import Synchronization

/// What the machines of a user tell each other of their processor time, and what each makes of it for its own weight.
///
/// The host's means need its administrator, or mean something else: niceness can't be lowered again, and counts within a
/// session only where sessions are grouped (sched(7), "The autogroup feature"). So each machine that is at work says in a
/// file of all what it used and wanted, and limits itself where it got more than its weight gives. The heaviest never do, so
/// nothing lies idle that somebody wants; other programs of the host are shared with as the host does it.
package final class ProcessorWeights: @unchecked Sendable {
  /// A machine's line: 8 numbers.
  private struct Slot {
    var owner: UInt64
    /// When it was written, on the monotonic clock, in nanoseconds.
    var time: UInt64
    var weight: UInt64
    /// A bit for each of the host's processors (modulo 64) that it may run on.
    var processors: UInt64
    /// Nanoseconds of processors that it has used, and that it would have used had nobody else wanted any.
    var used: UInt64
    var wanted: UInt64
    var reserved = (UInt64(0), UInt64(0))
  }

  /// One who is at work: processors used and wanted on average lately.
  package struct Competitor {
    package var weight: Double
    package var used: Double
    package var wanted: Double

    package init(weight: Double, used: Double, wanted: Double) {
      (self.weight, self.used, self.wanted) = (weight, used, wanted)
    }
  }

  private struct State {
    var weight: Int
    var pinned: [Int]?
    /// Nanoseconds that harts wanted to run in and didn't.
    var missed: UInt64 = 0
    var slot: Int?
    var written: UInt64 = 0
    var decided: UInt64 = 0
    /// Nanoseconds that processors have been idle, and when.
    var idle: (nanoseconds: Double, time: UInt64)?
    /// By owner, when they were looked at last.
    var seen: [UInt64: (slot: Slot, competitor: Competitor?)] = [:]
  }

  private static let slotSize = MemoryLayout<Slot>.size
  private static let mostSlots = 4096
  /// Nanoseconds between two lines of a machine, two looks at the others', and after which one is idle, or gone.
  private static let writeInterval: UInt64 = 20_000_000
  private static let decisionInterval: UInt64 = 100_000_000
  private static let idleTime: UInt64 = 250_000_000
  private static let goneTime: UInt64 = 10_000_000_000

  private let file: Int32
  private let owner = UInt64.random(in: 1 ... .max)
  private let state: Mutex<State>

  /// Takes part in what an open file is for, and closes it in the end. Nil: this host doesn't say what a thread waits for.
  init?(file: Int32, weight: Int, pinned: [Int]?) {
    guard SchedulingDelay.isCounted else {
      close(file)
      return nil
    }
    self.file = file
    state = Mutex(State(weight: weight, pinned: pinned))
  }

  deinit { close(file) }

  func setWeight(_ weight: Int) { state.withLock { $0.weight = weight } }
  func setPinned(_ processors: [Int]?) { state.withLock { $0.pinned = processors } }

  /// Time that a hart had to stand still for its machine's weight.
  func addRest(_ nanoseconds: UInt64) { state.withLock { $0.missed &+= nanoseconds } }

  /// Says what this machine does, and looks at the others from time to time. On a hart's thread, often, with the
  /// nanoseconds in which that wanted to run and wasn't let. Returns how many processors it may use, nil for no limit, where
  /// that is decided anew.
  func look(missed: UInt64, at now: UInt64, used: () -> UInt64) -> Double?? {
    return state.withLock { state -> Double?? in
      state.missed &+= missed
      if now &- state.written < Self.writeInterval { return nil }
      state.written = now
      let used = used()
      let mine = Slot(
        owner: owner, time: now, weight: UInt64(max(1, min(10_000, state.weight))), processors: Self.mask(state.pinned),
        used: used,
        wanted: used &+ state.missed)
      write(mine, &state)
      if now &- state.decided < Self.decisionInterval { return nil }
      state.decided = now
      return .some(decide(mine, &state))
    }
  }

  private static func mask(_ processors: [Int]?) -> UInt64 {
    processors.map { $0.reduce(0) { $0 | 1 << UInt64($1 % 64) } } ?? .max
  }

  // MARK: the file

  private func slots() -> [Slot] {
    var status = stat()
    guard fstat(file, &status) == 0 else { return [] }
    let count = min(Int(status.st_size) / Self.slotSize, Self.mostSlots)
    return [Slot](unsafeUninitializedCapacity: count) { buffer, initialized in
      let read = count > 0 ? pread(file, buffer.baseAddress, count * Self.slotSize, 0) : 0
      initialized = max(0, read) / Self.slotSize
    }
  }

  /// To the place that is this machine's still, or a free one. Where two take the same at once, one sees it the next time.
  private func write(_ slot: Slot, _ state: inout State) {
    var slot = slot
    if let place = state.slot {
      var owner: UInt64 = 0
      if pread(file, &owner, 8, off_t(place * Self.slotSize)) != 8 || owner != self.owner { state.slot = nil }
    }
    if state.slot == nil {
      let all = slots()
      // A time that is yet to come was written before the host was started.
      let place = all.firstIndex { $0.time > slot.time &+ Self.goneTime || $0.time &+ Self.goneTime < slot.time }
      state.slot = place ?? all.count
    }
    guard let place = state.slot, place < Self.mostSlots else { return }
    _ = pwrite(file, &slot, Self.slotSize, off_t(place * Self.slotSize))
  }

  // MARK: decisions

  private func decide(_ mine: Slot, _ state: inout State) -> Double? {
    var (seen, me, others) = (state.seen, Competitor?.none, [Competitor]())
    for slot in slots() where slot.time <= mine.time &+ Self.idleTime && slot.time &+ Self.idleTime > mine.time {
      guard slot.processors & mine.processors != 0 else { continue }
      let before = seen[slot.owner]
      var competitor = before?.competitor
      if let earlier = before?.slot, slot.time > earlier.time {
        let time = Double(slot.time - earlier.time)
        func rate(_ now: UInt64, _ before: UInt64) -> Double {
          max(0, min(1024, Double(Int64(bitPattern: now &- before)) / time))
        }
        competitor = Competitor(
          weight: Double(max(1, min(10_000, slot.weight))), used: rate(slot.used, earlier.used),
          wanted: rate(slot.wanted, earlier.wanted))
      }
      seen[slot.owner] = (slot, competitor)
      guard let competitor else { continue }
      if slot.owner == owner { me = competitor } else { others.append(competitor) }
    }
    state.seen = seen.filter { $0.value.slot.time &+ Self.idleTime > mine.time }
    let idleBefore = state.idle
    // Where all weigh the same, the host does it.
    guard let me, others.contains(where: { $0.weight > me.weight }) else {
      state.idle = nil
      return nil
    }
    state.idle = Self.idleTime(of: state.pinned).map { ($0, mine.time) }
    guard let idle = state.idle, let idleBefore, idle.time > idleBefore.time else { return nil }
    let unused = max(0, (idle.nanoseconds - idleBefore.nanoseconds) / Double(idle.time - idleBefore.time))
    return Self.limit(of: me, among: others, unused: unused)
  }

  /// How many processors one may use beside others, some of which are heavier; nil: as many as it wants.
  ///
  /// What they use together, and what nobody does, is given to all by their weights, but to none more than it wants.
  package static func limit(of me: Competitor, among others: [Competitor], unused: Double) -> Double? {
    var left = others + [me]
    var capacity = left.reduce(unused) { $0 + $1.used }
    while true {
      let level = capacity / left.reduce(0) { $0 + $1.weight }
      if me.wanted <= level * me.weight { return nil }
      let content = left.filter { $0.wanted <= level * $0.weight }
      if content.isEmpty { return max(0.01, level * me.weight) }
      capacity -= content.reduce(0) { $0 + $1.wanted }
      left.removeAll { $0.wanted <= level * $0.weight }
    }
  }

  /// Nanoseconds that processors (nil: all) have been idle since the host was started (proc(5), /proc/stat).
  private static func idleTime(of processors: [Int]?) -> Double? {
    guard let text = try? String(contentsOfFile: "/proc/stat", encoding: .utf8) else { return nil }
    let names = processors.map { $0.map { "cpu\($0)" } } ?? ["cpu"]
    var ticks: Double = 0
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 6)
      guard words.count > 5, words[0].hasPrefix("cpu") else { break }
      if names.contains(String(words[0])) { ticks += (Double(words[4]) ?? 0) + (Double(words[5]) ?? 0) }
    }
    return ticks * 1e9 / Double(sysconf(Int32(_SC_CLK_TCK)))
  }
}

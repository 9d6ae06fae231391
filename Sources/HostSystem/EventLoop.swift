import CHost
import Foundation
import Synchronization

/// The I/O thread of a machine: waits for descriptors, timers and work handed over by other threads, and runs their
/// handlers one at a time. Device backends and virtqueue processing run here, so that they need no locks among
/// themselves. `perform`, `performAndWait` and `stop` may be called from any thread; everything else on the loop's own
/// thread, or while no thread runs (before `start`, after `stop`).
public final class EventLoop: @unchecked Sendable {
  /// What a descriptor is watched for, and what was found.
  public struct Interest: OptionSet, Sendable {
    public let rawValue: Int16
    public init(rawValue: Int16) { self.rawValue = rawValue }
    public static let read = Interest(rawValue: Int16(POLLIN))
    public static let write = Interest(rawValue: Int16(POLLOUT))
    /// Reported always, asked for or not: the other side is gone, or the descriptor is broken or closed. It is
    /// reported at every turn until the watch is cancelled, changed to the empty set, or the cause goes away.
    public static let hangup = Interest(rawValue: Int16(POLLHUP))

    /// What poll found, of what is wanted now.
    init(events: Int16, wanted: Interest) {
      var found = Interest(rawValue: events).intersection(wanted)
      if events & Int16(POLLHUP | POLLERR | POLLNVAL) != 0 { found.insert(.hangup) }
      self = found
    }
  }

  /// Names a watched descriptor, a timer or a hook, to change or cancel it.
  public struct Token: Hashable, Sendable { let number: UInt64 }

  private struct Watch {
    let descriptor: Int32
    var interest: Interest
    let handler: (Interest) -> Void
  }

  private struct Timer {
    let deadline: UInt64
    let handler: () -> Void
  }

  private enum Life { case idle, running, ended }

  /// What other threads may touch.
  private struct Shared {
    var life = Life.idle
    var work: [() -> Void] = []
  }

  private var wakeDescriptor: Int32
  private let shared = Mutex(Shared())
  private let stopping = Atomic<Bool>(false)
  private let threadIdentity = Atomic<UInt>(0)
  private let thread = Mutex<HostThread?>(nil)
  private var watches: [Token: Watch] = [:]
  private var timers: [Token: Timer] = [:]
  private var nextToken: UInt64 = 1
  /// Where set, handlers run only while the loop has its turn. Set before `start`.
  public var turns: TurnLock?

  /// Hooks of libraries that bring their own descriptors (libslirp): `before` may add to the poll set and shorten the
  /// timeout (milliseconds, -1: none), `after` sees the result.
  public struct PollHook {
    public let before: (inout [pollfd], inout Int32) -> Void
    public let after: (ArraySlice<pollfd>) -> Void
    public init(
      before: @escaping (inout [pollfd], inout Int32) -> Void, after: @escaping (ArraySlice<pollfd>) -> Void
    ) {
      self.before = before
      self.after = after
    }
  }
  private var hooks: [(token: Token, hook: PollHook)] = []

  public init() throws {
    wakeDescriptor = chost_event_descriptor()
    guard wakeDescriptor >= 0 else { throw HostError.last("can't make an event descriptor") }
  }

  deinit { close(wakeDescriptor) }

  /// Has the loop be this process's alone, which is a copy of the one that made it. Before `start`. Throws `HostError`.
  public func becomeIndependent() throws {
    let own = chost_event_descriptor()
    guard own >= 0 else { throw HostError.last("can't make an event descriptor") }
    close(wakeDescriptor)
    wakeDescriptor = own
    // What waits for the first turn has woken the other one.
    wake()
  }

  /// Starts the thread. A loop runs once: after `stop` it can't be started again.
  public func start(name: String = "io") {
    shared.withLock { shared in
      precondition(shared.life == .idle, "an event loop is started once")
      shared.life = .running
    }
    thread.withLock { thread in
      thread = HostThread(name: name) { [self] in
        threadIdentity.store(UInt(pthread_self()), ordering: .releasing)
        while !stopping.load(ordering: .acquiring) { turn() }
        runLastWork()
        // The host gives the identity of an ended thread to a new one.
        threadIdentity.store(0, ordering: .releasing)
      }
    }
  }

  /// Ends the loop after the handlers that are running and the work handed over so far, and waits for its thread
  /// (unless called on it). Watches, timers and hooks fall silent.
  public func stop() {
    stopping.store(true, ordering: .releasing)
    wake()
    if !isCurrent { thread.withLock { $0 }?.join() }
  }

  /// Whether the calling thread is the loop's own.
  public var isCurrent: Bool { threadIdentity.load(ordering: .acquiring) == UInt(pthread_self()) }

  /// Whether handlers can't run at this moment except on the calling thread: it is the loop's own, or there is none.
  public var isCurrentOrIdle: Bool { isCurrent || shared.withLock { $0.life != .running } }

  /// Runs `body` on the loop's thread, soon. Order among calls of one thread is kept. Before `start` it waits for the
  /// first turn; after the loop's end it is forgotten.
  public func perform(_ body: @escaping () -> Void) {
    let first = shared.withLock { shared in
      guard shared.life != .ended else { return false }
      shared.work.append(body)
      return shared.work.count == 1
    }
    if first { wake() }
  }

  /// Runs `body` on the loop's thread and waits for its result; at once when called there, or when no thread runs.
  public func performAndWait<Result>(_ body: @escaping () -> Result) -> Result {
    if isCurrent { return body() }
    let done = DispatchSemaphore(value: 0)
    var result: Result?
    let queued = shared.withLock { shared in
      // Decided under the lock that the loop's end takes, so that nothing is queued which nobody will run.
      guard shared.life == .running else { return false }
      shared.work.append {
        result = body()
        done.signal()
      }
      return true
    }
    guard queued else { return body() }
    wake()
    done.wait()
    return result!
  }

  /// Calls `handler` whenever `descriptor` is ready for `interest`, until `cancel`. The descriptor stays the caller's;
  /// cancel before closing it.
  public func watch(_ descriptor: Int32, for interest: Interest, handler: @escaping (Interest) -> Void) -> Token {
    let token = newToken()
    watches[token] = Watch(descriptor: descriptor, interest: interest, handler: handler)
    return token
  }

  /// Changes what a watched descriptor is watched for; an empty set pauses it.
  public func change(_ token: Token, to interest: Interest) {
    assertOwner()
    watches[token]?.interest = interest
  }

  /// Calls `handler` once, `nanoseconds` from now or up to a millisecond later.
  public func after(nanoseconds: UInt64, _ handler: @escaping () -> Void) -> Token {
    let token = newToken()
    let (deadline, overflow) = MonotonicClock.nanoseconds().addingReportingOverflow(nanoseconds)
    timers[token] = Timer(deadline: overflow ? .max : deadline, handler: handler)
    return token
  }

  /// Adds a library's own descriptors to every wait.
  public func add(_ hook: PollHook) -> Token {
    let token = newToken()
    hooks.append((token, hook))
    return token
  }

  /// Forgets a watch, a timer or a hook; its handler isn't called again, not even for what was found already.
  public func cancel(_ token: Token) {
    assertOwner()
    watches[token] = nil
    timers[token] = nil
    hooks.removeAll { $0.token == token }
  }

  /// Runs one turn: waits for something to happen, then runs its handlers. For tests that drive a loop themselves.
  public func turn(maximumWait milliseconds: Int32 = -1) {
    var descriptors = [pollfd(fd: wakeDescriptor, events: Int16(POLLIN), revents: 0)]
    var watched: [Token] = []
    for (token, watch) in watches where !watch.interest.isEmpty {
      descriptors.append(pollfd(fd: watch.descriptor, events: watch.interest.rawValue, revents: 0))
      watched.append(token)
    }
    var timeout = milliseconds
    if let wait = millisecondsToNextTimer() { timeout = timeout < 0 ? wait : min(timeout, wait) }
    let current = hooks
    var ranges: [Range<Int>] = []
    for (_, hook) in current {
      let start = descriptors.count
      hook.before(&descriptors, &timeout)
      ranges.append(start..<descriptors.count)
    }
    if poll(&descriptors, UInt(descriptors.count), timeout) < 0 {
      // Interrupted by a signal: nothing was found.
      for index in descriptors.indices { descriptors[index].revents = 0 }
    }
    turns?.lock()
    defer { turns?.unlock() }
    if descriptors[0].revents != 0 {
      var count: UInt64 = 0
      _ = read(wakeDescriptor, &count, 8)
    }
    runWork()
    for (index, token) in watched.enumerated() where descriptors[index + 1].revents != 0 {
      // Looked up again: a handler before this one may have cancelled, paused or narrowed the watch.
      guard let watch = watches[token], !watch.interest.isEmpty else { continue }
      let found = Interest(events: descriptors[index + 1].revents, wanted: watch.interest)
      if !found.isEmpty { watch.handler(found) }
    }
    for (index, entry) in current.enumerated() where hooks.contains(where: { $0.token == entry.token }) {
      entry.hook.after(descriptors[ranges[index]])
    }
    runTimers()
  }

  private func millisecondsToNextTimer() -> Int32? {
    guard let deadline = timers.values.map(\.deadline).min() else { return nil }
    let now = MonotonicClock.nanoseconds()
    guard deadline > now else { return 0 }
    // Rounded up: waking before the deadline would only spin.
    return Int32(clamping: (deadline - now - 1) / 1_000_000 + 1)
  }

  private func runTimers() {
    guard !timers.isEmpty else { return }
    let now = MonotonicClock.nanoseconds()
    let due = timers.filter { $0.value.deadline <= now }.sorted {
      ($0.value.deadline, $0.key.number) < ($1.value.deadline, $1.key.number)
    }
    for (token, timer) in due where timers.removeValue(forKey: token) != nil { timer.handler() }
  }

  private func runWork() {
    let batch = shared.withLock { shared in
      let batch = shared.work
      shared.work.removeAll()
      return batch
    }
    for body in batch { body() }
  }

  /// Runs what is queued until nothing is, and from that moment on takes nothing more.
  private func runLastWork() {
    while true {
      let batch = shared.withLock { shared in
        let batch = shared.work
        shared.work.removeAll()
        if batch.isEmpty { shared.life = .ended }
        return batch
      }
      if batch.isEmpty { return }
      for body in batch { body() }
    }
  }

  private func newToken() -> Token {
    assertOwner()
    defer { nextToken += 1 }
    return Token(number: nextToken)
  }

  private func assertOwner() { assert(isCurrentOrIdle, "an event loop is changed on its own thread only") }

  private func wake() {
    var one: UInt64 = 1
    _ = write(wakeDescriptor, &one, 8)
  }
}

import CHost
import Foundation
import Synchronization

/// The I/O thread of a machine: waits for descriptors, timers and work handed over by other threads, and runs their
/// handlers one at a time. Device backends and virtqueue processing run here, so that they need no locks among
/// themselves. `perform` and `stop` may be called from any thread; everything else on the loop's own thread, or before
/// `start`.
public final class EventLoop: @unchecked Sendable {
  /// What a descriptor is watched for.
  public struct Interest: OptionSet, Sendable {
    public let rawValue: Int16
    public init(rawValue: Int16) { self.rawValue = rawValue }
    public static let read = Interest(rawValue: Int16(POLLIN))
    public static let write = Interest(rawValue: Int16(POLLOUT))
    /// Reported always, asked for or not: the other side is gone or the descriptor is broken.
    public static let hangup = Interest(rawValue: Int16(POLLHUP | POLLERR))
  }

  /// Names a watched descriptor or a timer, to change or cancel it.
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

  private let wakeDescriptor: Int32
  private let work = Mutex<[() -> Void]>([])
  private let stopping = Atomic<Bool>(false)
  private let threadIdentity = Atomic<UInt>(0)
  private var watches: [Token: Watch] = [:]
  private var timers: [Token: Timer] = [:]
  private var nextToken: UInt64 = 1
  private var thread: HostThread?

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

  /// Starts the thread.
  public func start(name: String = "io") {
    precondition(thread == nil, "the event loop runs already")
    thread = HostThread(name: name) { [self] in
      threadIdentity.store(UInt(pthread_self()), ordering: .releasing)
      while !stopping.load(ordering: .acquiring) { turn() }
      runWork()
    }
  }

  /// Ends the loop after the handlers that are running, and waits for its thread (unless called on it).
  public func stop() {
    stopping.store(true, ordering: .releasing)
    wake()
    if !isCurrent { thread?.join() }
  }

  /// Whether the calling thread is the loop's own.
  public var isCurrent: Bool { threadIdentity.load(ordering: .acquiring) == UInt(pthread_self()) }

  /// Runs `body` on the loop's thread, soon. Order among calls of one thread is kept.
  public func perform(_ body: @escaping () -> Void) {
    let first = work.withLock { queue in
      queue.append(body)
      return queue.count == 1
    }
    if first { wake() }
  }

  /// Runs `body` on the loop's thread and waits for its result; at once when called there, or when no thread runs.
  public func performAndWait<Result>(_ body: @escaping () -> Result) -> Result {
    if thread == nil || isCurrent || stopping.load(ordering: .acquiring) { return body() }
    let done = DispatchSemaphore(value: 0)
    var result: Result?
    perform {
      result = body()
      done.signal()
    }
    done.wait()
    return result!
  }

  /// Calls `handler` whenever `descriptor` is ready for `interest`, until `cancel`. The descriptor stays the caller's.
  public func watch(_ descriptor: Int32, for interest: Interest, handler: @escaping (Interest) -> Void) -> Token {
    let token = newToken()
    watches[token] = Watch(descriptor: descriptor, interest: interest, handler: handler)
    return token
  }

  /// Changes what a watched descriptor is watched for; an empty set pauses it.
  public func change(_ token: Token, to interest: Interest) { watches[token]?.interest = interest }

  /// Calls `handler` once, `nanoseconds` from now.
  public func after(nanoseconds: UInt64, _ handler: @escaping () -> Void) -> Token {
    let token = newToken()
    timers[token] = Timer(deadline: MonotonicClock.nanoseconds() &+ nanoseconds, handler: handler)
    return token
  }

  /// Adds a library's own descriptors to every wait.
  public func add(_ hook: PollHook) -> Token {
    let token = newToken()
    hooks.append((token, hook))
    return token
  }

  /// Forgets a watch, a timer or a hook; its handler isn't called again.
  public func cancel(_ token: Token) {
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
    if let deadline = timers.values.map(\.deadline).min() {
      let now = MonotonicClock.nanoseconds()
      let wait = deadline <= now ? 0 : Int32(clamping: (deadline - now + 999_999) / 1_000_000)
      timeout = timeout < 0 ? wait : min(timeout, wait)
    }
    let current = hooks
    var ranges: [Range<Int>] = []
    for (_, hook) in current {
      let start = descriptors.count
      hook.before(&descriptors, &timeout)
      ranges.append(start..<descriptors.count)
    }
    let ready = poll(&descriptors, UInt(descriptors.count), timeout)
    if ready > 0, descriptors[0].revents != 0 {
      var count: UInt64 = 0
      _ = read(wakeDescriptor, &count, 8)
    }
    runWork()
    for (index, token) in watched.enumerated() where descriptors[index + 1].revents != 0 {
      watches[token]?.handler(Interest(rawValue: descriptors[index + 1].revents))
    }
    for (index, entry) in current.enumerated() where hooks.contains(where: { $0.token == entry.token }) {
      entry.hook.after(descriptors[ranges[index]])
    }
    runTimers()
  }

  private func runTimers() {
    guard !timers.isEmpty else { return }
    let now = MonotonicClock.nanoseconds()
    for (token, timer) in timers.filter({ $0.value.deadline <= now }).sorted(by: { $0.value.deadline < $1.value.deadline }) {
      if timers.removeValue(forKey: token) != nil { timer.handler() }
    }
  }

  private func runWork() {
    let batch = work.withLock { queue in
      let batch = queue
      queue.removeAll()
      return batch
    }
    for body in batch { body() }
  }

  private func newToken() -> Token {
    defer { nextToken += 1 }
    return Token(number: nextToken)
  }

  private func wake() {
    var one: UInt64 = 1
    _ = write(wakeDescriptor, &one, 8)
  }
}

import Foundation

/// The guest's output on its way out: bytes from any thread, taken by the one that writes them. It is bounded, and who
/// would overfill it waits, so that nothing is lost and a guest that prints for ever doesn't fill the host's memory.
final class OutputQueue: @unchecked Sendable {
  private let condition = NSCondition()
  private let capacity: Int
  private var bytes: [UInt8] = []
  /// Taken, but not known to be written yet.
  private var inFlight = 0
  private var isClosed = false
  private var isDiscarding = false
  private var takerWaits = false
  /// Counts what has left, so that a waiter can tell a slow reader from one that stands still.
  private var departed: UInt64 = 0

  init(capacity: Int = 1 << 20) { self.capacity = capacity }

  /// How a wait for room went on.
  enum Patience { case keepWaiting, giveUp }

  /// Appends, in pieces where there isn't room at once. While there is none, `whileFull` is called (without the lock)
  /// after each wait of `interval`; it may make room itself. Bytes that find the queue closed or discarding are lost.
  /// Returns whether the queue was empty before some of them came, so that whoever takes them may have to be told.
  @discardableResult
  func append(
    _ source: UnsafeRawBufferPointer, interval: TimeInterval = 1, whileFull: (_ departed: UInt64) -> Patience
  ) -> Bool {
    var rest = source
    condition.lock()
    defer { condition.unlock() }
    var wasEmpty = bytes.isEmpty
    while !rest.isEmpty {
      if isClosed || isDiscarding { return false }
      let room = min(rest.count, capacity - bytes.count)
      if room > 0 {
        // All may have left while this waited for room.
        if bytes.isEmpty { wasEmpty = true }
        bytes.append(contentsOf: rest[..<room])
        rest = UnsafeRawBufferPointer(rebasing: rest[room...])
        if takerWaits { condition.broadcast() }
        continue
      }
      if interval > 0 { _ = condition.wait(until: Date(timeIntervalSinceNow: interval)) }
      let isStillFull = bytes.count >= capacity && !isClosed && !isDiscarding
      if isStillFull {
        let seen = departed
        condition.unlock()
        let patience = whileFull(seen)
        condition.lock()
        if patience == .giveUp { return wasEmpty }
      }
    }
    return wasEmpty
  }

  /// Waits for bytes and takes them all; nil when the queue is closed and empty. `written` tells when they are out.
  func take() -> [UInt8]? {
    condition.lock()
    defer { condition.unlock() }
    while bytes.isEmpty {
      if isClosed { return nil }
      takerWaits = true
      condition.wait()
      takerWaits = false
    }
    let taken = bytes
    bytes = []
    inFlight = taken.count
    condition.broadcast()
    return taken
  }

  /// Says that `count` of the bytes taken are out.
  func written(_ count: Int) {
    condition.lock()
    inFlight -= min(count, inFlight)
    departed &+= UInt64(count)
    condition.broadcast()
    condition.unlock()
  }

  /// Offers what is pending to `write`, which returns how much it took, until it takes nothing or nothing is left.
  /// Returns whether nothing is left. For a writer that must not wait.
  func flush(_ write: (UnsafeRawBufferPointer) -> Int) -> Bool {
    condition.lock()
    defer { condition.unlock() }
    var taken = 0
    bytes.withUnsafeBytes { all in
      while taken < all.count {
        let count = write(UnsafeRawBufferPointer(rebasing: all[taken...]))
        if count <= 0 { break }
        taken += count
      }
    }
    bytes.removeFirst(taken)
    departed &+= UInt64(taken)
    if taken > 0 { condition.broadcast() }
    return bytes.isEmpty
  }

  /// From now on everything is lost, what is pending too: nobody reads any more. `false` takes output again.
  func discard(_ discarding: Bool = true) {
    condition.lock()
    isDiscarding = discarding
    bytes = []
    condition.broadcast()
    condition.unlock()
  }

  /// Takes no more; what is pending can still be taken out. Waiting writers go on.
  func close() {
    condition.lock()
    isClosed = true
    condition.broadcast()
    condition.unlock()
  }

  var isEmpty: Bool {
    condition.lock()
    defer { condition.unlock() }
    return bytes.isEmpty
  }

  /// Waits until everything is out. `stall`: gives up when nothing has left for that many seconds; nil: never.
  func waitUntilWritten(stall: () -> TimeInterval?) {
    condition.lock()
    defer { condition.unlock() }
    var last = departed
    var since = Date()
    while !bytes.isEmpty || inFlight > 0 {
      _ = condition.wait(until: Date(timeIntervalSinceNow: 0.1))
      if departed != last {
        last = departed
        since = Date()
      } else if let limit = stall(), Date().timeIntervalSince(since) >= limit {
        return
      }
    }
  }
}

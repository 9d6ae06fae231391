import Glibc
import HostSystem

/// Requests whose answer isn't there yet, which are for locks mostly: they are asked again, as the guest put them, until
/// it is. Others go on meanwhile.
extension VirtioFileSystem {
  struct Waiting: Codable {
    var queue: Int
    /// The queue that it came by: after a reset there is another one, in which it isn't. Nil: that of a saved guest.
    var source: Virtqueue?
    var head: UInt16
    var unique: UInt64
    /// A signal for whoever waits ends it.
    var canBeInterrupted: Bool
    /// When it is asked again (`MonotonicClock`), and the pause after that, nanoseconds.
    var due: UInt64 = 0
    var pause: UInt64 = VirtioFileSystem.shortestPause

    enum CodingKeys: CodingKey { case queue, head, unique, canBeInterrupted }
  }

  /// Of the queue's requests: the rest is for those who let go of what they wait for.
  static let mostWaiting = 512
  /// As many as there can be in a queue.
  static let mostEver = 1024
  static let shortestPause: UInt64 = 1_000_000
  static let longestPause: UInt64 = 32_000_000

  /// False: too many wait already. For those whose wait ends by itself, which may have got their lock, there is always
  /// room, in queues of these sizes.
  func keep(_ head: UInt16, queue: Int, _ unique: UInt64, _ wait: FuseWait) -> Bool {
    guard waiting.count < (wait.until == nil ? Self.mostWaiting : Self.mostEver) else { return false }
    var request = Waiting(
      queue: queue, source: transport?.queue(queue), head: head, unique: unique, canBeInterrupted: wait.until == nil)
    request.due = wait.until ?? MonotonicClock.nanoseconds() + request.pause
    waiting.append(request)
    setTimer()
    return true
  }

  /// Asks what is due; whatever waits for a lock if the guest itself has let go of one.
  func askAgain() {
    let all = server.locks.wereReleased
    server.locks.wereReleased = false
    guard !waiting.isEmpty, let transport, transport.isActive else { return }
    let now = MonotonicClock.nanoseconds()
    let before = waiting
    waiting = []
    for var request in before {
      guard request.due <= now || all && request.canBeInterrupted else {
        waiting.append(request)
        continue
      }
      // The device may be without access to the guest's memory for now.
      guard let queue = transport.queue(request.queue) else {
        request.due = now + Self.longestPause
        waiting.append(request)
        continue
      }
      guard request.source == nil || request.source === queue else {
        server.locks.endWait(request.unique)
        continue
      }
      request.source = queue
      do {
        var chain = DescriptorChain()
        try queue.take(request.head, into: &chain)
        switch try answer(chain, asked: request.unique) {
        case .written(let count):
          server.locks.endWait(request.unique)
          queue.push(head: request.head, written: count)
          transport.interruptIfWanted(queue)
        case .waits(_, let wait):
          request.canBeInterrupted = wait.until == nil
          request.due = wait.until ?? now + request.pause
          request.pause = min(request.pause * 2, Self.longestPause)
          waiting.append(request)
        }
      } catch {
        waiting = []
        return transport.fail("\(error)")
      }
    }
    if server.locks.wereReleased { return askAgain() }
    setTimer()
  }

  /// A signal came for whoever made this request.
  func interrupt(_ unique: UInt64) {
    guard let index = waiting.firstIndex(where: { $0.unique == unique && $0.canBeInterrupted }),
      let queue = transport?.queue(waiting[index].queue),
      waiting[index].source == nil || waiting[index].source === queue
    else { return }
    let request = waiting.remove(at: index)
    server.locks.endWait(unique)
    var chain = DescriptorChain()
    do {
      try queue.take(request.head, into: &chain)
      queue.push(head: request.head, written: try reply(chain, unique, code: EINTR))
      transport?.interruptIfWanted(queue)
    } catch {
      transport?.fail("\(error)")
    }
  }

  func forgetWaiting() {
    waiting = []
    setTimer()
  }

  private func setTimer() {
    guard let transport else { return }
    let loop = transport.loop
    if let timer { loop.cancel(timer) }
    timer = nil
    guard transport.isActive, let due = waiting.map(\.due).min() else { return }
    let now = MonotonicClock.nanoseconds()
    timer = loop.after(nanoseconds: due > now ? due - now : 0) { [weak self] in
      self?.timer = nil
      self?.askAgain()
    }
  }
}

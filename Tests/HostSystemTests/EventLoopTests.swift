import Foundation
import HostSystem
import Synchronization
import Testing

/// What several threads add to, in order.
private final class Journal: Sendable {
  private let entries = Mutex<[String]>([])
  func add(_ entry: String) { entries.withLock { $0.append(entry) } }
  var all: [String] { entries.withLock { $0 } }
}

/// The two ends of a pipe, closed at the end of a test.
private final class TestPipe {
  let reading: Int32
  private(set) var writing: Int32
  init() {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    (reading, writing) = (ends[0], ends[1])
  }
  func put(_ text: String) { _ = write(writing, text, text.utf8.count) }
  func closeWriting() {
    close(writing)
    writing = -1
  }
  deinit {
    close(reading)
    if writing >= 0 { close(writing) }
  }
}

/// Turns `loop` until `condition` holds; false when that takes too long to be anything but a failure.
private func turn(_ loop: EventLoop, until condition: () -> Bool) -> Bool {
  let deadline = Date(timeIntervalSinceNow: 30)
  while !condition() {
    if Date() > deadline { return false }
    loop.turn(maximumWait: 100)
  }
  return true
}

struct EventLoopTests {
  @Test func performKeepsTheOrderOfAThread() throws {
    let loop = try EventLoop()
    let journal = Journal()
    loop.start()
    for number in 0..<1000 { loop.perform { journal.add("\(number)") } }
    loop.stop()
    #expect(journal.all == (0..<1000).map(String.init))
  }

  @Test func workBeforeTheStartWaitsForIt() throws {
    let loop = try EventLoop()
    let journal = Journal()
    loop.perform { journal.add("work") }
    #expect(journal.all.isEmpty)
    loop.start()
    loop.performAndWait {}
    #expect(journal.all == ["work"])
    loop.stop()
  }

  @Test func performAndWaitGivesTheResultFromEveryThread() throws {
    let loop = try EventLoop()
    #expect(loop.performAndWait { 1 } == 1)
    loop.start()
    #expect(loop.performAndWait { loop.isCurrent })
    #expect(!loop.isCurrent)
    // On the loop's own thread it must not wait for itself.
    #expect(loop.performAndWait { loop.performAndWait { 2 } } == 2)
    loop.stop()
    #expect(loop.performAndWait { 3 } == 3)
  }

  @Test func performAndWaitNeverHangsWhileTheLoopEnds() throws {
    for _ in 0..<50 {
      let loop = try EventLoop()
      loop.start()
      let done = Atomic<Int>(0)
      let callers = (0..<4).map { _ in
        HostThread(name: "caller") {
          for _ in 0..<20 { done.add(loop.performAndWait { 1 }, ordering: .relaxed) }
        }
      }
      loop.stop()
      for caller in callers { caller.join() }
      #expect(done.load(ordering: .relaxed) == 80)
    }
  }

  @Test func stopFromInsideEndsTheLoop() throws {
    let loop = try EventLoop()
    let journal = Journal()
    loop.start()
    loop.perform {
      loop.stop()
      loop.perform { journal.add("handed over before the end") }
    }
    loop.stop()
    #expect(journal.all == ["handed over before the end"])
    loop.perform { journal.add("after the end") }
    #expect(loop.performAndWait { true })
    #expect(journal.all.count == 1)
  }

  @Test func stopTwiceAndWithoutStart() throws {
    let loop = try EventLoop()
    loop.stop()
    loop.stop()
    loop.start()
    loop.stop()
  }

  @Test func anotherThreadIsNeverTakenForAnEndedLoop() throws {
    let loop = try EventLoop()
    loop.start()
    loop.stop()
    let wrong = Atomic<Int>(0)
    for _ in 0..<20 {
      let thread = HostThread(name: "other") { if loop.isCurrent { wrong.add(1, ordering: .relaxed) } }
      thread.join()
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
  }

  @Test func timersRunByDeadlineThenByAge() throws {
    let loop = try EventLoop()
    let journal = Journal()
    _ = loop.after(nanoseconds: 3_000_000) { journal.add("third") }
    _ = loop.after(nanoseconds: 0) { journal.add("first") }
    _ = loop.after(nanoseconds: 1_000_000) { journal.add("second") }
    _ = loop.after(nanoseconds: .max) { journal.add("never") }
    #expect(turn(loop) { journal.all.count == 3 })
    #expect(journal.all == ["first", "second", "third"])
  }

  @Test func aTimerMayCancelAnotherAndStartOne() throws {
    let loop = try EventLoop()
    let journal = Journal()
    var second: EventLoop.Token?
    _ = loop.after(nanoseconds: 0) {
      journal.add("first")
      loop.cancel(second!)
      _ = loop.after(nanoseconds: 0) { journal.add("third") }
    }
    second = loop.after(nanoseconds: 0) { journal.add("second") }
    #expect(turn(loop) { journal.all.count == 2 })
    loop.turn(maximumWait: 0)
    #expect(journal.all == ["first", "third"])
  }

  @Test func anIndependentLoopHasWhatWaitedAndIsWoken() throws {
    let loop = try EventLoop()
    let journal = Journal()
    let (first, second) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    loop.perform {
      journal.add("before")
      first.signal()
    }
    try loop.becomeIndependent()
    loop.start()
    #expect(first.wait(timeout: .now() + 30) == .success)
    loop.perform {
      journal.add("after")
      second.signal()
    }
    #expect(second.wait(timeout: .now() + 30) == .success)
    loop.stop()
    #expect(journal.all == ["before", "after"])
  }

  @Test func watchSeesBytesAndTheirEnd() throws {
    let loop = try EventLoop()
    let pipe = TestPipe()
    var text = ""
    var hangups = 0
    var token: EventLoop.Token?
    token = loop.watch(pipe.reading, for: .read) { found in
      if found.contains(.read) {
        var buffer = [UInt8](repeating: 0, count: 16)
        text += String(decoding: buffer[..<read(pipe.reading, &buffer, 16)], as: UTF8.self)
      } else if found.contains(.hangup) {
        hangups += 1
        loop.cancel(token!)
      }
    }
    pipe.put("hello")
    #expect(turn(loop) { text == "hello" })
    pipe.closeWriting()
    #expect(turn(loop) { hangups == 1 })
    loop.turn(maximumWait: 0)
    #expect(hangups == 1)
  }

  @Test func aPausedWatchIsSilentUntilChanged() throws {
    let loop = try EventLoop()
    let pipe = TestPipe()
    var calls = 0
    let token = loop.watch(pipe.reading, for: []) { _ in calls += 1 }
    pipe.put("x")
    loop.turn(maximumWait: 0)
    #expect(calls == 0)
    loop.change(token, to: .read)
    loop.turn(maximumWait: 1000)
    #expect(calls == 1)
  }

  @Test func handlersOfOneTurnMayCancelOrPauseEachOther() throws {
    let loop = try EventLoop()
    let pipes = (0..<3).map { _ in TestPipe() }
    var calls = 0
    var tokens: [EventLoop.Token] = []
    for (index, pipe) in pipes.enumerated() {
      tokens.append(
        loop.watch(pipe.reading, for: .read) { _ in
          calls += 1
          loop.cancel(tokens[(index + 1) % 3])
          loop.change(tokens[(index + 2) % 3], to: [])
        })
      pipe.put("x")
    }
    loop.turn(maximumWait: 1000)
    #expect(calls == 1)
  }

  @Test func aClosedDescriptorIsAHangup() throws {
    let loop = try EventLoop()
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    // High above what other tests open meanwhile.
    let high = fcntlDuplicate(ends[0], above: 900)
    close(ends[0])
    close(ends[1])
    var found: EventLoop.Interest = []
    let token = loop.watch(high, for: .read) { found = $0 }
    close(high)
    loop.turn(maximumWait: 1000)
    #expect(found == .hangup)
    loop.cancel(token)
  }

  @Test func hooksSeeTheirOwnDescriptorsOnly() throws {
    let loop = try EventLoop()
    let pipes = (0..<2).map { _ in TestPipe() }
    var results: [[Int16]] = [[], []]
    var tokens: [EventLoop.Token] = []
    for (index, pipe) in pipes.enumerated() {
      tokens.append(
        loop.add(
          EventLoop.PollHook(
            before: { descriptors, timeout in
              for _ in 0...index { descriptors.append(pollfd(fd: pipe.reading, events: Int16(POLLIN), revents: 0)) }
              timeout = 0
            }, after: { results[index] = $0.map(\.revents) })))
    }
    pipes[1].put("x")
    loop.turn()
    #expect(results == [[0], [Int16(POLLIN), Int16(POLLIN)]])
    for token in tokens { loop.cancel(token) }
    results = [[], []]
    loop.turn(maximumWait: 0)
    #expect(results == [[], []])
  }
}

private func fcntlDuplicate(_ descriptor: Int32, above minimum: Int32) -> Int32 {
  var target = minimum
  while fcntl(target, F_GETFD) >= 0 { target += 1 }
  return dup2(descriptor, target)
}

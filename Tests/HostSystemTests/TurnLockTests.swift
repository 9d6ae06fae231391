import HostSystem
import Synchronization
import Testing

@Suite struct TurnLockTests {
  @Test func oneThreadAtATimeHasIt() {
    let lock = TurnLock()
    let inside = Atomic<Int>(0)
    let overlaps = Atomic<Int>(0)
    let threads = (0..<4).map { index in
      HostThread(name: "turn\(index)") {
        for _ in 0..<10_000 {
          lock.lock()
          if inside.add(1, ordering: .relaxed).oldValue != 0 { overlaps.add(1, ordering: .relaxed) }
          inside.subtract(1, ordering: .relaxed)
          lock.unlock()
        }
      }
    }
    for thread in threads { thread.join() }
    #expect(overlaps.load(ordering: .relaxed) == 0)
  }

  @Test func whoWaitsIsNext() {
    let lock = TurnLock()
    let isWaiting = Atomic<Bool>(false)
    let hadItsTurn = Atomic<Bool>(false)
    lock.lock()
    let other = HostThread(name: "other") {
      isWaiting.store(true, ordering: .releasing)
      lock.lock()
      hadItsTurn.store(true, ordering: .releasing)
      lock.unlock()
    }
    while !isWaiting.load(ordering: .acquiring) { HostThread.yield() }
    // However often this thread takes it, the other comes in between.
    while !hadItsTurn.load(ordering: .acquiring) {
      lock.unlock()
      lock.lock()
    }
    lock.unlock()
    other.join()
  }

  @Test func handlersOfALoopWaitForTheirTurn() throws {
    let loop = try EventLoop()
    let turns = TurnLock()
    loop.turns = turns
    loop.start()
    defer { loop.stop() }
    let count = Atomic<Int>(0)
    turns.lock()
    loop.perform { count.add(1, ordering: .releasing) }
    #expect(count.load(ordering: .acquiring) == 0)
    turns.unlock()
    _ = loop.performAndWait { count.add(1, ordering: .releasing) }
    #expect(count.load(ordering: .acquiring) == 2)
  }
}

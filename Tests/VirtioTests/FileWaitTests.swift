import Bus
import CHost
import Foundation
import HostSystem
import Testing
import Virtio

/// Requests that wait for a lock, or for the guest not to rely on what it was told.
@Suite struct FileWaitTests {
  private func lockOnHost(_ path: String) -> Int32 {
    let host = open(path, O_RDWR)
    #expect(chost_lock_range(host, 1, 0, .max) == 0)
    return host
  }

  /// A file that the guest was told of, and that the host has changed since: a lock of it waits until that is over.
  private func changedFile(_ guest: FileGuest, _ name: String) throws -> FileGuest.Entry {
    try "old".write(toFile: guest.host(name), atomically: false, encoding: .utf8)
    let entry = try guest.lookUp(guest.root, name)
    let file = FileGuest.Entry.opened(entry, by: try guest.open(entry.node, O_RDWR))
    #expect(try guest.validity(of: file.node) == 1)
    try "changed".write(toFile: guest.host(name), atomically: false, encoding: .utf8)
    return file
  }

  private func sendLock(_ guest: FileGuest, _ file: FileGuest.Entry) -> FileGuest.Sent {
    guest.send(.setLock, file.node, guest.lockBody(file.handle, 1, .exclusive, 0...9) + bytes(UInt64(0)))
  }

  /// Whether there is no answer for so long.
  private func isSilent(_ guest: FileGuest, _ sent: FileGuest.Sent, milliseconds: UInt64) -> Bool {
    let end = MonotonicClock.nanoseconds() + milliseconds * 1_000_000
    while MonotonicClock.nanoseconds() < end {
      guest.rig.transport.loop.turn(maximumWait: 20)
      if guest.isAnswered(sent) { return false }
    }
    return true
  }

  @Test func aLockThatWasGotIsntRefusedWhereManyWait() throws {
    let guest = try FileGuest()
    let wanted = try guest.create(guest.root, "w")
    let host = lockOnHost(guest.host("w"))
    defer { close(host) }
    let changed = try changedFile(guest, "f")
    let wait = guest.lockWaiting(wanted, 1, .exclusive)
    let queue = guest.rig.driver[1]
    // The same request stands for many.
    for count in [63, 64, 64, 64, 64, 64, 64, 64] {
      for _ in 0..<count { queue.offer(wait.head) }
      queue.notify()
    }
    #expect(guest.refusal { try guest.receive(guest.lockWaiting(wanted, 3, .exclusive, unique: 90)) } == ENOLCK)
    let sent = sendLock(guest, changed)
    #expect(!guest.isAnswered(sent))
    try guest.receive(sent)
  }

  /// The host keeps a record of each range: what is cut out of one counts, too; and what is had already is had.
  @Test func rangesHaveALimit() throws {
    let guest = try FileGuest(memorySize: 16 << 20)
    guest.usualRoom = 256
    let changed = try changedFile(guest, "n")
    let file = try guest.create(guest.root, "f")
    // It has its lock, and isn't answered before the guest goes on.
    guest.device.setStandsStill(true)
    let sent = sendLock(guest, changed)
    #expect(!guest.isAnswered(sent))
    try guest.lock(file, 2, .exclusive, 0...50_000)
    var (cuts, refusal): (UInt64, Int32?) = (0, nil)
    while refusal == nil, cuts < 9000 {
      refusal = guest.refusal { try guest.lock(file, 2, .none, 2 * cuts + 1...2 * cuts + 1) }
      if refusal == nil { cuts += 1 }
    }
    #expect(refusal == ENOLCK && (8000..<8192).contains(cuts))
    #expect(guest.refusal { try guest.lock(file, 3, .exclusive, 60_000...60_001) } == ENOLCK)
    guest.device.setStandsStill(false)
    try guest.receive(sent)
    // What makes none more goes on.
    try guest.lock(file, 2, .none, 0...0)
    try guest.lock(file, 2, .none)
    try guest.lock(file, 3, .exclusive, 60_000...60_001)
  }

  /// A request that ends with a refusal waits for nothing any more.
  @Test func refusedWaitsAreForgotten() throws {
    let guest = try FileGuest()
    let (file, next) = (try guest.create(guest.root, "f"), try guest.create(guest.root, "g"))
    let other = FileGuest.Entry.opened(file, by: try guest.open(file.node, O_RDWR))
    try guest.lock(file, 1, .exclusive)
    let wait = guest.lockWaiting(other, 2, .exclusive)
    #expect(!guest.isAnswered(wait))
    try guest.release(other)
    #expect(guest.refusal { try guest.receive(wait) } == EBADF)
    // So nobody waits for it in turn.
    try guest.lock(next, 2, .exclusive)
    let first = guest.lockWaiting(next, 1, .exclusive, unique: 79)
    #expect(!guest.isAnswered(first))
    try guest.lock(next, 2, .none)
    try guest.receive(first)
  }

  @Test func requestsThatBecomeOthersStopTheDevice() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    let host = lockOnHost(guest.host("f"))
    defer { close(host) }
    let wait = guest.lockWaiting(file, 1, .exclusive)
    #expect(!guest.isAnswered(wait))
    _ = guest.rig.driver.memory.store(UInt64(12345), at: wait.header.address + 8)
    for _ in 0..<100 where !guest.rig.driver.needsReset { guest.rig.transport.loop.turn(maximumWait: 20) }
    #expect(guest.rig.driver.needsReset)
  }

  /// Locks of whole files go with the folder that they are in.
  @Test func aFolderThatGoesTakesItsLocks() throws {
    let guest = try FileGuest()
    let more = guest.folder.appendingPathComponent("more").path
    try FileManager.default.createDirectory(atPath: more, withIntermediateDirectories: false)
    try guest.device.share(SharedFolder(name: "n", path: more))
    let locked = try guest.create(try guest.lookUp(1, "n").node, "m")
    try guest.lock(locked, 1, .exclusive, nil)
    let changed = try changedFile(guest, "f")
    #expect(guest.device.stopSharing("n"))
    // Without any locks nobody waits for news. (`call` expects an answer at once.)
    _ = try guest.open(changed.node)
  }

  /// What waits isn't in a queue that was set up anew.
  @Test(arguments: TransportKind.allCases)
  func queuesThatAreSetUpAnew(kind: TransportKind) throws {
    let guest = try FileGuest(kind)
    let file = try guest.create(guest.root, "f")
    let host = lockOnHost(guest.host("f"))
    let wait = guest.lockWaiting(file, 1, .exclusive)
    #expect(!guest.isAnswered(wait))
    guest.rig.driver.transport.reset(queue: 1)
    let queue = guest.rig.driver.makeQueue(1)
    guest.rig.driver.run()
    close(host)
    for _ in 0..<10 { guest.rig.transport.loop.turn(maximumWait: 20) }
    #expect(queue.takeUsed().isEmpty && !guest.rig.driver.needsReset)
    try guest.lock(file, 2, .exclusive)
  }

  /// A guest that stands still relies on what it was told for longer, by the host's clock.
  @Test func aGuestThatStoodStill() throws {
    let guest = try FileGuest()
    let file = try changedFile(guest, "f")
    guest.device.setStandsStill(true)
    let sent = sendLock(guest, file)
    #expect(isSilent(guest, sent, milliseconds: 1200))
    guest.device.setStandsStill(false)
    #expect(isSilent(guest, sent, milliseconds: 500))
    try guest.receive(sent)
  }

  /// The same for one that is restored.
  @Test func aGuestThatWasSaved() throws {
    let guest = try FileGuest()
    let file = try changedFile(guest, "f")
    let next = try FileGuest(continuing: guest)
    let sent = sendLock(next, file)
    #expect(isSilent(next, sent, milliseconds: 500))
    try next.receive(sent)
  }
}

import CHost
import Foundation
import Testing
import Virtio

/// Locks that the guest's programs have of the host's files. The host's programs are descriptors of this process, whose open
/// file descriptions are locked.
@Suite struct FileLockTests {
  private final class HostFile {
    let descriptor: Int32
    init(_ path: String) { descriptor = open(path, O_RDWR) }
    deinit { close(descriptor) }

    /// 0, or what the host says.
    func lock(_ lock: FileGuest.Lock, _ range: ClosedRange<Int64> = 0...Int64.max) -> Int32 {
      chost_lock_range(descriptor, Int32(lock.rawValue), range.lowerBound, range.upperBound) == 0 ? 0 : errno
    }

    func lockWhole(_ lock: FileGuest.Lock) -> Int32 {
      let operation = [LOCK_SH, LOCK_EX, LOCK_UN][Int(lock.rawValue)]
      return flock(descriptor, operation | LOCK_NB) == 0 ? 0 : errno
    }
  }

  @Test func rangesAreTheHostsToo() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    let host = HostFile(guest.host("f"))
    try guest.lock(file, 1, .exclusive, 10...19)
    #expect(host.lock(.shared, 19...30) == EAGAIN && host.lock(.exclusive, 20...30) == 0)
    // The host's, and another owner's in the guest, in the way of each other.
    #expect(guest.refusal { try guest.lock(file, 2, .shared, 25...25) } == EAGAIN)
    #expect(guest.refusal { try guest.lock(file, 2, .shared, 15...15) } == EAGAIN)
    #expect(try guest.find(file, 2, .shared, 0...100) == [1, 10, 19, 1001])
    #expect(try guest.find(file, 1, .shared, 0...100) == [1, 20, 30, 0])
    #expect(try guest.find(file, 2, .shared, 0...9) == [])
    // A piece in the middle becomes another kind, another piece goes.
    try guest.lock(file, 1, .shared, 12...13)
    try guest.lock(file, 1, .none, 17...100)
    #expect(host.lock(.shared, 12...13) == 0 && host.lock(.shared, 13...14) == EAGAIN)
    #expect(host.lock(.exclusive, 17...18) == 0 && host.lock(.exclusive, 16...16) == EAGAIN)
    try guest.lock(file, 2, .shared, 12...13)
    // Closing any of its open files takes all of an owner's, and nobody else's.
    let again = FileGuest.Entry.opened(file, by: try guest.open(file.node))
    try guest.flush(again, 1)
    #expect(host.lock(.exclusive, 10...11) == 0 && host.lock(.exclusive, 14...16) == 0)
    #expect(host.lock(.none) == 0 && host.lock(.exclusive, 12...13) == EAGAIN)
    // A lock that is an open file's own goes with that (F_OFD_SETLK): the guest says nothing of it.
    try guest.release(file)
    #expect(host.lock(.exclusive) == 0)
  }

  @Test func wholeFilesAreTheHostsToo() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    let other = FileGuest.Entry.opened(file, by: try guest.open(file.node))
    let host = HostFile(guest.host("f"))
    try guest.lock(file, 1, .shared, nil)
    try guest.lock(other, 2, .shared, nil)
    #expect(host.lockWhole(.exclusive) == EAGAIN && host.lockWhole(.shared) == 0)
    #expect(guest.refusal { try guest.lock(other, 2, .exclusive, nil) } == EAGAIN)
    #expect(host.lockWhole(.none) == 0)
    try guest.lock(file, 1, .none, nil)
    // Though it is open for reading only.
    try guest.lock(other, 2, .exclusive, nil)
    #expect(host.lockWhole(.shared) == EAGAIN)
    // They are of another kind than those of ranges.
    #expect(host.lock(.exclusive) == 0)
    try guest.flush(other, 2)
    #expect(host.lockWhole(.shared) == EAGAIN)
    try guest.release(other)
    #expect(host.lockWhole(.exclusive) == 0)
  }

  /// Whoever waits for a lock gets it when it is free, and others are served meanwhile.
  @Test(arguments: TransportKind.allCases, [true, false])
  func waitingForOthers(kind: TransportKind, ofWholeFile: Bool) throws {
    let guest = try FileGuest(kind)
    let range: ClosedRange<UInt64>? = ofWholeFile ? nil : 0...5
    let file = try guest.create(guest.root, "f")
    let other = FileGuest.Entry.opened(file, by: try guest.open(file.node, O_RDWR))
    let host = HostFile(guest.host("f"))
    #expect((ofWholeFile ? host.lockWhole(.exclusive) : host.lock(.exclusive)) == 0)
    let first = guest.lockWaiting(file, 1, .exclusive, range)
    let second = guest.lockWaiting(other, 2, .exclusive, range, unique: 79)
    #expect(try guest.attributes(file.node).size == 0)
    #expect(!guest.isAnswered(first) && !guest.isAnswered(second))
    #expect((ofWholeFile ? host.lockWhole(.none) : host.lock(.none)) == 0)
    try guest.receive(first)
    // Now the guest's own; it is passed on at once.
    #expect(!guest.isAnswered(second))
    try guest.lock(file, 1, .none, range)
    #expect(guest.isAnswered(second))
    try guest.receive(second)
    #expect((ofWholeFile ? host.lockWhole(.shared) : host.lock(.shared)) == EAGAIN)
    // A signal ends a wait, for which nothing is left then.
    let third = guest.lockWaiting(file, 1, .exclusive, range, unique: 80)
    #expect(!guest.isAnswered(third))
    let queue = guest.rig.driver[0]
    let header = bytes(UInt32(48)) + bytes(UInt32(36)) + bytes(UInt64(81)) + [UInt8](repeating: 0, count: 24)
    queue.add([queue.readable(header + bytes(UInt64(80)))])
    queue.notify()
    #expect(guest.refusal { try guest.receive(third) } == EINTR)
    try guest.lock(other, 2, .none, range)
    #expect((ofWholeFile ? host.lockWhole(.exclusive) : host.lock(.exclusive)) == 0)
  }

  @Test func ownersThatWaitForEachOther() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    let other = try guest.create(guest.root, "g")
    try guest.lock(file, 1, .exclusive)
    try guest.lock(other, 2, .exclusive)
    let first = guest.lockWaiting(other, 1, .exclusive)
    #expect(!guest.isAnswered(first))
    #expect(guest.refusal { try guest.receive(guest.lockWaiting(file, 2, .exclusive, unique: 79)) } == EDEADLK)
    try guest.lock(other, 2, .none)
    try guest.receive(first)
  }

  /// A reader who has the lock doesn't see what was there before the last one had it.
  @Test(arguments: [true, false])
  func whatIsReadUnderALock(isOfThatFile: Bool) throws {
    let guest = try FileGuest()
    for name in ["f", "lock"] { try "old".write(toFile: guest.host(name), atomically: false, encoding: .utf8) }
    let entry = try guest.lookUp(guest.root, isOfThatFile ? "f" : "lock")
    let lock = FileGuest.Entry.opened(entry, by: try guest.open(entry.node, O_RDWR))
    let file = try guest.lookUp(guest.root, "f")
    // A guest may rely on it for a second.
    #expect(try guest.validity(of: file.node) == 1)
    try "changed".write(toFile: guest.host("f"), atomically: false, encoding: .utf8)
    let sent: FileGuest.Sent
    if isOfThatFile {
      sent = guest.send(.setLock, lock.node, guest.lockBody(lock.handle, 1, .exclusive, nil) + bytes(UInt64(1)))
    } else {
      try guest.lock(lock, 1, .exclusive, nil)
      sent = guest.send(.open, file.node, bytes(UInt32(O_RDONLY)) + bytes(UInt32(0)))
    }
    // Not before that is over; by then it relies on nothing.
    #expect(!guest.isAnswered(sent))
    try guest.receive(sent)
    #expect(try guest.validity(of: file.node) == 0)
    try "changed again".write(toFile: guest.host("f"), atomically: false, encoding: .utf8)
    _ = try guest.open(file.node)
    // What it writes itself it knows.
    let new = try guest.create(guest.root, "new")
    try guest.write(new.node, new.handle, "text", at: 0)
    try guest.lock(new, 1, .shared)
  }

  /// Locks and waits go on in a restored machine, but for those that somebody else has: the machine it is a clone of.
  @Test(arguments: [true, false])
  func locksOfASavedGuest(isClone: Bool) throws {
    let guest = try FileGuest()
    let (ranges, whole) = (try guest.create(guest.root, "a"), try guest.create(guest.root, "b"))
    let wanted = try guest.create(guest.root, "c")
    try guest.lock(ranges, 1, .exclusive, 3...8)
    try guest.lock(whole, 1, .exclusive, nil)
    let host = HostFile(guest.host("c"))
    #expect(host.lock(.exclusive) == 0)
    let wait = guest.lockWaiting(wanted, 1, .exclusive)
    #expect(!guest.isAnswered(wait))
    let next = try FileGuest(continuing: guest, ending: !isClone)
    let (others, wholeOthers) = (HostFile(guest.host("a")), HostFile(guest.host("b")))
    #expect(others.lock(.shared, 8...8) == EAGAIN && others.lock(.shared, 9...9) == 0)
    #expect(wholeOthers.lockWhole(.shared) == EAGAIN)
    if isClone {
      #expect(next.refusal { try next.lock(ranges, 1, .shared, 3...8) } == EAGAIN)
      #expect(next.refusal { try next.lock(whole, 1, .shared, nil) } == EAGAIN)
    } else {
      try next.flush(ranges, 1)
      #expect(others.lock(.shared, 8...8) == 0)
      try next.lock(whole, 1, .none, nil)
      #expect(wholeOthers.lockWhole(.shared) == 0)
    }
    #expect(!next.isAnswered(wait))
    #expect(host.lock(.none) == 0)
    try next.receive(wait)
    #expect(host.lock(.shared) == EAGAIN)
  }

  @Test func foldersThatGoWithTheirLocks() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    let host = HostFile(guest.host("f"))
    try guest.lock(file, 1, .exclusive)
    let wait = guest.lockWaiting(file, 2, .exclusive)
    #expect(guest.device.stopSharing("s"))
    #expect(host.lock(.exclusive) == 0)
    #expect(guest.refusal { try guest.receive(wait) } == ESTALE)
    // Closing goes well.
    try guest.flush(file, 1)
  }
}

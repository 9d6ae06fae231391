import CHost
import Glibc
import HostSystem

/// Locks of files, which the guest's programs share with the host's and with other machines'. The host keeps them.
///
/// Ranges (fcntl) belong to an owner in the guest: a process, or an open file. Each owner has a descriptor of each file it
/// locks, whose lock on the host is the open file description's; the guest says when an owner closes the file. Locks of
/// whole files (flock) are those of the guest's own open files.
///
/// What waits for a lock is asked again and again: no thread of this process may wait for somebody else, and the host can
/// only tell one that waits.
struct SharedLocks {
  struct Key: Hashable {
    var node: UInt64
    var owner: UInt64
  }

  struct Range: Codable, Equatable {
    var start: Int64
    /// The last byte of it; the greatest number: as far as the file goes.
    var end: Int64
    var type: UInt32
    /// Who took it, by the guest's number.
    var process: UInt32

    var isValid: Bool { 0 <= start && start <= end && type <= SharedLocks.none }
    func overlaps(_ other: Range) -> Bool { start <= other.end && other.start <= end }
    func excludes(_ other: Range) -> Bool {
      overlaps(other) && (type == SharedLocks.exclusive || other.type == SharedLocks.exclusive)
    }
  }

  /// What an owner has of one file.
  final class Holder {
    let node: SharedNode
    let descriptor: Int32
    var ranges: [Range] = []
    /// The guest's open files by which it locked.
    var handles: Set<UInt64> = []

    init(_ node: SharedNode, _ descriptor: Int32) {
      self.node = node
      self.descriptor = descriptor
    }

    /// Whether it has this very range already.
    func has(_ range: Range) -> Bool {
      ranges.contains { $0.start == range.start && $0.end == range.end && $0.type == range.type }
    }

    /// Whether a range is cut out of another, which makes two of that.
    func isSplit(by range: Range) -> Bool { ranges.contains { $0.start < range.start && range.end < $0.end } }

    /// As the host has it after the same call.
    func set(_ range: Range) {
      var next: [Range] = []
      for var held in ranges {
        guard held.overlaps(range) else {
          next.append(held)
          continue
        }
        if held.end > range.end {
          var rest = held
          rest.start = range.end + 1
          next.append(rest)
        }
        if held.start < range.start {
          held.end = range.start - 1
          next.append(held)
        }
      }
      if range.type != SharedLocks.none { next.append(range) }
      ranges = next
    }

    deinit { close(descriptor) }
  }

  private struct Wait {
    var key: Key
    var range: Range
  }

  /// F_RDLCK, F_WRLCK and F_UNLCK, which the guest means by the same numbers.
  static let shared: UInt32 = 0
  static let exclusive: UInt32 = 1
  static let none: UInt32 = 2
  /// Of one guest: the host keeps a record of each.
  static let mostRanges = 8192

  private(set) var holders: [Key: Holder] = [:]
  /// Locks of whole files by the handles that have them.
  var wholes: [UInt64: UInt32] = [:]
  private var waits: [UInt64: Wait] = [:]
  /// Somebody who waits may have it now.
  var wereReleased = false

  var ownerCount: Int { holders.count }
  /// Whether the guest has any, or an owner of ranges waits for one.
  var areInUse: Bool { !holders.isEmpty || !wholes.isEmpty }
  var rangeCount: Int { holders.values.reduce(0) { $0 + $1.ranges.count } }

  mutating func add(_ holder: Holder, _ key: Key) { holders[key] = holder }

  mutating func noteWait(_ unique: UInt64, _ key: Key, _ range: Range) {
    let before = waits.updateValue(Wait(key: key, range: range), forKey: unique)
    // The guest may have changed its request.
    if let before, before.key != key { dropUnused(before.key) }
  }

  /// A request doesn't wait any more, whatever for.
  mutating func endWait(_ unique: UInt64) {
    guard let wait = waits.removeValue(forKey: unique) else { return }
    dropUnused(wait.key)
  }

  /// An owner without a lock that waits for none isn't kept.
  mutating func dropUnused(_ key: Key) {
    guard let holder = holders[key], holder.ranges.isEmpty, !waits.values.contains(where: { $0.key == key }) else {
      return
    }
    holders[key] = nil
  }

  mutating func remove(_ key: Key) {
    if holders.removeValue(forKey: key) != nil { wereReleased = true }
  }

  mutating func removeAll(where isGone: (SharedNode) -> Bool) {
    for (key, holder) in holders where isGone(holder.node) { remove(key) }
  }

  /// Open files are gone, and their locks of the whole file with them.
  mutating func removeWholes(where isGone: (UInt64) -> Bool) {
    let left = wholes.filter { !isGone($0.key) }
    if left.count < wholes.count { wereReleased = true }
    wholes = left
  }

  /// Who else in the guest has what stands in the way of a range.
  func others(_ key: Key, _ range: Range) -> [(key: Key, range: Range)] {
    holders.filter { $0.key.node == key.node && $0.key != key }.flatMap { other in
      other.value.ranges.filter { $0.excludes(range) }.map { (other.key, $0) }
    }
  }

  /// Whether those that an owner would wait for wait for that owner themselves, as far as they are in this guest. Linux
  /// itself doesn't look for that among open files that wait for each other (F_OFD_SETLKW, fcntl(2)): they wait for
  /// ever there, and are refused (EDEADLK) here, for the guest doesn't say which of both kinds an owner is.
  func isDeadlock(_ key: Key, _ range: Range) -> Bool {
    var seen: Set<UInt64> = []
    var next = others(key, range).map(\.key.owner)
    while let owner = next.popLast() {
      if owner == key.owner { return true }
      guard seen.insert(owner).inserted else { continue }
      for wait in waits.values where wait.key.owner == owner {
        next += others(wait.key, wait.range).map(\.key.owner)
      }
    }
    return false
  }
}

extension FuseServer {
  /// fuse_lk_in
  private struct Request {
    let handle: UInt64
    let owner: UInt64
    let range: SharedLocks.Range
    let isWhole: Bool

    init(_ arguments: inout FuseArguments) throws {
      handle = try arguments.take()
      owner = try arguments.take()
      let (start, end): (UInt64, UInt64) = (try arguments.take(), try arguments.take())
      let (type, process): (UInt32, UInt32) = (try arguments.take(), try arguments.take())
      let flags: UInt32 = try arguments.take()
      guard let start = Int64(exactly: start), let end = Int64(exactly: end) else { throw FuseError(EINVAL) }
      range = SharedLocks.Range(start: start, end: end, type: type, process: process)
      guard range.isValid else { throw FuseError(EINVAL) }
      // FUSE_LK_FLOCK
      isWhole = flags & 1 != 0
    }
  }

  func lock(_ node: SharedNode, _ arguments: inout FuseArguments, _ unique: UInt64, waits: Bool) throws {
    let request = try Request(&arguments)
    guard let file = files[request.handle], file.node === node else { throw FuseError(EBADF) }
    if request.isWhole {
      try lockWhole(file, request, waits: waits)
    } else {
      try lockRange(file, request, unique, waits: waits)
    }
    guard request.range.type != SharedLocks.none else { return }
    // What is read under a lock is read anew from now on.
    node.isShared = true
    var status = stat()
    if fstat(file.descriptor, &status) == 0 { try awaitNews(of: node, status) }
  }

  private func lockWhole(_ file: OpenFile, _ request: Request, waits: Bool) throws {
    let type = request.range.type
    // A change of one's lock isn't atomic on the host, either (flock(2)).
    if locks.wholes.removeValue(forKey: request.handle) != nil { locks.wereReleased = true }
    let operation = type == SharedLocks.none ? LOCK_UN : type == SharedLocks.exclusive ? LOCK_EX : LOCK_SH
    guard flock(file.descriptor, operation | LOCK_NB) == 0 else {
      guard errno == EWOULDBLOCK else { throw FuseError(errno) }
      if waits { throw FuseWait() }
      throw FuseError(EAGAIN)
    }
    if type != SharedLocks.none { locks.wholes[request.handle] = type }
  }

  private func lockRange(_ file: OpenFile, _ request: Request, _ unique: UInt64, waits: Bool) throws {
    let key = SharedLocks.Key(node: file.node.identifier, owner: request.owner)
    let range = request.range
    var holder = locks.holders[key]
    if holder == nil {
      if range.type == SharedLocks.none { return }
      guard files.count + folders.count + locks.ownerCount < mostHandles else { throw FuseError(ENOLCK) }
      holder = try makeHolder(file)
      locks.add(holder!, key)
    }
    // What only takes from others, or is there since it was asked for first, needs no room.
    let needsRoom = range.type == SharedLocks.none ? holder!.isSplit(by: range) : !holder!.has(range)
    guard !needsRoom || locks.rangeCount + 2 <= SharedLocks.mostRanges else {
      locks.dropUnused(key)
      throw FuseError(ENOLCK)
    }
    guard chost_lock_range(holder!.descriptor, Int32(range.type), range.start, range.end) == 0 else {
      let code = errno
      guard code == EAGAIN || code == EACCES, waits else {
        locks.dropUnused(key)
        throw FuseError(code == EACCES ? EAGAIN : code)
      }
      guard !locks.isDeadlock(key, range) else {
        locks.endWait(unique)
        locks.dropUnused(key)
        throw FuseError(EDEADLK)
      }
      locks.noteWait(unique, key, range)
      throw FuseWait()
    }
    locks.endWait(unique)
    // Less than before is held where it is for reading only now, too.
    if !holder!.ranges.isEmpty { locks.wereReleased = true }
    holder!.set(range)
    holder!.handles.insert(request.handle)
    locks.add(holder!, key)
    locks.dropUnused(key)
  }

  /// For an owner: an open file description of its own, for both kinds of lock if the file can be opened so.
  private func makeHolder(_ file: OpenFile) throws -> SharedLocks.Holder {
    let path = "/proc/self/fd/\(file.descriptor)"
    let mayWrite = file.node.served?.folder.isReadOnly == false
    for mode in mayWrite ? [O_RDWR, O_RDONLY, O_WRONLY] : [O_RDONLY] {
      let descriptor = Glibc.open(path, mode | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
      if descriptor >= 0 { return SharedLocks.Holder(file.node, descriptor) }
      guard [EACCES, EPERM, EROFS, ETXTBSY].contains(errno) else { break }
    }
    throw FuseError(errno)
  }

  /// fuse_lk_out
  func findLock(_ node: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    let request = try Request(&arguments)
    guard let file = files[request.handle], file.node === node else { throw FuseError(EBADF) }
    let key = SharedLocks.Key(node: node.identifier, owner: request.owner)
    var (type, start, end) = (Int32(request.range.type), request.range.start, request.range.end)
    // What the owner has itself isn't in its way.
    guard chost_find_lock(locks.holders[key]?.descriptor ?? file.descriptor, &type, &start, &end) == 0 else {
      throw FuseError(errno)
    }
    var reply = FuseReply()
    let isFound = UInt32(type) != SharedLocks.none
    reply.put(UInt64(isFound ? start : 0))
    reply.put(UInt64(isFound ? end : 0))
    reply.put(UInt32(type))
    // Somebody's on the host has no number in the guest.
    let found = SharedLocks.Range(start: start, end: end, type: UInt32(type), process: 0)
    let holder = isFound ? locks.others(key, request.range).first { $0.range.overlaps(found) } : nil
    reply.put(holder?.range.process ?? 0)
    return reply
  }

  /// An owner has closed the file (by any of its open files, as fcntl(2) has it).
  func unlock(_ node: UInt64, owner: UInt64) { locks.remove(SharedLocks.Key(node: node, owner: owner)) }

  /// An open file is gone, and so is everybody who had it. The guest says nothing of locks that were its own (F_OFD_SETLK).
  func unlock(_ node: SharedNode, handle: UInt64) {
    if locks.wholes.removeValue(forKey: handle) != nil { locks.wereReleased = true }
    for (key, holder) in locks.holders where key.node == node.identifier && holder.handles.contains(handle) {
      locks.remove(key)
    }
  }

  /// Takes a lock again that a saved machine had; not, where somebody else has it meanwhile.
  func lockAgain(_ node: SharedNode, _ owner: UInt64, _ ranges: [SharedLocks.Range], handles: Set<UInt64>) {
    guard let file = handles.lazy.compactMap({ self.files[$0] }).first(where: { $0.node === node }),
      let holder = try? makeHolder(file)
    else { return }
    for range in ranges
    where range.isValid && chost_lock_range(holder.descriptor, Int32(range.type), range.start, range.end) == 0 {
      holder.set(range)
    }
    holder.handles = handles
    node.isShared = true
    if !holder.ranges.isEmpty { locks.add(holder, SharedLocks.Key(node: node.identifier, owner: owner)) }
  }

  func lockAgain(handle: UInt64, _ type: UInt32) {
    guard let file = files[handle] else { return }
    file.node.isShared = true
    let operation = type == SharedLocks.exclusive ? LOCK_EX : LOCK_SH
    if flock(file.descriptor, operation | LOCK_NB) == 0 { locks.wholes[handle] = type }
  }

  // MARK: what is read under a lock

  /// Waits until the guest doesn't rely on what it was told of a file before somebody else has changed it.
  func awaitNews(of node: SharedNode, _ status: stat) throws {
    guard let told = node.told, told != SharedNode.Told(status, until: told.until) else { return }
    if told.isKnown { node.isShared = true }
    let now = MonotonicClock.nanoseconds()
    // While the guest stands still, so does its clock.
    if standsStill { throw FuseWait(until: now + VirtioFileSystem.longestPause) }
    if told.until > now { throw FuseWait(until: told.until) }
    node.told = nil
  }

  /// The guest goes on: what it was told before holds as if it had been told now.
  func renewTold() {
    let until = MonotonicClock.nanoseconds() + Self.hostValidity
    for node in nodes.all where node.told != nil { node.told!.until = until }
  }

  /// Nanoseconds for which a guest may rely on what it was told: its clock begins when it reads the answer, and has
  /// coarse ticks.
  static let hostValidity = validity * 1_000_000_000 + 50_000_000

  /// The guest is told of a file's size and time; how long it may rely on that, seconds.
  func tell(_ node: SharedNode, _ status: stat) -> UInt64 {
    guard node.kind == S_IFREG else { return Self.validity }
    guard !node.isShared else {
      node.told = nil
      return 0
    }
    node.told = SharedNode.Told(status, until: MonotonicClock.nanoseconds() + Self.hostValidity)
    return Self.validity
  }
}

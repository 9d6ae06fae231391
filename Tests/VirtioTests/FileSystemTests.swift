import Bus
import CHost
import Foundation
import HostSystem
import Synchronization
import Testing
import Virtio

/// A file system device over a folder of the host, and a guest that speaks FUSE with it.
final class FileGuest {
  enum Operation: UInt32 {
    case lookup = 1
    case forget, getAttributes, setAttributes, readLink, symlink
    case makeNode = 8
    case makeFolder, unlink, removeFolder, rename, link, open, read, write, status, release
    case sync = 20
    case setExtended, getExtended, listExtended, removeExtended, flush, initialize, openFolder, readFolder
    case releaseFolder
    case getLock = 31
    case setLock, setLockWaiting
    case create = 35
    case interrupt
    case readFolderPlus = 44
    case renameWithFlags, seek
  }

  struct Entry {
    var node: UInt64
    var inode: UInt64
    var size: UInt64
    var mode: UInt32
    var links: UInt32
    var user: UInt32
    var group: UInt32
    var device: UInt32
    /// What follows.
    var rest: [UInt8]

    init(_ bytes: [UInt8], isAttributes: Bool = false) {
      let start = isAttributes ? 16 : 40
      func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) } }
      func long(_ offset: Int) -> UInt64 { UInt64(word(offset)) | UInt64(word(offset + 4)) << 32 }
      node = isAttributes ? 0 : long(0)
      inode = long(start)
      size = long(start + 8)
      mode = word(start + 60)
      links = word(start + 64)
      user = word(start + 68)
      group = word(start + 72)
      device = word(start + 76)
      rest = Array(bytes[(start + 88)...])
    }

    /// The same file, opened once more.
    static func opened(_ entry: Entry, by handle: UInt64) -> Entry {
      var opened = entry
      opened.rest = bytes(handle)
      return opened
    }

    var handle: UInt64 { rest[..<8].reversed().reduce(0) { $0 << 8 | UInt64($1) } }
  }

  struct Refusal: Error, Equatable { var code: Int32 }

  let folder: URL
  let device: VirtioFileSystem
  let rig: Rig
  /// Of the shared folder.
  private(set) var root: UInt64 = 0
  /// Bytes for a reply.
  var usualRoom = 8192

  init(_ kind: TransportKind = .mmio, isReadOnly: Bool = false, memorySize: UInt64 = 4 << 20) throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("y-\(UInt32.random(in: 0 ... .max))")
    try FileManager.default.createDirectory(at: folder.appendingPathComponent("s"), withIntermediateDirectories: true)
    device = try VirtioFileSystem([
      SharedFolder(name: "s", path: folder.appendingPathComponent("s").path, isReadOnly: isReadOnly)
    ])
    rig = try Rig(kind, device, memorySize: memorySize)
    rig.driver.start(queues: [0, 1])
    try begin()
    root = try lookUp(1, "s").node
  }

  /// The same guest after its machine was saved and restored, elsewhere or with another folder.
  /// - Parameter ending: the first one goes before.
  init(continuing guest: FileGuest, sharing path: String? = nil, ending: Bool = false) throws {
    folder = guest.folder
    root = guest.root
    device = try VirtioFileSystem([SharedFolder(name: "s", path: path ?? guest.host(""))])
    rig = try Rig(.mmio, device, continuing: guest.rig)
    let state = try JSONEncoder().encode(guest.rig.keeper.encodedState())
    if ending { _ = guest.device.stopSharing("s") }
    try rig.keeper.restoreEncodedState(try JSONDecoder().decode(EncodedState.self, from: state))
    rig.driver.run()
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func host(_ name: String) -> String { folder.appendingPathComponent("s/\(name)").path }

  func begin(major: UInt32 = 7, minor: UInt32 = 41) throws {
    let reply = try call(
      .initialize, 0,
      bytes(major) + bytes(minor) + bytes(UInt32(1 << 20)) + bytes(UInt32.max) + [UInt8](repeating: 0, count: 48))
    #expect(reply.count == 64 && reply[0] == 7)
  }

  /// A request that is on its way.
  struct Sent {
    var head: UInt16
    var header: DriverQueue.Buffer
    var target: DriverQueue.Buffer
    var unique: UInt64
  }

  private var answered: [UInt16: UInt32] = [:]

  func send(
    _ operation: Operation, _ node: UInt64, _ body: [UInt8], room: Int? = nil, user: UInt32 = 0, unique: UInt64 = 77
  ) -> Sent {
    let queue = rig.driver[1]
    var header = bytes(UInt32(40 + body.count)) + bytes(operation.rawValue) + bytes(unique) + bytes(node)
    header += bytes(user) + bytes(user) + bytes(UInt64(0))
    // In two pieces each, as a driver may.
    let target = queue.writable(16 + (room ?? usualRoom))
    let front = queue.readable(header)
    let head = queue.add([front, queue.readable(body + [0]), target].filter { $0.count > 0 })
    queue.notify()
    return Sent(head: head, header: front, target: target, unique: unique)
  }

  /// Bytes that were written for it; nil: it isn't answered yet.
  private func written(_ sent: Sent) -> UInt32? {
    for used in rig.driver[1].takeUsed() { answered[used.head] = used.written }
    return answered[sent.head]
  }

  func isAnswered(_ sent: Sent) -> Bool { written(sent) != nil }

  /// Waits for the answer: its bytes behind the header. Throws `Refusal`.
  @discardableResult
  func receive(_ sent: Sent) throws -> [UInt8] {
    for _ in 0..<500 where !isAnswered(sent) { rig.transport.loop.turn(maximumWait: 20) }
    let count = try #require(written(sent))
    answered[sent.head] = nil
    let reply = rig.driver.get(sent.target.address, Int(count))
    func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(reply[offset + $1]) << UInt32(8 * $1) } }
    #expect(word(0) == count && word(8) == UInt32(sent.unique))
    let code = -Int32(bitPattern: word(4))
    if code != 0 { throw Refusal(code: code) }
    return Array(reply[16...])
  }

  /// The reply behind its header, which comes at once. Throws `Refusal`.
  func call(
    _ operation: Operation, _ node: UInt64, _ body: [UInt8], room: Int? = nil, user: UInt32 = 0
  ) throws -> [UInt8] {
    let sent = send(operation, node, body, room: room, user: user)
    if operation == .forget {
      #expect(written(sent) == 0)
      answered[sent.head] = nil
      return []
    }
    #expect(isAnswered(sent))
    return try receive(sent)
  }

  enum Lock: UInt32 { case shared, exclusive, none }

  /// fuse_lk_in; `range` nil: flock.
  func lockBody(_ handle: UInt64, _ owner: UInt64, _ lock: Lock, _ range: ClosedRange<UInt64>?) -> [UInt8] {
    let range = range ?? 0...UInt64(Int64.max)
    return bytes(handle) + bytes(owner) + bytes(range.lowerBound) + bytes(range.upperBound) + bytes(lock.rawValue)
      + bytes(UInt32(1000 + UInt32(truncatingIfNeeded: owner)))
  }

  func lock(
    _ file: Entry, _ owner: UInt64, _ lock: Lock, _ range: ClosedRange<UInt64>? = 0...UInt64(Int64.max)
  ) throws {
    _ = try call(.setLock, file.node, lockBody(file.handle, owner, lock, range) + bytes(UInt64(range == nil ? 1 : 0)))
  }

  func lockWaiting(
    _ file: Entry, _ owner: UInt64, _ lock: Lock, _ range: ClosedRange<UInt64>? = 0...UInt64(Int64.max),
    unique: UInt64 = 78
  ) -> Sent {
    send(
      .setLockWaiting, file.node, lockBody(file.handle, owner, lock, range) + bytes(UInt64(range == nil ? 1 : 0)),
      unique: unique)
  }

  /// What keeps an owner from a lock: its kind, range and process.
  func find(_ file: Entry, _ owner: UInt64, _ lock: Lock, _ range: ClosedRange<UInt64>) throws -> [UInt64] {
    let reply = try call(.getLock, file.node, lockBody(file.handle, owner, lock, range) + bytes(UInt64(0)))
    func long(_ offset: Int, _ count: Int) -> UInt64 {
      reply[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    return long(16, 4) == 2 ? [] : [long(16, 4), long(0, 8), long(8, 8), long(20, 4)]
  }

  /// An owner closes one of its open files.
  func flush(_ file: Entry, _ owner: UInt64) throws {
    _ = try call(.flush, file.node, bytes(file.handle) + bytes(UInt64(0)) + bytes(owner))
  }

  func release(_ file: Entry) throws {
    _ = try call(.release, file.node, bytes(file.handle) + bytes(UInt64(0)) + bytes(UInt64(0)))
  }
  func refusal(_ body: () throws -> Void) -> Int32? {
    do {
      try body()
      return nil
    } catch let refusal as Refusal {
      return refusal.code
    } catch {
      return -1
    }
  }

  func text(_ name: String) -> [UInt8] { Array(name.utf8) + [0] }

  func lookUp(_ parent: UInt64, _ name: String) throws -> Entry {
    let entry = Entry(try call(.lookup, parent, text(name)))
    if entry.node == 0 { throw Refusal(code: ENOENT) }
    return entry
  }

  func attributes(_ node: UInt64) throws -> Entry {
    Entry(try call(.getAttributes, node, bytes(UInt64(0)) + bytes(UInt64(0))), isAttributes: true)
  }

  /// Seconds for which the guest relies on what it is told.
  func validity(of node: UInt64) throws -> UInt8 {
    try call(.getAttributes, node, bytes(UInt64(0)) + bytes(UInt64(0)))[0]
  }

  @discardableResult
  func create(
    _ parent: UInt64, _ name: String, mode: UInt32 = 0o644, flags: Int32 = O_RDWR, user: UInt32 = 0
  ) throws -> Entry {
    Entry(
      try call(
        .create, parent,
        bytes(UInt32(bitPattern: flags | O_CREAT)) + bytes(mode | UInt32(S_IFREG)) + bytes(UInt64(0)) + text(name),
        user: user))
  }

  func open(_ node: UInt64, _ flags: Int32 = O_RDONLY) throws -> UInt64 {
    let reply = try call(.open, node, bytes(UInt32(bitPattern: flags)) + bytes(UInt32(0)))
    return reply[..<8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  func write(_ node: UInt64, _ handle: UInt64, _ text: String, at offset: UInt64, flags: UInt32 = 0) throws {
    var body = bytes(handle) + bytes(offset) + bytes(UInt32(text.utf8.count)) + bytes(flags)
    body += [UInt8](repeating: 0, count: 16)
    _ = try call(.write, node, body + Array(text.utf8))
  }

  func read(_ node: UInt64, _ handle: UInt64, at offset: UInt64 = 0, size: UInt32 = 4096) throws -> String {
    let body = bytes(handle) + bytes(offset) + bytes(size) + [UInt8](repeating: 0, count: 20)
    return String(decoding: try call(.read, node, body), as: UTF8.self)
  }

  func set(
    _ node: UInt64, _ what: UInt32, size: UInt64 = 0, mode: UInt32 = 0, user: UInt32 = 0, group: UInt32 = 0,
    modified: UInt64 = 0
  ) throws -> Entry {
    var body = bytes(what) + bytes(UInt32(0)) + bytes(UInt64(0)) + bytes(size) + bytes(UInt64(0))
    body += bytes(UInt64(0)) + bytes(modified) + bytes(UInt64(0)) + bytes(UInt32(0)) + bytes(UInt32(5))
    body += bytes(UInt32(0)) + bytes(mode) + bytes(UInt32(0)) + bytes(user) + bytes(group) + bytes(UInt32(0))
    return Entry(try call(.setAttributes, node, body), isAttributes: true)
  }

  /// All names in a folder, read with buffers of this size.
  func list(_ node: UInt64, room: UInt32 = 4096, plus: Bool = false) throws -> [String] {
    let opened = try call(.openFolder, node, bytes(UInt64(0)))
    var (names, offset): ([String], UInt64) = ([], 0)
    while true {
      let body = opened[..<8] + bytes(offset) + bytes(room) + [UInt8](repeating: 0, count: 20)
      let reply = try call(plus ? .readFolderPlus : .readFolder, node, Array(body))
      if reply.isEmpty { break }
      #expect(reply.count <= Int(room))
      var place = 0
      while place < reply.count {
        let start = place + (plus ? 128 : 0)
        offset = reply[start + 8..<start + 16].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        let count = Int(reply[start + 16])
        names.append(String(decoding: reply[start + 24..<start + 24 + count], as: UTF8.self))
        place = start + (24 + count + 7) / 8 * 8
      }
    }
    _ = try call(.releaseFolder, node, opened[..<8] + bytes(UInt64(0)) + bytes(UInt64(0)))
    return names
  }
}

@Suite struct FileSystemTests {
  @Test(arguments: TransportKind.allCases)
  func filesOfTheHost(kind: TransportKind) throws {
    let guest = try FileGuest(kind)
    #expect(guest.rig.driver.transport.deviceType == 26)
    let tag = (0..<6).map { UInt8(guest.rig.driver.transport.readConfiguration(UInt64($0), width: 1)) }
    #expect(tag == Array("yadori".utf8))
    try "from the host".write(toFile: guest.host("a"), atomically: false, encoding: .utf8)
    let file = try guest.lookUp(guest.root, "a")
    #expect(file.size == 13 && file.mode == UInt32(S_IFREG) | 0o644 && file.user == 0 && file.links == 1)
    #expect(try guest.read(file.node, try guest.open(file.node)) == "from the host")
    #expect(try guest.read(file.node, try guest.open(file.node), at: 5, size: 3) == "the")
    let made = try guest.create(guest.root, "b", mode: 0o640)
    try guest.write(made.node, made.handle, "from the guest", at: 0)
    #expect(try String(contentsOfFile: guest.host("b"), encoding: .utf8) == "from the guest")
    #expect(try guest.attributes(made.node).size == 14 && guest.attributes(made.node).mode & 0o777 == 0o640)
    #expect(try guest.set(made.node, 1 << 3, size: 4).size == 4)
    _ = try guest.set(made.node, 1 << 5, modified: 1_000_000_000)
    var status = stat()
    stat(guest.host("b"), &status)
    #expect(status.st_mtim.tv_sec == 1_000_000_000 && status.st_mtim.tv_nsec == 5 && status.st_size == 4)
    #expect(guest.refusal { _ = try guest.lookUp(guest.root, "c") } == ENOENT)
    #expect(guest.refusal { try guest.create(guest.root, "b", flags: O_RDWR | O_EXCL) } == EEXIST)
    #expect(try guest.list(guest.root).sorted() == [".", "..", "a", "b"])
    #expect(try guest.list(1).sorted() == [".", "..", "s"])
    #expect(try guest.list(1, plus: true).sorted() == [".", "..", "s"])
    #expect(guest.device.metrics.requests > 20)
  }

  @Test func appendedAndPlacedWrites() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "log", flags: O_WRONLY | O_APPEND)
    try guest.write(file.node, file.handle, "one", at: 0)
    // Somebody on the host has written meanwhile, which the guest doesn't know yet.
    let host = try #require(FileHandle(forWritingAtPath: guest.host("log")))
    host.seekToEndOfFile()
    host.write(Data("HOST".utf8))
    try guest.write(file.node, file.handle, "two", at: 3)
    // What comes from the guest's page cache has its place.
    try guest.write(file.node, file.handle, "ONE", at: 0, flags: 1)
    #expect(try String(contentsOfFile: guest.host("log"), encoding: .utf8) == "ONEHOSTtwo")
    #expect(guest.refusal { _ = try guest.read(file.node, file.handle) } == EBADF)
    let reading = try guest.open(file.node)
    #expect(guest.refusal { try guest.write(file.node, reading, "x", at: 0) } == EBADF)
    #expect(guest.refusal { _ = try guest.read(file.node, 999) } == EBADF)
  }

  @Test func largeFoldersInSmallPieces() throws {
    let guest = try FileGuest()
    let names = (0..<300).map { "file-with-a-rather-long-name-\($0)" }
    for name in names { try Data().write(to: URL(fileURLWithPath: guest.host(name))) }
    for room: UInt32 in [400, 4096] {
      for plus in [false, true] {
        #expect(try guest.list(guest.root, room: room, plus: plus).sorted() == ([".", ".."] + names).sorted())
      }
    }
  }

  @Test func namesThatMoveAndGo() throws {
    let guest = try FileGuest()
    let folder = FileGuest.Entry(
      try guest.call(.makeFolder, guest.root, bytes(UInt32(0o755)) + bytes(UInt32(0)) + guest.text("d")))
    let file = try guest.create(folder.node, "f")
    try guest.write(file.node, file.handle, "content", at: 0)
    // The folder moves, and what is in it with it.
    _ = try guest.call(.rename, guest.root, bytes(guest.root) + guest.text("d") + guest.text("e"))
    #expect(try guest.attributes(file.node).size == 7)
    #expect(try guest.read(file.node, try guest.open(file.node)) == "content")
    let linked = FileGuest.Entry(try guest.call(.link, guest.root, bytes(file.node) + guest.text("l")))
    #expect(linked.node == file.node && linked.links == 2)
    // One name goes, and then the other; the guest has it open.
    _ = try guest.call(.unlink, guest.root, guest.text("l"))
    #expect(try guest.attributes(file.node).links == 1)
    #expect(guest.refusal { _ = try guest.call(.removeFolder, guest.root, guest.text("e")) } == ENOTEMPTY)
    _ = try guest.call(.unlink, folder.node, guest.text("f"))
    #expect(try guest.attributes(file.node).links == 0)
    #expect(try guest.read(file.node, file.handle) == "content")
    // Another file of that name is another one.
    let next = try guest.create(folder.node, "f")
    #expect(next.node != file.node)
    _ = try guest.call(.forget, file.node, bytes(UInt64(9)))
    #expect(guest.refusal { _ = try guest.attributes(file.node) } == ESTALE)
    // Over a file that is known, and an exchange.
    let other = try guest.create(guest.root, "o")
    try guest.write(other.node, other.handle, "other", at: 0)
    _ = try guest.call(.rename, guest.root, bytes(folder.node) + guest.text("o") + guest.text("f"))
    #expect(try guest.lookUp(folder.node, "f").node == other.node)
    #expect(try guest.attributes(next.node).links == 0 && guest.attributes(other.node).size == 5)
    let third = try guest.create(guest.root, "t")
    let exchange = bytes(folder.node) + bytes(UInt32(2)) + bytes(UInt32(0)) + guest.text("t") + guest.text("f")
    _ = try guest.call(.renameWithFlags, guest.root, exchange)
    #expect(try guest.lookUp(folder.node, "f").node == third.node && guest.lookUp(guest.root, "t").node == other.node)
    #expect(try guest.attributes(other.node).size == 5 && guest.attributes(third.node).size == 0)
    let keep = bytes(folder.node) + bytes(UInt32(1)) + bytes(UInt32(0)) + guest.text("t") + guest.text("f")
    #expect(guest.refusal { _ = try guest.call(.renameWithFlags, guest.root, keep) } == EEXIST)
  }

  /// Whom a file belongs to in the guest, its special bits and its devices are the guest's own affair.
  @Test func ownersAndDevices() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f", mode: 0o755, user: 1000)
    #expect(file.user == 1000 && file.group == 1000)
    let after = try guest.set(file.node, 1 | 2 | 4, mode: 0o4711, user: 3, group: 4)
    #expect(after.user == 3 && after.group == 4 && after.mode & 0o7777 == 0o4711)
    var status = stat()
    stat(guest.host("f"), &status)
    #expect(status.st_uid == geteuid() && status.st_gid == getegid() && status.st_mode & 0o7777 == 0o711)
    // Whoever writes to it takes the bit away.
    try guest.write(file.node, file.handle, "x", at: 0, flags: 4)
    #expect(try guest.attributes(file.node).mode & 0o7777 == 0o711)
    _ = try guest.set(file.node, 2 | 4, user: 0, group: 0)
    #expect(try guest.attributes(file.node).user == 0)
    let request = bytes(UInt32(S_IFCHR) | 0o600) + bytes(UInt32(0x103)) + bytes(UInt64(0)) + guest.text("null")
    let device = FileGuest.Entry(try guest.call(.makeNode, guest.root, request))
    #expect(device.mode == UInt32(S_IFCHR) | 0o600 && device.device == 0x103)
    stat(guest.host("null"), &status)
    #expect(status.st_mode & S_IFMT == S_IFREG && status.st_rdev == 0)
    #expect(try guest.lookUp(guest.root, "null").device == 0x103)
    // The note isn't the guest's to read, or to write.
    let name = guest.text("user.yadori.owner")
    #expect(
      guest.refusal { _ = try guest.call(.getExtended, device.node, bytes(UInt64(64)) + name) } == EOPNOTSUPP)
    #expect(
      guest.refusal {
        _ = try guest.call(.setExtended, file.node, bytes(UInt32(1)) + bytes(UInt32(0)) + name + [1])
      } == EOPNOTSUPP)
    _ = try guest.call(.setExtended, file.node, bytes(UInt32(3)) + bytes(UInt32(0)) + guest.text("user.a") + [1, 2, 3])
    #expect(try guest.call(.getExtended, file.node, bytes(UInt64(64)) + guest.text("user.a")) == [1, 2, 3])
    #expect(try guest.call(.listExtended, file.node, bytes(UInt64(64))) == guest.text("user.a"))
    #expect(
      guest.refusal { _ = try guest.call(.getExtended, file.node, bytes(UInt64(2)) + guest.text("user.a")) } == ERANGE)
  }

  @Test func nothingOutsideIsReached() throws {
    let guest = try FileGuest()
    let outside = guest.folder.appendingPathComponent("secret").path
    try "secret".write(toFile: outside, atomically: false, encoding: .utf8)
    for name in ["..", ".", "", "../secret", "a/b", "/etc/passwd"] {
      #expect(guest.refusal { _ = try guest.lookUp(guest.root, name) } == EINVAL, "\(name)")
      #expect(guest.refusal { try guest.create(guest.root, name) } == EINVAL, "\(name)")
      #expect(guest.refusal { _ = try guest.call(.unlink, guest.root, guest.text(name)) } == EINVAL, "\(name)")
    }
    #expect(
      guest.refusal { _ = try guest.lookUp(guest.root, String(repeating: "n", count: 256)) } == ENAMETOOLONG)
    // A link is the guest's to follow, by itself.
    _ = try guest.call(.symlink, guest.root, guest.text("link") + guest.text(outside))
    let link = try guest.lookUp(guest.root, "link")
    #expect(link.mode & UInt32(S_IFMT) == UInt32(S_IFLNK))
    #expect(try guest.call(.readLink, link.node, []) == Array(outside.utf8))
    #expect(guest.refusal { _ = try guest.open(link.node) } == EACCES)
    #expect(guest.refusal { try guest.create(guest.root, "link") } == ELOOP)
    #expect(guest.refusal { _ = try guest.lookUp(link.node, "x") } == ENOTDIR)
    // A pipe of the host would never answer.
    mkfifo(guest.host("pipe"), 0o600)
    let pipe = try guest.lookUp(guest.root, "pipe")
    #expect(guest.refusal { _ = try guest.open(pipe.node) } == EACCES)
    #expect(guest.refusal { try guest.create(guest.root, "pipe") } != nil)
    #expect(try String(contentsOfFile: outside, encoding: .utf8) == "secret")
  }

  /// Between the guest's look and its next step, the host puts a link in the place of a folder or a file.
  @Test func linksThatComeInBetween() throws {
    let guest = try FileGuest()
    let manager = FileManager.default
    let outside = guest.folder.appendingPathComponent("outside")
    try manager.createDirectory(at: outside, withIntermediateDirectories: false)
    try "secret".write(toFile: outside.appendingPathComponent("f").path, atomically: false, encoding: .utf8)
    try manager.createDirectory(atPath: guest.host("d"), withIntermediateDirectories: false)
    for name in ["d/f", "g"] { try "mine".write(toFile: guest.host(name), atomically: false, encoding: .utf8) }
    let folder = try guest.lookUp(guest.root, "d")
    let file = try guest.lookUp(guest.root, "g")
    rename(guest.host("d"), guest.host("moved"))
    symlink(outside.path, guest.host("d"))
    // It stays, so that no other gets its number.
    rename(guest.host("g"), guest.host("h"))
    symlink(outside.appendingPathComponent("f").path, guest.host("g"))
    #expect(guest.refusal { _ = try guest.lookUp(folder.node, "f") } == ESTALE)
    #expect(guest.refusal { try guest.create(folder.node, "new") } == ESTALE)
    #expect(guest.refusal { _ = try guest.open(file.node, O_RDWR | O_TRUNC) } == ESTALE)
    #expect(guest.refusal { _ = try guest.set(file.node, 1, mode: 0o777) } == ESTALE)
    #expect(guest.refusal { _ = try guest.set(file.node, 1 << 3, size: 0) } == ESTALE)
    // Another file in its place isn't cut short, either.
    unlink(guest.host("g"))
    try "another".write(toFile: guest.host("g"), atomically: false, encoding: .utf8)
    #expect(guest.refusal { _ = try guest.open(file.node, O_RDWR | O_TRUNC) } == ESTALE)
    #expect(try String(contentsOfFile: guest.host("g"), encoding: .utf8) == "another")
    #expect(try String(contentsOf: outside.appendingPathComponent("f"), encoding: .utf8) == "secret")
    #expect(try manager.contentsOfDirectory(atPath: outside.path) == ["f"])
    #expect(try guest.lookUp(guest.root, "g").size == 7)
  }

  private final class Flag: Sendable { let isSet = Atomic<Bool>(false) }

  /// The host exchanges a folder and a link that leads out, all the time.
  @Test func linksThatComeAtAnyMoment() throws {
    let guest = try FileGuest(memorySize: 64 << 20)
    guest.usualRoom = 512
    let outside = guest.folder.appendingPathComponent("outside").path
    for place in [outside, guest.host("d")] {
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: false)
      try (place == outside ? "secret" : "mine").write(toFile: place + "/f", atomically: false, encoding: .utf8)
    }
    #expect(symlink("../outside", guest.host("l")) == 0)
    let (folder, link) = (guest.host("d"), guest.host("l"))
    let (isOver, hasEnded) = (Flag(), DispatchSemaphore(value: 0))
    Thread.detachNewThread {
      while !isOver.isSet.load(ordering: .relaxed) { _ = chost_exchange(folder, link) }
      hasEnded.signal()
    }
    var seen: [String: Int] = [:]
    for _ in 0..<10_000 where seen["mine", default: 0] < 300 || seen["refused", default: 0] < 300 {
      do {
        let place = try guest.lookUp(guest.root, "d")
        let file = try guest.lookUp(place.node, "f")
        let handle = try guest.open(file.node)
        seen[try guest.read(file.node, handle), default: 0] += 1
        _ = try guest.call(.release, file.node, bytes(handle) + bytes(UInt64(0)) + bytes(UInt64(0)))
      } catch {
        seen["refused", default: 0] += 1
      }
    }
    isOver.isSet.store(true, ordering: .relaxed)
    hasEnded.wait()
    #expect(Set(seen.keys) == ["mine", "refused"], "\(seen)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: outside) == ["f"])
  }

  @Test func readOnlyFolders() throws {
    let guest = try FileGuest(isReadOnly: true)
    try "text".write(toFile: guest.host("a"), atomically: false, encoding: .utf8)
    let file = try guest.lookUp(guest.root, "a")
    #expect(try guest.read(file.node, try guest.open(file.node)) == "text")
    #expect(guest.refusal { _ = try guest.open(file.node, O_RDWR) } == EROFS)
    #expect(guest.refusal { _ = try guest.open(file.node, O_RDONLY | O_TRUNC) } == EROFS)
    #expect(guest.refusal { try guest.create(guest.root, "b") } == EROFS)
    #expect(guest.refusal { _ = try guest.set(file.node, 1, mode: 0) } == EROFS)
    #expect(guest.refusal { _ = try guest.call(.unlink, guest.root, guest.text("a")) } == EROFS)
    #expect(
      guest.refusal { _ = try guest.call(.rename, guest.root, bytes(guest.root) + guest.text("a") + guest.text("b")) }
        == EROFS)
    #expect(guest.refusal { _ = try guest.call(.symlink, guest.root, guest.text("l") + guest.text("a")) } == EROFS)
    // In the root of all there is nothing to be made.
    #expect(guest.refusal { try guest.create(1, "b") } == EROFS)
    #expect(guest.refusal { _ = try guest.set(1, 1, mode: 0) } == EROFS)
    #expect(try FileManager.default.contentsOfDirectory(atPath: guest.host("")) == ["a"])
  }

  @Test func foldersThatComeAndGo() throws {
    let guest = try FileGuest()
    let more = guest.folder.appendingPathComponent("more").path
    try FileManager.default.createDirectory(atPath: more, withIntermediateDirectories: false)
    try "more".write(toFile: more + "/m", atomically: false, encoding: .utf8)
    #expect(throws: HostError.self) { try guest.device.share(SharedFolder(name: "n", path: more + "/none")) }
    try guest.device.share(SharedFolder(name: "n", path: more))
    #expect(guest.device.sharedFolders.map(\.name) == ["s", "n"])
    let folder = try guest.lookUp(1, "n")
    let file = try guest.lookUp(folder.node, "m")
    let handle = try guest.open(file.node)
    #expect(try guest.read(file.node, handle) == "more")
    // A file can't go from one to the other.
    let away = bytes(guest.root) + guest.text("m") + guest.text("m")
    #expect(guest.refusal { _ = try guest.call(.rename, folder.node, away) } == EXDEV)
    #expect(guest.device.stopSharing("n") && !guest.device.stopSharing("n"))
    #expect(guest.refusal { _ = try guest.read(file.node, handle) } == ESTALE)
    #expect(guest.refusal { _ = try guest.attributes(folder.node) } == ESTALE)
    #expect(guest.refusal { _ = try guest.lookUp(1, "n") } == ENOENT)
    #expect(try guest.attributes(guest.root).mode & UInt32(S_IFMT) == UInt32(S_IFDIR))
  }

  @Test func aSavedGuestGoesOn() throws {
    let guest = try FileGuest()
    try FileManager.default.createDirectory(atPath: guest.host("d"), withIntermediateDirectories: false)
    for name in ["d/f", "gone"] { try "text".write(toFile: guest.host(name), atomically: false, encoding: .utf8) }
    let folder = try guest.lookUp(guest.root, "d")
    let file = try guest.lookUp(folder.node, "f")
    let handle = try guest.open(file.node, O_RDWR)
    let gone = try guest.lookUp(guest.root, "gone")
    unlink(guest.host("gone"))
    let next = try FileGuest(continuing: guest)
    #expect(try next.read(file.node, handle) == "text")
    try next.write(file.node, handle, "T", at: 0)
    #expect(try next.lookUp(folder.node, "f").node == file.node && next.lookUp(next.root, "d").node == folder.node)
    #expect(next.refusal { _ = try next.attributes(gone.node) } == ESTALE)
    #expect(try next.create(next.root, "new").handle > handle)
    // With another folder of that name, the folder itself is that one, and what was in it isn't there.
    let other = next.folder.appendingPathComponent("other").path
    try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: false)
    try "other".write(toFile: other + "/x", atomically: false, encoding: .utf8)
    let third = try FileGuest(continuing: next, sharing: other)
    #expect(try third.lookUp(third.root, "x").size == 5)
    #expect(third.refusal { _ = try third.attributes(file.node) } == ESTALE)
    #expect(third.refusal { _ = try third.read(file.node, handle) } == EBADF)
  }

  @Test func requestsThatMakeNoSense() throws {
    let guest = try FileGuest()
    let file = try guest.create(guest.root, "f")
    // Too short, of no kind, for no node.
    for operation in [FileGuest.Operation.getAttributes, .setAttributes, .open, .write, .read, .create, .rename, .sync]
    {
      #expect(guest.refusal { _ = try guest.call(operation, file.node, []) } == EINVAL, "\(operation)")
    }
    #expect(guest.refusal { _ = try guest.call(.flush, file.node, []) } == EINVAL)
    for operation in [FileGuest.Operation.getLock, .setLock, .setLockWaiting] {
      #expect(guest.refusal { _ = try guest.call(operation, file.node, []) } == EINVAL, "\(operation)")
      for (handle, end, type): (UInt64, UInt64, UInt32) in [
        (999, 5, 1), (file.handle, 1, 1), (file.handle, .max, 1), (file.handle, 5, 3),
      ] {
        let range = bytes(UInt64(2)) + bytes(end) + bytes(type) + bytes(UInt32(0)) + bytes(UInt64(0))
        let code = guest.refusal { _ = try guest.call(operation, file.node, bytes(handle) + bytes(UInt64(1)) + range) }
        #expect(code == (handle == 999 ? EBADF : EINVAL), "\(operation)")
      }
    }
    #expect(guest.refusal { _ = try guest.call(.lookup, 12345, guest.text("f")) } == ESTALE)
    #expect(guest.refusal { _ = try guest.read(file.node, file.handle, at: .max) } == EINVAL)
    // More than there is in the request.
    let body = bytes(file.handle) + bytes(UInt64(0)) + bytes(UInt32(1 << 30)) + [UInt8](repeating: 0, count: 20)
    #expect(guest.refusal { _ = try guest.call(.write, file.node, body) } == EINVAL)
    #expect(try guest.read(file.node, file.handle, size: .max) == "")
    #expect(
      guest.refusal { _ = try guest.call(.getAttributes, file.node, bytes(UInt64(0)) + bytes(UInt64(0)), room: 8) }
        == ERANGE)
    // A guest of an older kind, and one that hasn't begun.
    #expect(guest.refusal { try guest.begin(minor: 12) } == EPROTO)
    let many = bytes(UInt32.max) + bytes(UInt32(0)) + bytes(file.node) + bytes(UInt64(1))
    let queue = guest.rig.driver[0]
    queue.add([queue.readable(bytes(UInt32(56)) + bytes(UInt32(42)) + [UInt8](repeating: 0, count: 32) + many)])
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [0])
    #expect(try guest.lookUp(guest.root, "f").size == 0)
    // Shorter than a header: the device stops.
    queue.add([queue.readable([1, 2, 3])])
    queue.notify()
    #expect(guest.rig.driver.needsReset)
  }
}

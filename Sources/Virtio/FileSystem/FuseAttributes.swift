import CHost
import Glibc

/// Names, attributes and owners.
extension FuseServer {
  // MARK: what the guest is told

  /// fuse_attr, 88 bytes.
  func put(_ status: stat, _ owner: SharedOwner, in reply: inout FuseReply) {
    reply.put(number(status))
    reply.put(UInt64(bitPattern: Int64(status.st_size)))
    reply.put(UInt64(bitPattern: Int64(status.st_blocks)))
    let times = [status.st_atim, status.st_mtim, status.st_ctim]
    for time in times { reply.put(UInt64(bitPattern: Int64(time.tv_sec))) }
    for time in times { reply.put(UInt32(truncatingIfNeeded: time.tv_nsec)) }
    let mode = UInt32(status.st_mode) & (owner.deviceKind == 0 ? .max : 0o7777)
    reply.put(mode | owner.deviceKind | owner.specialMode)
    reply.put(UInt32(truncatingIfNeeded: status.st_nlink))
    reply.put(owner.user)
    reply.put(owner.group)
    // Those of the host aren't the guest's.
    reply.put(owner.deviceNumber)
    reply.put(UInt32(truncatingIfNeeded: status.st_blksize))
    reply.put(UInt32(0))
  }

  /// fuse_entry_out, 128 bytes; the guest knows the node once more.
  func putEntry(_ node: SharedNode, _ status: stat, _ owner: SharedOwner, in reply: inout FuseReply) {
    node.lookups += 1
    reply.put(node.identifier)
    reply.put(UInt64(0))
    reply.put(Self.validity)
    reply.put(tell(node, status))
    reply.put(UInt64(0))
    put(status, owner, in: &reply)
  }

  /// The root, in which the shared folders are.
  private func putRoot(in reply: inout FuseReply) {
    reply.put(UInt64.max >> 1)
    reply.zeros(5 * 8 + 3 * 4)
    reply.put(UInt32(S_IFDIR) | 0o555)
    reply.put(UInt32(2 + served.count))
    reply.zeros(3 * 4)
    reply.put(UInt32(4096))
    reply.put(UInt32(0))
  }

  func lookUp(_ parent: SharedNode, _ name: [CChar]) throws -> FuseReply {
    var reply = FuseReply()
    guard let of = parent.served else {
      let text = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard let folder = served.first(where: { $0.folder.name == text }) else { throw FuseError(ENOENT) }
      let (node, status) = try rootNode(of: folder)
      putEntry(node, status, try owner(node, status), in: &reply)
      return reply
    }
    var status = stat()
    guard fstatat(try nodes.descriptor(parent), name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
      guard errno == ENOENT else { throw FuseError(errno) }
      // That there is none is worth remembering, too.
      reply.put(UInt64(0))
      reply.put(UInt64(0))
      reply.put(Self.validity)
      reply.zeros(128 - 24)
      return reply
    }
    let node = nodes.note(status, in: parent, name, of: of)
    putEntry(node, status, try owner(node, status), in: &reply)
    return reply
  }

  func rootNode(of folder: ServedFolder) throws -> (SharedNode, stat) {
    var status = stat()
    guard fstat(folder.descriptor, &status) == 0 else { throw FuseError(errno) }
    return (nodes.note(status, in: nil, [0], of: folder), status)
  }

  func getAttributes(_ node: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    let flags: UInt32 = try arguments.take()
    arguments.skip(4)
    let handle: UInt64 = try arguments.take()
    if flags & 1 != 0, let file = files[handle], file.node === node {
      var status = stat()
      guard fstat(file.descriptor, &status) == 0 else { throw FuseError(errno) }
      return try attributes(node, status)
    }
    return try attributes(node)
  }

  /// fuse_attr_out, 104 bytes.
  private func attributes(_ node: SharedNode, _ known: stat? = nil) throws -> FuseReply {
    var reply = FuseReply()
    if node.served == nil {
      reply.put(Self.validity)
      reply.put(UInt64(0))
      putRoot(in: &reply)
    } else {
      let status = try known ?? nodes.status(node)
      reply.put(tell(node, status))
      reply.put(UInt64(0))
      put(status, try owner(node, status), in: &reply)
    }
    return reply
  }

  func readLink(_ node: SharedNode) throws -> FuseReply {
    guard node.kind == S_IFLNK else { throw FuseError(EINVAL) }
    var target = [UInt8](repeating: 0, count: Fuse.longestPath + 1)
    let count = try target.withUnsafeMutableBytes { bytes in
      let start = bytes.baseAddress!.assumingMemoryBound(to: CChar.self)
      if let (folder, name) = try nodes.place(node) {
        // What is a link now may have come in the place of another file.
        _ = try nodes.status(node)
        return readlinkat(folder, name, start, bytes.count)
      }
      return readlinkat(try nodes.descriptor(node), "", start, bytes.count)
    }
    guard count >= 0 else { throw FuseError(errno) }
    var reply = FuseReply()
    reply.put(target.prefix(count))
    return reply
  }

  func fileSystemStatus(_ node: SharedNode) throws -> FuseReply {
    var reply = FuseReply()
    guard node.served != nil else {
      reply.zeros(40)
      reply.put(UInt32(4096))
      reply.put(UInt32(Fuse.longestName))
      reply.put(UInt32(4096))
      reply.zeros(28)
      return reply
    }
    var status = statvfs()
    guard fstatvfs(try nodes.descriptor(node), &status) == 0 else { throw FuseError(errno) }
    for number in [status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree] {
      reply.put(UInt64(number))
    }
    reply.put(UInt32(truncatingIfNeeded: status.f_bsize))
    reply.put(UInt32(truncatingIfNeeded: min(status.f_namemax, UInt(Fuse.longestName))))
    reply.put(UInt32(truncatingIfNeeded: status.f_frsize))
    reply.zeros(28)
    return reply
  }

  // MARK: owners

  /// Where it is noted what a file is in guests: the fields of `SharedOwner`, in their order, 32 bits each.
  static let ownerAttribute = "user.yadori.owner"

  private typealias Note = (UInt32, UInt32, UInt32, UInt32, UInt32)

  /// Whether a file can have extended attributes of users (attr(7)).
  private func canHaveNotes(_ node: SharedNode) -> Bool { node.kind == S_IFREG || node.kind == S_IFDIR }

  private func usualOwner(_ status: stat) -> SharedOwner {
    // What is root's on the host isn't the guest's root's, but for where this process is root.
    let nobody: UInt32 = 65534
    let user = status.st_uid == hostUser ? 0 : status.st_uid == 0 ? nobody : UInt32(status.st_uid)
    let group = status.st_gid == hostGroup ? 0 : status.st_gid == 0 ? nobody : UInt32(status.st_gid)
    return SharedOwner(user: user, group: group)
  }

  /// Whom it belongs to in the guest.
  func owner(_ node: SharedNode, _ status: stat) throws -> SharedOwner {
    if let owner = node.volatileOwner { return owner }
    var owner = usualOwner(status)
    if canHaveNotes(node) {
      var note: Note = (0, 0, 0, 0, 0)
      let count: Int
      if let (folder, name) = try nodes.place(node) {
        // No link is followed in its last part.
        let path = Self.path(folder, name)
        count = withUnsafeMutableBytes(of: &note) { lgetxattr(path, Self.ownerAttribute, $0.baseAddress, $0.count) }
      } else {
        let path = try nodes.path(node)
        count = withUnsafeMutableBytes(of: &note) { getxattr(path, Self.ownerAttribute, $0.baseAddress, $0.count) }
      }
      if count == MemoryLayout<Note>.size {
        let isDevice = node.kind == S_IFREG && [S_IFBLK, S_IFCHR].contains(mode_t(UInt32(littleEndian: note.3)))
        owner = SharedOwner(
          user: UInt32(littleEndian: note.0), group: UInt32(littleEndian: note.1),
          specialMode: UInt32(littleEndian: note.2) & 0o6000,
          deviceKind: isDevice ? UInt32(littleEndian: note.3) : 0,
          deviceNumber: isDevice ? UInt32(littleEndian: note.4) : 0)
      }
    }
    node.specialMode = owner.specialMode
    return owner
  }

  private static func path(_ folder: Int32, _ name: [CChar]) -> [CChar] {
    Array("/proc/self/fd/\(folder)/".utf8CString.dropLast()) + name
  }

  /// Notes whom it belongs to; where the host's file system can't, it is so as long as the machine runs.
  func set(_ owner: SharedOwner, of node: SharedNode, _ status: stat) throws {
    node.volatileOwner = nil
    node.specialMode = owner.specialMode
    guard canHaveNotes(node) else {
      node.volatileOwner = owner == usualOwner(status) ? nil : owner
      return
    }
    let path = try nodes.path(node)
    if owner == usualOwner(status) {
      if removexattr(path, Self.ownerAttribute) != 0, errno != ENODATA, errno != EOPNOTSUPP {
        throw FuseError(errno)
      }
      return
    }
    let note: Note = (
      owner.user.littleEndian, owner.group.littleEndian, owner.specialMode.littleEndian, owner.deviceKind.littleEndian,
      owner.deviceNumber.littleEndian
    )
    if withUnsafeBytes(of: note, { setxattr(path, Self.ownerAttribute, $0.baseAddress, $0.count, 0) }) != 0 {
      node.volatileOwner = owner
    }
  }

  /// What a new file's owner is: who makes it, and the folder's group where that has the set-group-ID bit.
  func takeOver(
    _ node: SharedNode, _ status: stat, in parent: SharedNode, _ header: FuseHeader, mode: UInt32, device: UInt32?
  ) throws {
    var owner = SharedOwner(user: header.user, group: header.group, specialMode: mode & 0o6000)
    if let device { (owner.deviceKind, owner.deviceNumber) = (mode & UInt32(S_IFMT), device) }
    if parent.specialMode & 0o2000 != 0 {
      owner.group = try self.owner(parent, try nodes.status(parent)).group
      if node.isFolder { owner.specialMode |= 0o2000 }
    }
    if owner != usualOwner(status) { try set(owner, of: node, status) }
  }

  // MARK: changes

  func setAttributes(_ node: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    guard let served = node.served, !served.folder.isReadOnly else { throw FuseError(EROFS) }
    let change = Fuse.Change(rawValue: try arguments.take())
    arguments.skip(4)
    let handle: UInt64 = try arguments.take()
    let size: UInt64 = try arguments.take()
    arguments.skip(8)
    let (accessed, modified): (UInt64, UInt64) = (try arguments.take(), try arguments.take())
    arguments.skip(8)
    let (accessedPart, modifiedPart): (UInt32, UInt32) = (try arguments.take(), try arguments.take())
    arguments.skip(4)
    let mode: UInt32 = try arguments.take()
    arguments.skip(4)
    let (user, group): (UInt32, UInt32) = (try arguments.take(), try arguments.take())
    let file = change.contains(.handle) ? files[handle] : nil
    let status = try nodes.status(node)
    let before = try owner(node, status)
    var after = before
    if change.contains(.mode) {
      guard node.kind != S_IFLNK else { throw FuseError(EOPNOTSUPP) }
      guard chmod(try nodes.path(node), mode_t(mode & 0o1777)) == 0 else { throw FuseError(errno) }
      after.specialMode = mode & 0o6000
    }
    if change.contains(.user) { after.user = user }
    if change.contains(.group) { after.group = group }
    let isDropping = change.contains(.dropsPrivileges) || !change.isDisjoint(with: [.user, .group])
    if isDropping, !change.contains(.mode), !node.isFolder {
      after.specialMode &= status.st_mode & 0o010 == 0 ? 0o2000 : 0
    }
    if after != before { try set(after, of: node, status) }
    if change.contains(.size) { try cut(node, file, to: size) }
    if !change.isDisjoint(with: [.accessTime, .modificationTime]) {
      func time(_ isSet: Bool, _ isNow: Bool, _ seconds: UInt64, _ part: UInt32) -> timespec {
        // UTIME_OMIT and UTIME_NOW
        if !isSet { return timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2) }
        if isNow { return timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1) }
        return timespec(tv_sec: Int(Int64(bitPattern: seconds)), tv_nsec: Int(min(part, 999_999_999)))
      }
      let times = [
        time(change.contains(.accessTime), change.contains(.accessTimeNow), accessed, accessedPart),
        time(change.contains(.modificationTime), change.contains(.modificationTimeNow), modified, modifiedPart),
      ]
      guard utimensat(try nodes.descriptor(node), "", times, SharedNodes.emptyPath) == 0 else { throw FuseError(errno) }
    }
    return try attributes(node)
  }

  private func cut(_ node: SharedNode, _ file: OpenFile?, to size: UInt64) throws {
    guard node.kind == S_IFREG, let size = Int(exactly: size) else { throw FuseError(EINVAL) }
    if let file, file.node === node, file.isWritable {
      guard ftruncate(file.descriptor, size) == 0 else { throw FuseError(errno) }
    } else {
      // Not by its path, which a confined process isn't let do.
      let descriptor = try openFile(node, O_WRONLY | O_CLOEXEC | O_NOCTTY)
      defer { close(descriptor) }
      guard ftruncate(descriptor, size) == 0 else { throw FuseError(errno) }
    }
  }

  // MARK: extended attributes, those of users

  /// Whether an attribute of this name is the guest's to see and to change.
  private static func isPassed(_ name: [CChar]) -> Bool {
    let text = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.hasPrefix("user.") && text != ownerAttribute
  }

  func getExtended(
    _ node: SharedNode, _ arguments: inout FuseArguments, _ payload: inout SegmentWriter
  ) throws -> FuseReply {
    let size: UInt32 = try arguments.take()
    arguments.skip(4)
    let name = try arguments.text(limit: Fuse.longestName)
    guard Self.isPassed(name), canHaveNotes(node), node.served != nil else { throw FuseError(EOPNOTSUPP) }
    let path = try nodes.path(node)
    return try extended(size) { getxattr(path, name, $0, $1) }
  }

  func listExtended(_ node: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    let size: UInt32 = try arguments.take()
    guard canHaveNotes(node), node.served != nil else { return try extended(size) { _, _ in 0 } }
    let path = try nodes.path(node)
    var all = [UInt8](repeating: 0, count: 64 << 10)
    let count = all.withUnsafeMutableBytes {
      listxattr(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
    }
    guard count >= 0 else { throw FuseError(errno) }
    let passed = all[..<count].split(separator: 0).filter { Self.isPassed($0.map { CChar(bitPattern: $0) } + [0]) }
    let list = passed.flatMap { $0 + [0] }
    return try extended(size) { target, room in
      if target == nil { return list.count }
      guard list.count <= room else {
        errno = ERANGE
        return -1
      }
      list.withUnsafeBytes {
        target!.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(target!), byteCount: $0.count)
      }
      return list.count
    }
  }

  /// A value, or its size where the guest has no room for it.
  private func extended(_ size: UInt32, _ get: (UnsafeMutableRawPointer?, Int) -> Int) throws -> FuseReply {
    var reply = FuseReply()
    guard size > 0 else {
      let count = get(nil, 0)
      guard count >= 0 else { throw FuseError(errno) }
      reply.put(UInt32(count))
      reply.put(UInt32(0))
      return reply
    }
    var value = [UInt8](repeating: 0, count: Int(min(size, 64 << 10)))
    let count = value.withUnsafeMutableBytes { get($0.baseAddress, $0.count) }
    guard count >= 0 else { throw FuseError(errno) }
    reply.put(value.prefix(count))
    return reply
  }

  func setExtended(_ node: SharedNode, _ arguments: inout FuseArguments) throws {
    let size: UInt32 = try arguments.take()
    let flags: UInt32 = try arguments.take()
    let name = try arguments.text(limit: Fuse.longestName)
    guard Self.isPassed(name), canHaveNotes(node) else { throw FuseError(EOPNOTSUPP) }
    guard size <= 64 << 10 else { throw FuseError(E2BIG) }
    let value = try arguments.bytes(Int(size))
    guard setxattr(try nodes.path(node), name, value, value.count, Int32(flags & 3)) == 0 else {
      throw FuseError(errno)
    }
  }

  func removeExtended(_ node: SharedNode, _ arguments: inout FuseArguments) throws {
    let name = try arguments.text(limit: Fuse.longestName)
    guard Self.isPassed(name), canHaveNotes(node) else { throw FuseError(EOPNOTSUPP) }
    guard removexattr(try nodes.path(node), name) == 0 else { throw FuseError(errno) }
  }
}

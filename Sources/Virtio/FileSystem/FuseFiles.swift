import CHost
import Glibc

/// A file that the guest has open.
final class OpenFile {
  let node: SharedNode
  let descriptor: Int32
  /// As the guest asked for it.
  let flags: UInt32
  /// Whatever is written through the page cache has a place of its own, though the file was opened to append.
  private var placing: Int32 = -1

  init(_ node: SharedNode, _ descriptor: Int32, flags: UInt32) {
    self.node = node
    self.descriptor = descriptor
    self.flags = flags
  }

  deinit {
    close(descriptor)
    if placing >= 0 { close(placing) }
  }

  var isWritable: Bool { flags & UInt32(O_ACCMODE) != UInt32(O_RDONLY) }

  /// Those of a guest's flags that mean something here.
  static func flags(_ flags: UInt32) -> Int32 {
    let passed = O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DSYNC
    return Int32(bitPattern: flags) & passed | O_CLOEXEC | O_NOCTTY
  }

  func placingDescriptor() throws -> Int32 {
    if flags & UInt32(O_APPEND) == 0 { return descriptor }
    if placing < 0 { placing = open("/proc/self/fd/\(descriptor)", O_WRONLY | O_CLOEXEC | O_NOCTTY) }
    guard placing >= 0 else { throw FuseError(errno) }
    return placing
  }
}

/// A folder that the guest has open.
final class OpenFolder {
  let node: SharedNode
  /// Nil: the root.
  let stream: OpaquePointer?
  /// Where the stream stands.
  var position = 0

  init(_ node: SharedNode, _ stream: OpaquePointer?) {
    self.node = node
    self.stream = stream
  }

  deinit { if let stream { closedir(stream) } }
}

/// Reading and writing.
extension FuseServer {
  /// fuse_open_out.
  func putHandle(_ handle: UInt64, in reply: inout FuseReply) {
    reply.put(handle)
    // FOPEN_KEEP_CACHE: the guest looks at the time of its last change, and drops what is old.
    reply.put(UInt32(2))
    reply.put(UInt32(0))
  }

  func open(_ node: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    let flags: UInt32 = try arguments.take()
    let writes = flags & UInt32(O_ACCMODE) != UInt32(O_RDONLY) || flags & UInt32(O_TRUNC) != 0
    if writes, node.served?.folder.isReadOnly != false { throw FuseError(EROFS) }
    if flags & UInt32(O_TRUNC) != 0 {
      node.told = nil
    } else if locks.areInUse, node.kind == S_IFREG {
      // What a lock guards may be in another file than the one that is locked.
      try awaitNews(of: node, try nodes.status(node))
    }
    let handle = try takeHandle()
    files[handle] = OpenFile(node, try openFile(node, OpenFile.flags(flags)), flags: flags)
    var reply = FuseReply()
    putHandle(handle, in: &reply)
    return reply
  }

  /// Only regular files: what else there may be on a host isn't the guest's, and may never answer.
  func openFile(_ node: SharedNode, _ flags: Int32) throws -> Int32 {
    guard node.kind == S_IFREG else { throw FuseError(node.isFolder ? EISDIR : EACCES) }
    guard let (folder, name) = try nodes.place(node) else {
      let descriptor = Glibc.open(try nodes.path(node), flags)
      guard descriptor >= 0 else { throw FuseError(errno) }
      return descriptor
    }
    // What stands there may be another file by now, which mustn't be cut short.
    let descriptor = openat(folder, name, flags & ~O_TRUNC | O_NOFOLLOW | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw FuseError(errno == ENOENT || errno == ELOOP || errno == ENXIO ? ESTALE : errno)
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0, UInt64(status.st_ino) == node.inode, UInt64(status.st_dev) == node.device,
      status.st_mode & S_IFMT == S_IFREG
    else {
      close(descriptor)
      throw FuseError(ESTALE)
    }
    if flags & O_TRUNC != 0, ftruncate(descriptor, 0) != 0 {
      let code = errno
      close(descriptor)
      throw FuseError(code)
    }
    return descriptor
  }

  private func file(_ handle: UInt64) throws -> OpenFile {
    guard let file = files[handle] else { throw FuseError(EBADF) }
    return file
  }

  /// Straight into the guest's memory.
  func read(_ arguments: inout FuseArguments, _ payload: inout SegmentWriter) throws -> Int {
    let file = try file(try arguments.take())
    let offset: UInt64 = try arguments.take()
    let size: UInt32 = try arguments.take()
    guard let position = Int(exactly: offset) else { throw FuseError(EINVAL) }
    var vectors: [iovec] = []
    var rest = Int(min(size, Fuse.largestTransfer))
    var target = payload
    while rest > 0, let piece = target.next(limit: rest) {
      rest -= piece.count
      if let last = vectors.last, last.iov_base + last.iov_len == piece.baseAddress! {
        vectors[vectors.count - 1].iov_len += piece.count
      } else {
        vectors.append(iovec(iov_base: piece.baseAddress, iov_len: piece.count))
      }
    }
    return try move(&vectors, at: position) { preadv(file.descriptor, $0, $1, $2) }
  }

  /// Straight from the guest's memory.
  func write(_ arguments: inout FuseArguments) throws -> FuseReply {
    let file = try file(try arguments.take())
    let offset: UInt64 = try arguments.take()
    let size: UInt32 = try arguments.take()
    let flags: UInt32 = try arguments.take()
    arguments.skip(16)
    guard let position = Int(exactly: offset), Int(size) <= arguments.reader.remaining else { throw FuseError(EINVAL) }
    guard file.isWritable else { throw FuseError(EBADF) }
    // FUSE_WRITE_KILL_SUIDGID
    if flags & 4 != 0, file.node.specialMode != 0 { try dropPrivileges(file.node) }
    // FUSE_WRITE_CACHE
    let descriptor = flags & 1 != 0 ? try file.placingDescriptor() : file.descriptor
    var vectors: [iovec] = []
    var rest = Int(size)
    while rest > 0, let piece = arguments.reader.next(limit: rest) {
      rest -= piece.count
      let start = UnsafeMutableRawPointer(mutating: piece.baseAddress!)
      if let last = vectors.last, last.iov_base + last.iov_len == start {
        vectors[vectors.count - 1].iov_len += piece.count
      } else {
        vectors.append(iovec(iov_base: start, iov_len: piece.count))
      }
    }
    file.node.told = nil
    let count = try move(&vectors, at: position) { pwritev(descriptor, $0, $1, $2) }
    var reply = FuseReply()
    reply.put(UInt32(count))
    reply.put(UInt32(0))
    return reply
  }

  /// Moves all, or as much as there is. What has been moved before a failure counts.
  private func move(
    _ vectors: inout [iovec], at position: Int, _ call: (UnsafePointer<iovec>, Int32, off_t) -> Int
  ) throws -> Int {
    var done = 0
    var first = 0
    while first < vectors.count {
      let count = Int32(min(vectors.count - first, 1024))
      let moved = vectors.withUnsafeBufferPointer { call($0.baseAddress! + first, count, off_t(position + done)) }
      if moved < 0 {
        if errno == EINTR { continue }
        if done > 0 { return done }
        throw FuseError(errno)
      }
      if moved == 0 { break }
      done += moved
      var rest = moved
      while rest > 0 {
        if rest >= vectors[first].iov_len {
          rest -= vectors[first].iov_len
          first += 1
        } else {
          vectors[first].iov_base += rest
          vectors[first].iov_len -= rest
          rest = 0
        }
      }
    }
    return done
  }

  private func dropPrivileges(_ node: SharedNode) throws {
    let status = try nodes.status(node)
    var owner = try owner(node, status)
    owner.specialMode &= status.st_mode & 0o010 == 0 ? 0o2000 : 0
    try set(owner, of: node, status)
  }

  func sync(_ node: SharedNode, _ arguments: inout FuseArguments, isFolder: Bool) throws {
    let handle: UInt64 = try arguments.take()
    let flags: UInt32 = try arguments.take()
    let descriptor: Int32
    if isFolder {
      guard let folder = folders[handle] else { throw FuseError(EBADF) }
      guard let stream = folder.stream else { return }
      descriptor = dirfd(stream)
    } else {
      descriptor = try file(handle).descriptor
    }
    guard (flags & 1 != 0 ? fdatasync(descriptor) : fsync(descriptor)) == 0 else { throw FuseError(errno) }
  }

  func seek(_ arguments: inout FuseArguments) throws -> FuseReply {
    let file = try file(try arguments.take())
    let offset: UInt64 = try arguments.take()
    let whence: UInt32 = try arguments.take()
    // SEEK_DATA, SEEK_HOLE: the rest the guest knows by itself.
    guard whence == 3 || whence == 4, let offset = Int(exactly: offset) else { throw FuseError(EINVAL) }
    let found = lseek(file.descriptor, offset, Int32(whence))
    guard found >= 0 else { throw FuseError(errno) }
    var reply = FuseReply()
    reply.put(UInt64(found))
    return reply
  }

  func allocate(_ arguments: inout FuseArguments) throws {
    let file = try file(try arguments.take())
    let (offset, count): (UInt64, UInt64) = (try arguments.take(), try arguments.take())
    let mode: UInt32 = try arguments.take()
    guard let offset = Int64(exactly: offset), let count = Int64(exactly: count), file.isWritable else {
      throw FuseError(EINVAL)
    }
    file.node.told = nil
    guard chost_allocate(file.descriptor, Int32(bitPattern: mode), offset, count) == 0 else { throw FuseError(errno) }
  }

  func copyRange(_ arguments: inout FuseArguments) throws -> FuseReply {
    let source = try file(try arguments.take())
    let from: UInt64 = try arguments.take()
    arguments.skip(8)
    let target = try file(try arguments.take())
    let (to, count): (UInt64, UInt64) = (try arguments.take(), try arguments.take())
    guard let from = Int64(exactly: from), let to = Int64(exactly: to), target.isWritable else {
      throw FuseError(EINVAL)
    }
    if target.node.served?.folder.isReadOnly != false { throw FuseError(EROFS) }
    target.node.told = nil
    // Not so much that other requests wait long.
    let copied = chost_copy_range(
      source.descriptor, from, try target.placingDescriptor(), to, Int(min(count, 16 << 20)))
    guard copied >= 0 else { throw FuseError(errno) }
    var reply = FuseReply()
    reply.put(UInt32(copied))
    reply.put(UInt32(0))
    return reply
  }

  // MARK: folders

  func openFolder(_ node: SharedNode) throws -> FuseReply {
    guard node.isFolder else { throw FuseError(ENOTDIR) }
    let handle = try takeHandle()
    folders[handle] = try open(folder: node)
    var reply = FuseReply()
    reply.put(handle)
    reply.put(UInt64(0))
    return reply
  }

  func open(folder node: SharedNode) throws -> OpenFolder {
    guard node.served != nil else { return OpenFolder(node, nil) }
    let descriptor = openat(try nodes.descriptor(node), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FuseError(errno) }
    guard let stream = fdopendir(descriptor) else {
      close(descriptor)
      throw FuseError(errno)
    }
    return OpenFolder(node, stream)
  }

  func readFolder(
    _ node: SharedNode, _ arguments: inout FuseArguments, _ payload: inout SegmentWriter, withAttributes: Bool
  ) throws -> Int {
    guard let folder = folders[try arguments.take()], folder.node === node else { throw FuseError(EBADF) }
    let offset: UInt64 = try arguments.take()
    let size: UInt32 = try arguments.take()
    let room = min(Int(size), payload.remaining)
    var reply = FuseReply()
    guard let stream = folder.stream else {
      try listRoot(from: offset, room: room, withAttributes, &reply)
      return reply.bytes.withUnsafeBytes { payload.write($0) }
    }
    let position = Int(Int64(bitPattern: offset))
    if folder.position != position { seekdir(stream, position) }
    folder.position = position
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        if errno != 0, reply.bytes.isEmpty { throw FuseError(errno) }
        break
      }
      let length = Int(entry.pointee.d_reclen) - MemoryLayout<dirent>.offset(of: \.d_name)!
      let start = (UnsafeRawPointer(entry) + MemoryLayout<dirent>.offset(of: \.d_name)!)
        .assumingMemoryBound(to: CChar.self)
      let name: [CChar] = Array(UnsafeBufferPointer(start: start, count: strnlen(start, length))) + [0]
      let next = Int(entry.pointee.d_off)
      let isFitting = putEntry(
        name, inode: UInt64(entry.pointee.d_ino), type: UInt32(entry.pointee.d_type), next: UInt64(next),
        room: withAttributes ? room - Self.entryCount : room, in: &reply
      ) { reply in
        if withAttributes { self.putAttributes(of: name, in: node, &reply) }
      }
      guard isFitting else {
        // It comes with the next request.
        seekdir(stream, folder.position)
        break
      }
      folder.position = next
    }
    return reply.bytes.withUnsafeBytes { payload.write($0) }
  }

  /// fuse_dirent, padded to 8 bytes, behind what `before` puts. False, and nothing put: there is no room for it.
  private func putEntry(
    _ name: [CChar], inode: UInt64, type: UInt32, next: UInt64, room: Int, in reply: inout FuseReply,
    _ before: (inout FuseReply) throws -> Void
  ) rethrows -> Bool {
    let length = name.count - 1
    let padded = (24 + length + 7) / 8 * 8
    guard reply.bytes.count + padded <= room else { return false }
    try before(&reply)
    reply.put(inode)
    reply.put(next)
    reply.put(UInt32(length))
    reply.put(type)
    reply.put(name.dropLast().lazy.map { UInt8(bitPattern: $0) })
    reply.zeros(padded - 24 - length)
    return true
  }

  private static let entryCount = 128

  private func putAttributes(of name: [CChar], in parent: SharedNode, _ reply: inout FuseReply) {
    var status = stat()
    let dot = CChar(UInt8(ascii: "."))
    if name != [dot, 0], name != [dot, dot, 0], let served = parent.served,
      let descriptor = try? nodes.descriptor(parent), fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW) == 0
    {
      let node = nodes.note(status, in: parent, name, of: served)
      if let owner = try? owner(node, status) { return putEntry(node, status, owner, in: &reply) }
    }
    // The guest asks by name.
    reply.zeros(Self.entryCount)
  }

  private func listRoot(from offset: UInt64, room: Int, _ withAttributes: Bool, _ reply: inout FuseReply) throws {
    let names = [".", ".."] + served.map(\.folder.name)
    guard offset < UInt64(names.count) else { return }
    for index in Int(offset)..<names.count {
      let isFitting = try putEntry(
        Array(names[index].utf8CString), inode: UInt64.max >> 1, type: 4, next: UInt64(index + 1),
        room: withAttributes ? room - Self.entryCount : room, in: &reply
      ) { reply in
        guard withAttributes else { return }
        guard index >= 2, let (node, status) = try? rootNode(of: served[index - 2]) else {
          return reply.zeros(Self.entryCount)
        }
        putEntry(node, status, try owner(node, status), in: &reply)
      }
      if !isFitting { return }
    }
  }
}

import CHost
import Glibc

/// What makes, moves and removes names.
extension FuseServer {
  /// What has just been made, for the guest to know.
  private func finish(
    _ parent: SharedNode, _ name: [CChar], _ header: FuseHeader, mode: UInt32, device: UInt32? = nil,
    chmod isExact: Bool = true
  ) throws -> (SharedNode, FuseReply) {
    var status = stat()
    guard let served = parent.served,
      fstatat(try nodes.descriptor(parent), name, &status, AT_SYMLINK_NOFOLLOW) == 0
    else { throw FuseError(errno) }
    let node = nodes.note(status, in: parent, name, of: served)
    // A number that a file had before.
    node.volatileOwner = nil
    if isExact, mode_t(mode) & hostMask & 0o777 != 0 {
      guard chmod(try nodes.path(node), mode_t(mode & 0o1777)) == 0 else { throw FuseError(errno) }
      status = try nodes.status(node)
    }
    try takeOver(node, status, in: parent, header, mode: mode, device: device)
    var reply = FuseReply()
    putEntry(node, status, try owner(node, status), in: &reply)
    return (node, reply)
  }

  func makeFolder(
    _ parent: SharedNode, _ header: FuseHeader, _ arguments: inout FuseArguments
  ) throws -> FuseReply {
    let mode: UInt32 = try arguments.take()
    arguments.skip(4)
    let name = try arguments.name()
    guard mkdirat(try nodes.descriptor(parent), name, mode_t(mode & 0o1777)) == 0 else { throw FuseError(errno) }
    return try finish(parent, name, header, mode: mode).1
  }

  /// Files, pipes and sockets. A device is the guest's own, and an empty file on the host.
  func makeNode(_ parent: SharedNode, _ header: FuseHeader, _ arguments: inout FuseArguments) throws -> FuseReply {
    let mode: UInt32 = try arguments.take()
    let device: UInt32 = try arguments.take()
    arguments.skip(8)
    let name = try arguments.name()
    var kind = mode_t(mode) & S_IFMT
    let isDevice = kind == S_IFBLK || kind == S_IFCHR
    if isDevice { kind = S_IFREG }
    guard kind == S_IFREG || kind == S_IFIFO || kind == S_IFSOCK else { throw FuseError(EPERM) }
    guard mknodat(try nodes.descriptor(parent), name, kind | mode_t(mode & 0o1777), 0) == 0 else {
      throw FuseError(errno)
    }
    return try finish(parent, name, header, mode: mode, device: isDevice ? device : nil).1
  }

  func makeSymbolicLink(
    _ parent: SharedNode, _ header: FuseHeader, _ arguments: inout FuseArguments
  ) throws -> FuseReply {
    let name = try arguments.name()
    let target = try arguments.text(limit: Fuse.longestPath)
    guard symlinkat(target, try nodes.descriptor(parent), name) == 0 else { throw FuseError(errno) }
    return try finish(parent, name, header, mode: 0, chmod: false).1
  }

  /// `parent` is where the new name comes.
  func link(_ parent: SharedNode, _ arguments: inout FuseArguments) throws -> FuseReply {
    let node = try nodes.node(try arguments.take())
    let name = try arguments.name()
    guard let served = parent.served, node.served === served else { throw FuseError(EXDEV) }
    // By way of the descriptor's link, which leads to the very file.
    guard
      linkat(AT_FDCWD, try nodes.path(node), try nodes.descriptor(parent), name, AT_SYMLINK_FOLLOW) == 0
    else { throw FuseError(errno) }
    let status = try nodes.status(node)
    var reply = FuseReply()
    putEntry(nodes.note(status, in: parent, name, of: served), status, try owner(node, status), in: &reply)
    return reply
  }

  /// Opens a new file, or the one that is there.
  func create(_ parent: SharedNode, _ header: FuseHeader, _ arguments: inout FuseArguments) throws -> FuseReply {
    let flags: UInt32 = try arguments.take()
    let mode: UInt32 = try arguments.take()
    arguments.skip(8)
    let name = try arguments.name()
    let handle = try takeHandle()
    let folder = try nodes.descriptor(parent)
    let wanted = OpenFile.flags(flags)
    // Only what wasn't there before gets an owner; and what is there may be a pipe, or lead elsewhere.
    var descriptor = openat(folder, name, wanted | O_CREAT | O_EXCL | O_NOFOLLOW, mode_t(mode & 0o1777))
    let isNew = descriptor >= 0
    if descriptor < 0, errno == EEXIST, flags & UInt32(O_EXCL) == 0 {
      descriptor = openat(folder, name, wanted & ~O_TRUNC | O_NOFOLLOW | O_NONBLOCK)
    }
    guard descriptor >= 0 else { throw FuseError(errno) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, let served = parent.served else {
      close(descriptor)
      throw FuseError(EACCES)
    }
    let node: SharedNode
    var reply: FuseReply
    if isNew {
      do {
        (node, reply) = try finish(parent, name, header, mode: mode)
      } catch {
        close(descriptor)
        throw error
      }
    } else {
      if flags & UInt32(O_TRUNC) != 0, ftruncate(descriptor, 0) != 0 || fstat(descriptor, &status) != 0 {
        let code = errno
        close(descriptor)
        throw FuseError(code)
      }
      node = nodes.note(status, in: parent, name, of: served)
      reply = FuseReply()
      putEntry(node, status, try owner(node, status), in: &reply)
    }
    files[handle] = OpenFile(node, descriptor, flags: flags)
    putHandle(handle, in: &reply)
    return reply
  }

  func remove(_ parent: SharedNode, _ name: [CChar], isFolder: Bool) throws {
    let folder = try nodes.descriptor(parent)
    var status = stat()
    guard fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { throw FuseError(errno) }
    try nodes.prepareRemoval(of: name, in: parent)
    guard unlinkat(folder, name, isFolder ? AT_REMOVEDIR : 0) == 0 else { throw FuseError(errno) }
    nodes.noteRemoval(of: name, in: parent, status)
  }

  func rename(_ parent: SharedNode, _ arguments: inout FuseArguments, hasFlags: Bool) throws {
    let newParent = try nodes.node(try arguments.take())
    var flags: UInt32 = 0
    if hasFlags {
      flags = try arguments.take()
      arguments.skip(4)
    }
    let (name, newName) = (try arguments.name(), try arguments.name())
    // RENAME_NOREPLACE, RENAME_EXCHANGE
    guard flags & ~3 == 0, flags != 3 else { throw FuseError(EINVAL) }
    guard let served = parent.served, newParent.served === served else { throw FuseError(EXDEV) }
    let folder = try nodes.descriptor(parent)
    let newFolder = try nodes.descriptor(newParent)
    var (status, replaced) = (stat(), stat())
    guard fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { throw FuseError(errno) }
    let isThere = fstatat(newFolder, newName, &replaced, AT_SYMLINK_NOFOLLOW) == 0
    // Two names of one file both stay.
    let isSame = isThere && replaced.st_ino == status.st_ino && replaced.st_dev == status.st_dev
    if isThere, !isSame, flags == 0 { try nodes.prepareRemoval(of: newName, in: newParent) }
    // Its descriptor may have been closed for another's.
    let (from, to) = (try nodes.descriptor(parent), try nodes.descriptor(newParent))
    guard chost_rename(from, name, to, newName, flags) == 0 else { throw FuseError(errno) }
    if isSame { return }
    if isThere, flags == 0 { nodes.noteRemoval(of: newName, in: newParent, replaced) }
    nodes.noteRename(status, from: parent, name, to: newParent, newName)
    if flags == 2 { nodes.noteRename(replaced, from: newParent, newName, to: parent, name) }
  }
}

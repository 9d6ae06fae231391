import CHost
import Glibc
import HostSystem

/// Answers the requests of one guest for files of the host: by its own hands, with what this process may do there, and
/// within the shared folders. The I/O thread's.
///
/// Owners: what belongs to the user of this process is root's in the guest. What a guest chooses otherwise (another owner,
/// set-user-ID bits) is noted beside the file (`SharedOwner`), and never becomes true on the host.
final class FuseServer {
  var served: [ServedFolder] = []
  let nodes: SharedNodes
  /// Open files and folders by their handles.
  var files: [UInt64: OpenFile] = [:]
  var folders: [UInt64: OpenFolder] = [:]
  var nextHandle: UInt64 = 1
  /// Of both at most.
  let mostHandles: Int
  var locks = SharedLocks()
  /// The guest has begun; zero: not yet.
  var minorVersion: UInt32 = 0
  /// The guest doesn't run, and its clock stands.
  var standsStill = false

  let hostUser = geteuid()
  let hostGroup = getegid()
  /// Bits that the host takes from the modes of new files.
  let hostMask: mode_t
  /// File systems of the host that were met, by their device numbers: files of different ones have the same numbers.
  private var fileSystems: [UInt64: UInt64] = [:]

  /// How long a guest relies on what it was told of names and attributes, seconds: so old may be what it sees of changes
  /// that are made on the host.
  static let validity: UInt64 = 1

  init() {
    let descriptors = HostResources.raiseDescriptorLimit()
    mostHandles = max(64, descriptors / 4)
    nodes = SharedNodes(mostOpen: descriptors / 2)
    hostMask = HostResources.fileModeMask
  }

  /// What a request gets for an answer, behind the header; nil: none is sent.
  func answer(_ header: FuseHeader, _ arguments: inout FuseArguments, _ payload: inout SegmentWriter) throws -> Int? {
    guard let operation = Fuse.Operation(rawValue: header.operation) else { throw FuseError(ENOSYS) }
    switch operation {
    case .forget:
      nodes.forget(header.node, try arguments.take())
      return nil
    case .forgetMany:
      let count: UInt32 = try arguments.take()
      arguments.skip(4)
      for _ in 0..<count { nodes.forget(try arguments.take(), try arguments.take()) }
      return nil
    // Only what waits can be interrupted, which whoever has it waiting does.
    case .interrupt: return nil
    // Closing succeeds though the folder isn't shared any more.
    case .flush:
      arguments.skip(16)
      unlock(header.node, owner: try arguments.take())
      return 0
    case .initialize: return try send(try initialize(&arguments), &payload)
    default: break
    }
    guard minorVersion > 0 else { throw FuseError(EIO) }
    if operation == .destroy {
      reset()
      return 0
    }
    let node = try nodes.node(header.node)
    switch operation {
    case .read: return try read(&arguments, &payload)
    case .write: return try send(try write(&arguments), &payload)
    case .lookup: return try send(try lookUp(node, try arguments.name()), &payload)
    case .getAttributes: return try send(try getAttributes(node, &arguments), &payload)
    case .setAttributes: return try send(try setAttributes(node, &arguments), &payload)
    case .readLink: return try send(try readLink(node), &payload)
    case .open: return try send(try open(node, &arguments), &payload)
    case .release:
      let handle: UInt64 = try arguments.take()
      unlock(node, handle: handle)
      files[handle] = nil
      return 0
    case .getLock: return try send(try findLock(node, &arguments), &payload)
    case .setLock, .setLockWaiting:
      try lock(node, &arguments, header.unique, waits: operation == .setLockWaiting)
      return 0
    case .openFolder: return try send(try openFolder(node), &payload)
    case .readFolder: return try readFolder(node, &arguments, &payload, withAttributes: false)
    case .readFolderPlus: return try readFolder(node, &arguments, &payload, withAttributes: true)
    case .releaseFolder:
      folders[try arguments.take()] = nil
      return 0
    case .fileSystemStatus: return try send(try fileSystemStatus(node), &payload)
    case .sync, .syncFolder:
      try sync(node, &arguments, isFolder: operation == .syncFolder)
      return 0
    case .syncFileSystem: return 0
    case .copyRange: return try send(try copyRange(&arguments), &payload)
    case .seek: return try send(try seek(&arguments), &payload)
    case .getExtended: return try send(try getExtended(node, &arguments, &payload), &payload)
    case .listExtended: return try send(try listExtended(node, &arguments), &payload)
    default: return try send(try change(operation, header, node, &arguments), &payload)
    }
  }

  /// What changes the shared folder.
  private func change(
    _ operation: Fuse.Operation, _ header: FuseHeader, _ node: SharedNode, _ arguments: inout FuseArguments
  ) throws -> FuseReply {
    // Nothing can be changed in the root of all.
    guard let served = node.served else { throw FuseError(EROFS) }
    if served.folder.isReadOnly { throw FuseError(EROFS) }
    switch operation {
    case .makeSymbolicLink: return try makeSymbolicLink(node, header, &arguments)
    case .makeNode: return try makeNode(node, header, &arguments)
    case .makeFolder: return try makeFolder(node, header, &arguments)
    case .create: return try create(node, header, &arguments)
    case .link: return try link(node, &arguments)
    case .unlink: try remove(node, try arguments.name(), isFolder: false)
    case .removeFolder: try remove(node, try arguments.name(), isFolder: true)
    case .rename: try rename(node, &arguments, hasFlags: false)
    case .renameWithFlags: try rename(node, &arguments, hasFlags: true)
    case .allocate: try allocate(&arguments)
    case .setExtended: try setExtended(node, &arguments)
    case .removeExtended: try removeExtended(node, &arguments)
    default: throw FuseError(ENOSYS)
    }
    return FuseReply()
  }

  private func send(_ reply: FuseReply, _ payload: inout SegmentWriter) throws -> Int {
    guard reply.bytes.count <= payload.remaining else { throw FuseError(ERANGE) }
    return reply.bytes.withUnsafeBytes { payload.write($0) }
  }

  // MARK: begin and end

  private func initialize(_ arguments: inout FuseArguments) throws -> FuseReply {
    let major: UInt32 = try arguments.take()
    let minor: UInt32 = try arguments.take()
    let readAhead: UInt32 = try arguments.take()
    let features: UInt32 = try arguments.take()
    guard major >= Fuse.majorVersion, major > Fuse.majorVersion || minor >= Fuse.oldestMinorVersion else {
      throw FuseError(EPROTO)
    }
    reset()
    var reply = FuseReply()
    reply.put(Fuse.majorVersion)
    reply.put(Fuse.minorVersion)
    // A newer guest begins anew with this version.
    if major == Fuse.majorVersion { minorVersion = min(minor, Fuse.minorVersion) }
    reply.put(min(readAhead, Fuse.largestTransfer))
    reply.put(features & Fuse.Feature.all)
    // Requests in the background, and how many of them are a crowd.
    reply.put(UInt16(64))
    reply.put(UInt16(48))
    reply.put(Fuse.largestTransfer)
    // Times are exact to a nanosecond.
    reply.put(UInt32(1))
    reply.put(Fuse.mostPages)
    reply.zeros(64 - 30)
    return reply
  }

  /// As before the guest's first request.
  func reset() {
    minorVersion = 0
    locks = SharedLocks()
    files = [:]
    folders = [:]
    nodes.removeAll()
  }

  // MARK: the shared folders

  func add(_ folder: ServedFolder) { served.append(folder) }

  /// False: no folder of this name is shared.
  func remove(_ name: String) -> Bool {
    guard let index = served.firstIndex(where: { $0.folder.name == name }) else { return false }
    let folder = served.remove(at: index)
    locks.removeAll { $0.served === folder }
    files = files.filter { $0.value.node.served !== folder }
    folders = folders.filter { $0.value.node.served !== folder }
    locks.removeWholes { files[$0] == nil }
    nodes.removeAll(of: folder)
    folder.end()
    return true
  }

  /// A file's number in the guest.
  func number(_ status: stat) -> UInt64 {
    let device = UInt64(status.st_dev)
    let order = fileSystems[device] ?? UInt64(fileSystems.count)
    fileSystems[device] = order
    return UInt64(status.st_ino) ^ order << 56
  }

  func takeHandle() throws -> UInt64 {
    guard files.count + folders.count + locks.ownerCount < mostHandles else { throw FuseError(ENFILE) }
    defer { nextHandle += 1 }
    return nextHandle
  }
}

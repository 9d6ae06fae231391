import CHost
import Glibc
import HostSystem

/// A file, folder or link of the host that the guest knows by a number.
///
/// It is found again by way of its folder and name, with no symbolic link followed on the way, and only as long as what is
/// there is the same file. So what the guest can reach stays within the shared folder, whatever happens on the host.
final class SharedNode {
  let identifier: UInt64
  /// Nil: the root, in which the shared folders are.
  let served: ServedFolder?
  let device: UInt64
  let inode: UInt64
  /// S_IFREG, S_IFDIR ...
  let kind: mode_t
  /// Where it is; nil: it is the shared folder itself.
  var parent: SharedNode?
  var name: [CChar]
  /// How often the guest was told of it, less what it has forgotten.
  var lookups: UInt64 = 0
  /// O_PATH; -1: it is opened when that is needed.
  fileprivate(set) var descriptor: Int32 = -1
  /// Its name is gone; only the descriptor leads to it.
  fileprivate(set) var isUnlinked = false
  fileprivate var wasUsed = false
  /// What was chosen in the guest and couldn't be kept on the host.
  var volatileOwner: SharedOwner?
  /// Set-user-ID and set-group-ID bits, as they were seen last.
  var specialMode: UInt32 = 0

  /// What the guest was told of a file, and until when it relies on it (`MonotonicClock`).
  struct Told: Equatable {
    let size: Int64
    let seconds: Int
    let nanoseconds: Int
    var until: UInt64

    init(_ status: stat, until: UInt64) {
      size = Int64(status.st_size)
      seconds = status.st_mtim.tv_sec
      nanoseconds = status.st_mtim.tv_nsec
      self.until = until
    }

    /// It isn't known what.
    init(until: UInt64) {
      (size, seconds, nanoseconds) = (-1, 0, 0)
      self.until = until
    }

    var isKnown: Bool { size >= 0 }
  }

  /// Nil: nothing, or the guest has changed it since, which it knows.
  var told: Told?
  /// The guest uses it together with others, by locks: it relies on nothing that it was told of it before.
  var isShared = false

  init(
    _ identifier: UInt64, _ served: ServedFolder?, device: UInt64, inode: UInt64, kind: mode_t, parent: SharedNode?,
    name: [CChar]
  ) {
    self.identifier = identifier
    self.served = served
    self.device = device
    self.inode = inode
    self.kind = kind
    self.parent = parent
    self.name = name
  }

  var isFolder: Bool { kind == S_IFDIR }

  deinit { if descriptor >= 0 { close(descriptor) } }
}

/// What a file is in the guest and isn't on the host: whom it belongs to, those bits of its mode that no file gets there,
/// and whether it is a device.
struct SharedOwner: Equatable, Codable {
  var user: UInt32
  var group: UInt32
  /// 0o4000 and 0o2000.
  var specialMode: UInt32 = 0
  /// S_IFBLK or S_IFCHR; on the host it is an empty file. 0: it is no device.
  var deviceKind: UInt32 = 0
  /// As Linux encodes it in 32 bits.
  var deviceNumber: UInt32 = 0
}

/// What the guest knows of the host's files. The I/O thread's.
final class SharedNodes {
  /// AT_EMPTY_PATH of Linux' fcntl.h, which Swift doesn't see.
  static let emptyPath: Int32 = 0x1000
  /// Folders within folders at most.
  private static let deepest = 2048

  private struct Place: Hashable {
    var served: ObjectIdentifier
    var device: UInt64
    var inode: UInt64
  }

  private var nodes: [UInt64: SharedNode] = [:]
  private var places: [Place: SharedNode] = [:]
  private var nextIdentifier = Fuse.rootNode + 1
  /// Those with an open descriptor, in the order of their opening; nil: closed since.
  private var opened: [Unowned] = []
  private var openedStart = 0
  private var openCount = 0
  private var unlinkedCount = 0
  /// Descriptors of nodes at most.
  private let mostOpen: Int

  private struct Unowned { weak var node: SharedNode? }

  init(mostOpen: Int) {
    self.mostOpen = max(16, mostOpen)
    nodes[Fuse.rootNode] = SharedNode(
      Fuse.rootNode, nil, device: 0, inode: 0, kind: S_IFDIR, parent: nil, name: [0])
  }

  var count: Int { nodes.count }
  var all: some Collection<SharedNode> { nodes.values }

  /// Throws ESTALE where there is none of this number, or its folder isn't shared any more.
  func node(_ identifier: UInt64) throws -> SharedNode {
    guard let node = nodes[identifier] else { throw FuseError(ESTALE) }
    if let served = node.served, served.descriptor < 0 { throw FuseError(ESTALE) }
    return node
  }

  /// The node of what was found at a place; a new one where the guest doesn't know it.
  func note(_ status: stat, in parent: SharedNode?, _ name: [CChar], of served: ServedFolder) -> SharedNode {
    let place = Place(served: ObjectIdentifier(served), device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    if let known = places[place], known.kind == status.st_mode & S_IFMT {
      // It is found by the last name that is known of it.
      known.parent = parent
      known.name = name
      if known.isUnlinked {
        known.isUnlinked = false
        unlinkedCount -= 1
      }
      return known
    }
    let node = SharedNode(
      nextIdentifier, served, device: place.device, inode: place.inode, kind: status.st_mode & S_IFMT, parent: parent,
      name: name)
    nextIdentifier += 1
    nodes[node.identifier] = node
    places[place] = node
    return node
  }

  /// The node of a file that is known already.
  func known(_ status: stat, of served: ServedFolder) -> SharedNode? {
    places[
      Place(served: ObjectIdentifier(served), device: UInt64(status.st_dev), inode: UInt64(status.st_ino))]
  }

  /// The guest forgets so many of the times that it was told of a node.
  func forget(_ identifier: UInt64, _ count: UInt64) {
    guard identifier != Fuse.rootNode, let node = nodes[identifier] else { return }
    node.lookups -= min(node.lookups, count)
    if node.lookups == 0 { drop(node) }
  }

  private func drop(_ node: SharedNode) {
    nodes[node.identifier] = nil
    if let served = node.served {
      let place = Place(served: ObjectIdentifier(served), device: node.device, inode: node.inode)
      if places[place] === node { places[place] = nil }
    }
    shut(node)
    if node.isUnlinked { unlinkedCount -= 1 }
  }

  /// Forgets all of a folder that isn't shared any more, or everything: the guest's numbers lead nowhere then.
  func removeAll(of served: ServedFolder? = nil) {
    for node in nodes.values where node.served != nil && (served == nil || node.served === served) {
      if served == nil { drop(node) } else { shut(node) }
    }
  }

  /// Takes a node as it was saved.
  func insert(_ node: SharedNode) {
    nodes[node.identifier] = node
    nextIdentifier = max(nextIdentifier, node.identifier + 1)
    guard let served = node.served else { return }
    places[Place(served: ObjectIdentifier(served), device: node.device, inode: node.inode)] = node
  }

  // MARK: descriptors

  /// A descriptor that names the node without opening it (O_PATH). It is good until the next request.
  func descriptor(_ node: SharedNode) throws -> Int32 {
    guard let served = node.served else { throw FuseError(EPERM) }
    node.wasUsed = true
    if node.descriptor >= 0 { return node.descriptor }
    guard !node.isUnlinked else { throw FuseError(ESTALE) }
    // From the nearest folder above that is open, downwards.
    var way: [SharedNode] = []
    var next: SharedNode? = node
    while let here = next, here.descriptor < 0 {
      // Folders that were moved on the host meanwhile may seem to lie in each other.
      guard way.count < Self.deepest else { throw FuseError(ESTALE) }
      way.append(here)
      next = here.parent
    }
    var descriptor = next?.descriptor ?? served.descriptor
    for here in way.reversed() {
      if here.parent == nil {
        // The shared folder itself.
        descriptor = served.descriptor
        if here === node { return descriptor }
        continue
      }
      guard here.name.count > 1, !here.isUnlinked else { throw FuseError(ESTALE) }
      let opened = openat(descriptor, here.name, ConfinedFolder.pathOnly | O_NOFOLLOW | O_CLOEXEC)
      guard opened >= 0 else { throw FuseError(errno == ENOENT || errno == ENOTDIR ? ESTALE : errno) }
      var status = stat()
      guard fstat(opened, &status) == 0, isSame(status, here) else {
        close(opened)
        throw FuseError(ESTALE)
      }
      keep(opened, for: here)
      descriptor = opened
    }
    return descriptor
  }

  private func isSame(_ status: stat, _ node: SharedNode) -> Bool {
    UInt64(status.st_dev) == node.device && UInt64(status.st_ino) == node.inode && status.st_mode & S_IFMT == node.kind
  }

  private func keep(_ descriptor: Int32, for node: SharedNode) {
    node.descriptor = descriptor
    node.wasUsed = true
    opened.append(Unowned(node: node))
    openCount += 1
    while openCount > mostOpen, openedStart < opened.count - 1 {
      let candidate = opened[openedStart].node
      openedStart += 1
      guard let candidate, candidate.descriptor >= 0 else { continue }
      if candidate.wasUsed || candidate.isUnlinked {
        candidate.wasUsed = false
        opened.append(Unowned(node: candidate))
        // All that are open may be unlinked.
        if candidate.isUnlinked, unlinkedCount >= openCount { break }
      } else {
        shut(candidate)
      }
    }
    if openedStart > 1024, openedStart > opened.count / 2 {
      opened.removeFirst(openedStart)
      openedStart = 0
    }
  }

  private func shut(_ node: SharedNode) {
    guard node.descriptor >= 0 else { return }
    close(node.descriptor)
    node.descriptor = -1
    openCount -= 1
  }

  /// Where a node's own name stands: a folder's descriptor and the name, for calls that follow no link; nil: only its
  /// descriptor leads to it.
  func place(_ node: SharedNode) throws -> (folder: Int32, name: [CChar])? {
    guard node.descriptor < 0, !node.isUnlinked, let parent = node.parent else { return nil }
    return (try descriptor(parent), node.name)
  }

  /// Throws ESTALE where something else has come in its place.
  func status(_ node: SharedNode) throws -> stat {
    var status = stat()
    if let (folder, name) = try place(node) {
      guard fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
        throw FuseError(errno == ENOENT || errno == ENOTDIR ? ESTALE : errno)
      }
    } else {
      guard fstatat(try descriptor(node), "", &status, Self.emptyPath) == 0 else { throw FuseError(errno) }
    }
    guard isSame(status, node) else { throw FuseError(ESTALE) }
    return status
  }

  /// A path of this process that leads to the very file, whatever its name is by now.
  func path(_ node: SharedNode) throws -> String { "/proc/self/fd/\(try descriptor(node))" }

  // MARK: names

  /// Before a name goes: what it names stays within reach while the guest knows it.
  func prepareRemoval(of name: [CChar], in parent: SharedNode) throws {
    let folder = try descriptor(parent)
    var status = stat()
    guard let served = parent.served, fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0,
      let node = known(status, of: served), node.parent === parent, node.name == name
    else { return }
    // A guest can't use up all descriptors by this.
    if unlinkedCount < mostOpen / 2 { _ = try? descriptor(node) }
  }

  /// A name has gone, by the guest's own doing. `status`: what it was of.
  func noteRemoval(of name: [CChar], in parent: SharedNode, _ status: stat) {
    guard let served = parent.served, let node = known(status, of: served), node.parent === parent, node.name == name,
      !node.isUnlinked
    else { return }
    node.isUnlinked = true
    unlinkedCount += 1
    // It may have other names still. Without a descriptor nothing keeps another file from getting its number.
    if node.descriptor < 0 {
      places[Place(served: ObjectIdentifier(served), device: node.device, inode: node.inode)] = nil
    }
  }

  /// A name has become another one.
  func noteRename(_ status: stat, from: SharedNode, _ name: [CChar], to: SharedNode, _ newName: [CChar]) {
    guard let served = from.served, let node = known(status, of: served), node.parent === from, node.name == name else {
      return
    }
    node.parent = to
    node.name = newName
  }
}

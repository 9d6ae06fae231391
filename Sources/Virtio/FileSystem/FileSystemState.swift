import Bus
import Glibc
import HostSystem

/// What a guest knows of the host's files. Where a machine is restored they are looked for by their names, and are what they
/// were if they are the same files still; others are gone for the guest (ESTALE). Locks are taken again, but for those that
/// somebody else has by then: the machine that this one is a clone of, say.
extension VirtioFileSystem {
  public struct State: Codable {
    struct Node: Codable {
      var identifier: UInt64
      var share: String
      var device: UInt64
      var inode: UInt64
      var kind: UInt32
      /// Nil: the shared folder itself.
      var parent: UInt64?
      var name: [CChar]
      var lookups: UInt64
      var owner: SharedOwner?
    }

    struct Handle: Codable {
      var handle: UInt64
      var node: UInt64
      /// Nil: a folder.
      var flags: UInt32?
    }

    struct Lock: Codable {
      var node: UInt64
      var owner: UInt64
      var ranges: [SharedLocks.Range]
      var handles: Set<UInt64>
    }

    var minorVersion: UInt32
    var nextHandle: UInt64
    var nodes: [Node]
    var handles: [Handle]
    var locks: [Lock]
    /// Locks of whole files by their handles.
    var wholeLocks: [UInt64: UInt32]
    var waiting: [Waiting]
  }

  public static let stateVersion = 2

  public func saveState() -> State {
    var nodes: [State.Node] = []
    var known: Set<UInt64> = []
    func note(_ node: SharedNode) {
      guard let served = node.served, known.insert(node.identifier).inserted else { return }
      nodes.append(
        State.Node(
          identifier: node.identifier, share: served.folder.name, device: node.device, inode: node.inode,
          kind: UInt32(node.kind), parent: node.parent?.identifier, name: node.isUnlinked ? [] : node.name,
          lookups: node.lookups, owner: node.volatileOwner))
    }
    for node in server.nodes.all {
      // Folders above that the guest has forgotten are on the way.
      var next: SharedNode? = node
      while let here = next, !known.contains(here.identifier) {
        note(here)
        next = here.parent
      }
    }
    let handles =
      server.files.map { State.Handle(handle: $0.key, node: $0.value.node.identifier, flags: $0.value.flags) }
      + server.folders.map { State.Handle(handle: $0.key, node: $0.value.node.identifier, flags: nil) }
    return State(
      minorVersion: server.minorVersion, nextHandle: server.nextHandle, nodes: nodes,
      handles: handles.filter { known.contains($0.node) || $0.node == Fuse.rootNode },
      locks: server.locks.holders.map {
        State.Lock(node: $0.key.node, owner: $0.key.owner, ranges: $0.value.ranges, handles: $0.value.handles)
      },
      wholeLocks: server.locks.wholes, waiting: waiting)
  }

  public func restoreState(_ state: State) throws {
    server.reset()
    forgetWaiting()
    server.minorVersion = state.minorVersion
    server.nextHandle = state.nextHandle
    var restored: [UInt64: SharedNode] = [:]
    for saved in state.nodes {
      guard saved.identifier != Fuse.rootNode, restored[saved.identifier] == nil else {
        throw StateError("the saved state of '\(stateIdentifier)' is damaged")
      }
      guard let served = server.served.first(where: { $0.folder.name == saved.share }) else { continue }
      // The shared folder itself may be another one by now.
      let isRoot = saved.parent == nil
      restored[saved.identifier] = SharedNode(
        saved.identifier, served, device: isRoot ? served.device : saved.device,
        inode: isRoot ? served.inode : saved.inode, kind: mode_t(saved.kind), parent: nil,
        name: saved.name.last == 0 ? saved.name : [])
      restored[saved.identifier]!.lookups = saved.lookups
      // Of what it was told a moment before it was saved.
      if saved.kind == UInt32(S_IFREG) {
        let until = MonotonicClock.nanoseconds() + FuseServer.hostValidity
        restored[saved.identifier]!.told = SharedNode.Told(until: until)
      }
      restored[saved.identifier]!.volatileOwner = saved.owner
    }
    for saved in state.nodes {
      guard let node = restored[saved.identifier] else { continue }
      if let parent = saved.parent {
        guard let folder = restored[parent], folder.served === node.served else { continue }
        node.parent = folder
      }
      if saved.lookups > 0 { server.nodes.insert(node) }
    }
    for saved in state.handles {
      // A node that isn't there any more has no open files.
      guard let node = try? server.nodes.node(saved.node) else { continue }
      if let flags = saved.flags {
        let wanted = OpenFile.flags(flags) & ~O_TRUNC
        guard let descriptor = try? server.openFile(node, wanted) else { continue }
        server.files[saved.handle] = OpenFile(node, descriptor, flags: flags)
      } else if let folder = try? server.open(folder: node) {
        server.folders[saved.handle] = folder
      }
    }
    for saved in state.locks {
      guard let node = try? server.nodes.node(saved.node) else { continue }
      server.lockAgain(node, saved.owner, saved.ranges, handles: saved.handles)
    }
    for (handle, type) in state.wholeLocks { server.lockAgain(handle: handle, type) }
    // Asked again when the queues are there.
    guard state.waiting.allSatisfy({ queueMaximumSizes.indices.contains($0.queue) }) else {
      throw StateError("the saved state of '\(stateIdentifier)' is damaged")
    }
    waiting = state.waiting
  }
}

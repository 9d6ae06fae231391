import Bus

/// A virtio device in its slot.
struct VirtioAttachment {
  let stateKeeper: any StateKeeper
  /// Connects the device's backend.
  let start: () throws -> Void
  /// Back to the state before any driver saw it.
  let reset: () -> Void
}
extension Board {
  func attachVirtio() {}
}

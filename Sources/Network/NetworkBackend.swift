import HostSystem

/// The host's end of a guest network card: Ethernet frames (without checksum trailer) in both directions. Everything
/// happens on the machine's I/O thread.
public protocol NetworkBackend: AnyObject {
  /// Begins to work on `loop`. `receive` is called with each frame for the guest; false: the guest has no room now, and
  /// the backend keeps or drops the frame and may be told by `guestHasRoom`.
  func start(on loop: EventLoop, receive: @escaping (UnsafeRawBufferPointer) -> Bool) throws
  /// A frame from the guest. Checksums are complete and segments no larger than the link carries: the network device
  /// has done what the guest offloaded.
  func send(_ frame: UnsafeRawBufferPointer)
  /// The guest offered receive buffers again after `receive` returned false.
  func guestHasRoom()
  /// Whether the link is up, as the guest sees it.
  var isLinkUp: Bool { get }
  func stop()
}

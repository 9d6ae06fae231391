import CHost
import Glibc
import HostSystem

/// A TAP interface of the host: the guest's card is on whatever the host connects that interface to (Linux kernel
/// documentation, networking/tuntap). Making the interface needs rights; using one made for this user doesn't.
public final class TapNetwork: NetworkBackend {
  /// Bytes in an interface name, without the end mark (IFNAMSIZ - 1).
  static let longestName = 15
  /// More than any frame a TAP interface passes on.
  private static let largestFrame = 65_536 + 18

  public let name: String
  private var descriptor: Int32 = -1
  private var loop: EventLoop?
  private var token: EventLoop.Token?
  private var receive: ((UnsafeRawBufferPointer) -> Bool)?
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: largestFrame, alignment: 16)
  /// Bytes of the frame in `buffer` that the guest had no room for; further ones wait in the kernel's queue.
  private var pendingCount = 0

  public init(name: String) { self.name = name }

  deinit {
    if descriptor >= 0 { close(descriptor) }
    buffer.deallocate()
  }

  public var isLinkUp: Bool { descriptor >= 0 }

  /// Throws `NetworkError` when the interface isn't there or isn't this user's.
  public func start(on loop: EventLoop, receive: @escaping (UnsafeRawBufferPointer) -> Bool) throws {
    precondition(descriptor < 0, "started twice")
    descriptor = chost_open_tap(name)
    guard descriptor >= 0 else { throw refusal(errno) }
    self.loop = loop
    self.receive = receive
    token = loop.watch(descriptor, for: .read) { [weak self] found in self?.readFrames(found) }
  }

  private func refusal(_ code: Int32) -> NetworkError {
    switch code {
    case EPERM, EACCES:
      return NetworkError(
        .noPermission,
        "no right to use the interface '\(name)'; make it for your user: "
          + "sudo ip tuntap add dev \(name) mode tap user $USER && sudo ip link set \(name) up", cause: code)
    case EBUSY: return NetworkError(.unavailable, "the interface '\(name)' is in use by another program", cause: code)
    case ENOENT, ENODEV:
      return NetworkError(
        .unavailable, "this host has no /dev/net/tun; load it with 'sudo modprobe tun' or choose --net user",
        cause: code)
    case EINVAL: return NetworkError(.unavailable, "the interface '\(name)' is not a TAP interface", cause: code)
    default:
      return NetworkError(
        .unavailable, "can't use the interface '\(name)': \(String(cString: strerror(code)))", cause: code)
    }
  }

  private func readFrames(_ found: EventLoop.Interest) {
    guard pendingCount == 0 else { return }
    // A busy interface must not keep the loop's other descriptors waiting.
    for _ in 0..<64 {
      let count = read(descriptor, buffer.baseAddress, buffer.count)
      guard count > 0 else {
        // EIO: the interface is down and may come back. Anything else with a hangup: it was removed.
        if found.contains(.hangup), let token { loop?.change(token, to: []) }
        return
      }
      pendingCount = count
      deliver()
      if pendingCount != 0 { return }
    }
  }

  private func deliver() {
    guard pendingCount > 0, let receive, let token else { return }
    let taken = receive(UnsafeRawBufferPointer(rebasing: buffer[..<pendingCount]))
    if taken { pendingCount = 0 }
    loop?.change(token, to: taken ? .read : [])
  }

  public func send(_ frame: UnsafeRawBufferPointer) {
    guard descriptor >= 0, frame.count >= 14, frame.count <= TapNetwork.largestFrame else { return }
    // A frame that the kernel has no room for is lost, as on a wire.
    _ = write(descriptor, frame.baseAddress, frame.count)
  }

  public func guestHasRoom() { deliver() }

  public func stop() {
    guard descriptor >= 0, let loop else { return }
    loop.performAndWait { [self] in
      if let token { loop.cancel(token) }
      close(descriptor)
      (descriptor, token, receive, self.loop, pendingCount) = (-1, nil, nil, nil, 0)
    }
  }
}

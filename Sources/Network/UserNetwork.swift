import CSlirp
import Glibc
import HostSystem

/// User-mode networking: the guest's connections become sockets of this process (libslirp), so that no rights are
/// needed. It serves DHCP, DNS, IPv4, IPv6, TCP, UDP and the configured port forwards. It keeps no state that a guest's
/// reboot would have to clear: leases and neighbours are learned again.
public final class UserNetwork: NetworkBackend {
  /// More than any frame that a guest's card may send after the device has cut its segments.
  private static let largestFrame = 65_535 + 18

  public let configuration: UserNetworkConfiguration
  private var loop: EventLoop?
  private(set) var slirp: OpaquePointer?
  private var hook: EventLoop.Token?
  private var receive: ((UnsafeRawBufferPointer) -> Bool)?
  /// Frames for the guest while it has no room.
  private var waitingFrames = FrameQueue(capacity: 512)
  private var isDraining = false
  private var polled: [pollfd] = []

  /// Whether a call into the library is under way. Its callbacks deliver frames, and what the guest's device does in
  /// answer (send, stop) must not enter the library again: it waits in `deferred`.
  private var isInside = false
  private var deferred: [() -> Void] = []

  public init(_ configuration: UserNetworkConfiguration = UserNetworkConfiguration()) {
    self.configuration = configuration
  }

  deinit { if let slirp { slirp_cleanup(slirp) } }

  public var isLinkUp: Bool { slirp != nil }

  /// Throws `NetworkError` when a forwarded port can't be had.
  public func start(on loop: EventLoop, receive: @escaping (UnsafeRawBufferPointer) -> Bool) throws {
    precondition(slirp == nil, "started twice")
    BrokenPipes.becomeErrors()
    self.loop = loop
    self.receive = receive
    isInside = true
    slirp = makeSlirp()
    isInside = false
    guard let slirp else {
      throw NetworkError(.unavailable, "libslirp \(String(cString: slirp_version_string())) refuses to start")
    }
    do {
      for forward in configuration.portForwards { try add(forward, to: slirp) }
    } catch {
      stop()
      throw error
    }
    hook = loop.add(
      EventLoop.PollHook(
        before: { [weak self] descriptors, timeout in self?.fillPollSet(&descriptors, &timeout) },
        after: { [weak self] descriptors in self?.pollResult(descriptors) }))
  }

  private func makeSlirp() -> OpaquePointer? {
    var settings = SlirpConfig()
    // Version 4 is what libslirp 4.7 has; later versions read it too.
    settings.version = 4
    settings.restricted = configuration.isRestricted ? 1 : 0
    settings.in_enabled = true
    settings.vnetwork = IPAddress(10, 0, 2, 0).in4
    settings.vnetmask = IPAddress(255, 255, 255, 0).in4
    settings.vhost = UserNetworkConfiguration.hostAddress.in4
    settings.vdhcp_start = UserNetworkConfiguration.firstGuestAddress.in4
    settings.vnameserver = UserNetworkConfiguration.nameServerAddress.in4
    settings.in6_enabled = configuration.isIPv6Enabled
    settings.vprefix_addr6 = IPAddress("fec0::")!.in6
    settings.vprefix_len = 64
    settings.vhost6 = IPAddress("fec0::2")!.in6
    settings.vnameserver6 = IPAddress("fec0::3")!.in6
    settings.disable_host_loopback = !configuration.isHostLoopbackAllowed
    let opaque = Unmanaged.passUnretained(self).toOpaque()
    guard let hostname = configuration.hostname else { return slirp_new(&settings, UserNetwork.callbacks, opaque) }
    return hostname.withCString { name in
      settings.vhostname = name
      return slirp_new(&settings, UserNetwork.callbacks, opaque)
    }
  }

  public func send(_ frame: UnsafeRawBufferPointer) {
    guard let slirp, frame.count >= 14, frame.count <= UserNetwork.largestFrame else { return }
    if isInside {
      let copy = Array(frame)
      deferred.append { [weak self] in copy.withUnsafeBytes { self?.send($0) } }
      return
    }
    enter { slirp_input(slirp, frame.baseAddress?.assumingMemoryBound(to: UInt8.self), Int32(frame.count)) }
  }

  public func guestHasRoom() {
    guard let receive, !isDraining, !waitingFrames.isEmpty else { return }
    // Taken out while it drains: the guest's answers may bring new frames, which wait behind these.
    var frames = waitingFrames
    waitingFrames.removeAll()
    isDraining = true
    frames.drain(receive)
    isDraining = false
    frames.append(contentsOf: waitingFrames)
    waitingFrames = frames
  }

  public func stop() {
    guard let loop else { return }
    loop.performAndWait { [self] in
      if isInside {
        deferred.append { [weak self] in self?.stop() }
        return
      }
      if let hook { loop.cancel(hook) }
      if let slirp {
        isInside = true
        slirp_cleanup(slirp)
        isInside = false
      }
      (slirp, hook, receive, self.loop) = (nil, nil, nil, nil)
      deferred = []
      waitingFrames.removeAll()
    }
  }

  // MARK: - Into the library

  private func enter(_ call: () -> Void) {
    isInside = true
    call()
    isInside = false
    while !deferred.isEmpty, !isInside {
      let action = deferred.removeFirst()
      action()
    }
  }

  private func fillPollSet(_ descriptors: inout [pollfd], _ timeout: inout Int32) {
    guard let slirp else { return }
    polled.removeAll(keepingCapacity: true)
    var wait = timeout < 0 ? UInt32.max : UInt32(timeout)
    enter {
      slirp_pollfds_fill(slirp, &wait, UserNetwork.addDescriptor, Unmanaged.passUnretained(self).toOpaque())
    }
    timeout = wait > UInt32(Int32.max) ? -1 : Int32(wait)
    descriptors.append(contentsOf: polled)
  }

  private func pollResult(_ descriptors: ArraySlice<pollfd>) {
    guard let slirp else { return }
    polled = Array(descriptors)
    enter {
      slirp_pollfds_poll(slirp, 0, UserNetwork.foundEvents, Unmanaged.passUnretained(self).toOpaque())
    }
  }

  // MARK: - Out of the library

  fileprivate func deliver(_ frame: UnsafeRawBufferPointer) {
    guard let receive else { return }
    // Order is kept: nothing overtakes a waiting frame.
    if waitingFrames.isEmpty, !isDraining, receive(frame) { return }
    waitingFrames.append(frame)
  }

  fileprivate func append(_ descriptor: pollfd) -> Int32 {
    polled.append(descriptor)
    return Int32(polled.count - 1)
  }

  fileprivate func events(at index: Int32) -> Int16 {
    polled.indices.contains(Int(index)) ? polled[Int(index)].revents : 0
  }

  /// Runs a timer of the library's, `milliseconds` on its clock.
  fileprivate func schedule(_ timer: SlirpTimer, at milliseconds: Int64) {
    guard let loop else { return }
    if let token = timer.token { loop.cancel(token) }
    let now = Int64(MonotonicClock.nanoseconds() / 1_000_000)
    let wait = UInt64(max(0, milliseconds &- now)).multipliedReportingOverflow(by: 1_000_000)
    timer.token = loop.after(nanoseconds: wait.overflow ? .max : wait.partialValue) { [weak self, weak timer] in
      guard let timer else { return }
      timer.token = nil
      self?.enter { timer.handler?(timer.argument) }
    }
  }

  fileprivate func cancel(_ timer: SlirpTimer) {
    if let token = timer.token { loop?.cancel(token) }
  }

  fileprivate func kick() { loop?.perform {} }

  fileprivate static func network(_ opaque: UnsafeMutableRawPointer?) -> UserNetwork {
    Unmanaged<UserNetwork>.fromOpaque(opaque!).takeUnretainedValue()
  }
}

/// A timer that the library made.
private final class SlirpTimer {
  let handler: SlirpTimerCb?
  let argument: UnsafeMutableRawPointer?
  var token: EventLoop.Token?

  init(handler: SlirpTimerCb?, argument: UnsafeMutableRawPointer?) {
    self.handler = handler
    self.argument = argument
  }
}

extension UserNetwork {
  /// What the library calls, with the network as `opaque`. It keeps the pointer for as long as it lives; this one stays
  /// for ever. C calls these: they must not throw, and never let a Swift error or a lock escape.
  fileprivate static let callbacks: UnsafePointer<SlirpCb> = {
    var callbacks = SlirpCb()
    callbacks.send_packet = { bytes, count, opaque in
      UserNetwork.network(opaque).deliver(UnsafeRawBufferPointer(start: bytes, count: count))
      return count
    }
    // A guest's malformed packet is its own affair.
    callbacks.guest_error = { _, _ in }
    callbacks.clock_get_ns = { _ in Int64(MonotonicClock.nanoseconds()) }
    callbacks.timer_new = { handler, argument, _ in
      Unmanaged.passRetained(SlirpTimer(handler: handler, argument: argument)).toOpaque()
    }
    callbacks.timer_free = { timer, opaque in
      guard let timer else { return }
      UserNetwork.network(opaque).cancel(Unmanaged<SlirpTimer>.fromOpaque(timer).takeRetainedValue())
    }
    callbacks.timer_mod = { timer, milliseconds, opaque in
      guard let timer else { return }
      UserNetwork.network(opaque)
        .schedule(Unmanaged<SlirpTimer>.fromOpaque(timer).takeUnretainedValue(), at: milliseconds)
    }
    callbacks.register_poll_fd = { _, _ in }
    callbacks.unregister_poll_fd = { _, _ in }
    callbacks.notify = { UserNetwork.network($0).kick() }
    let pointer = UnsafeMutablePointer<SlirpCb>.allocate(capacity: 1)
    pointer.initialize(to: callbacks)
    return UnsafePointer(pointer)
  }()

  /// Pairs of the library's event bits and poll's.
  private static let eventBits: [(slirp: Int32, poll: Int32)] = [
    (Int32(SLIRP_POLL_IN), POLLIN), (Int32(SLIRP_POLL_OUT), POLLOUT),
    (Int32(SLIRP_POLL_PRI), POLLPRI), (Int32(SLIRP_POLL_ERR), POLLERR),
    (Int32(SLIRP_POLL_HUP), POLLHUP),
  ]

  fileprivate static let addDescriptor: SlirpAddPollCb = { descriptor, events, opaque in
    let wanted = UserNetwork.eventBits.reduce(Int32(0)) { events & $1.slirp != 0 ? $0 | $1.poll : $0 }
    return UserNetwork.network(opaque).append(pollfd(fd: descriptor, events: Int16(wanted), revents: 0))
  }

  fileprivate static let foundEvents: SlirpGetREventsCb = { index, opaque in
    let found = Int32(UserNetwork.network(opaque).events(at: index))
    return UserNetwork.eventBits.reduce(Int32(0)) { found & $1.poll != 0 ? $0 | $1.slirp : $0 }
  }
}

import Bus
import Foundation
import HostSystem
import Synchronization

/// Sockets between guest and host (virtio 1.2, 5.10), which are Unix sockets on the host, as Firecracker has it: who
/// connects to the socket at `path` and writes "CONNECT PORT\n" gets "OK HOSTPORT\n" and is connected to the guest's
/// port; a guest that connects to the host's port (context 2) is connected to the Unix socket at `path`_PORT.
public final class VirtioSocket: VirtioDevice {
  /// The host's context, and the guest's: each machine is a world of its own.
  static let hostContext: UInt64 = 2
  static let guestContext: UInt64 = 3

  static let receiveQueue = 0
  static let transmitQueue = 1
  static let eventQueue = 2

  public let deviceType = VirtioDeviceType.socket
  public let pciClassCode: UInt32 = 0x02_80_00
  public let deviceFeatures: UInt64 = 0
  public let queueMaximumSizes: [UInt16] = [128, 128, 8]
  public let configuration = ConfigurationSpace(count: 8)
  public let stateIdentifier = "socket"

  /// Connections at most, in either direction.
  static let mostConnections = 1024
  /// Packets without bytes that wait for the guest's buffers; a guest that gives none isn't listened to either.
  static let mostPendingPackets = 256

  /// Where the Unix socket is made. Before the machine starts.
  public var path: String
  let counters = Mutex(SocketMetrics())
  weak var transport: VirtioTransport?

  // The I/O thread's, from here on.
  private var listener: Int32 = -1
  private var listenerWatch: EventLoop.Token?
  /// Who has connected, and not said yet where to.
  var visitors: [Int32: Visitor] = [:]
  var connections: [SocketConnection.Ports: SocketConnection] = [:]
  var pendingPackets: [SocketPacket] = []
  var nextHostPort: UInt32 = 1 << 30
  /// The guest is to hear that its connections are gone.
  var owesTransportReset = false

  struct Visitor {
    var watch: EventLoop.Token
    var line: [UInt8] = []
  }

  /// - Parameter path: where the Unix socket is made.
  public init(path: String) {
    self.path = path
    configuration.set(Self.guestContext, at: 0)
  }

  public func attach(to transport: VirtioTransport) { self.transport = transport }

  var loop: EventLoop? { transport?.loop }

  public func startBackend() throws {
    guard let loop else { return }
    BrokenPipes.becomeErrors()
    listener = try UnixSocket.listen(path)
    listenerWatch = loop.watch(listener, for: .read) { [weak self] _ in self?.acceptVisitors() }
  }

  /// Closes all connections, and takes no more. Any thread.
  public func stop() {
    loop?.performAndWait { [self] in
      closeAll()
      guard listener >= 0 else { return }
      if let listenerWatch { loop?.cancel(listenerWatch) }
      close(listener)
      (listener, listenerWatch) = (-1, nil)
      _ = UnixSocket.withShortPath(path) { unlink($0) }
    }
  }

  public func activate(features: UInt64) { deliverEvent() }

  public func reset() {
    owesTransportReset = false
    closeAll()
  }

  private func closeAll() {
    for descriptor in visitors.keys { dismiss(descriptor) }
    for connection in connections.values { forget(connection) }
    pendingPackets = []
  }

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    switch index {
    case Self.receiveQueue: buffersAdded()
    case Self.transmitQueue: serveTransmit()
    default: deliverEvent()
    }
  }

  /// After a restore, or in a clone, the guest's connections lead nowhere (5.10.6.7).
  private func deliverEvent() {
    guard owesTransportReset else { return }
    transport?.process(Self.eventQueue) { chain in
      guard self.owesTransportReset else { return nil }
      self.owesTransportReset = false
      var writer = chain.writer
      writer.write(UInt32(0))
      return 4
    }
  }

  // MARK: who connects on the host

  private func acceptVisitors() {
    let descriptor = UnixSocket.accept(listener, isBlocking: false)
    guard descriptor >= 0, let loop else { return }
    guard visitors.count + connections.count < Self.mostConnections else {
      close(descriptor)
      return
    }
    let watch = loop.watch(descriptor, for: .read) { [weak self] _ in self?.readLine(descriptor) }
    visitors[descriptor] = Visitor(watch: watch)
  }

  private func dismiss(_ descriptor: Int32) {
    guard let visitor = visitors.removeValue(forKey: descriptor) else { return }
    loop?.cancel(visitor.watch)
    close(descriptor)
  }

  /// Reads "CONNECT PORT\n", and not a byte beyond.
  private func readLine(_ descriptor: Int32) {
    while visitors[descriptor] != nil {
      var byte: UInt8 = 0
      let count = recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT))
      if count < 0, errno == EAGAIN || errno == EINTR { return }
      guard count == 1, visitors[descriptor]!.line.count < 32 else { return dismiss(descriptor) }
      if byte != UInt8(ascii: "\n") {
        visitors[descriptor]!.line.append(byte)
        continue
      }
      let words = String(decoding: visitors[descriptor]!.line, as: UTF8.self).split(separator: " ")
      guard words.count == 2, words[0] == "CONNECT", let port = UInt32(words[1]), transport?.queue(0) != nil,
        pendingPackets.count < Self.mostPendingPackets
      else { return dismiss(descriptor) }
      let visitor = visitors.removeValue(forKey: descriptor)!
      loop?.cancel(visitor.watch)
      let connection = SocketConnection(.init(guest: port, host: takeHostPort()), descriptor: descriptor, isOpen: false)
      connections[connection.ports] = connection
      send(.request, connection)
      return
    }
  }

  private func takeHostPort() -> UInt32 {
    nextHostPort = nextHostPort == .max ? 1 << 30 : nextHostPort + 1
    return nextHostPort
  }

  // MARK: connections

  /// Has the loop look at what concerns the connection now.
  func updateInterest(_ connection: SocketConnection) {
    guard connection.isOpen, let loop else { return }
    var interest: EventLoop.Interest = connection.hostReadsNoMore ? [] : .hangup
    if !connection.hostSendsNoMore, !connection.guestReceivesNoMore, !connection.isHeld { interest.insert(.read) }
    if connection.hasPending, !connection.hostReadsNoMore { interest.insert(.write) }
    if let watch = connection.watch {
      loop.change(watch, to: interest)
    } else {
      connection.watch = loop.watch(connection.descriptor, for: interest) { [weak self, weak connection] found in
        guard let self, let connection else { return }
        if found.contains(.write) { self.flush(connection) }
        guard self.connections[connection.ports] === connection else { return }
        if found.contains(.read) {
          self.fillGuest(connection)
        } else if found.contains(.hangup) {
          // What has come from there is still the guest's.
          if connection.isHeld, !connection.hostSendsNoMore, !connection.guestReceivesNoMore {
            connection.hostReadsNoMore = true
            self.updateInterest(connection)
          } else {
            self.hostIsGone(connection)
          }
        }
      }
    }
  }

  /// Nobody is at the host's side any more.
  func hostIsGone(_ connection: SocketConnection) {
    send(.shutdown, connection, flags: SocketPacket.receivesNoMore | SocketPacket.sendsNoMore)
    forget(connection)
  }

  /// Closes the host's side without a word to the guest.
  func forget(_ connection: SocketConnection) {
    if let watch = connection.watch { loop?.cancel(watch) }
    connection.watch = nil
    connections[connection.ports] = nil
  }

  /// Writes what the guest has sent to the host's side.
  func flush(_ connection: SocketConnection) {
    guard connection.flush() else { return hostIsGone(connection) }
    if !connection.hasPending, connection.guestSendsNoMore {
      if connection.guestReceivesNoMore {
        send(.reset, connection)
        return forget(connection)
      }
      shutdown(connection.descriptor, Int32(SHUT_WR))
    }
    if connection.owesCredit { send(.creditUpdate, connection) }
    updateInterest(connection)
  }
}

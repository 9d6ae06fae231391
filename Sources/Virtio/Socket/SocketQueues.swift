import Foundation
import HostSystem

/// Packets to the guest and from it (virtio 1.2, 5.10.6).
extension VirtioSocket {
  /// Packets with bytes for one connection before others have their turn.
  private static let largestTurn = 32

  // MARK: to the guest

  /// Sends a packet without bytes, at once or when the guest has buffers.
  func send(_ operation: SocketPacket.Operation, _ connection: SocketConnection, flags: UInt32 = 0) {
    var packet = SocketPacket()
    packet.sourcePort = connection.ports.host
    packet.destinationPort = connection.ports.guest
    packet.flags = flags
    connection.tell(in: &packet)
    send(operation, packet)
  }

  private func send(_ operation: SocketPacket.Operation, _ packet: SocketPacket) {
    var packet = packet
    packet.sourceContext = Self.hostContext
    packet.destinationContext = Self.guestContext
    packet.operation = operation.rawValue
    pendingPackets.append(packet)
    deliverPending()
  }

  /// Whether all are delivered.
  @discardableResult
  private func deliverPending() -> Bool {
    while let packet = pendingPackets.first {
      guard deliver(packet, bytes: nil) == .delivered else { return false }
      pendingPackets.removeFirst()
    }
    return true
  }

  private enum Delivery { case delivered, noBuffers, nothing, ended }

  /// Writes a packet to the guest's next buffers, with the bytes that are read there (a count below zero: none for now).
  private func deliver(_ packet: SocketPacket, bytes: ((UnsafeMutableRawBufferPointer) -> Int)?, limit: Int = 0)
    -> Delivery
  {
    guard let transport, let queue = transport.queue(Self.receiveQueue) else { return .noBuffers }
    var chain = DescriptorChain()
    do {
      while try !queue.pop(into: &chain) {
        if queue.resumeNotifications() == 0 { return .noBuffers }
      }
      guard chain.writableCount > SocketPacket.headerCount else {
        throw VirtqueueError.requestMalformed("a receive buffer of a socket device without room for bytes")
      }
    } catch {
      transport.fail("\(error)")
      return .noBuffers
    }
    var packet = packet
    if let bytes {
      var body = chain.writer
      body.skip(SocketPacket.headerCount)
      let count = body.next(limit: limit).map(bytes) ?? -1
      if count <= 0 {
        queue.putBack(1)
        return count < 0 ? .nothing : .ended
      }
      packet.count = UInt32(count)
    }
    var writer = chain.writer
    packet.write(to: &writer)
    queue.push(head: chain.head, written: UInt32(SocketPacket.headerCount) + packet.count)
    transport.interruptIfWanted(queue)
    return .delivered
  }

  /// Hands the guest what has come from the host's side.
  func fillGuest(_ connection: SocketConnection) {
    for _ in 0..<Self.largestTurn {
      // What was to be said before is said first.
      guard deliverPending() else {
        connection.waitsForBuffers = true
        break
      }
      let credit = connection.credit
      guard credit > 0 else {
        connection.waitsForCredit = true
        send(.creditRequest, connection)
        break
      }
      var packet = SocketPacket()
      packet.sourceContext = Self.hostContext
      packet.destinationContext = Self.guestContext
      packet.sourcePort = connection.ports.host
      packet.destinationPort = connection.ports.guest
      packet.operation = SocketPacket.Operation.data.rawValue
      connection.tell(in: &packet)
      var failure: Int32 = 0
      var count = 0
      let delivery = deliver(
        packet,
        bytes: { room in
          count = recv(connection.descriptor, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
          failure = count < 0 ? errno : 0
          return count
        }, limit: min(credit, 64 << 10))
      switch delivery {
      case .delivered:
        connection.noteSent(count)
        counters.withLock { $0.bytesReceived += UInt64(count) }
        continue
      case .noBuffers: connection.waitsForBuffers = true
      case .nothing where failure == EAGAIN || failure == EINTR: break
      case .nothing: return hostIsGone(connection)
      case .ended:
        connection.hostSendsNoMore = true
        send(.shutdown, connection, flags: SocketPacket.sendsNoMore)
      }
      break
    }
    updateInterest(connection)
  }

  func buffersAdded() {
    guard deliverPending() else { return }
    transport?.queue(Self.receiveQueue)?.suppressNotifications()
    for connection in connections.values where connection.waitsForBuffers {
      connection.waitsForBuffers = false
      updateInterest(connection)
    }
    // It may have been left to itself for want of room for answers.
    if pendingPackets.count < Self.mostPendingPackets { serveTransmit() }
  }

  // MARK: from the guest

  func serveTransmit() {
    transport?.process(Self.transmitQueue) { chain in
      guard self.pendingPackets.count < Self.mostPendingPackets else { return nil }
      var reader = chain.reader
      guard let packet = SocketPacket(&reader), Int(packet.count) <= reader.remaining else {
        throw VirtqueueError.requestMalformed("a packet of a socket device that is shorter than it says")
      }
      self.receive(packet, &reader)
      return 0
    }
  }

  private func receive(_ packet: SocketPacket, _ reader: inout SegmentReader) {
    let ports = SocketConnection.Ports(guest: packet.sourcePort, host: packet.destinationPort)
    guard packet.sourceContext == Self.guestContext, packet.destinationContext == Self.hostContext,
      packet.type == SocketPacket.stream, let operation = SocketPacket.Operation(rawValue: packet.operation)
    else { return refuse(packet) }
    if operation == .request { return open(ports, packet) }
    guard let connection = connections[ports] else { return refuse(packet) }
    connection.note(packet)
    if connection.waitsForCredit, connection.credit > 0 {
      connection.waitsForCredit = false
      updateInterest(connection)
    }
    switch operation {
    case .response where !connection.isOpen:
      connection.isOpen = true
      let line = Array("OK \(ports.host)\n".utf8)
      guard Foundation.send(connection.descriptor, line, line.count, Int32(MSG_NOSIGNAL)) == line.count else {
        return hostIsGone(connection)
      }
      counters.withLock { $0.connections += 1 }
      updateInterest(connection)
    case .data where connection.isOpen && !connection.guestSendsNoMore:
      counters.withLock { $0.bytesTransmitted += UInt64(packet.count) }
      guard connection.append(&reader, Int(packet.count)) else { return abort(connection) }
      flush(connection)
    case .shutdown where connection.isOpen:
      if packet.flags & SocketPacket.sendsNoMore != 0 { connection.guestSendsNoMore = true }
      if packet.flags & SocketPacket.receivesNoMore != 0 { connection.guestReceivesNoMore = true }
      flush(connection)
    case .creditUpdate: break
    case .creditRequest: send(.creditUpdate, connection)
    case .reset: forget(connection)
    default: abort(connection)
    }
  }

  private func abort(_ connection: SocketConnection) {
    send(.reset, connection)
    forget(connection)
  }

  /// Answers what belongs to no connection (5.10.6.6); a reset isn't answered.
  private func refuse(_ packet: SocketPacket) {
    guard packet.operation != SocketPacket.Operation.reset.rawValue else { return }
    var answer = SocketPacket()
    answer.sourcePort = packet.destinationPort
    answer.destinationPort = packet.sourcePort
    answer.type = packet.type
    send(.reset, answer)
  }

  /// The guest connects to a port of the host: somebody must listen on the Unix socket that belongs to it.
  private func open(_ ports: SocketConnection.Ports, _ packet: SocketPacket) {
    guard connections[ports] == nil, visitors.count + connections.count < Self.mostConnections else {
      return refuse(packet)
    }
    let descriptor = UnixSocket.make(isBlocking: false)
    guard descriptor >= 0 else { return refuse(packet) }
    let failure = UnixSocket.withShortPath("\(path)_\(ports.host)") { UnixSocket.use($0, descriptor, connect) }
    guard failure == 0 else {
      close(descriptor)
      return refuse(packet)
    }
    let connection = SocketConnection(ports, descriptor: descriptor, isOpen: true)
    connections[ports] = connection
    connection.note(packet)
    counters.withLock { $0.connections += 1 }
    send(.response, connection)
    updateInterest(connection)
  }
}

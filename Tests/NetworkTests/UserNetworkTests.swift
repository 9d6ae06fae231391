import Foundation
import HostSystem
import Network
import Testing

/// Talks to `UserNetwork` as a guest does, frame by frame. Loopback only.
struct UserNetworkTests {
  let host = UserNetworkConfiguration.hostAddress

  @Test func theHostAnswersARP() throws {
    let guest = try HandMadeGuest()
    #expect(guest.network.isLinkUp)
    #expect(guest.resolveGateway())
    // Locally administered, as the library makes it: 52:55 and the address.
    #expect(guest.gatewayHardware == [0x52, 0x55] + host.bytes)
  }

  @Test func dhcpGivesTheNetworkPlan() throws {
    let guest = try HandMadeGuest(UserNetworkConfiguration(hostname: "sparrow"))
    let offer = try #require(guest.dhcp(type: 1))
    #expect(offer.options[53] == [2])
    #expect(offer.address == UserNetworkConfiguration.firstGuestAddress)
    let lease = try #require(guest.dhcp(type: 3, requesting: offer.address))
    #expect(lease.options[53] == [5])
    #expect(lease.address == UserNetworkConfiguration.firstGuestAddress)
    #expect(lease.options[1] == [255, 255, 255, 0])
    #expect(lease.options[3] == host.bytes)
    #expect(lease.options[6] == UserNetworkConfiguration.nameServerAddress.bytes)
    #expect(lease.options[12] == Array("sparrow".utf8))
  }

  @Test func aRebootedGuestGetsTheSameLeaseAndAWorkingNetwork() throws {
    let guest = try HandMadeGuest()
    let server = try #require(LoopbackSocket(datagram: true))
    for _ in 0..<3 {
      guest.forget()
      let offer = try #require(guest.dhcp(type: 1))
      let lease = try #require(guest.dhcp(type: 3, requesting: offer.address))
      #expect(lease.address == UserNetworkConfiguration.firstGuestAddress)
      #expect(guest.resolveGateway())
      try echo(through: guest, server)
    }
  }

  @Test func aStoppedNetworkStartsAgain() throws {
    let port = try #require(LoopbackSocket.freePort())
    let forward = PortForward(hostPort: port, guestPort: 22)
    let guest = try HandMadeGuest(UserNetworkConfiguration(portForwards: [forward]))
    #expect(guest.resolveGateway())
    for _ in 0..<2 {
      guest.network.stop()
      #expect(!guest.network.isLinkUp)
      guest.network.stop()
      // The loop turns without it, and frames go nowhere.
      guest.forget()
      guest.sendUDP(from: 1000, to: host, 9, [1])
      guest.loop.turn(maximumWait: 0)
      #expect(guest.received.isEmpty)
      try guest.start()
      #expect(guest.resolveGateway())
    }
  }

  private func echo(through guest: HandMadeGuest, _ server: LoopbackSocket, isIPv6: Bool = false) throws {
    let target = isIPv6 ? IPAddress("fec0::2")! : host
    let question = Array("question".utf8)
    guest.sendUDP(from: 4000, to: target, server.port, question)
    var sender = sockaddr_in6()
    var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
    var buffer = [UInt8](repeating: 0, count: 100)
    let count = withUnsafeMutablePointer(to: &sender) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { sender in
        let count = recvfrom(server.descriptor, &buffer, buffer.count, 0, sender, &size)
        if count > 0 { _ = sendto(server.descriptor, [UInt8](buffer[..<count].reversed()), count, 0, sender, size) }
        return count
      }
    }
    #expect(count == question.count)
    let answer = try #require(guest.wait { $0.next == 17 && $0.destinationPort == 4000 })
    #expect(answer.udpPayload == question.reversed())
    #expect(answer.source == target.bytes && answer.sourcePort == server.port)
  }

  @Test func udpReachesTheHost() throws {
    let guest = try HandMadeGuest()
    let server = try #require(LoopbackSocket(datagram: true))
    #expect(guest.resolveGateway())
    try echo(through: guest, server)
  }

  @Test func tcpReachesTheHostAndBothSidesFinish() throws {
    let guest = try HandMadeGuest()
    #expect(guest.resolveGateway())
    let server = try #require(LoopbackSocket())
    let thread = server.answerOneClient(prefix: "HTTP/1.0 200 OK\r\n\r\n")
    let request = Array("GET / HTTP/1.0\r\n\r\n".utf8)
    let answer = try #require(converse(guest, host, server.port, request))
    thread.join()
    #expect(String(decoding: answer, as: UTF8.self) == "HTTP/1.0 200 OK\r\n\r\nGET / HTTP/1.0\r\n\r\n")
  }

  /// A whole TCP connection: handshake, `request`, end, then everything the other side says to its end.
  private func converse(_ guest: HandMadeGuest, _ target: IPAddress, _ port: UInt16, _ request: [UInt8]) -> [UInt8]? {
    let mine: UInt16 = 5000
    func next(_ matches: (ReceivedPacket) -> Bool = { _ in true }) -> ReceivedPacket? {
      guest.wait { $0.next == 6 && $0.sourcePort == port && $0.destinationPort == mine && matches($0) }
    }
    guest.sendTCP(from: mine, to: target, port, .syn, sequence: 100)
    guard let opened = next(), opened.tcpFlags == [.syn, .ack], opened.transport.long(8) == 101 else { return nil }
    var expected = opened.tcpSequence &+ 1
    guest.sendTCP(from: mine, to: target, port, .ack, sequence: 101, acknowledging: expected)
    let end = 101 + UInt32(request.count)
    guest.sendTCP(from: mine, to: target, port, .ack, sequence: 101, acknowledging: expected, request)
    guest.sendTCP(from: mine, to: target, port, [.fin, .ack], sequence: end, acknowledging: expected)
    var answer: [UInt8] = []
    while let packet = next() {
      if packet.tcpFlags.contains(.rst) { return nil }
      guard packet.tcpSequence == expected else { continue }
      answer += packet.tcpPayload
      expected &+= UInt32(packet.tcpPayload.count)
      if packet.tcpFlags.contains(.fin) { expected &+= 1 }
      if packet.tcpFlags.contains(.fin) || !packet.tcpPayload.isEmpty {
        guest.sendTCP(from: mine, to: target, port, .ack, sequence: end &+ 1, acknowledging: expected)
      }
      if packet.tcpFlags.contains(.fin) { return answer }
    }
    return nil
  }

  @Test func aPortWithNobodyBehindItRefuses() throws {
    let guest = try HandMadeGuest()
    #expect(guest.resolveGateway())
    let port = try #require(LoopbackSocket.freePort())
    guest.sendTCP(from: 5000, to: host, port, .syn, sequence: 100)
    let answer = try #require(guest.wait { $0.next == 6 && $0.destinationPort == 5000 })
    #expect(answer.tcpFlags.contains(.rst))
  }

  @Test(arguments: [
    UserNetworkConfiguration(isHostLoopbackAllowed: false), UserNetworkConfiguration(isRestricted: true),
  ])
  func theHostsLoopbackCanBeClosed(configuration: UserNetworkConfiguration) throws {
    let guest = try HandMadeGuest(configuration)
    #expect(guest.resolveGateway())
    let server = try #require(LoopbackSocket())
    let datagrams = try #require(LoopbackSocket(datagram: true))
    guest.sendTCP(from: 5000, to: host, server.port, .syn, sequence: 100)
    guest.sendUDP(from: 4000, to: host, datagrams.port, [1, 2, 3])
    guest.settle()
    #expect(!guest.received.contains { $0.next == 6 && $0.tcpFlags == [.syn, .ack] })
    var waiting = pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0)
    #expect(poll(&waiting, 1, 0) == 0)
    #expect(datagrams.receiveNow() == nil)
  }

  // MARK: - IPv6

  private func solicitRouter(_ guest: HandMadeGuest) -> ReceivedPacket? {
    let everyRouter = IPAddress("ff02::2")!
    let message = withChecksum(
      [133, 0, 0, 0, 0, 0, 0, 0, 1, 1] + guest.hardware, at: 2, next: 58, from: guest.linkLocal6, to: everyRouter)
    guest.send(
      type: 0x86DD, ip(from: guest.linkLocal6, to: everyRouter, next: 58, hopLimit: 255, message),
      to: [0x33, 0x33, 0, 0, 0, 2])
    return guest.wait { $0.isIPv6 && $0.next == 58 && $0.transport[0] == 134 }
  }

  private func solicitNeighbour(_ guest: HandMadeGuest, _ target: IPAddress) -> ReceivedPacket? {
    let group = IPAddress("ff02::1:ff00:\(String(target.bytes[15], radix: 16))")!
    let message = withChecksum(
      [135, 0, 0, 0, 0, 0, 0, 0] + target.bytes + [1, 1] + guest.hardware, at: 2, next: 58, from: guest.address6,
      to: group)
    guest.send(
      type: 0x86DD, ip(from: guest.address6, to: group, next: 58, hopLimit: 255, message),
      to: [0x33, 0x33] + group.bytes[12...])
    let answer = guest.wait {
      $0.isIPv6 && $0.next == 58 && $0.transport[0] == 136 && $0.transport.slice(8, 16) == target.bytes
    }
    if let answer { guest.gatewayHardware6 = answer.frame.slice(6, 6) }
    return answer
  }

  @Test func ipv6RouterAndNeighboursAnswer() throws {
    let guest = try HandMadeGuest()
    let advertisement = try #require(solicitRouter(guest))
    // The prefix option (RFC 4861, 4.6.2): type 3, 64 bits, on-link and autonomous.
    let options = advertisement.transport.from(16)
    var offset = 0
    var prefix: [UInt8]?
    while offset + 8 <= options.count, options[offset + 1] > 0 {
      if options[offset] == 3 { prefix = options.slice(offset, 32) }
      offset += Int(options[offset + 1]) * 8
    }
    let found = try #require(prefix)
    #expect(found[2] == 64 && found[3] & 0xC0 == 0xC0)
    #expect(found.slice(16, 16) == IPAddress("fec0::")!.bytes)
    #expect(solicitNeighbour(guest, IPAddress("fec0::2")!) != nil)
    #expect(solicitNeighbour(guest, IPAddress("fec0::3")!) != nil)
  }

  @Test func ipv6CanBeLeftOut() throws {
    let guest = try HandMadeGuest(UserNetworkConfiguration(isIPv6Enabled: false))
    let everyRouter = IPAddress("ff02::2")!
    let message = withChecksum(
      [133, 0, 0, 0, 0, 0, 0, 0], at: 2, next: 58, from: guest.linkLocal6, to: everyRouter)
    guest.send(
      type: 0x86DD, ip(from: guest.linkLocal6, to: everyRouter, next: 58, hopLimit: 255, message),
      to: [0x33, 0x33, 0, 0, 0, 2])
    guest.settle()
    #expect(!guest.received.contains { $0.isIPv6 })
    #expect(guest.resolveGateway())
  }

  @Test func ipv6ReachesTheHostAndForwardsReachTheGuest() throws {
    // A host without ::1 has nothing to test here.
    guard let server = LoopbackSocket(datagram: true, isIPv6: true),
      let port = LoopbackSocket.freePort(isIPv6: true)
    else { return }
    let guest = try HandMadeGuest(
      UserNetworkConfiguration(portForwards: [try PortForward(parsing: "[::1]:\(port):22")]))
    #expect(solicitRouter(guest) != nil)
    #expect(solicitNeighbour(guest, IPAddress("fec0::2")!) != nil)
    try echo(through: guest, server, isIPv6: true)
    let client = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(client) }
    #expect(LoopbackSocket.call(connect, client, true, port) == 0)
    let opening = try #require(guest.wait { $0.isIPv6 && $0.next == 6 })
    #expect(opening.tcpFlags == .syn && opening.destinationPort == 22)
    // The guest's site-local or its link-local address, as the library prefers: the interface's half is the same.
    #expect(opening.destination.suffix(8) == guest.address6.bytes.suffix(8))
  }

  // MARK: - Host forwards

  @Test func aForwardedTCPPortReachesTheGuest() throws {
    let port = try #require(LoopbackSocket.freePort())
    let guest = try HandMadeGuest(
      UserNetworkConfiguration(portForwards: [PortForward(hostPort: port, guestPort: 22)]))
    #expect(guest.resolveGateway())
    let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(client) }
    #expect(LoopbackSocket.call(connect, client, false, port) == 0)
    let opening = try #require(guest.wait { $0.next == 6 })
    #expect(opening.tcpFlags == .syn && opening.destinationPort == 22)
    #expect(opening.destination == guest.address.bytes && opening.source == host.bytes)
    let theirs = opening.sourcePort
    var expected = opening.tcpSequence &+ 1
    func reply(_ flags: TCPFlags, sequence: UInt32, _ payload: [UInt8] = []) {
      let bare =
        [UInt8].big(UInt16(22)) + .big(theirs) + .big(sequence) + .big(expected) + [0x50, flags.rawValue]
        + .big(UInt16(0xFFFF)) + [0, 0, 0, 0] + payload
      let packet = withChecksum(bare, at: 16, next: 6, from: guest.address, to: host)
      guest.send(type: 0x0800, ip(from: guest.address, to: host, next: 6, packet), to: guest.gatewayHardware)
    }
    reply([.syn, .ack], sequence: 700)
    reply(.ack, sequence: 701, Array("SSH-2.0-test\r\n".utf8))
    var text: [UInt8] = []
    #expect(
      guest.turn {
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = recv(client, &buffer, 100, Int32(MSG_DONTWAIT))
        if count > 0 { text += buffer[..<count] }
        return text == Array("SSH-2.0-test\r\n".utf8)
      })
    _ = send(client, "hello", 5, Int32(MSG_NOSIGNAL))
    let data = try #require(guest.wait { $0.next == 6 && !$0.tcpPayload.isEmpty })
    #expect(data.tcpPayload == Array("hello".utf8))
    expected &+= 5
    reply(.ack, sequence: 715)
    shutdown(client, Int32(SHUT_WR))
    let finish = try #require(guest.wait { $0.next == 6 && $0.tcpFlags.contains(.fin) })
    #expect(finish.tcpSequence == expected)
    expected &+= 1
    reply([.fin, .ack], sequence: 715)
    #expect(
      guest.turn {
        var byte: UInt8 = 0
        return recv(client, &byte, 1, Int32(MSG_DONTWAIT)) == 0
      })
  }

  @Test func aForwardedUDPPortReachesTheGuestAndBack() throws {
    let port = try #require(LoopbackSocket.freePort(datagram: true))
    let guest = try HandMadeGuest(
      UserNetworkConfiguration(portForwards: [PortForward(transport: .udp, hostPort: port, guestPort: 53)]))
    #expect(guest.resolveGateway())
    let client = try #require(LoopbackSocket(datagram: true))
    #expect(LoopbackSocket.call(connect, client.descriptor, false, port) == 0)
    client.send([1, 2, 3])
    let question = try #require(guest.wait { $0.next == 17 && $0.destinationPort == 53 })
    #expect(question.udpPayload == [1, 2, 3] && question.destination == guest.address.bytes)
    guest.sendUDP(from: 53, to: host, question.sourcePort, [4, 5])
    var answer: [UInt8]?
    #expect(
      guest.turn {
        answer = client.receiveNow()
        return answer != nil
      })
    #expect(answer == [4, 5])
  }

  @Test(arguments: [false, true])
  func aPortInUseIsNamed(datagram: Bool) throws {
    let taken = try #require(LoopbackSocket(datagram: datagram))
    let forward = PortForward(transport: datagram ? .udp : .tcp, hostPort: taken.port, guestPort: 22)
    let error = #expect(throws: NetworkError.self) {
      _ = try HandMadeGuest(UserNetworkConfiguration(portForwards: [forward]))
    }
    #expect(error?.code == .portInUse)
    #expect(error?.message == "port \(taken.port) of 127.0.0.1 is in use; choose another with -p")
  }

  @Test(arguments: [PortForward.Transport.tcp, .udp])
  func twoMachinesCannotShareAPort(transport: PortForward.Transport) throws {
    let port = try #require(LoopbackSocket.freePort(datagram: transport == .udp))
    let forward = PortForward(transport: transport, hostPort: port, guestPort: 22)
    let configuration = UserNetworkConfiguration(portForwards: [forward])
    let first = try HandMadeGuest(configuration)
    #expect(throws: NetworkError.self) { _ = try HandMadeGuest(configuration) }
    // The refused one leaves nothing behind, and the first one works on.
    #expect(first.resolveGateway())
    first.network.stop()
    _ = try HandMadeGuest(configuration)
  }

  @Test func anAddressOfAnotherHostIsRefused() throws {
    // TEST-NET-1 (RFC 5737) is nobody's.
    let forward = PortForward(hostAddress: IPAddress(192, 0, 2, 1), hostPort: 2222, guestPort: 22)
    let error = #expect(throws: NetworkError.self) {
      _ = try HandMadeGuest(UserNetworkConfiguration(portForwards: [forward]))
    }
    #expect(error?.message == "192.0.2.1 is not an address of this host; choose another with -p")
  }

  // MARK: - Guests that are slow or hostile

  @Test func framesWaitInOrderForAGuestWithoutRoomAndAreBounded() throws {
    let guest = try HandMadeGuest()
    #expect(guest.resolveGateway())
    guest.hasRoom = false
    // Each request brings one answer that names its sender's address.
    for number in 0..<600 {
      let sender = (guest.hardware, IPAddress(10, 0, 2, UInt8(100 + number % 100)))
      guest.send(
        type: 0x0806, arp(isRequest: true, sender: sender, target: (ethernetBroadcast, host)), to: ethernetBroadcast)
    }
    #expect(guest.received.isEmpty)
    guest.hasRoom = true
    guest.network.guestHasRoom()
    #expect(guest.received.count == 512)
    #expect(guest.received.enumerated().allSatisfy { $1.frame[41] == UInt8(100 + $0 % 100) })
    #expect(guest.resolveGateway())
  }

  @Test func aGuestMayAnswerAndStopFromWithinReceive() throws {
    let network = UserNetwork()
    let loop = try EventLoop()
    let hardware: [UInt8] = [0x52, 0x54, 0, 1, 2, 3]
    let question = ethernet(
      to: ethernetBroadcast, from: hardware, type: 0x0806,
      arp(isRequest: true, sender: (hardware, IPAddress(10, 0, 2, 15)), target: (ethernetBroadcast, host)))
    var count = 0
    try network.start(on: loop) { _ in
      count += 1
      if count < 10 { question.withUnsafeBytes { network.send($0) } } else { network.stop() }
      return true
    }
    question.withUnsafeBytes { network.send($0) }
    #expect(count == 10)
    #expect(!network.isLinkUp)
  }

  @Test func malformedFramesHarmNobody() throws {
    // Restricted: whatever chance makes of these frames, none of it may leave this host.
    let guest = try HandMadeGuest(UserNetworkConfiguration(isRestricted: true))
    var random = RepeatableRandom(state: 1)
    guest.send(frame: [])
    guest.send(frame: [UInt8](repeating: 0xFF, count: 13))
    guest.send(frame: [UInt8](repeating: 0xFF, count: 100_000))
    for type: UInt16 in [0x0806, 0x0800, 0x86DD, 0x88CC] {
      for length in 0..<200 {
        let payload = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
        guest.send(type: type, payload, to: ethernetBroadcast)
      }
    }
    // Lengths that lie, in otherwise right packets: these go to the network's own address.
    for length: UInt16 in [0, 1, 19, 20, 21, 8000, 65535] {
      var packet = ip(from: guest.address, to: host, next: 17, [UInt8](repeating: 0, count: 30))
      packet.replaceSubrange(2..<4, with: [UInt8].big(length))
      packet.replaceSubrange(10..<12, with: [0, 0])
      packet.replaceSubrange(10..<12, with: [UInt8].big(internetChecksum(Array(packet[..<20]))))
      guest.send(type: 0x0800, packet, to: guest.gatewayHardware)
    }
    guest.settle()
    #expect(guest.resolveGateway())
  }

  @Test func aTapWithoutRightsOrInterfaceSaysWhatToDo() throws {
    // Root could make the interface; nobody else can, and a host may have no such device at all.
    guard geteuid() != 0 else { return }
    let loop = try EventLoop()
    let error = #expect(throws: NetworkError.self) { try TapNetwork(name: "yadoritest0").start(on: loop) { _ in true } }
    #expect(error?.message.contains("/dev/net/tun") == true || error?.message.contains("'yadoritest0'") == true)
    #expect(error?.message.contains("\n") == false)
  }
}

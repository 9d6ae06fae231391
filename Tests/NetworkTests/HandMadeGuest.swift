import Foundation
import HostSystem
import Network

/// A guest that is nothing but frames: it drives a network's loop on the test's own thread.
final class HandMadeGuest {
  let network: UserNetwork
  let loop: EventLoop
  let hardware: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
  var address = UserNetworkConfiguration.firstGuestAddress
  /// The address that autoconfiguration forms from `hardware` (RFC 4291, appendix A).
  let address6 = IPAddress("fec0::5054:ff:fe12:3456")!
  let linkLocal6 = IPAddress("fe80::5054:ff:fe12:3456")!
  var gatewayHardware = ethernetBroadcast
  var gatewayHardware6 = ethernetBroadcast
  private(set) var received: [ReceivedPacket] = []
  var hasRoom = true

  init(_ configuration: UserNetworkConfiguration = UserNetworkConfiguration()) throws {
    network = UserNetwork(configuration)
    loop = try EventLoop()
    try start()
  }

  func start() throws {
    try network.start(on: loop) { [unowned self] bytes in
      guard hasRoom else { return false }
      take(ReceivedPacket(frame: Array(bytes)))
      return true
    }
  }

  deinit { network.stop() }

  /// Answers what asks for this guest's hardware address, as every guest does, and keeps the rest.
  private func take(_ packet: ReceivedPacket) {
    let frame = packet.frame
    if packet.isARP, frame.word(20) == 1, frame.slice(38, 4) == address.bytes {
      let asker = (frame.slice(22, 6), IPAddress(frame[28], frame[29], frame[30], frame[31]))
      send(type: 0x0806, arp(isRequest: false, sender: (hardware, address), target: asker), to: asker.0)
      return
    }
    if packet.isIPv6, packet.next == 58, packet.transport[0] == 135 {
      let target = packet.transport.slice(8, 16)
      for mine in [address6, linkLocal6] where target == mine.bytes {
        let asker = text6(packet.source)
        var answer: [UInt8] = [136, 0, 0, 0, 0x60, 0, 0, 0] + mine.bytes + [2, 1] + hardware
        answer = withChecksum(answer, at: 2, next: 58, from: mine, to: asker)
        send(
          type: 0x86DD, ip(from: mine, to: asker, next: 58, hopLimit: 255, answer), to: frame.slice(6, 6))
        return
      }
    }
    received.append(packet)
  }

  func text6(_ bytes: [UInt8]) -> IPAddress {
    IPAddress(
      stride(from: 0, to: 16, by: 2).map { String(bytes.word($0), radix: 16) }.joined(separator: ":"))!
  }

  func send(frame: [UInt8]) { frame.withUnsafeBytes { network.send($0) } }

  func send(type: UInt16, _ payload: [UInt8], to destination: [UInt8]) {
    send(frame: ethernet(to: destination, from: hardware, type: type, payload))
  }

  /// Turns the loop until a packet that `matches` has come, and takes it out; nil when none comes.
  func wait(for matches: (ReceivedPacket) -> Bool) -> ReceivedPacket? {
    var found: ReceivedPacket?
    _ = turn {
      found = received.firstIndex(where: matches).map { received.remove(at: $0) }
      return found != nil
    }
    return found
  }

  /// Turns the loop until `condition` holds; false when that takes too long to be anything but a failure.
  func turn(until condition: () -> Bool) -> Bool {
    let deadline = Date(timeIntervalSinceNow: 30)
    while !condition() {
      if Date() > deadline { return false }
      loop.turn(maximumWait: 20)
    }
    return true
  }

  /// Turns the loop for a few rounds in which nothing is expected to come.
  func settle() { for _ in 0..<10 { loop.turn(maximumWait: 10) } }

  func forget() { received = [] }

  // MARK: - What guests do

  /// Asks for the host's hardware address. False: no answer.
  func resolveGateway() -> Bool {
    let host = UserNetworkConfiguration.hostAddress
    send(
      type: 0x0806,
      arp(isRequest: true, sender: (hardware, address), target: ([UInt8](repeating: 0, count: 6), host)),
      to: ethernetBroadcast)
    guard let answer = wait(for: { $0.isARP && $0.frame.word(20) == 2 && $0.frame.slice(28, 4) == host.bytes })
    else { return false }
    gatewayHardware = answer.frame.slice(22, 6)
    return true
  }

  func sendUDP(
    from source: UInt16, to destination: IPAddress, _ port: UInt16, _ payload: [UInt8], sender: IPAddress? = nil
  ) {
    let sender = sender ?? (destination.isIPv6 ? address6 : address)
    let bare = [UInt8].big(source) + .big(port) + .big(UInt16(8 + payload.count)) + [0, 0] + payload
    let packet = withChecksum(bare, at: 6, next: 17, from: sender, to: destination)
    sendIP(next: 17, packet, from: sender, to: destination)
  }

  func sendTCP(
    from source: UInt16, to destination: IPAddress, _ port: UInt16, _ flags: TCPFlags, sequence: UInt32,
    acknowledging: UInt32 = 0, _ payload: [UInt8] = []
  ) {
    let sender = destination.isIPv6 ? address6 : address
    var bare = [UInt8].big(source) + .big(port) + .big(sequence) + .big(acknowledging)
    bare += [0x50, flags.rawValue] + .big(UInt16(0xFFFF)) + [0, 0, 0, 0] + payload
    sendIP(next: 6, withChecksum(bare, at: 16, next: 6, from: sender, to: destination), from: sender, to: destination)
  }

  private func sendIP(next: UInt8, _ packet: [UInt8], from source: IPAddress, to destination: IPAddress) {
    let isBroadcast = destination == IPAddress(255, 255, 255, 255)
    send(
      type: destination.isIPv6 ? 0x86DD : 0x0800, ip(from: source, to: destination, next: next, packet),
      to: isBroadcast ? ethernetBroadcast : destination.isIPv6 ? gatewayHardware6 : gatewayHardware)
  }

  /// One DHCP exchange (RFC 2131): sends a message of `type` and waits for the answer's address and options.
  func dhcp(type: UInt8, requesting: IPAddress? = nil) -> (address: IPAddress, options: [UInt8: [UInt8]])? {
    var message: [UInt8] = [1, 1, 6, 0, 0xCA, 0xFE, 0, 1] + [UInt8](repeating: 0, count: 20) + hardware
    message += [UInt8](repeating: 0, count: 10 + 64 + 128) + [0x63, 0x82, 0x53, 0x63, 53, 1, type]
    if let requesting { message += [50, 4] + requesting.bytes }
    message += [55, 4, 1, 3, 6, 12, 255]
    sendUDP(
      from: 68, to: IPAddress(255, 255, 255, 255), 67, message, sender: IPAddress(0, 0, 0, 0))
    guard let answer = wait(for: { $0.next == 17 && $0.destinationPort == 68 })?.udpPayload, answer.count > 240 else {
      return nil
    }
    var options: [UInt8: [UInt8]] = [:]
    var offset = 240
    while offset + 1 < answer.count, answer[offset] != 255 {
      options[answer[offset]] = answer.slice(offset + 2, Int(answer[offset + 1]))
      offset += 2 + Int(answer[offset + 1])
    }
    return (IPAddress(answer[16], answer[17], answer[18], answer[19]), options)
  }
}

import Foundation
import HostSystem
import Testing
import Virtio

/// A socket device, the guest's driver, and programs of the host at its Unix socket.
private final class SocketSetup {
  /// A packet as the driver has it: the header's fields, and the bytes behind it.
  struct Packet: Equatable {
    var guestPort: UInt32
    var hostPort: UInt32
    var operation: UInt16
    var flags: UInt32 = 0
    var allocation: UInt32 = 1 << 20
    var forwarded: UInt32 = 0
    var body: [UInt8] = []
  }

  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("y-\(UInt32.random(in: 0 ... .max))")
  let device: VirtioSocket
  let rig: Rig
  private var buffers: [DriverQueue.Buffer] = []

  init(_ kind: TransportKind = .mmio, buffers count: Int = 16) throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    device = VirtioSocket(path: folder.appendingPathComponent("s").path)
    rig = try Rig(kind, device)
    rig.driver.start(queues: [0, 1, 2])
    give(count)
  }

  deinit {
    device.stop()
    try? FileManager.default.removeItem(at: folder)
  }

  /// Gives the device receive buffers of 4 KiB.
  func give(_ count: Int) {
    for _ in 0..<count {
      buffers.append(rig.driver[0].writable(4096))
      rig.driver[0].add([buffers.last!])
    }
    rig.driver[0].notify()
  }

  /// The packets that have come, in order; their buffers aren't given again.
  func received() -> [Packet] {
    for _ in 0..<4 { rig.driver.loop.settle() }
    return rig.driver[0].takeUsed().map { used in
      let bytes = rig.driver.get(buffers.removeFirst().address, Int(used.written))
      func word(_ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) } }
      #expect(word(0) == 2 && word(8) == 3 && Int(word(24)) == bytes.count - 44)
      return Packet(
        guestPort: word(20), hostPort: word(16), operation: UInt16(word(28) >> 16), flags: word(32),
        allocation: word(36), forwarded: word(40), body: Array(bytes[44...]))
    }
  }

  /// Sends a packet as the driver would. False: the device didn't take it.
  @discardableResult
  func send(_ packet: Packet, count: UInt32? = nil) -> Bool {
    var header = bytes(UInt64(3)) + bytes(UInt64(2)) + bytes(packet.guestPort) + bytes(packet.hostPort)
    header += bytes(count ?? UInt32(packet.body.count)) + bytes(UInt16(1)) + bytes(packet.operation)
    header += bytes(packet.flags) + bytes(packet.allocation) + bytes(packet.forwarded)
    let queue = rig.driver[1]
    queue.add([queue.readable(header + packet.body)])
    queue.notify()
    return !queue.takeUsed().isEmpty
  }

  /// A program of the host that has connected to the guest's socket.
  func visitor(_ line: String = "CONNECT 52\n") -> Int32 {
    let descriptor = UnixSocket.make(isBlocking: false)
    #expect(UnixSocket.use(folder.appendingPathComponent("s").path, descriptor, connect) == 0)
    #expect(write(descriptor, line, line.utf8.count) == line.utf8.count)
    rig.driver.loop.settle()
    return descriptor
  }

  /// Connects it; returns it with the host's port.
  func connection(allocation: UInt32 = 1 << 20) throws -> (descriptor: Int32, port: UInt32) {
    let descriptor = visitor()
    let request = try #require(received().first)
    #expect(request.operation == 1 && request.guestPort == 52)
    send(Packet(guestPort: 52, hostPort: request.hostPort, operation: 2, allocation: allocation))
    #expect(text(descriptor) == "OK \(request.hostPort)\n")
    return (descriptor, request.hostPort)
  }

  /// What can be read there now; nil: the other side has ended it.
  func text(_ descriptor: Int32) -> String? {
    rig.driver.loop.settle()
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    let count = read(descriptor, &buffer, buffer.count)
    if count < 0 { return errno == EAGAIN ? "" : nil }
    return count == 0 ? nil : String(decoding: buffer[..<count], as: UTF8.self)
  }
}

@Suite struct SocketTests {
  private typealias Packet = SocketSetup.Packet

  @Test(arguments: TransportKind.allCases)
  func theHostConnectsToTheGuest(kind: TransportKind) throws {
    let setup = try SocketSetup(kind)
    #expect(setup.rig.driver.transport.deviceType == 19)
    #expect(setup.rig.driver.transport.readConfiguration(0, width: 8) == 3)
    let (descriptor, port) = try setup.connection()
    #expect(write(descriptor, "to the guest", 12) == 12)
    let data = setup.received()
    #expect(data.map(\.operation) == [5] && data.first?.body == Array("to the guest".utf8))
    setup.send(Packet(guestPort: 52, hostPort: port, operation: 5, body: Array("to the host".utf8)))
    #expect(setup.text(descriptor) == "to the host")
    // The host's program sends no more, then the guest's does, then both have ended.
    shutdown(descriptor, Int32(SHUT_WR))
    let end = setup.received()
    #expect(end.map(\.operation) == [4] && end.first?.flags == 2)
    setup.send(Packet(guestPort: 52, hostPort: port, operation: 5, body: Array("last".utf8)))
    setup.send(Packet(guestPort: 52, hostPort: port, operation: 4, flags: 3))
    #expect(setup.text(descriptor) == "last")
    #expect(setup.text(descriptor) == nil)
    #expect(setup.received().map(\.operation) == [3])
    #expect(setup.device.metrics.connections == 1 && setup.device.metrics.bytesTransmitted == 15)
    close(descriptor)
  }

  @Test func theGuestConnectsToTheHost() throws {
    let setup = try SocketSetup()
    // Nobody listens.
    setup.send(Packet(guestPort: 9, hostPort: 700, operation: 1))
    #expect(setup.received().map(\.operation) == [3])
    let listener = try UnixSocket.listen(setup.folder.appendingPathComponent("s_700").path)
    setup.send(Packet(guestPort: 9, hostPort: 700, operation: 1))
    let answer = setup.received()
    #expect(answer.map(\.operation) == [2] && answer.first?.hostPort == 700 && answer.first?.guestPort == 9)
    let descriptor = UnixSocket.accept(listener, isBlocking: false)
    setup.send(Packet(guestPort: 9, hostPort: 700, operation: 5, body: Array("hello".utf8)))
    #expect(setup.text(descriptor) == "hello")
    // The program goes away.
    close(descriptor)
    let end = setup.received()
    #expect(end.map(\.operation).suffix(1) == [4] && end.last.map { $0.flags & 2 } == 2)
    close(listener)
  }

  @Test func aGuestThatRefusesAndOneThatIsGone() throws {
    let setup = try SocketSetup()
    let refused = setup.visitor()
    let request = try #require(setup.received().first)
    setup.send(Packet(guestPort: 52, hostPort: request.hostPort, operation: 3))
    #expect(setup.text(refused) == nil)
    for line in ["CONNECT\n", "HELLO 52\n", "CONNECT 99999999999\n", String(repeating: "x", count: 200)] {
      let visitor = setup.visitor(line)
      #expect(setup.text(visitor) == nil, "\(line)")
      close(visitor)
    }
    let (descriptor, _) = try setup.connection()
    setup.rig.driver.transport.status = 0
    setup.rig.driver.loop.settle()
    #expect(setup.text(descriptor) == nil)
    // Without a driver nobody is there.
    #expect(setup.text(setup.visitor()) == nil)
    close(refused)
    close(descriptor)
  }

  /// What the host sends waits for room in the guest's buffer and for buffers in its queue, and all of it comes.
  @Test func theHostWaitsForTheGuest() throws {
    let setup = try SocketSetup(buffers: 3)
    let (descriptor, port) = try setup.connection(allocation: 6000)
    let sent = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 3) }
    #expect(write(descriptor, sent, sent.count) == sent.count)
    // It has gone away before the guest has got all.
    close(descriptor)
    var got: [UInt8] = []
    var hasEnded = false
    for _ in 0..<60 where !hasEnded {
      for packet in setup.received() {
        if packet.operation == 5 { got += packet.body }
        if packet.operation == 4 { hasEnded = true }
      }
      #expect(got.count <= 20_000)
      setup.send(
        Packet(guestPort: 52, hostPort: port, operation: 6, allocation: 6000, forwarded: UInt32(got.count)))
      setup.give(1)
    }
    #expect(hasEnded && got == sent)
  }

  /// The guest is told of room only when there is some, and one that doesn't keep to it loses its connection.
  @Test func theGuestWaitsForTheHost() throws {
    let setup = try SocketSetup()
    let (descriptor, port) = try setup.connection()
    var sent = 0
    var refusals = 0
    while sent < 8 << 20, refusals == 0 {
      setup.send(Packet(guestPort: 52, hostPort: port, operation: 5, body: [UInt8](repeating: 1, count: 65536)))
      sent += 65536
      setup.give(1)
      refusals = setup.received().filter { $0.operation == 3 }.count
    }
    #expect(refusals == 1 && sent < 2 << 20)
    close(descriptor)
  }

  @Test func hostilePackets() throws {
    let setup = try SocketSetup()
    // For nobody: each is answered with a reset, but for resets.
    for operation in [0, 2, 4, 5, 6, 7, 8, 0xFFFF] as [UInt16] {
      setup.send(Packet(guestPort: 1, hostPort: 2, operation: operation))
      #expect(setup.received().map(\.operation) == [3])
      setup.give(1)
    }
    setup.send(Packet(guestPort: 1, hostPort: 2, operation: 3))
    #expect(setup.received().isEmpty)
    // One that is shorter than it says.
    setup.send(Packet(guestPort: 1, hostPort: 2, operation: 5, body: [1, 2]), count: 3)
    #expect(setup.rig.driver.needsReset)
  }

  /// A guest that takes no packets isn't listened to for ever, and goes on when it does.
  @Test func aGuestThatTakesNothing() throws {
    let setup = try SocketSetup(buffers: 0)
    var taken = 0
    let queue = setup.rig.driver[1]
    for _ in 0..<2000 where queue.freeCount > 0 {
      if setup.send(Packet(guestPort: 1, hostPort: 2, operation: 5)) { taken += 1 }
    }
    #expect(taken == 256)
    setup.give(8)
    #expect(setup.received().count == 8)
  }

  /// After a restore the guest hears that its connections are gone (5.10.6.7).
  @Test func connectionsDontOutliveARestore() throws {
    let setup = try SocketSetup()
    let (descriptor, _) = try setup.connection()
    let state = try setup.rig.keeper.encodedState()
    setup.device.stop()
    #expect(setup.text(descriptor) == nil)
    let device = VirtioSocket(path: setup.folder.appendingPathComponent("s").path)
    let rig = try Rig(.mmio, device, continuing: setup.rig)
    let event = setup.rig.driver[2].writable(4)
    setup.rig.driver[2].add([event])
    try rig.keeper.restoreEncodedState(state)
    rig.driver.loop.settle()
    #expect(setup.rig.driver[2].usedIndex == 1 && rig.driver.get(event.address, 4) == [0, 0, 0, 0])
    device.stop()
    close(descriptor)
  }
}

import Bus
import Testing
import Virtio

/// A network card over a network in memory.
struct NetSetup {
  static let address = MACAddress("52:54:00:12:34:56")!

  let network = FakeNetwork()
  let device: VirtioNet
  let rig: Rig
  let pairs: Int
  var driver: TestDriver { rig.driver }
  var input: DriverQueue { driver[0] }
  var output: DriverQueue { driver[1] }

  init(_ kind: TransportKind = .mmio, pairs: Int = 1, mtu: Int = 1500, refusing: UInt64 = 0) throws {
    device = VirtioNet(backend: network, mac: Self.address, queuePairs: pairs, mtu: mtu)
    rig = try Rig(kind, device)
    self.pairs = pairs
    rig.driver.start(queues: Array(0...2 * pairs), refusing: refusing)
  }

  /// Sends a frame as the driver would, and returns what the network got.
  func send(_ frame: [UInt8], _ header: FrameHeader = FrameHeader()) -> [[UInt8]] {
    #expect(output.transact([output.readable(header.bytes + frame)]) == 0)
    return network.takeSent()
  }

  /// A command on the control queue; its answer, 0 when it was carried out.
  func control(_ bytes: [UInt8]) -> UInt8? {
    let queue = driver[2 * pairs]
    let answer = queue.writable(1)
    return queue.transact([queue.readable(bytes), answer]) == nil ? nil : driver.get(answer.address, 1)[0]
  }
}

@Suite struct NetTests {
  // MARK: From the guest

  @Test(arguments: TransportKind.allCases)
  func sendsFrames(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    #expect(setup.driver.transport.deviceType == 1)
    let frame = (0..<1514).map { UInt8(truncatingIfNeeded: $0) }
    #expect(setup.send(frame) == [frame])
    // The header apart, and the frame in pieces.
    let queue = setup.output
    let parts = [FrameHeader().bytes, Array(frame[..<1]), Array(frame[1..<700]), Array(frame[700...])]
    #expect(queue.transact(parts.map(queue.readable), indirect: true) == 0)
    #expect(setup.network.takeSent() == [frame])
    #expect(setup.device.metrics.framesTransmitted == 2 && setup.device.metrics.bytesTransmitted == 3028)
  }

  @Test func completesChecksums() throws {
    let setup = try NetSetup()
    for version in [Packet.Version.four, .six] {
      for length in [0, 1, 2, 555, 1300] {
        var packet = Packet(version: version, payload: (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 3) })
        packet.tags = length % 3
        let frame = packet.bytes
        let header = FrameHeader(flags: 1, checksumStart: UInt16(packet.transport), checksumOffset: 16)
        let sent = setup.send(frame, header)
        #expect(sent.count == 1)
        var expected = frame
        let field = packet.transport + 16
        expected[field] = sent[0][field]
        expected[field + 1] = sent[0][field + 1]
        #expect(sent[0] == expected)
        // IPv4's own checksum isn't the card's business here.
        var whole = sent[0]
        if version == .four {
          let sum = ~Packet.sum(Array(whole[packet.network..<packet.transport]))
          whole.replaceSubrange(packet.network + 10..<packet.network + 12, with: Packet.big(sum))
        }
        #expect(packet.checksumsAreRight(whole))
      }
    }
  }

  /// A sum of zero is sent as 0xffff: for UDP, 0 says that there is no checksum.
  @Test func checksumIsNeverZero() throws {
    let setup = try NetSetup()
    var frame = [UInt8](repeating: 0, count: 60)
    let header = FrameHeader(flags: 1, checksumStart: 34, checksumOffset: 6)
    frame[34] = 0xff
    frame[35] = 0xff
    let sent = setup.send(frame, header)
    #expect(Array(sent[0][40..<42]) == [0xff, 0xff])
  }

  /// Segments of a large packet, against the packet itself.
  private func check(_ segments: [[UInt8]], of packet: Packet, segmentSize: Int) {
    let count = max(1, (packet.payload.count + segmentSize - 1) / segmentSize)
    #expect(segments.count == count)
    let original = packet.bytes
    var payload: [UInt8] = []
    for (number, segment) in segments.enumerated() {
      let network = packet.network
      let transport = packet.transport
      func word(_ offset: Int) -> UInt16 { UInt16(segment[offset]) << 8 | UInt16(segment[offset + 1]) }
      #expect(packet.checksumsAreRight(segment), "segment \(number)")
      switch packet.version {
      case .four:
        #expect(Int(word(network + 2)) == segment.count - network)
        #expect(word(network + 4) == packet.identification &+ UInt16(number))
      case .six: #expect(Int(word(network + 4)) == segment.count - network - 40)
      }
      let sequence = UInt32(word(transport + 4)) << 16 | UInt32(word(transport + 6))
      #expect(sequence == packet.sequence &+ UInt32(payload.count))
      var flags = packet.flags
      if number > 0 { flags &= ~0x80 }
      if number < count - 1 { flags &= ~0x09 }
      #expect(segment[transport + 13] == flags)
      // Nothing else of the headers is different.
      var headers = segment[..<packet.payloadOffset]
      for offset in [
        network + 2, network + 3, network + 4, network + 5, network + 10, network + 11, transport + 4, transport + 5,
        transport + 6, transport + 7, transport + 13, transport + 16, transport + 17,
      ] where packet.version == .four || offset >= transport || offset == network + 4 || offset == network + 5 {
        headers[offset] = original[offset]
      }
      #expect(headers == original[..<packet.payloadOffset])
      payload += segment[packet.payloadOffset...]
    }
    #expect(payload == packet.payload)
  }

  static let packets: [Packet] = {
    func payload(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) } }
    return [
      Packet(payload: payload(4000)), Packet(payload: payload(2896)), Packet(payload: payload(2897)),
      Packet(payload: payload(1)), Packet(payload: []), Packet(flags: 0x99, payload: payload(5000)),
      Packet(tags: 1, options: 12, flags: 0x19, payload: payload(9999)),
      Packet(tags: 2, options: 40, payload: payload(20001)), Packet(payload: payload(65000)),
      Packet(version: .six, payload: payload(4000)), Packet(version: .six, flags: 0x99, payload: payload(5000)),
      Packet(version: .six, tags: 1, extensionBytes: 8, options: 12, payload: payload(9999)),
      Packet(version: .six, tags: 2, extensionBytes: 24, payload: payload(60001)),
    ]
  }()

  @Test(arguments: packets.indices)
  func cutsLargePackets(number: Int) throws {
    let setup = try NetSetup()
    let packet = Self.packets[number]
    let mtu = 1500
    for asked in [1448, 536, 100, 1000, 9000] {
      let header = FrameHeader(
        flags: 1, segmentation: (packet.version == .four ? 1 : 4) | (packet.flags & 0x80),
        headerLength: UInt16(packet.payloadOffset), segmentSize: UInt16(asked), checksumStart: UInt16(packet.transport),
        checksumOffset: 16)
      let segments = setup.send(packet.bytes, header)
      // Never more than the link carries.
      check(segments, of: packet, segmentSize: min(asked, mtu - (packet.payloadOffset - packet.network)))
      #expect(segments.allSatisfy { $0.count <= mtu + packet.network })
    }
    #expect(setup.device.metrics.transmitErrors == 0)
  }

  /// Headers that contradict the frame, or ask for what can't be: the frame is dropped, and the next one is sent.
  struct BadFrame: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let header: FrameHeader
    let frame: [UInt8]
  }

  static let badFrames: [BadFrame] = {
    let four = Packet(payload: [UInt8](repeating: 1, count: 4000))
    let six = Packet(version: .six, payload: [UInt8](repeating: 1, count: 4000))
    let good4 = FrameHeader(
      flags: 1, segmentation: 1, headerLength: 54, segmentSize: 1448, checksumStart: 34, checksumOffset: 16)
    let good6 = FrameHeader(
      flags: 1, segmentation: 4, headerLength: 74, segmentSize: 1428, checksumStart: 54, checksumOffset: 16)
    var bad: [BadFrame] = []
    func add(
      _ name: String, _ header: FrameHeader, _ frame: [UInt8],
      change: (inout FrameHeader, inout [UInt8]) -> Void = { _, _ in }
    ) {
      var (header, frame) = (header, frame)
      change(&header, &frame)
      bad.append(BadFrame(testDescription: name, header: header, frame: frame))
    }
    let short = [UInt8](repeating: 0, count: 60)
    add("no frame", FrameHeader(), [])
    add("13 bytes", FrameHeader(), Array(short[..<13]))
    add("more than the link carries", FrameHeader(), [UInt8](repeating: 0, count: 1523))
    add("70000 bytes", FrameHeader(), [UInt8](repeating: 0, count: 70000))
    add("70000 bytes to be cut", good4, four.bytes + [UInt8](repeating: 0, count: 66000))
    for (start, offset) in [
      (60, 0), (59, 0), (58, 1), (0, 59), (0, 60), (0xffff, 0), (0, 0xffff), (0xffff, 0xffff), (0x8000, 0x8000),
    ] {
      add("a checksum at \(start) + \(offset)", FrameHeader(), short) { header, _ in
        header.flags = 1
        header.checksumStart = UInt16(start)
        header.checksumOffset = UInt16(offset)
      }
    }
    for kind: UInt8 in [2, 3, 5, 7, 0x7f, 0x80, 0xff] {
      add("segmentation \(kind)", good4, four.bytes) { header, _ in header.segmentation = kind }
    }
    for (name, good, packet) in [("IPv4", good4, four), ("IPv6", good6, six)] {
      let frame = packet.bytes
      add("\(name), segments of 0 bytes", good, frame) { header, _ in header.segmentSize = 0 }
      add("\(name), no checksum wanted", good, frame) { header, _ in header.flags = 0 }
      add("\(name), checksum elsewhere", good, frame) { header, _ in header.checksumOffset = 6 }
      for start in [0, 13, 14, 33, 35, 53, 4000, 0xffff] {
        add("\(name), transport header at \(start)", good, frame) { header, _ in header.checksumStart = UInt16(start) }
      }
      for count in [14, 15, 33, 34, packet.transport, packet.transport + 19] {
        add("\(name), only \(count) bytes", good, Array(frame[..<count]))
      }
      add("\(name) called the other", good, frame) { header, _ in header.segmentation ^= 5 }
      add("\(name), another version", good, frame) { _, frame in frame[14] = 0x75 }
      add("\(name), another EtherType", good, frame) { _, frame in frame[12] = 0x88 }
      add(
        "\(name), three tags", good, Array(frame[..<12]) + [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3] + frame[12...])
      add("\(name), a tag and no more", good, Array(frame[..<12]) + [0x81, 0])
      add("\(name), a TCP header of 0 bytes", good, frame) { _, frame in frame[packet.transport + 12] = 0 }
      add("\(name), a TCP header of 16 bytes", good, frame) { _, frame in frame[packet.transport + 12] = 0x40 }
      add("\(name), a TCP header beyond the frame", good, Array(frame[..<(packet.transport + 30)])) { _, frame in
        frame[packet.transport + 12] = 0xf0
      }
    }
    add("IPv4, a header of 0 bytes", good4, four.bytes) { _, frame in frame[14] = 0x40 }
    add("IPv4, a header of 60 bytes", good4, four.bytes) { _, frame in frame[14] = 0x4f }
    add("IPv4, not TCP", good4, four.bytes) { _, frame in frame[23] = 17 }
    // Headers that fill the link leave no room for data.
    add("IPv6, headers longer than the link's packets", good6, [UInt8](repeating: 0, count: 4000)) { header, frame in
      frame.replaceSubrange(12..<15, with: [0x86, 0xdd, 0x60])
      header.checksumStart = 3000
      frame[3012] = 0x50
    }
    return bad
  }()

  @Test(arguments: TransportKind.allCases, badFrames)
  func badFramesAreDropped(kind: TransportKind, bad: BadFrame) throws {
    let setup = try NetSetup(kind)
    let queue = setup.output
    let buffer = queue.readable(bad.header.bytes + bad.frame)
    queue.add([buffer, queue.writable(64)])
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [0])
    #expect(watch.changes(outside: [queue.usedRing]) == [])
    #expect(setup.network.takeSent().isEmpty)
    #expect(setup.device.metrics.transmitErrors == 1 && !setup.driver.needsReset)
    let frame = [UInt8](repeating: 9, count: 60)
    #expect(setup.send(frame) == [frame])
  }

  @Test func headerLengthIsOnlyAHint() throws {
    let setup = try NetSetup()
    let packet = Packet(payload: [UInt8](repeating: 3, count: 3000))
    for length: UInt16 in [0, 1, 54, 4096, .max] {
      let header = FrameHeader(
        flags: 1, segmentation: 1, headerLength: length, segmentSize: 1448, checksumStart: 34, checksumOffset: 16,
        bufferCount: .max)
      check(setup.send(packet.bytes, header), of: packet, segmentSize: 1448)
    }
  }

  @Test(arguments: 0..<12)
  func frameWithoutAWholeHeaderStopsTheCard(length: Int) throws {
    let setup = try NetSetup()
    let queue = setup.output
    let buffer = length == 0 ? queue.writable(100) : queue.readable([UInt8](repeating: 0, count: length))
    #expect(queue.transact([buffer]) == nil)
    #expect(setup.driver.needsReset && setup.network.takeSent().isEmpty)
    setup.driver.start(queues: [0, 1])
    let frame = [UInt8](repeating: 9, count: 60)
    #expect(setup.send(frame) == [frame])
  }

  // MARK: To the guest

  private func frame(_ count: Int, to address: [UInt8] = [UInt8](repeating: 0xff, count: 6)) -> [UInt8] {
    address + (6..<count).map { UInt8(truncatingIfNeeded: $0 &* 5) }
  }

  @Test(arguments: TransportKind.allCases)
  func receivesFrames(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    // The device can't make large packets of small ones, so it doesn't offer to.
    #expect(setup.driver.features & (1 << 7 | 1 << 8 | 1 << 10) == 0)
    let input = setup.input
    let buffer = input.writable(1600)
    input.add([buffer])
    input.notify()
    let frame = frame(1514)
    let watch = MemoryWatch(setup.driver.memory)
    #expect(setup.network.deliver(frame))
    #expect(input.takeUsed().map(\.written) == [1526])
    // The checksums are good: the driver needn't look.
    #expect(setup.driver.get(buffer.address, 12) == FrameHeader(flags: 2, bufferCount: 1).bytes)
    #expect(setup.driver.get(buffer.address + 12, 1514) == frame)
    #expect(watch.changes(outside: [buffer.range, input.usedRing]) == [])
    #expect(setup.driver.transport.takeInterrupts() == 1)
    #expect(setup.device.metrics.framesReceived == 1 && setup.device.metrics.bytesReceived == 1514)
  }

  @Test func saysNothingOfChecksumsToADriverThatDidntAsk() throws {
    let setup = try NetSetup(refusing: 1 << 1)
    let buffer = setup.input.writable(100)
    setup.input.add([buffer])
    #expect(setup.network.deliver(frame(60)))
    #expect(setup.driver.get(buffer.address, 12) == FrameHeader(bufferCount: 1).bytes)
  }

  @Test(arguments: TransportKind.allCases)
  func spreadsAFrameOverBuffers(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    let input = setup.input
    let buffers = [input.writable(512), input.writable(512), input.writable(600), input.writable(512)]
    for buffer in buffers { input.add([buffer]) }
    let frame = frame(1514)
    #expect(setup.network.deliver(frame))
    #expect(input.takeUsed().map(\.written) == [512, 512, 502])
    let content = buffers[..<3].flatMap { setup.driver.get($0.address, $0.count) }
    #expect(Array(content[..<12]) == FrameHeader(flags: 2, bufferCount: 3).bytes)
    #expect(Array(content[12..<1526]) == frame)
    // The fourth is the next one's.
    #expect(setup.network.deliver(self.frame(60)))
    #expect(input.takeUsed().map(\.written) == [72])
  }

  @Test func frameWaitsForBuffers() throws {
    let setup = try NetSetup()
    let input = setup.input
    input.add([input.writable(512)])
    let first = frame(1514)
    #expect(!setup.network.deliver(first))
    #expect(!setup.network.deliver(frame(60)))
    #expect(input.takeUsed().isEmpty)
    #expect(setup.device.metrics.receiveStalls == 1)
    input.add([input.writable(512)])
    input.notify()
    #expect(setup.network.waiting.count == 2 && input.takeUsed().isEmpty)
    for _ in 0..<2 { input.add([input.writable(512)]) }
    input.notify()
    #expect(setup.network.waiting.isEmpty)
    #expect(input.takeUsed().map(\.written) == [512, 512, 502, 72])
    // With nothing waiting, buffers don't interest the network.
    let offers = setup.network.roomOffers
    input.add([input.writable(512)])
    input.notify()
    #expect(setup.network.roomOffers == offers)
  }

  @Test func withoutMergingAFrameFitsOneBufferOrIsDropped() throws {
    let setup = try NetSetup(refusing: 1 << 15)
    let input = setup.input
    let buffer = input.writable(200)
    input.add([buffer])
    #expect(setup.network.deliver(frame(1514)))
    #expect(input.takeUsed().isEmpty && setup.device.metrics.framesDropped == 1)
    #expect(setup.network.deliver(frame(100)))
    #expect(input.takeUsed().map(\.written) == [112])
    #expect(setup.driver.get(buffer.address, 12) == FrameHeader(flags: 2, bufferCount: 1).bytes)
  }

  @Test func impossibleFramesOfTheNetworkAreDropped() throws {
    let setup = try NetSetup()
    for _ in 0..<40 { setup.input.add([setup.input.writable(2000)]) }
    for count in [0, 1, 13, 65536 + 23, 100_000] {
      #expect(setup.network.deliver([UInt8](repeating: 0xff, count: count)))
    }
    #expect(setup.input.takeUsed().isEmpty && setup.device.metrics.framesDropped == 5)
    #expect(setup.network.deliver(frame(65558)))
    #expect(setup.input.takeUsed().count == 33)
  }

  @Test(arguments: TransportKind.allCases)
  func uselessReceiveBuffersStopTheCard(kind: TransportKind) throws {
    // Too small for the header, none at all, and an empty one after a good one.
    for sizes in [[11, 2000], [0, 2000], [100, 0, 2000]] {
      let setup = try NetSetup(kind)
      let input = setup.input
      for size in sizes { input.add([size == 0 ? input.readable([1]) : input.writable(size)]) }
      #expect(setup.network.deliver(frame(1000)))
      #expect(setup.driver.needsReset)
      setup.driver.start(queues: [0, 1])
      setup.input.add([setup.input.writable(2000)])
      #expect(setup.network.deliver(frame(1000)))
      #expect(setup.input.takeUsed().map(\.written) == [1012])
    }
  }

  @Test func framesWithoutADriverAreDropped() throws {
    let setup = try NetSetup()
    setup.driver.transport.status = 0
    #expect(setup.network.deliver(frame(60)))
    #expect(setup.device.metrics.framesDropped == 1)
    // What waited for the old driver isn't the new one's.
    setup.driver.start(queues: [0, 1])
    #expect(!setup.network.deliver(frame(60)))
    setup.driver.transport.status = 0
    #expect(setup.network.waiting.isEmpty)
  }

  @Test(arguments: TransportKind.allCases)
  func linkIsInTheConfiguration(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    let transport = setup.driver.transport
    #expect((0..<6).map { UInt8(transport.readConfiguration($0, width: 1)) } == NetSetup.address.bytes)
    #expect(transport.readConfiguration(6, width: 2) == 1)
    #expect(transport.readConfiguration(8, width: 2) == 1 && transport.readConfiguration(10, width: 2) == 1500)
    _ = transport.takeInterrupts()
    setup.network.isLinkUp = false
    setup.device.linkChanged()
    #expect(transport.readConfiguration(6, width: 2) == 0 && transport.takeInterrupts() == 2)
    setup.device.linkChanged()
    #expect(transport.takeInterrupts() == 0)
  }

  // MARK: Control queue

  @Test(arguments: TransportKind.allCases)
  func filtersAsTheDriverWants(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    let own = NetSetup.address.bytes
    let other: [UInt8] = [0x52, 0x54, 0, 9, 9, 9]
    let group: [UInt8] = [0x33, 0x33, 0, 0, 0, 1]
    func arrives(_ address: [UInt8]) -> Bool {
      setup.input.add([setup.input.writable(100)])
      #expect(setup.network.deliver(frame(60, to: address)))
      let used = setup.input.takeUsed().count
      return used == 1
    }
    #expect(arrives(own) && arrives(other) && arrives(group))
    #expect(setup.control([0, 0, 0]) == 0)
    #expect(arrives(own) && !arrives(other) && !arrives(group))
    #expect(arrives([UInt8](repeating: 0xff, count: 6)))
    #expect(setup.control([0, 1, 1]) == 0)
    #expect(!arrives(other) && arrives(group))
    #expect(setup.control([0, 1, 0]) == 0)
    let tables = bytes(UInt32(1)) + other + bytes(UInt32(1)) + group
    #expect(setup.control([1, 0] + tables) == 0)
    #expect(arrives(other) && arrives(group) && !arrives([0x52, 0x54, 0, 9, 9, 8]))
    // More than is kept: everything of the kind.
    let many = bytes(UInt32(65)) + [UInt8](repeating: 0, count: 65 * 6) + bytes(UInt32(0))
    #expect(setup.control([1, 0] + many) == 0)
    #expect(arrives([0x52, 0x54, 0, 9, 9, 8]) && !arrives(group))
    #expect(setup.control([1, 0] + bytes(UInt32(0)) + bytes(UInt32(0))) == 0)
    #expect(setup.control([1, 1] + other) == 0)
    #expect(arrives(other) && !arrives(own))
    #expect((0..<6).map { UInt8(setup.driver.transport.readConfiguration($0, width: 1)) } == other)
    // A reset brings the card's own address back.
    setup.driver.start(queues: [0, 1, 2])
    #expect(arrives(own) && arrives(group))
  }

  @Test(arguments: TransportKind.allCases)
  func badCommandsAreRefused(kind: TransportKind) throws {
    let setup = try NetSetup(kind)
    let commands: [[UInt8]] = [
      [0, 0], [0, 2, 1], [0, 0xff, 1], [1, 0], [1, 0, 1, 0, 0], [1, 0] + bytes(UInt32.max),
      [1, 0] + bytes(UInt32(0x2aaa_aaab)) + [1, 2, 3, 4, 5, 6], [1, 0] + bytes(UInt32(0)),
      [1, 0] + bytes(UInt32(1)) + [1, 2, 3, 4, 5], [1, 0] + bytes(UInt32(0)) + bytes(UInt32.max), [1, 1],
      [1, 1, 1, 2, 3, 4, 5], [1, 1, 1, 2, 3, 4, 5, 6, 7], [1, 2], [2, 0, 1, 0], [3, 0], [4, 0, 1, 0], [4, 0], [5, 1],
      [0xff, 0xff],
    ]
    for command in commands { #expect(setup.control(command) == 1, "\(command)") }
    #expect(setup.device.metrics.controlErrors == UInt64(commands.count))
    #expect((0..<6).map { UInt8(setup.driver.transport.readConfiguration($0, width: 1)) } == NetSetup.address.bytes)
    #expect(!setup.driver.needsReset)
    // Without a header, or without room for an answer.
    for command in [[], [0], [0, 0, 0]] as [[UInt8]] {
      let queue = setup.driver[2]
      let room = command.count < 2 ? [queue.writable(1)] : []
      #expect(queue.transact((command.isEmpty ? [] : [queue.readable(command)]) + room) == nil)
      #expect(setup.driver.needsReset)
      setup.driver.start(queues: [0, 1, 2])
    }
    #expect(setup.control([0, 0, 0]) == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func severalQueuePairs(kind: TransportKind) throws {
    let setup = try NetSetup(kind, pairs: 3)
    #expect(setup.driver.transport.readConfiguration(8, width: 2) == 3)
    for pair in 0..<3 {
      for _ in 0..<20 { setup.driver[2 * pair].add([setup.driver[2 * pair].writable(200)]) }
    }
    func flow(_ port: UInt8) -> [UInt8] {
      var frame = Packet(payload: [1, 2, 3]).bytes
      frame[35] = port
      return frame
    }
    func received() -> [Int] { (0..<3).map { setup.driver[2 * $0].takeUsed().count } }
    for port in 0..<12 { #expect(setup.network.deliver(flow(UInt8(port)))) }
    #expect(received() == [12, 0, 0])
    for pairs: UInt16 in [0, 4, .max] { #expect(setup.control([4, 0] + bytes(pairs)) == 1) }
    #expect(setup.control([4, 0] + bytes(UInt16(3))) == 0)
    for port in 0..<12 { #expect(setup.network.deliver(flow(UInt8(port)))) }
    let spread = received()
    #expect(spread.reduce(0, +) == 12 && spread.allSatisfy { $0 > 0 })
    // A flow stays where it is.
    for _ in 0..<5 { #expect(setup.network.deliver(flow(1))) }
    #expect(received().sorted() == [0, 0, 5])
    // Each pair's other half sends.
    for pair in 0..<3 {
      let queue = setup.driver[2 * pair + 1]
      let frame = [UInt8](repeating: UInt8(pair), count: 60)
      #expect(queue.transact([queue.readable(FrameHeader().bytes + frame)]) == 0)
      #expect(setup.network.takeSent() == [frame])
    }
  }

  /// Where the control queue is depends on whether the driver knows of several pairs.
  @Test func controlQueueWithoutMultiqueueIsTheThird() throws {
    let setup = try NetSetup(pairs: 3, refusing: 1 << 22)
    let queue = setup.driver[2]
    let answer = queue.writable(1)
    #expect(queue.transact([queue.readable([0, 0, 0]), answer]) == 1)
    #expect(setup.driver.get(answer.address, 1) == [0])
  }
}

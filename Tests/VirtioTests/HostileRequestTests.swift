import Bus
import Testing
import Virtio

/// Requests that are well-formed chains and nonsense otherwise. A device answers or drops them as its specification
/// says, and writes into the request's own buffers only.
@Suite struct HostileBlockRequestTests {
  typealias Setup = BlockTests.Setup

  private func range(_ sector: UInt64, _ count: UInt32, _ flags: UInt32 = 0) -> [UInt8] {
    bytes(sector) + bytes(count) + bytes(flags)
  }

  /// Requests that must fail without any effect but their status.
  struct Request: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let type: UInt32
    let sector: UInt64
    let readable: [UInt8]
    let writable: Int
    let status: UInt8
    /// The used length: the status alone when there is nothing else to write, else nothing is promised.
    var written: UInt32 { writable == 0 ? 1 : 0 }

    init(
      _ description: String, type: UInt32, sector: UInt64 = 0, readable: [UInt8] = [], writable: Int = 0,
      status: UInt8 = 1
    ) {
      testDescription = description
      self.type = type
      self.sector = sector
      self.readable = readable
      self.writable = writable
      self.status = status
    }
  }

  private static let sectorOfData = [UInt8](repeating: 0xaa, count: 512)
  private static let wildSectors: [UInt64] = [
    256, 257, 1 << 32, 1 << 55, 1 << 55 + 1, (1 << 55) - 1, 1 << 63, .max / 512, .max / 512 + 1, .max,
  ]
  private static func segment(_ sector: UInt64, _ count: UInt32, _ flags: UInt32 = 0) -> [UInt8] {
    bytes(sector) + bytes(count) + bytes(flags)
  }

  static let requests: [Request] =
    wildSectors.flatMap { sector in
      [
        Request("read of sector \(sector)", type: 0, sector: sector, writable: 512),
        Request("write of sector \(sector)", type: 1, sector: sector, readable: sectorOfData),
        Request("discard of sector \(sector)", type: 11, readable: segment(sector, 1)),
        Request("zeroes at sector \(sector)", type: 13, readable: segment(sector, 1)),
      ]
    }
    + [
      Request("read beyond the end", type: 0, sector: 255, writable: 1024),
      Request("write beyond the end", type: 1, sector: 255, readable: sectorOfData + sectorOfData),
      Request("read of half a sector", type: 0, writable: 256),
      Request("write of half a sector", type: 1, readable: [1, 2, 3]),
      Request("an unknown type", type: 0x7fff_ffff, writable: 512, status: 2),
      Request("type -1", type: .max, readable: sectorOfData, status: 2),
      Request("the type of old SCSI commands", type: 2, readable: sectorOfData, status: 2),
      Request("secure erase, which isn't offered", type: 14, readable: segment(0, 8), status: 2),
      Request("discard without a segment", type: 11),
      Request("discard of half a segment", type: 11, readable: Array(segment(0, 8)[..<8])),
      Request("discard of a segment and a half", type: 11, readable: segment(0, 8) + segment(0, 8)[..<8]),
      Request(
        "discard of more segments than allowed", type: 11, readable: (0..<33).flatMap { _ in segment(0, 8) }),
      Request("discard of 2^32-1 sectors", type: 11, readable: segment(0, .max)),
      Request("discard to where the address wraps", type: 11, readable: segment(.max, .max)),
      Request("discard across the end", type: 11, readable: segment(255, 2)),
      Request("discard with a good and a bad segment", type: 11, readable: segment(0, 8) + segment(256, 1)),
      Request("discard with all flags", type: 11, readable: segment(0, 8, .max), status: 2),
      Request("zeroes for 2^32-1 sectors", type: 13, readable: segment(0, .max)),
      Request("zeroes across the end", type: 13, readable: segment(1, 256)),
      Request("zeroes with reserved flags", type: 13, readable: segment(0, 8, 0x8000_0000), status: 2),
      Request(
        "zeroes with a good segment and one with reserved flags", type: 13,
        readable: segment(0, 8) + segment(8, 8, 2), status: 2),
    ]

  @Test(arguments: TransportKind.allCases, requests)
  func nonsenseIsRefused(kind: TransportKind, request: Request) throws {
    let setup = try Setup(kind)
    let queue = setup.queue
    let disk = setup.storage.bytes
    var chain = [queue.readable(setup.header(request.type, sector: request.sector))]
    if !request.readable.isEmpty { chain.append(queue.readable(request.readable)) }
    if request.writable > 0 { chain.append(queue.writable(request.writable)) }
    let status = queue.writable(1)
    queue.add(chain + [status])
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [request.written])
    #expect(setup.driver.get(status.address, 1) == [request.status])
    #expect(watch.changes(outside: [status.range, queue.usedRing]) == [])
    #expect(setup.storage.bytes == disk && setup.storage.discarded.isEmpty && setup.storage.zeroed.isEmpty)
    #expect(setup.device.metrics.errors == 1 && !setup.driver.needsReset)
    #expect(setup.request(0, sector: 255, [queue.writable(512)]).status == 0)
  }

  @Test(arguments: TransportKind.allCases, [UInt32(0), 1, 4, 8, 11, 13, 99])
  func requestWithoutStatusStopsTheDevice(kind: TransportKind, type: UInt32) throws {
    let setup = try Setup(kind)
    let queue = setup.queue
    let disk = setup.storage.bytes
    #expect(queue.transact([queue.readable(setup.header(type) + [UInt8](repeating: 1, count: 512))]) == nil)
    #expect(setup.driver.needsReset && setup.storage.bytes == disk && setup.storage.flushes == 0)
    setup.driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }

  @Test(arguments: 0..<16)
  func shortHeaderStopsTheDevice(length: Int) throws {
    let setup = try Setup()
    let queue = setup.queue
    let header = length == 0 ? [] : [queue.readable(Array(setup.header(4)[..<length]))]
    #expect(queue.transact(header + [queue.writable(513)]) == nil)
    #expect(setup.driver.needsReset)
    setup.driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }

  /// The used length promises bytes from the first writable one on.
  @Test func usedLengthPromisesOnlyWhatWasWritten() throws {
    let setup = try Setup()
    let queue = setup.queue
    // Room that a write, a flush or a discard doesn't fill lies before the status.
    let write = setup.request(1, [queue.readable(Self.sectorOfData), queue.writable(100)])
    #expect(write.status == 0 && write.written == 0)
    let flush = setup.request(4, [queue.writable(100)])
    #expect(flush.status == 0 && flush.written == 0)
    // The serial number in too much and in too little room.
    let serial = queue.writable(4096)
    let long = setup.request(8, [serial])
    #expect(long.status == 0 && long.written == 20)
    #expect(setup.driver.get(serial.address, 21).prefix(6) == Array("disk-7".utf8)[...])
    let short = setup.request(8, [queue.writable(3)])
    #expect(short.status == 0 && short.written == 4)
    #expect(setup.request(8).written == 1)
    // A read of nothing at all is a read of zero sectors.
    #expect(setup.request(0, sector: 256).status == 0)
  }

  @Test func requestOnTopOfItselfHarmsNothingElse() throws {
    let setup = try Setup()
    let queue = setup.queue
    // The data goes where the header, the descriptors and the status are.
    let header = queue.readable(setup.header(0, sector: 1))
    let overlap = DriverQueue.Buffer(address: header.address, count: 512, isWritable: true)
    let status = DriverQueue.Buffer(address: header.address, count: 1, isWritable: true)
    queue.add([header, overlap, status])
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(watch.changes(outside: [overlap.range, queue.usedRing]) == [])
    setup.driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }

  /// A read into the queue's own rings: the guest harms itself only.
  @Test(arguments: TransportKind.allCases)
  func readIntoTheRingHarmsOnlyTheGuest(kind: TransportKind) throws {
    let setup = try Setup(kind)
    let queue = setup.queue
    let start = queue.layout.descriptors
    let rings = DriverQueue.Buffer(address: start, count: 2048, isWritable: true)
    #expect(rings.range.contains(queue.usedRing.upperBound - 1))
    let target = queue.writable(1)
    queue.add([queue.readable(setup.header(0, sector: 1)), rings, target])
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(setup.storage.reads >= 1)
    // The ring's new content may have meant any request; those write to RAM that the guest gave, which the watch can't
    // know. With this disk's content none is understood.
    #expect(watch.changes(outside: [rings.range, target.range]) == [])
    setup.driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }
}

@Suite struct HostileOtherRequestTests {
  // MARK: Entropy

  @Test(arguments: TransportKind.allCases)
  func entropyIntoReadableBuffersIsNone(kind: TransportKind) throws {
    let device = VirtioEntropy { $0.initializeMemory(as: UInt8.self, repeating: 0x5a) }
    let rig = try Rig(kind, device)
    rig.driver.start(queues: [0])
    let queue = rig.driver[0]
    queue.add([queue.readable([1, 2, 3, 4])])
    let target = queue.writable(4)
    queue.add([queue.readable([5, 6]), target])
    let watch = MemoryWatch(rig.driver.memory)
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [0, 4])
    #expect(watch.changes(outside: [target.range, queue.usedRing]) == [])
    #expect(rig.driver.get(target.address, 4) == [0x5a, 0x5a, 0x5a, 0x5a])
    #expect(!rig.driver.needsReset && device.metrics.bytes == 4)
  }

  // MARK: Console

  @Test(arguments: TransportKind.allCases)
  func consoleOutputIntoWritableBuffersIsNone(kind: TransportKind) throws {
    let terminal = FakeConsole()
    let rig = try Rig(kind, VirtioConsole(backend: terminal))
    rig.driver.start(queues: [0, 1])
    let output = rig.driver[1]
    output.add([output.readable(Array("x".utf8)), output.writable(100)])
    output.add([output.writable(100)])
    let watch = MemoryWatch(rig.driver.memory)
    output.notify()
    #expect(output.takeUsed().map(\.written) == [0, 0])
    #expect(watch.changes(outside: [output.usedRing]) == [])
    #expect(terminal.takeOutput() == "x")
  }

  @Test func consoleInputNeedsWritableBuffers() throws {
    let terminal = FakeConsole()
    let rig = try Rig(.mmio, VirtioConsole(backend: terminal))
    rig.driver.start(queues: [0, 1])
    let input = rig.driver[0]
    input.add([input.readable([1, 2, 3])])
    let target = input.writable(2)
    input.add([target])
    let watch = MemoryWatch(rig.driver.memory)
    terminal.type("abc")
    #expect(input.takeUsed().map(\.written) == [0, 2])
    #expect(watch.changes(outside: [target.range, input.usedRing]).isEmpty)
    #expect(terminal.waiting == Array("c".utf8))
  }

  static let controlMessages: [(port: UInt32, event: UInt16, value: UInt16)] = {
    var messages: [(port: UInt32, event: UInt16, value: UInt16)] = []
    for port: UInt32 in [0, 1, 2, 3, 30, 31, 0x7fff_ffff, 0x8000_0000, .max] {
      for event: UInt16 in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x8000, .max] {
        for value: UInt16 in [0, 1, 2, .max] { messages.append((port, event, value)) }
      }
    }
    return messages
  }()

  @Test(arguments: TransportKind.allCases)
  func consoleControlMessagesOfAllKinds(kind: TransportKind) throws {
    let terminals = (0..<3).map { _ in FakeConsole(size: (80, 25)) }
    let rig = try Rig(kind, VirtioConsole(ports: terminals.map { .init(backend: $0, name: "port") }))
    let driver = rig.driver
    driver.start(queues: Array(0..<8))
    for (port, event, value) in Self.controlMessages {
      let messages = driver[3]
      let answers = driver[2]
      if answers.freeCount > 0 { answers.add([answers.writable(64)]) }
      #expect(messages.transact([messages.readable(bytes(port) + bytes(event) + bytes(value) + [1, 2, 3])]) == 0)
      answers.notify()
      _ = answers.takeUsed()
    }
    #expect(!driver.needsReset)
    // Then in order: port 1 is opened and works.
    let messages = driver[3]
    for event: UInt16 in [3, 6] {
      #expect(messages.transact([messages.readable(bytes(UInt32(1)) + bytes(event) + bytes(UInt16(1)))]) == 0)
    }
    let output = driver[5]
    #expect(output.transact([output.readable(Array("fine".utf8))]) == 0)
    #expect(terminals[1].takeOutput() == "fine")
  }

  @Test(arguments: 0..<8)
  func shortControlMessageStopsTheConsole(length: Int) throws {
    let rig = try Rig(.mmio, VirtioConsole(ports: [.init(backend: FakeConsole()), .init(backend: FakeConsole())]))
    rig.driver.start(queues: Array(0..<6))
    let messages = rig.driver[3]
    let message = length == 0 ? messages.writable(8) : messages.readable([UInt8](repeating: 0, count: length))
    #expect(messages.transact([message]) == nil)
    #expect(rig.driver.needsReset)
    rig.driver.start(queues: Array(0..<6))
    let again = rig.driver[3]
    #expect(again.transact([again.readable(bytes(UInt32(0)) + bytes(UInt16(0)) + bytes(UInt16(1)))]) == 0)
  }

  /// Control messages in buffers that are too small are cut short, as the used length says.
  @Test func smallBuffersForControlMessages() throws {
    let rig = try Rig(.mmio, VirtioConsole(ports: [.init(backend: FakeConsole()), .init(backend: FakeConsole())]))
    let driver = rig.driver
    driver.start(queues: Array(0..<6))
    let answers = driver[2]
    let buffers = [answers.writable(3), answers.writable(8)]
    answers.add([buffers[0]])
    answers.add([answers.readable([9])])
    answers.add([buffers[1]])
    let watch = MemoryWatch(driver.memory)
    let messages = driver[3]
    let request = messages.readable(bytes(UInt32(0)) + bytes(UInt16(0)) + bytes(UInt16(1)))
    let given = request.range
    #expect(messages.transact([request]) == 0)
    #expect(answers.takeUsed().map(\.written) == [3, 0])
    let rings = [messages.layout.descriptors.rawValue..<messages.usedRing.upperBound, answers.usedRing]
    #expect(watch.changes(outside: buffers.map(\.range) + rings + [given]) == [])
    #expect(!driver.needsReset)
  }

  /// A driver that knows nothing of several ports uses the first one.
  @Test func consoleWithoutMultiportIsItsFirstPort() throws {
    let terminals = [FakeConsole(size: (80, 25)), FakeConsole()]
    let rig = try Rig(.mmio, VirtioConsole(ports: terminals.map { .init(backend: $0) }))
    rig.driver.start(queues: [0, 1, 2, 3, 4, 5], refusing: 2)
    let (input, output) = (rig.driver[0], rig.driver[1])
    input.add([input.writable(8)])
    input.notify()
    terminals[0].type("in")
    #expect(input.takeUsed().map(\.written) == [2])
    #expect(output.transact([output.readable(Array("out".utf8))]) == 0)
    #expect(terminals[0].takeOutput() == "out")
    #expect(!rig.driver.needsReset)
  }
}

import Bus
import Testing
import Virtio

/// What a driver may do wrong in a ring, after a queue was set up well.
struct RingCrime: Sendable, CustomTestStringConvertible {
  let testDescription: String
  /// Puts it into a fresh queue, without notifying.
  let commit: @Sendable (DriverQueue) -> Void

  private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
  }

  private static let base = TestDriver.base
  private static let end = TestDriver.base + 4 << 20

  static let all: [RingCrime] = indices + loops + indirectTables + buffers

  // MARK: Indices

  private static let indices: [RingCrime] = [
    RingCrime(testDescription: "the head is the queue's size") { $0.offer(UInt16($0.size)) },
    RingCrime(testDescription: "the head is 65535") { $0.offer(.max) },
    RingCrime(testDescription: "the next descriptor is the queue's size") { queue in
      queue.setDescriptor(0, address: queue.arena.put([0]), count: 1, flags: Flag.next, next: UInt16(queue.size))
      queue.offer(0)
    },
    RingCrime(testDescription: "the next descriptor is 65535") { queue in
      queue.setDescriptor(0, address: queue.arena.put([0]), count: 1, flags: Flag.next, next: .max)
      queue.offer(0)
    },
    jump("the available index jumps by one more than the queue's size") { $0.availableIndex &+ UInt16($0.size) &+ 1 },
    jump("the available index goes back") { $0.availableIndex &- 1 },
    jump("the available index jumps half way round") { $0.availableIndex &+ 0x8000 },
  ]

  /// A wrong available index over a ring whose every entry is a good request: nothing else is wrong.
  private static func jump(_ name: String, _ index: @escaping @Sendable (DriverQueue) -> UInt16) -> RingCrime {
    RingCrime(testDescription: name) { queue in
      let header = queue.arena.put(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0)))
      queue.setDescriptor(0, address: header, count: 16, flags: Flag.next, next: 1)
      queue.setDescriptor(1, address: queue.arena.allocate(1), count: 1, flags: Flag.write)
      let (jumped, before) = (index(queue), queue.availableIndex)
      for _ in 0..<queue.size { queue.offer(0) }
      queue.setAvailableIndex(before)
      queue.setAvailableIndex(jumped)
    }
  }

  // MARK: Loops

  private static let loops: [RingCrime] = [
    RingCrime(testDescription: "a descriptor that follows itself") { queue in
      queue.setDescriptor(0, address: queue.arena.put([0]), count: 1, flags: Flag.next, next: 0)
      queue.offer(0)
    },
    RingCrime(testDescription: "a loop of all descriptors") { queue in
      let byte = queue.arena.put([0])
      for number in 0..<queue.size {
        queue.setDescriptor(
          UInt16(number), address: byte, count: 1, flags: Flag.next, next: UInt16((number + 1) % queue.size))
      }
      queue.offer(0)
    },
    RingCrime(testDescription: "a loop of empty descriptors") { queue in
      let byte = queue.arena.put([0])
      queue.setDescriptor(0, address: byte, count: 0, flags: Flag.next | Flag.write, next: 1)
      queue.setDescriptor(1, address: byte, count: 0, flags: Flag.next, next: 0)
      queue.offer(0)
    },
    RingCrime(testDescription: "a loop after a good request") { queue in
      queue.setDescriptor(0, address: queue.arena.put([UInt8](repeating: 0, count: 16)), count: 16, flags: 1, next: 1)
      queue.setDescriptor(1, address: queue.arena.allocate(512), count: 512, flags: 3, next: 2)
      queue.setDescriptor(2, address: queue.arena.allocate(1), count: 1, flags: 3, next: 1)
      queue.offer(0)
    },
  ]

  // MARK: Indirect tables

  /// A table with these descriptors behind descriptor 0. `count`: what descriptor 0 says of the table's bytes.
  private static func indirect(
    _ name: String, flags: UInt16 = Flag.indirect, count: UInt32? = nil,
    _ entries:
      @escaping @Sendable (DriverQueue, PhysicalAddress) -> [(
        address: PhysicalAddress, count: UInt32, flags: UInt16, next: UInt16
      )]
  ) -> RingCrime {
    RingCrime(testDescription: name) { queue in
      let table = queue.arena.allocate(16 * 300)
      let list = entries(queue, table)
      for (number, entry) in list.enumerated() {
        queue.setDescriptor(
          at: table + 16 * UInt64(number), address: entry.address, count: entry.count, flags: entry.flags,
          next: entry.next)
      }
      queue.setDescriptor(0, address: table, count: count ?? UInt32(16 * list.count), flags: flags, next: 1)
      queue.setDescriptor(1, address: table, count: 1, flags: Flag.write)
      queue.offer(0)
    }
  }

  private static func indirectTable(_ name: String, at address: UInt64, count: UInt32) -> RingCrime {
    RingCrime(testDescription: name) { queue in
      queue.setDescriptor(0, address: PhysicalAddress(address), count: count, flags: Flag.indirect)
      queue.offer(0)
    }
  }

  private static let indirectTables: [RingCrime] = [
    indirect("an indirect table in an indirect table") { queue, table in
      [(table, 16, Flag.indirect, 0)]
    },
    indirect("an indirect table deep in an indirect table") { queue, table in
      let byte = queue.arena.put([0])
      return [(byte, 1, Flag.next, 1), (byte, 1, Flag.next, 2), (table, 48, Flag.indirect, 0)]
    },
    indirect("an indirect descriptor with a next one", flags: Flag.indirect | Flag.next) { queue, _ in
      [(queue.arena.put([0]), 1, 0, 0)]
    },
    indirect("an empty indirect table", count: 0) { queue, _ in [(queue.arena.put([0]), 1, 0, 0)] },
    indirect("an indirect table of 8 bytes", count: 8) { queue, _ in [(queue.arena.put([0]), 1, 0, 0)] },
    indirect("an indirect table of 24 bytes", count: 24) { queue, _ in [(queue.arena.put([0]), 1, 0, 0)] },
    indirect("a loop in an indirect table") { queue, _ in
      let byte = queue.arena.put([0])
      return [(byte, 1, Flag.next, 1), (byte, 1, Flag.next, 0)]
    },
    indirect("a next descriptor beyond the indirect table") { queue, _ in
      [(queue.arena.put([0]), 1, Flag.next, 1)]
    },
    indirect("an indirect table that is longer than the longest chain") { queue, _ in
      let byte = queue.arena.put([0])
      return (0..<257).map { (byte, 1, $0 == 256 ? 0 : Flag.next, UInt16($0 + 1)) }
    },
    indirectTable("an indirect table below RAM", at: base - 16, count: 16),
    indirectTable("an indirect table that begins below RAM", at: base - 16, count: 32),
    indirectTable("an indirect table across the end of RAM", at: end - 16, count: 32),
    indirectTable("an indirect table at the end of RAM", at: end, count: 16),
    indirectTable("an indirect table at the end of the address space", at: .max - 15, count: 32),
    indirectTable("an indirect table of almost 4 GiB", at: base, count: 0xffff_fff0),
    indirectTable("an indirect table in a device's window", at: 0x1000_1000, count: 16),
  ]

  // MARK: Buffers

  /// A block request whose data is where it mustn't be.
  private static func data(_ name: String, at address: UInt64, count: UInt32) -> [RingCrime] {
    [false, true].map { isWritable in
      RingCrime(testDescription: "\(isWritable ? "to be written" : "to be read"): \(name)") { queue in
        let header = bytes(UInt32(isWritable ? 0 : 1)) + bytes(UInt32(0)) + bytes(UInt64(0))
        queue.setDescriptor(0, address: queue.arena.put(header), count: 16, flags: Flag.next, next: 1)
        queue.setDescriptor(
          1, address: PhysicalAddress(address), count: count, flags: Flag.next | (isWritable ? Flag.write : 0), next: 2)
        queue.setDescriptor(2, address: queue.arena.allocate(1), count: 1, flags: Flag.write)
        queue.offer(0)
      }
    }
  }

  private static let buffers: [RingCrime] =
    data("a buffer below RAM", at: base - 512, count: 512)
    + data("a buffer that begins below RAM", at: base - 1, count: 512)
    + data("a buffer across the end of RAM", at: end - 511, count: 512)
    + data("a buffer at the end of RAM", at: end, count: 512)
    + data("a buffer at 0", at: 0, count: 512)
    + data("a buffer in a device's window", at: 0x1000_1000, count: 512)
    + data("a buffer at the end of the address space", at: .max - 511, count: 512)
    + data("a buffer that wraps around 2^64", at: .max - 255, count: 512)
    + data("a buffer that wraps around 2^64 into RAM", at: .max, count: .max)
    + data("a buffer of almost 4 GiB", at: base, count: .max)
    + [
      RingCrime(testDescription: "a readable descriptor after a writable one") { queue in
        queue.setDescriptor(0, address: queue.arena.allocate(512), count: 512, flags: Flag.write | Flag.next, next: 1)
        queue.setDescriptor(1, address: queue.arena.put([0]), count: 1, flags: 0)
        queue.offer(0)
      }
    ]
}

/// A hostile driver stops its device, which asks for a reset and touches nothing; after the reset it works again.
@Suite struct HostileRingTests {
  typealias Setup = BlockTests.Setup

  /// The device has stopped, and told the driver.
  private func expectStopped(_ setup: Setup, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(setup.driver.needsReset, sourceLocation: sourceLocation)
    #expect(setup.transport.takeInterrupts() == 2, sourceLocation: sourceLocation)
    #expect(setup.rig.transport.failure != nil, sourceLocation: sourceLocation)
  }

  /// After a reset the device serves requests.
  private func expectWorks(_ setup: Setup, sourceLocation: SourceLocation = #_sourceLocation) {
    setup.driver.start(queues: [0])
    #expect(!setup.driver.needsReset, sourceLocation: sourceLocation)
    let target = setup.queue.writable(512)
    #expect(setup.request(0, sector: 5, [target]).status == 0, sourceLocation: sourceLocation)
    #expect(
      setup.driver.get(target.address, 512) == Array(setup.storage.bytes[2560..<3072]), sourceLocation: sourceLocation)
    #expect(setup.transport.takeInterrupts() == 1, sourceLocation: sourceLocation)
  }

  @Test(arguments: TransportKind.allCases, RingCrime.all)
  func crimeInARingStopsTheDevice(kind: TransportKind, crime: RingCrime) throws {
    let setup = try Setup(kind)
    let disk = setup.storage.bytes
    crime.commit(setup.queue)
    let watch = MemoryWatch(setup.driver.memory)
    setup.queue.notify()
    expectStopped(setup)
    // What is offered or notified now is in vain.
    setup.queue.notify()
    #expect(setup.transport.takeInterrupts() == 0)
    #expect(watch.changes() == [])
    #expect(setup.storage.bytes == disk && setup.storage.reads == 0 && setup.storage.flushes == 0)
    expectWorks(setup)
  }

  @Test(arguments: TransportKind.allCases)
  func crimeAfterGoodRequestsLeavesTheseDone(kind: TransportKind) throws {
    let setup = try Setup(kind)
    let queue = setup.queue
    let target = queue.writable(512)
    let status = queue.writable(1)
    queue.add([queue.readable(setup.header(0)), target, status])
    queue.offer(999)
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(setup.driver.needsReset)
    #expect(queue.takeUsed().map(\.written) == [513])
    #expect(watch.changes(outside: [target.range, status.range, queue.usedRing]) == [])
    expectWorks(setup)
  }

  @Test(arguments: TransportKind.allCases)
  func indirectDescriptorsNeedTheirFeature(kind: TransportKind) throws {
    let setup = try Setup(kind, refusing: VirtioFeature.ringIndirectDescriptors)
    #expect(setup.request(4).status == 0)
    _ = setup.transport.takeInterrupts()
    #expect(setup.request(4, indirect: true).status == nil)
    expectStopped(setup)
    expectWorks(setup)
  }

  /// Linux goes by the device's limits, not by the size that it chose for the queue.
  @Test func indirectTableMayBeAsLongAsTheLargestQueue() throws {
    let setup = try Setup()
    let queue = setup.queue
    let header = setup.header(0, sector: 2).map { queue.readable([$0]) }
    let data = [queue.writable(512 - 238)] + (0..<238).map { _ in queue.writable(1) }
    let status = queue.writable(1)
    #expect(header.count + data.count + 1 == 256 && queue.size == 64)
    #expect(queue.transact(header + data + [status], indirect: true) == 513)
    #expect(data.flatMap { setup.driver.get($0.address, $0.count) } == Array(setup.storage.bytes[1024..<1536]))
  }

  @Test(arguments: TransportKind.allCases)
  func chainOfMoreThanFourGibibytesIsRefused(kind: TransportKind) throws {
    let device = VirtioBlock(storage: MemoryStorage(sectors: 8))
    let rig = try Rig(kind, device, memorySize: 32 << 20)
    rig.driver.start(queues: [0])
    let queue = rig.driver[0]
    // The same 32 MiB, again and again, but for what the driver itself uses.
    let whole = DriverQueue.Buffer(address: PhysicalAddress(TestDriver.base), count: 32 << 20, isWritable: true)
    let request = queue.readable(bytes(UInt32(0)) + bytes(UInt32(0)) + bytes(UInt64(0)))
    #expect(queue.transact([request] + Array(repeating: whole, count: 129), indirect: true) == nil)
    #expect(rig.driver.needsReset)
  }

  @Test(arguments: TransportKind.allCases)
  func everyDeviceStopsAtABrokenRing(kind: TransportKind) throws {
    for device in DeviceKind.allCases {
      // Buffers for frames, input and control messages are looked at when there is something to put there.
      let later: Set<Int> =
        switch device {
        case .net: [0]
        case .console: [0, 2, 4]
        case .block, .entropy: []
        }
      let count = device.make().queueMaximumSizes.count
      for index in 0..<count {
        let rig = try Rig(kind, device.make())
        rig.driver.start(queues: Array(0..<count))
        let queue = rig.driver[index]
        queue.offer(UInt16(queue.size))
        queue.notify()
        #expect(rig.driver.needsReset == !later.contains(index), "queue \(index) of \(device)")
      }
    }
  }

  @Test func inputForABrokenRingStopsTheDevice() throws {
    let terminal = FakeConsole()
    let console = try Rig(.mmio, VirtioConsole(backend: terminal))
    console.driver.start(queues: [0, 1])
    console.driver[0].offer(64)
    terminal.type("x")
    #expect(console.driver.needsReset && terminal.waiting.count == 1)
    console.driver.start(queues: [0, 1])
    let buffer = console.driver[0].writable(8)
    console.driver[0].add([buffer])
    console.driver[0].notify()
    #expect(terminal.waiting.isEmpty && console.driver.get(buffer.address, 1) == Array("x".utf8))

    let network = FakeNetwork()
    let net = try Rig(.mmio, VirtioNet(backend: network, mac: MACAddress("52:54:00:12:34:56")!))
    net.driver.start(queues: [0, 1])
    net.driver[0].offer(64)
    // The frame is lost, and the backend isn't kept waiting.
    #expect(network.deliver([UInt8](repeating: 0xff, count: 60)))
    #expect(net.driver.needsReset)
    net.driver.start(queues: [0, 1])
    net.driver[0].add([net.driver[0].writable(100)])
    #expect(network.deliver([UInt8](repeating: 0xff, count: 60)))
    #expect(net.driver[0].takeUsed().map(\.written) == [72])
  }
}

/// Queues that are set up wrong.
struct LayoutCrime: Sendable, CustomTestStringConvertible {
  let testDescription: String
  let commit: @Sendable (inout Virtqueue.Layout) -> Void

  init(_ description: String, _ commit: @escaping @Sendable (inout Virtqueue.Layout) -> Void) {
    testDescription = description
    self.commit = commit
  }

  private static let base = TestDriver.base
  private static let end = TestDriver.base + 4 << 20

  static let all: [LayoutCrime] =
    [0, 3, 63, 65, 255, 512, 0x8000, 0xffff].map { size in LayoutCrime("size \(size)") { $0.size = size } }
    + [
      LayoutCrime("no addresses") {
        ($0.descriptors, $0.available, $0.used) = (PhysicalAddress(0), PhysicalAddress(0), PhysicalAddress(0))
      },
      LayoutCrime("misaligned descriptors") { $0.descriptors = $0.descriptors + 8 },
      LayoutCrime("misaligned available ring") { $0.available = $0.available + 1 },
      LayoutCrime("misaligned used ring") { $0.used = $0.used + 2 },
    ]
    + [
      ("below RAM", base - 16), ("across the end of RAM", end - 16), ("at the end of RAM", end),
      ("in a device's window", 0x1000_1000), ("at the end of the address space", UInt64.max - 15),
    ].flatMap { place, address in
      [
        LayoutCrime("descriptors \(place)") { $0.descriptors = PhysicalAddress(address) },
        LayoutCrime("available ring \(place)") { $0.available = PhysicalAddress(address) },
        LayoutCrime("used ring \(place)") { $0.used = PhysicalAddress(address) },
      ]
    }
}

@Suite struct HostileQueueSetupTests {
  typealias Setup = BlockTests.Setup

  @Test(arguments: TransportKind.allCases, LayoutCrime.all)
  func wrongLayoutStopsTheDevice(kind: TransportKind, crime: LayoutCrime) throws {
    let setup = try Setup(kind)
    for isLate in [false, true] {
      setup.driver.negotiate()
      if isLate { setup.driver.setDriverOK() }
      var layout = setup.driver.prepareQueue(0).layout
      crime.commit(&layout)
      let watch = MemoryWatch(setup.driver.memory)
      setup.transport.enable(queue: 0, layout)
      #expect(setup.transport.isEnabled(queue: 0))
      if isLate { setup.driver.run() } else { setup.driver.setDriverOK() }
      setup.transport.notify(queue: 0)
      setup.driver.run()
      #expect(setup.driver.needsReset)
      #expect(setup.transport.takeInterrupts() == 2)
      #expect(watch.changes() == [])
    }
    setup.driver.start(queues: [0])
    #expect(!setup.driver.needsReset)
    #expect(setup.request(4).status == 0)
  }

  @Test func sizeBeyondSixteenBitsIsRefused() throws {
    let setup = try Setup(.mmio)
    for size: UInt32 in [0x1_0040, 0xffff_ffff, 0x8000_0000] {
      setup.driver.negotiate()
      let mmio = try #require(setup.rig.mmio)
      setup.transport.enable(queue: 0, setup.driver.prepareQueue(0).layout)
      setup.transport.reset(queue: 0)
      var layout = setup.driver.prepareQueue(0).layout
      layout.size = 0
      mmio.write(0x30, 0)
      mmio.write(0x38, size)
      for (offset, address) in [(0x80, layout.descriptors), (0x90, layout.available), (0xa0, layout.used)] {
        mmio.write(UInt64(offset), UInt32(truncatingIfNeeded: address.rawValue))
        mmio.write(UInt64(offset + 4), UInt32(address.rawValue >> 32))
      }
      mmio.write(0x44, 1)
      setup.driver.setDriverOK()
      #expect(setup.driver.needsReset)
    }
  }

  @Test(arguments: TransportKind.allCases)
  func enabledQueueCantBeChanged(kind: TransportKind) throws {
    let setup = try Setup(kind)
    var layout = setup.queue.layout
    layout.used = PhysicalAddress(TestDriver.base - 64)
    layout.size = 3
    setup.transport.enable(queue: 0, layout)
    setup.driver.run()
    #expect(setup.request(4).status == 0)
    #expect(!setup.driver.needsReset)
  }

  @Test(arguments: TransportKind.allCases)
  func notifyingWhatIsntThereDoesNothing(kind: TransportKind) throws {
    let setup = try Setup(kind, queues: 2)
    let transport = setup.transport
    transport.status = 0
    func notifyAll() {
      for index in [0, 1, 2, 63, 64, 65, 1000] { transport.notify(queue: index) }
      if let mmio = setup.rig.mmio {
        mmio.write(0x50, .max)
        mmio.write(0x50, 0x8000_0000)
      }
      setup.driver.run()
    }
    notifyAll()
    setup.driver.negotiate()
    notifyAll()
    // Set up, but neither ready nor started.
    let queue = setup.driver.prepareQueue(0)
    queue.add([queue.readable(setup.header(4)), queue.writable(1)])
    let watch = MemoryWatch(setup.driver.memory)
    notifyAll()
    transport.status = 15
    setup.driver.run()
    notifyAll()
    #expect(setup.storage.flushes == 0)
    #expect(watch.changes() == [])
    #expect(!setup.driver.needsReset)
    // Started at last: now it counts.
    transport.enable(queue: 0, queue.layout)
    setup.driver.run()
    #expect(setup.storage.flushes == 1 && queue.usedIndex == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func queueThatDoesntExistCantBeSetUp(kind: TransportKind) throws {
    let setup = try Setup(kind)
    for index in [1, 63, 64, 0xffff] {
      #expect(setup.transport.maximumSize(queue: index) == 0)
      setup.transport.enable(queue: index, setup.queue.layout)
      #expect(!setup.transport.isEnabled(queue: index))
      setup.transport.reset(queue: index)
    }
    setup.driver.run()
    #expect(setup.request(4).status == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func resetInTheMiddleOfRequests(kind: TransportKind) throws {
    let setup = try Setup(kind)
    let driver = setup.driver
    driver.negotiate()
    let queue = driver.makeQueue(0, size: 256)
    driver.setDriverOK()
    let header = queue.readable(setup.header(0))
    let target = queue.writable(512)
    let status = queue.writable(1)
    for _ in 0..<80 { queue.add([header, target, status]) }
    driver.transport.notify(queue: 0)
    driver.loop.turn(maximumWait: 0)
    #expect(queue.usedIndex == 64)
    // The rest was to follow in the next turn.
    driver.transport.status = 0
    #expect(driver.transport.status == 0)
    let watch = MemoryWatch(driver.memory)
    driver.run()
    driver.transport.notify(queue: 0)
    driver.run()
    #expect(watch.changes() == [])
    #expect(!setup.rig.wire.level)
    driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func queueResetInTheMiddleOfRequests(kind: TransportKind) throws {
    let setup = try Setup(kind, queues: 2)
    let driver = setup.driver
    let queue = setup.queue
    driver.negotiate()
    let large = driver.makeQueue(0, size: 256)
    driver.makeQueue(1)
    driver.setDriverOK()
    let header = queue.readable(setup.header(0))
    let target = queue.writable(512)
    let status = queue.writable(1)
    for _ in 0..<80 { large.add([header, target, status]) }
    driver.transport.notify(queue: 0)
    driver.loop.turn(maximumWait: 0)
    #expect(large.usedIndex == 64)
    driver.transport.reset(queue: 0)
    #expect(!driver.transport.isEnabled(queue: 0))
    let watch = MemoryWatch(driver.memory)
    driver.run()
    #expect(watch.changes() == [])
    // The other one goes on meanwhile, and this one comes back elsewhere.
    #expect(setup.request(4, queue: 1).status == 0)
    driver.makeQueue(0, size: 32)
    driver.run()
    #expect(setup.request(4).status == 0)
    #expect(!driver.needsReset)
  }

  /// Bus mastering off: a PCI function doesn't touch memory.
  @Test func functionWithoutBusMasterKeepsOff() throws {
    let setup = try Setup(.pci)
    let function = try #require(setup.rig.pci).function
    function.setBusMaster(false)
    let queue = setup.queue
    queue.add([queue.readable(setup.header(4)), queue.writable(1)])
    let watch = MemoryWatch(setup.driver.memory)
    queue.notify()
    #expect(watch.changes() == [] && setup.storage.flushes == 0)
    function.setBusMaster(true)
    setup.driver.run()
    #expect(queue.takeUsed().map(\.written) == [1])
  }
}

extension BlockTests.Setup {
  var transport: any DriverTransport { rig.driver.transport }
}

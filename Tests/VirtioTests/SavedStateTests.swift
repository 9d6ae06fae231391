import Bus
import Foundation
import Testing
import Virtio

/// Devices that are saved in the middle of their work and go on in a new machine over the same memory.
@Suite struct SavedStateTests {
  /// A new machine that goes on where `rig` stands, with `device` in its place. The state goes through its bytes.
  private func goOn(_ kind: TransportKind, _ rig: Rig, with device: any VirtioDevice) throws -> Rig {
    let next = try Rig(kind, device, continuing: rig)
    try restore(try encoded(rig.keeper.encodedState()), into: next)
    return next
  }

  private func encoded(_ state: EncodedState) throws -> EncodedState {
    try JSONDecoder().decode(EncodedState.self, from: JSONEncoder().encode(state))
  }

  private func restore(_ state: EncodedState, into rig: Rig) throws { try rig.keeper.restoreEncodedState(state) }

  // MARK: Devices

  @Test(arguments: TransportKind.allCases)
  func diskGoesOnWithItsRequests(kind: TransportKind) throws {
    let disk = MemoryStorage(sectors: 256)
    let rig = try Rig(kind, VirtioBlock(storage: disk, queueCount: 2))
    rig.driver.negotiate()
    let first = rig.driver.makeQueue(0, size: 256)
    rig.driver.makeQueue(1)
    rig.driver.setDriverOK()
    rig.driver.transport.writeConfiguration(32, width: 1, 0)
    let header = first.readable(bytes(UInt32(0)) + bytes(UInt32(0)) + bytes(UInt64(7)))
    let target = first.writable(512)
    let status = first.writable(1)
    for _ in 0..<80 { first.add([header, target, status]) }
    rig.driver.transport.notify(queue: 0)
    rig.driver.loop.turn(maximumWait: 0)
    // Two on the other queue that it hasn't even looked at.
    let write = bytes(UInt32(1)) + bytes(UInt32(0)) + bytes(UInt64(9))
    for _ in 0..<2 {
      rig.driver[1].add([
        first.readable(write + [UInt8](repeating: 0x77, count: 512)), first.writable(1),
      ])
    }
    rig.driver.transport.notify(queue: 1)
    #expect(first.usedIndex == 64 && rig.driver[1].usedIndex == 0)

    let otherDisk = MemoryStorage(sectors: 256)
    let next = try goOn(kind, rig, with: VirtioBlock(storage: otherDisk, queueCount: 2))
    next.driver.run()
    #expect(next.driver.transport.status == 15)
    #expect(next.driver[0].takeUsed().count == 80 && next.driver[1].takeUsed().count == 2)
    #expect(otherDisk.reads == 16 && disk.reads == 64)
    #expect(Array(otherDisk.bytes[9 * 512..<10 * 512]) == [UInt8](repeating: 0x77, count: 512))
    // The driver's choice of a cache that writes through.
    #expect(otherDisk.flushes == 2 && next.driver.transport.readConfiguration(32, width: 1) == 0)
    #expect(next.driver.transport.takeInterrupts() == 1)
    #expect(next.driver[1].transact([next.driver[1].readable(write), next.driver[1].writable(1)]) == 1)
  }

  /// Held by who isn't connected to the host yet: nothing is done till then, with the disk that it has by then.
  @Test(arguments: TransportKind.allCases)
  func aHeldStateGoesOnWhenItIsReleased(kind: TransportKind) throws {
    let disk = MemoryStorage(sectors: 8)
    let rig = try Rig(kind, VirtioBlock(storage: disk))
    rig.driver.start(queues: [0], refusing: 0)
    let queue = rig.driver[0]
    let header = queue.readable(bytes(UInt32(0)) + bytes(UInt32(0)) + bytes(UInt64(7)))
    queue.add([header, queue.writable(512), queue.writable(1)])
    let state = try encoded(rig.keeper.encodedState())

    let (absent, present) = (MemoryStorage(sectors: 8), MemoryStorage(sectors: 8))
    let device = VirtioBlock(storage: absent)
    let next = try Rig(kind, device, continuing: rig)
    next.transport.holdsState = true
    try restore(state, into: next)
    next.driver.loop.turn(maximumWait: 0)
    #expect(next.driver[0].takeUsed().isEmpty)
    #expect(device.replaceStorage(present))
    try next.transport.releaseState()
    #expect(next.driver.transport.status == 15)
    next.driver.run()
    #expect(next.driver[0].takeUsed().map(\.written) == [513])
    #expect(absent.reads == 0 && present.reads == 1)
    // Once only.
    try next.transport.releaseState()
    next.driver.run()
    #expect(next.driver[0].takeUsed().isEmpty && present.reads == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func aDamagedStateIsntHeld(kind: TransportKind) throws {
    let rig = try Rig(kind, VirtioBlock(storage: MemoryStorage(sectors: 8)))
    rig.driver.start(queues: [0], refusing: 0)
    let state = try encoded(rig.keeper.encodedState())
    let next = try Rig(kind, VirtioEntropy(), continuing: rig)
    next.transport.holdsState = true
    #expect(throws: StateError.self) { try restore(state, into: next) }
    try next.transport.releaseState()
    #expect(next.driver.transport.status == 0)
  }

  /// The driver is ready, but the I/O thread hasn't heard of it.
  @Test(arguments: TransportKind.allCases)
  func deviceThatHasntBegunBegins(kind: TransportKind) throws {
    let rig = try Rig(kind, VirtioBlock(storage: MemoryStorage(sectors: 8)))
    rig.driver.negotiate()
    let queue = rig.driver.makeQueue(0)
    rig.driver.transport.status = 15
    queue.add([queue.readable(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0))), queue.writable(1)])
    rig.driver.transport.notify(queue: 0)
    let disk = MemoryStorage(sectors: 8)
    let next = try goOn(kind, rig, with: VirtioBlock(storage: disk))
    next.driver.run()
    #expect(next.driver[0].takeUsed().map(\.written) == [1] && disk.flushes == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func driverMayBeHalfWayThroughItsStart(kind: TransportKind) throws {
    let rig = try Rig(kind, VirtioBlock(storage: MemoryStorage(sectors: 8)))
    #expect(rig.driver.negotiate())
    let queue = rig.driver.makeQueue(0)
    let disk = MemoryStorage(sectors: 8)
    let next = try goOn(kind, rig, with: VirtioBlock(storage: disk))
    #expect(next.driver.transport.status == 11 && next.driver.transport.isEnabled(queue: 0))
    next.driver.setDriverOK()
    let request = [queue.readable(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0))), queue.writable(1)]
    #expect(next.driver[0].transact(request) == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func stoppedDeviceStaysStopped(kind: TransportKind) throws {
    let rig = try Rig(kind, VirtioBlock(storage: MemoryStorage(sectors: 8)))
    rig.driver.start(queues: [0])
    rig.driver[0].offer(999)
    rig.driver[0].notify()
    let next = try goOn(kind, rig, with: VirtioBlock(storage: MemoryStorage(sectors: 8)))
    #expect(next.driver.needsReset && next.driver.transport.takeInterrupts() == 2)
    next.driver[0].notify()
    #expect(next.driver.transport.takeInterrupts() == 0)
    next.driver.start(queues: [0])
    let queue = next.driver[0]
    let request = [queue.readable(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0))), queue.writable(1)]
    #expect(queue.transact(request) == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func cardGoesOnWithItsBuffersAndFilters(kind: TransportKind) throws {
    let setup = try NetSetup(kind, pairs: 2)
    #expect(setup.control([0, 0, 0]) == 0)
    #expect(setup.control([1, 1, 2, 3, 4, 5, 6, 7]) == 0)
    #expect(setup.control([4, 0, 2, 0]) == 0)
    // These frames' flow is the second pair's.
    let input = setup.driver[2]
    for _ in 0..<3 { input.add([input.writable(700)]) }
    input.notify()
    let own: [UInt8] = [2, 3, 4, 5, 6, 7]
    let frame = own + [UInt8](repeating: 0, count: 54)
    #expect(setup.network.deliver(frame))
    #expect(input.takeUsed().map(\.written) == [72])
    // To be sent, but not looked at yet.
    let queue = setup.output
    queue.add([queue.readable(FrameHeader().bytes + frame)])
    setup.driver.transport.notify(queue: 1)

    let network = FakeNetwork()
    network.isLinkUp = false
    let device = VirtioNet(backend: network, mac: NetSetup.address, queuePairs: 2)
    let next = try goOn(kind, setup.rig, with: device)
    next.driver.run()
    #expect(setup.network.sent.isEmpty && network.takeSent() == [frame])
    #expect((0..<6).map { UInt8(next.driver.transport.readConfiguration($0, width: 1)) } == own)
    // The new network's link is down, which the driver is told.
    #expect(next.driver.transport.readConfiguration(6, width: 2) == 0)
    #expect(next.driver.transport.takeInterrupts() & 2 != 0)
    let other = NetSetup.address.bytes + [UInt8](repeating: 0, count: 1000)
    #expect(network.deliver(other))
    #expect(network.deliver(own + other))
    let goingOn = next.driver[2]
    #expect(goingOn.takeUsed().map(\.written) == [700, 324])
    #expect(!network.deliver(own + other))
    goingOn.add([input.writable(2000)])
    goingOn.notify()
    #expect(network.waiting.isEmpty && goingOn.takeUsed().map(\.written) == [1024])
    #expect(device.metrics.framesDropped == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func consoleGoesOnWithItsPorts(kind: TransportKind) throws {
    func console(_ terminals: [FakeConsole]) -> VirtioConsole {
      VirtioConsole(ports: [
        .init(backend: terminals[0]), .init(backend: terminals[1], name: "agent"), .init(backend: terminals[2]),
      ])
    }
    let terminals = [FakeConsole(size: (80, 25)), FakeConsole(), FakeConsole()]
    let rig = try Rig(kind, console(terminals))
    rig.driver.start(queues: Array(0..<8))
    func send(_ driver: TestDriver, _ port: UInt32, _ event: UInt16, _ value: UInt16) {
      let queue = driver[3]
      #expect(queue.transact([queue.readable(bytes(port) + bytes(event) + bytes(value))]) == 0)
    }
    // Port 1 is open; what is said of it waits for buffers.
    send(rig.driver, 1, 3, 1)
    send(rig.driver, 1, 6, 1)
    let input = rig.driver[4]
    input.add([input.writable(2)])
    input.notify()
    terminals[1].type("abc")
    #expect(input.takeUsed().map(\.written) == [2])
    let output = rig.driver[5]
    output.add([output.readable(Array("pong".utf8))])
    rig.driver.transport.notify(queue: 5)

    let newTerminals = [FakeConsole(size: (100, 30)), FakeConsole(), FakeConsole()]
    let next = try goOn(kind, rig, with: console(newTerminals))
    next.driver.run()
    #expect(terminals[1].takeOutput().isEmpty && newTerminals[1].takeOutput() == "pong")
    newTerminals[1].type("xyz")
    #expect(newTerminals[1].waiting.count == 3)
    next.driver[4].add([input.writable(16)])
    next.driver[4].notify()
    #expect(newTerminals[1].waiting.isEmpty)
    // Port 2 was never opened.
    next.driver[6].add([input.writable(16)])
    next.driver[6].notify()
    newTerminals[2].type("x")
    #expect(newTerminals[2].waiting.count == 1)
    // The messages that waited.
    let answers = next.driver[2]
    let buffers = (0..<4).map { _ in answers.writable(64) }
    for buffer in buffers { answers.add([buffer]) }
    answers.notify()
    let used = answers.takeUsed()
    let messages = zip(used, buffers).map { next.driver.get($1.address, Int($0.written)) }
    let port = bytes(UInt32(1))
    #expect(
      messages == [
        port + bytes(UInt16(7)) + bytes(UInt16(1)) + Array("agent".utf8), port + bytes(UInt16(6)) + bytes(UInt16(1)),
      ])
  }

  /// A terminal of another size is a change that the driver hears of.
  @Test(arguments: TransportKind.allCases, [false, true])
  func consoleTellsItsNewSize(kind: TransportKind, startsBefore: Bool) throws {
    let rig = try Rig(kind, VirtioConsole(backend: FakeConsole(size: (80, 25))))
    rig.driver.start(queues: [0, 1])
    _ = rig.driver.transport.takeInterrupts()
    let next = try Rig(kind, VirtioConsole(backend: FakeConsole(size: (132, 43))), continuing: rig)
    if startsBefore {
      try (next.keeper as? VirtioMMIO)?.start()
      try (next.keeper as? VirtioPCI)?.start()
    }
    try restore(encoded(rig.keeper.encodedState()), into: next)
    next.driver.run()
    #expect(next.driver.transport.readConfiguration(0, width: 4) == 132 | 43 << 16)
    #expect(next.driver.transport.takeInterrupts() == 2)
    // And one of the same size isn't.
    let same = try goOn(kind, next, with: VirtioConsole(backend: FakeConsole(size: (132, 43))))
    same.driver.run()
    #expect(same.driver.transport.takeInterrupts() == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func entropyGoesOn(kind: TransportKind) throws {
    func device(_ value: UInt8) -> VirtioEntropy {
      VirtioEntropy { $0.initializeMemory(as: UInt8.self, repeating: value) }
    }
    let rig = try Rig(kind, device(1))
    rig.driver.start(queues: [0])
    let queue = rig.driver[0]
    #expect(queue.transact([queue.writable(8)]) == 8)
    let target = queue.writable(8)
    queue.add([target])
    rig.driver.transport.notify(queue: 0)
    let next = try goOn(kind, rig, with: device(2))
    next.driver.run()
    #expect(next.driver[0].takeUsed().map(\.written) == [8])
    #expect(next.driver.get(target.address, 8) == [UInt8](repeating: 2, count: 8))
  }

  // MARK: Interrupts

  @Test(arguments: TransportKind.allCases)
  func interruptThatWasntAcknowledgedStays(kind: TransportKind) throws {
    let rig = try Rig(kind, VirtioEntropy { _ in })
    rig.driver.start(queues: [0])
    let queue = rig.driver[0]
    #expect(queue.transact([queue.writable(8)]) == 8)
    #expect(rig.wire.level)
    let next = try goOn(kind, rig, with: VirtioEntropy { _ in })
    #expect(next.wire.level)
    #expect(next.driver.transport.takeInterrupts() == 1 && !next.wire.level)
  }

  @Test func messagesThatWaitAreSentLater() throws {
    let rig = try Rig(.pci, VirtioEntropy { _ in })
    rig.driver.start(queues: [0])
    let pci = try #require(rig.pci)
    pci.setVector(0, address: 0x1000, data: 1)
    pci.setVector(1, address: 0x2000, data: 2, masked: true)
    #expect(pci.setVector(ofQueue: 0, 1) == 1)
    pci.setMessageControl(enabled: true)
    let queue = rig.driver[0]
    #expect(queue.transact([queue.writable(8)]) == 8)
    #expect(pci.messages.take().isEmpty)

    let next = try goOn(.pci, rig, with: VirtioEntropy { _ in })
    let nextPCI = try #require(next.pci)
    #expect(nextPCI.pendingVectors == 2 && nextPCI.messages.take().isEmpty && !next.wire.level)
    nextPCI.setMasked(1, false)
    #expect(nextPCI.messages.take() == [.init(address: 0x2000, data: 2)])
    next.driver[0].setUsedEvent(1)
    #expect(next.driver[0].transact([queue.writable(8)]) == 8)
    #expect(nextPCI.messages.take() == [.init(address: 0x2000, data: 2)])
  }

  /// A queue's event index and position, so that no interrupt is lost or sent twice.
  @Test(arguments: TransportKind.allCases, [UInt64(0), VirtioFeature.ringEventIndex])
  func interruptsAreNeitherLostNorDoubled(kind: TransportKind, refusing: UInt64) throws {
    var rig = try Rig(kind, VirtioEntropy { _ in })
    rig.driver.start(queues: [0], refusing: refusing)
    for round in 0..<300 {
      let queue = rig.driver[0]
      if refusing == 0 { queue.setUsedEvent(UInt16(round)) }
      queue.add([queue.writable(4)])
      queue.notify()
      #expect(queue.takeUsed().count == 1)
      #expect(rig.driver.transport.takeInterrupts() == 1, "round \(round)")
      if round % 7 == 0 { rig = try goOn(kind, rig, with: VirtioEntropy { _ in }) }
      rig.driver.run()
      #expect(rig.driver.transport.takeInterrupts() == 0, "round \(round)")
    }
  }

  // MARK: States that don't fit

  /// The state with one of its parts changed: the path leads through its JSON.
  private func changed(_ state: EncodedState, _ path: [String], to value: Any) throws -> EncodedState {
    func change(_ part: Any, _ path: ArraySlice<String>) throws -> Any {
      guard let key = path.first else { return value }
      if var list = part as? [Any], let index = Int(key) {
        list[index] = try change(list[index], path.dropFirst())
        return list
      }
      var object = try #require(part as? [String: Any])
      #expect(object[key] != nil, "no \(key)")
      object[key] = try change(object[key] as Any, path.dropFirst())
      return object
    }
    let payload = try change(JSONSerialization.jsonObject(with: state.payload), path[...])
    return EncodedState(
      identifier: state.identifier, version: state.version,
      payload: try JSONSerialization.data(withJSONObject: payload))
  }

  @Test(arguments: TransportKind.allCases)
  func statesThatDontFitAreRefused(kind: TransportKind) throws {
    func device() -> VirtioBlock { VirtioBlock(storage: MemoryStorage(sectors: 8), queueCount: 2) }
    let rig = try Rig(kind, device())
    rig.driver.start(queues: [0, 1])
    let good = try encoded(rig.keeper.encodedState())
    let queue = ["transport", "registers", "queues", "0"]
    let changes: [([String], Any)] = [
      (queue + ["layout", "size"], 3), (queue + ["layout", "size"], 0), (queue + ["layout", "size"], 512),
      (queue + ["layout", "used"], 0), (queue + ["layout", "used"], TestDriver.base + 1),
      (queue + ["layout", "descriptors"], UInt64.max - 15), (queue + ["layout", "available"], 4096),
      (["transport", "registers", "queues"], [Any]()), (["transport", "positions"], [Any]()),
      (["transport", "registers", "driverFeatures"], UInt64.max), (["transport", "device", "identifier"], "net"),
      (["transport", "device", "version"], 99), (["transport", "device", "payload"], "AAAA"),
    ]
    for (path, value) in changes {
      let next = try Rig(kind, device(), continuing: rig)
      #expect(throws: StateError.self, "\(path)") { try restore(try changed(good, path, to: value), into: next) }
      // What is left is a device as after a reset.
      next.driver.start(queues: [0])
      let queue = next.driver[0]
      let request = [queue.readable(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0))), queue.writable(1)]
      #expect(queue.transact(request) == 1)
    }
    // A disk of another size, one that can't be written, another kind of device.
    let others: [any VirtioDevice] = [
      VirtioBlock(storage: MemoryStorage(sectors: 9), queueCount: 2),
      VirtioBlock(storage: MemoryStorage(sectors: 8, isReadOnly: true), queueCount: 2),
      VirtioBlock(storage: MemoryStorage(sectors: 8)), VirtioEntropy { _ in },
    ]
    for other in others {
      let next = try Rig(kind, other, continuing: rig)
      #expect(throws: StateError.self) { try restore(good, into: next) }
    }
    #expect(throws: StateError.self) {
      try restore(good, into: try Rig(kind == .pci ? .mmio : .pci, device(), continuing: rig))
    }
    let next = try Rig(kind, device(), continuing: rig)
    try restore(good, into: next)
    next.driver.run()
    #expect(next.driver.transport.status == 15)
  }
}

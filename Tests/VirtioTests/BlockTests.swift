import Bus
import Testing
import Virtio

/// Block requests through real rings, over both transports.
@Suite struct BlockTests {
  struct Setup {
    let rig: Rig
    let storage: MemoryStorage
    let device: VirtioBlock
    var driver: TestDriver { rig.driver }
    var queue: DriverQueue { rig.driver[0] }

    init(
      _ kind: TransportKind = .mmio, sectors: Int = 256, isReadOnly: Bool = false, queues: Int = 1, refusing: UInt64 = 0
    ) throws {
      storage = MemoryStorage(sectors: sectors, isReadOnly: isReadOnly)
      device = VirtioBlock(storage: storage, serial: "disk-7", queueCount: queues)
      rig = try Rig(kind, device)
      rig.driver.start(queues: Array(0..<queues), refusing: refusing)
    }

    func header(_ type: UInt32, sector: UInt64 = 0) -> [UInt8] { bytes(type) + bytes(UInt32(0)) + bytes(sector) }

    /// Sends a request whose data parts are given, and returns its status.
    func request(
      _ type: UInt32, sector: UInt64 = 0, _ data: [DriverQueue.Buffer] = [], indirect: Bool = false,
      queue number: Int = 0
    ) -> (status: UInt8?, written: UInt32?) {
      let queue = driver[number]
      let status = queue.writable(1)
      _ = driver.memory.store(UInt8(0xee), at: status.address)
      let written = queue.transact([queue.readable(header(type, sector: sector))] + data + [status], indirect: indirect)
      return (written == nil ? nil : driver.get(status.address, 1)[0], written)
    }
  }

  @Test(arguments: TransportKind.allCases, [false, true])
  func readsAndWrites(kind: TransportKind, indirect: Bool) throws {
    let setup = try Setup(kind)
    let queue = setup.queue
    let target = queue.writable(2048)
    let read = setup.request(0, sector: 3, [target], indirect: indirect)
    #expect(read.status == 0 && read.written == 2049)
    #expect(setup.driver.get(target.address, 2048) == Array(setup.storage.bytes[1536..<3584]))
    #expect(setup.driver.transport.takeInterrupts() == 1)

    let data = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 3) }
    let write = setup.request(1, sector: 254, [queue.readable(data)], indirect: indirect)
    #expect(write.status == 0 && write.written == 1)
    #expect(Array(setup.storage.bytes[254 * 512..<256 * 512]) == data)
    #expect(setup.storage.flushes == 0)
    #expect(setup.request(4, indirect: indirect).status == 0)
    #expect(setup.storage.flushes == 1)
    let metrics = setup.device.metrics
    #expect(metrics.reads == 1 && metrics.writes == 1 && metrics.flushes == 1)
    #expect(metrics.bytesRead == 2048 && metrics.bytesWritten == 1024 && metrics.errors == 0)
  }

  @Test func configurationSaysWhatTheDiskIs() throws {
    let setup = try Setup(queues: 3)
    let transport = setup.driver.transport
    #expect(transport.deviceType == 2)
    #expect(transport.readConfiguration(0, width: 8) == 256)
    #expect(transport.readConfiguration(0, width: 4) == 256)
    #expect(transport.readConfiguration(12, width: 4) == 254)
    #expect(transport.readConfiguration(20, width: 4) == 512)
    #expect(transport.readConfiguration(32, width: 1) == 1)
    #expect(transport.readConfiguration(34, width: 2) == 3)
    #expect(transport.readConfiguration(40, width: 4) == 32)
    #expect(transport.readConfiguration(300, width: 4) == 0)
  }

  @Test func anyLayoutOfDescriptorsIsTheSameRequest() throws {
    let setup = try Setup()
    let queue = setup.queue
    let driver = setup.driver
    // The header in three parts, the data in odd ones, the status together with the last data.
    let header = setup.header(0, sector: 1)
    let parts = [queue.writable(100), queue.writable(1), queue.writable(411 + 512 + 1)]
    let chain =
      [queue.readable(Array(header[..<1])), queue.readable(Array(header[1..<9])), queue.readable(Array(header[9...]))]
      + parts
    #expect(queue.transact(chain) == 1025)
    let read = parts.flatMap { driver.get($0.address, $0.count) }
    #expect(Array(read.dropLast()) == Array(setup.storage.bytes[512..<1536]))
    #expect(read.last == 0)

    // Header and data to write in one descriptor, then more data.
    let data = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 5) }
    let status = queue.writable(1)
    let write = [
      queue.readable(setup.header(1, sector: 9) + data[..<300]), queue.readable(Array(data[300...])), status,
    ]
    #expect(queue.transact(write) == 1)
    #expect(driver.get(status.address, 1) == [0])
    #expect(Array(setup.storage.bytes[9 * 512..<11 * 512]) == data)
  }

  @Test func neighboursInMemoryAreReadAtOnce() throws {
    let setup = try Setup()
    let whole = setup.driver.allocate(4096)
    let parts = (0..<8).map { DriverQueue.Buffer(address: whole + UInt64($0 * 512), count: 512, isWritable: true) }
    #expect(setup.request(0, sector: 8, parts).status == 0)
    #expect(setup.storage.reads == 1)
    #expect(setup.driver.get(whole, 4096) == Array(setup.storage.bytes[4096..<8192]))
  }

  @Test func wrongRequestsAreAnswered() throws {
    let setup = try Setup()
    let queue = setup.queue
    #expect(setup.request(0, sector: 256, [queue.writable(512)]).status == 1)
    #expect(setup.request(0, sector: 255, [queue.writable(1024)]).status == 1)
    #expect(setup.request(1, sector: .max, [queue.readable([UInt8](repeating: 1, count: 512))]).status == 1)
    #expect(setup.request(1, sector: 1 << 55, [queue.readable([UInt8](repeating: 1, count: 512))]).status == 1)
    #expect(setup.request(0, sector: 0, [queue.writable(100)]).status == 1)
    #expect(setup.request(99).status == 2)
    setup.storage.fails = true
    #expect(setup.request(0, sector: 0, [queue.writable(512)]).status == 1)
    #expect(setup.request(1, sector: 0, [queue.readable([UInt8](repeating: 1, count: 512))]).status == 1)
    #expect(setup.request(4).status == 1)
    setup.storage.fails = false
    // The device goes on after each.
    #expect(setup.request(0, sector: 0, [queue.writable(512)]).status == 0)
    #expect(!setup.driver.needsReset)
    #expect(setup.device.metrics.errors == 9)
  }

  @Test func readOnlyDiskRefusesEveryChange() throws {
    let setup = try Setup(isReadOnly: true)
    #expect(setup.driver.features & 1 << 5 != 0)
    #expect(setup.driver.features & (1 << 13 | 1 << 14) == 0)
    let before = setup.storage.bytes
    #expect(setup.request(1, sector: 0, [setup.queue.readable([UInt8](repeating: 1, count: 512))]).status == 1)
    #expect(setup.request(13, [setup.queue.readable(range(0, 8, 0))]).status == 2)
    #expect(setup.storage.bytes == before)
  }

  @Test func serialNumberHasTwentyBytes() throws {
    let setup = try Setup()
    let target = setup.queue.writable(20)
    #expect(setup.request(8, [target]).status == 0)
    #expect(setup.driver.get(target.address, 20) == Array("disk-7".utf8) + [UInt8](repeating: 0, count: 14))
  }

  private func range(_ sector: UInt64, _ count: UInt32, _ flags: UInt32) -> [UInt8] {
    bytes(sector) + bytes(count) + bytes(flags)
  }

  @Test func discardsAndWritesZeroes() throws {
    let setup = try Setup()
    let queue = setup.queue
    let storage = setup.storage
    #expect(setup.request(11, [queue.readable(range(8, 16, 0) + range(64, 8, 0))]).status == 0)
    #expect(storage.discarded == [4096..<12288, 32768..<36864])
    #expect(setup.request(13, [queue.readable(range(0, 2, 1)), queue.readable(range(100, 1, 0))]).status == 0)
    #expect(storage.zeroed.map(\.range) == [0..<1024, 51200..<51712])
    #expect(storage.zeroed.map(\.mayUnmap) == [true, false])
    #expect(storage.bytes[..<1024].allSatisfy { $0 == 0 })
    // Unmap isn't a flag of discard; others aren't one of anything.
    #expect(setup.request(11, [queue.readable(range(8, 16, 1))]).status == 2)
    #expect(setup.request(13, [queue.readable(range(8, 16, 2))]).status == 2)
    // Beyond the disk, too much, too many, half a segment, none: nothing happens.
    #expect(setup.request(11, [queue.readable(range(8, 8, 0) + range(255, 2, 0))]).status == 1)
    #expect(setup.request(13, [queue.readable(range(0, .max, 0))]).status == 1)
    #expect(setup.request(11, [queue.readable((0..<33).flatMap { _ in range(0, 8, 0) })]).status == 1)
    #expect(setup.request(11, [queue.readable([UInt8](repeating: 0, count: 24))]).status == 1)
    #expect(setup.request(11).status == 1)
    #expect(storage.discarded.count == 2 && storage.zeroed.count == 2)
  }

  @Test func writesThroughWhenTheDriverCantFlushOrDoesntWantTo() throws {
    let sector = [UInt8](repeating: 9, count: 512)
    let noFlush = try Setup(refusing: 1 << 9)
    #expect(noFlush.request(1, [noFlush.queue.readable(sector)]).status == 0)
    #expect(noFlush.storage.flushes == 1)

    let setup = try Setup()
    setup.driver.transport.writeConfiguration(32, width: 1, 0)
    #expect(setup.driver.transport.readConfiguration(32, width: 1) == 0)
    #expect(setup.request(1, [setup.queue.readable(sector)]).status == 0)
    #expect(setup.storage.flushes == 1)
    setup.driver.transport.writeConfiguration(32, width: 1, 1)
    #expect(setup.request(1, [setup.queue.readable(sector)]).status == 0)
    #expect(setup.storage.flushes == 1)
    // A reset brings the cache back.
    setup.driver.transport.writeConfiguration(32, width: 1, 0)
    setup.driver.transport.status = 0
    #expect(setup.driver.transport.readConfiguration(32, width: 1) == 1)
  }

  @Test(arguments: TransportKind.allCases)
  func everyQueueServesRequests(kind: TransportKind) throws {
    let setup = try Setup(kind, queues: 4)
    for number in 0..<4 {
      let target = setup.driver[number].writable(512)
      #expect(setup.request(0, sector: UInt64(number), [target], queue: number).status == 0)
      #expect(
        setup.driver.get(target.address, 512) == Array(setup.storage.bytes[number * 512..<number * 512 + 512]))
    }
  }

  @Test func requestWithoutStatusOrHeaderStopsTheDevice() throws {
    let noStatus = try Setup()
    #expect(noStatus.queue.transact([noStatus.queue.readable(noStatus.header(0))]) == nil)
    #expect(noStatus.driver.needsReset)
    let noHeader = try Setup()
    #expect(noHeader.queue.transact([noHeader.queue.readable([0, 0, 0]), noHeader.queue.writable(513)]) == nil)
    #expect(noHeader.driver.needsReset)
  }

  @Test func longQueueIsServedInSeveralTurns() throws {
    let setup = try Setup()
    let driver = setup.driver
    driver.negotiate()
    let queue = driver.makeQueue(0, size: 256)
    driver.setDriverOK()
    let header = queue.readable(setup.header(4))
    let status = queue.writable(1)
    for _ in 0..<100 { queue.add([header, status]) }
    driver.transport.notify(queue: 0)
    driver.loop.turn(maximumWait: 0)
    #expect(queue.usedIndex == 64)
    driver.run()
    #expect(queue.usedIndex == 100)
  }

  @Test(arguments: TransportKind.allCases)
  func theSameDiskInAnotherPlaceIsRead(kind: TransportKind) throws {
    let (first, second) = (MemoryStorage(sectors: 8), MemoryStorage(sectors: 8))
    second.bytes = [UInt8](repeating: 0x5A, count: 8 * 512)
    let device = VirtioBlock(storage: first, serial: "")
    #expect(!device.replaceStorage(MemoryStorage(sectors: 9)))
    #expect(!device.replaceStorage(MemoryStorage(sectors: 8, isReadOnly: true)))
    #expect(device.replaceStorage(second))
    let rig = try Rig(kind, device)
    rig.driver.start(queues: [0], refusing: 0)
    let queue = rig.driver[0]
    let (target, status) = (queue.writable(512), queue.writable(1))
    let header = bytes(UInt32(0)) + bytes(UInt32(0)) + bytes(UInt64(3))
    #expect(queue.transact([queue.readable(header), target, status]) == 513)
    #expect(rig.driver.get(target.address, 512) == [UInt8](repeating: 0x5A, count: 512))
    #expect(rig.driver.get(status.address, 1) == [0] && first.reads == 0 && second.reads == 1)
  }

  @Test func aRefusedDiskLeavesTheOneThatWasThere() throws {
    let setup = try Setup(sectors: 8)
    #expect(!setup.device.replaceStorage(MemoryStorage(sectors: 16)))
    let target = setup.queue.writable(512)
    #expect(setup.request(0, sector: 7, [target]).status == 0)
    #expect(setup.driver.get(target.address, 512) == Array(setup.storage.bytes[7 * 512..<8 * 512]))
    #expect(setup.request(0, sector: 8, [setup.queue.writable(512)]).status == 1)
  }
}

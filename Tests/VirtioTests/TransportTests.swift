import Bus
import Glibc
import HostSystem
import Testing
import Virtio

/// Negotiation, registers and the configuration space, with drivers that do it right and such that don't.
@Suite struct TransportTests {
  typealias Setup = BlockTests.Setup

  // MARK: Negotiation

  @Test(arguments: TransportKind.allCases)
  func featuresThatArentOfferedAreRefused(kind: TransportKind) throws {
    let setup = try Setup(kind)
    let driver = setup.driver
    let offered = driver.transport.deviceFeatures()
    #expect(offered & VirtioFeature.version1 != 0)
    for bit in 0..<64 where offered & 1 << UInt64(bit) == 0 {
      #expect(!driver.negotiate(adding: 1 << UInt64(bit)), "bit \(bit)")
      // Nor can a driver go on regardless.
      driver.makeQueue(0)
      driver.setDriverOK()
      #expect(driver.transport.status & 12 == 0)
      let queue = setup.queue
      queue.add([queue.readable(setup.header(4)), queue.writable(1)])
      queue.notify()
      #expect(queue.usedIndex == 0)
    }
    #expect(driver.negotiate())
    driver.makeQueue(0)
    driver.setDriverOK()
    #expect(setup.request(4).status == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func featuresAreFixedOnceAgreedOn(kind: TransportKind) throws {
    let setup = try Setup(kind)
    setup.driver.negotiate(refusing: VirtioFeature.ringIndirectDescriptors)
    setup.transport.setDriverFeatures(.max)
    setup.driver.makeQueue(0)
    setup.driver.setDriverOK()
    #expect(setup.transport.status == 15)
    #expect(setup.request(4, indirect: true).status == nil)
    #expect(setup.driver.needsReset)
  }

  @Test(arguments: TransportKind.allCases)
  func deviceWithoutAcceptedFeaturesDoesntStart(kind: TransportKind) throws {
    let setup = try Setup(kind)
    setup.transport.status = 0
    setup.transport.status = 1
    setup.transport.status = 3
    setup.driver.makeQueue(0)
    setup.transport.status = 7
    setup.driver.run()
    #expect(setup.transport.status == 3)
    let queue = setup.queue
    queue.add([queue.readable(setup.header(4)), queue.writable(1)])
    queue.notify()
    #expect(queue.usedIndex == 0)
  }

  @Test(arguments: TransportKind.allCases)
  func statusBitsOfTheDeviceArentTheDrivers(kind: TransportKind) throws {
    let setup = try Setup(kind)
    setup.transport.status = 0xff
    #expect(setup.transport.status == 15 | 128)
    setup.transport.status = 1
    #expect(setup.transport.status == 15 | 128)
    setup.transport.status = 0
    #expect(setup.transport.status == 0)
  }

  /// xv6's way: only the lower half of the features is looked at, some of its bits are cleared, VIRTIO_F_VERSION_1 isn't
  /// accepted, eight descriptors are used.
  @Test func driverOfATeachingSystem() throws {
    let setup = try Setup(.mmio)
    let mmio = try #require(setup.rig.mmio)
    mmio.write(0x70, 0)
    #expect(mmio.read(0x00) == 0x7472_6976 && mmio.read(0x04) == 2)
    #expect(mmio.read(0x08) == 2 && mmio.read(0x0c) == 0x554d_4551)
    mmio.write(0x70, 1)
    mmio.write(0x70, 3)
    // Read-only, write-back, several queues, any layout, event index, indirect descriptors.
    let unwanted: [UInt32] = [5, 11, 12, 27, 29, 28]
    mmio.write(0x20, mmio.read(0x10) & ~unwanted.reduce(0) { $0 | 1 << $1 })
    mmio.write(0x70, 11)
    #expect(mmio.read(0x70) & 8 != 0)
    mmio.write(0x30, 0)
    #expect(mmio.read(0x44) == 0 && mmio.read(0x34) >= 8)
    let queue = setup.driver.makeQueue(0, size: 8)
    mmio.write(0x70, 15)
    setup.driver.run()

    // A block of 1024 bytes in three descriptors, written and read back.
    let data = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 11) }
    for round in 0..<20 {
      let sector = UInt64(round * 2)
      #expect(setup.request(1, sector: sector, [queue.readable(data)]).status == 0)
      #expect(setup.transport.takeInterrupts() == 1)
      let target = queue.writable(1024)
      #expect(setup.request(0, sector: sector, [target]).status == 0)
      #expect(setup.driver.get(target.address, 1024) == data)
      #expect(setup.transport.takeInterrupts() == 1)
    }
    #expect(setup.transport.status == 15)
    // Without the event index, it looks at the flags.
    queue.setAvailableFlags(1)
    #expect(setup.request(4).status == 0)
    #expect(setup.transport.takeInterrupts() == 0)
  }

  @Test func wordsOfFeaturesBeyondTheSecondAreEmpty() throws {
    let mmio = try #require(try Setup(.mmio).rig.mmio)
    mmio.status = 0
    for select: UInt32 in [2, 3, 0x8000_0000, .max] {
      mmio.write(0x14, select)
      #expect(mmio.read(0x10) == 0)
      mmio.write(0x24, select)
      mmio.write(0x20, .max)
    }
    mmio.status = 11
    #expect(mmio.status & 8 != 0)

    let pci = try #require(try Setup(.pci).rig.pci)
    pci.status = 0
    for select: UInt64 in [2, 3, 0x8000_0000, 0xffff_ffff] {
      pci.write(1, 0, 4, select)
      #expect(pci.read(1, 4, 4) == 0)
      pci.write(1, 8, 4, select)
      pci.write(1, 0xc, 4, 0xffff_ffff)
      #expect(pci.read(1, 0xc, 4) == 0)
    }
    pci.status = 11
    #expect(pci.status & 8 != 0)
  }

  @Test(arguments: TransportKind.allCases)
  func hostThatCantStartStopsTheDevice(kind: TransportKind) throws {
    let network = FakeNetwork()
    network.startFails = true
    let rig = try Rig(kind, VirtioNet(backend: network, mac: MACAddress("52:54:00:12:34:56")!))
    rig.driver.start(queues: [0, 1])
    #expect(rig.driver.needsReset && rig.driver.transport.takeInterrupts() == 2)
    network.startFails = false
    rig.driver.start(queues: [0, 1])
    #expect(!rig.driver.needsReset)
    let output = rig.driver[1]
    #expect(output.transact([output.readable([UInt8](repeating: 0, count: 12 + 60))]) == 0)
    #expect(network.takeSent().count == 1)
  }

  // MARK: Configuration space

  @Test(arguments: TransportKind.allCases, DeviceKind.allCases)
  func configurationReadsTheSameInAllWidths(kind: TransportKind, device: DeviceKind) throws {
    let rig = try Rig(kind, device.make())
    let window: UInt64 = kind == .mmio ? 0x100 : 0x1000
    let all = (0..<window).map { UInt8(rig.driver.transport.readConfiguration($0, width: 1)) }
    for width in [2, 4, 8] {
      for offset in stride(from: 0, through: window - UInt64(width), by: 1) {
        var expected: UInt64 = 0
        for index in 0..<width { expected |= UInt64(all[Int(offset) + index]) << UInt64(8 * index) }
        let value = rig.driver.transport.readConfiguration(offset, width: width)
        guard value == expected else {
          Issue.record("\(width) bytes at \(offset) read as \(value), not \(expected)")
          return
        }
      }
    }
    #expect(all[60...].allSatisfy { $0 == 0 })
  }

  @Test(arguments: TransportKind.allCases, DeviceKind.allCases)
  func configurationCantBeWritten(kind: TransportKind, device: DeviceKind) throws {
    let rig = try Rig(kind, device.make())
    rig.driver.start(queues: [0])
    let transport = rig.driver.transport
    let before = (0..<64).map { transport.readConfiguration(UInt64($0), width: 1) }
    for width in [1, 2, 4, 8] {
      for offset in stride(from: 0, through: UInt64(0x100 - width), by: 1) {
        transport.writeConfiguration(offset, width: width, .max)
        transport.writeConfiguration(offset, width: width, 0x0101_0101_0101_0101)
      }
    }
    rig.driver.run()
    #expect((0..<64).map { transport.readConfiguration(UInt64($0), width: 1) } == before)
    #expect(!rig.driver.needsReset)
  }

  // MARK: Anything at all

  /// Accesses of all kinds at random, as a mad driver would make them, with a ring of random bytes.
  private func madness(_ rig: Rig, seed: UInt64, steps: Int) {
    var random = SeededGenerator(seed: seed)
    let values: [UInt64] = [0, 1, 2, 3, 7, 8, 11, 15, 64, 255, 256, 0xffff, 0x8000_0000, 0xffff_ffff, .max]
    let memory = rig.driver.memory
    func value() -> UInt64 {
      switch Int.random(in: 0..<4, using: &random) {
      case 0: random.next()
      case 1: TestDriver.base + UInt64.random(in: 0..<memory.size / 4096, using: &random) * 4096
      default: values.randomElement(using: &random)!
      }
    }
    for _ in 0..<steps {
      let width = [1, 2, 4, 4, 4, 8].randomElement(using: &random)!
      let isWrite = Bool.random(using: &random)
      if let mmio = rig.mmio {
        let place = UInt64.random(in: 0...0x200 - UInt64(width), using: &random)
        let offset = Bool.random(using: &random) ? place & ~3 & 0xff : place
        if isWrite {
          mmio.device.write(offset: offset, width: width, value: value())
        } else {
          _ = mmio.device.read(offset: offset, width: width)
        }
      } else if let function = rig.pci?.function {
        let place = [0, 0, 0, 0x1000, 0x2000, 0x3000].randomElement(using: &random)!
        switch Int.random(in: 0..<8, using: &random) {
        case 0:
          let offset = UInt64.random(in: 0x40..<0x100, using: &random)
          let width = min(width, 4)
          if isWrite {
            function.writeConfiguration(offset: offset, width: width, value: UInt32(truncatingIfNeeded: value()))
          } else {
            _ = function.readConfiguration(offset: offset, width: width)
          }
        case 1:
          let offset = UInt64.random(in: 0...0x1000 - UInt64(width), using: &random)
          if isWrite {
            function.write(bar: 2, offset: offset, width: width, value: value())
          } else {
            _ = function.read(bar: 2, offset: offset, width: width)
          }
        case 2 where isWrite: function.setBusMaster(Int.random(in: 0..<4, using: &random) > 0)
        default:
          let offset = UInt64(place) + UInt64.random(in: 0..<64, using: &random)
          if isWrite {
            function.write(bar: 0, offset: offset, width: width, value: value())
          } else {
            _ = function.read(bar: 0, offset: offset, width: width)
          }
        }
      }
      // Rings of random bytes, in which now and then something makes sense.
      if Int.random(in: 0..<4, using: &random) == 0 {
        let address = TestDriver.base + UInt64.random(in: 0..<memory.size / 4096, using: &random) * 4096
        let word = Bool.random(using: &random) ? value() : UInt64.random(in: 0..<0x1_0000_0000, using: &random)
        _ = memory.store(word, at: PhysicalAddress(address + UInt64.random(in: 0..<64, using: &random)))
      }
      if rig.driver.loop.isCurrentOrIdle, Int.random(in: 0..<16, using: &random) == 0 { rig.driver.run() }
    }
  }

  private func expectWorks(_ rig: Rig, _ device: DeviceKind) {
    rig.pci?.function.setBusMaster(true)
    rig.pci?.setMessageControl(enabled: false)
    let queues = device == .console ? [0, 1, 2, 3] : device == .entropy ? [0] : [0, 1]
    rig.driver.start(queues: queues)
    let queue = rig.driver[device == .net || device == .console ? 1 : 0]
    switch device {
    case .block:
      let status = queue.writable(1)
      #expect(queue.transact([queue.readable(bytes(UInt32(4)) + bytes(UInt32(0)) + bytes(UInt64(0))), status]) == 1)
    case .net: #expect(queue.transact([queue.readable([UInt8](repeating: 0, count: 72))]) == 0)
    case .console: #expect(queue.transact([queue.readable(Array("x".utf8))]) == 0)
    case .entropy: #expect(queue.transact([queue.writable(8)]) == 8)
    }
    #expect(!rig.driver.needsReset)
  }

  @Test(arguments: TransportKind.allCases, DeviceKind.allCases)
  func madDriverHarmsNothing(kind: TransportKind, device: DeviceKind) throws {
    for seed: UInt64 in 1...5 {
      let rig = try Rig(kind, device.make(), memorySize: 1 << 20)
      madness(rig, seed: seed, steps: 4000)
      // What it left in memory is no longer the driver's.
      memset(rig.driver.memory.host, 0, Int(rig.driver.memory.size))
      expectWorks(rig, device)
    }
  }

  /// The same from two harts at once, while the I/O thread runs.
  @Test(arguments: TransportKind.allCases, DeviceKind.allCases)
  func madHartsHarmNothing(kind: TransportKind, device: DeviceKind) throws {
    let rig = try Rig(kind, device.make(), memorySize: 1 << 20)
    rig.driver.loop.start()
    let harts = (0..<2).map { number in
      HostThread(name: "hart\(number)") { madness(rig, seed: UInt64(100 + number), steps: 4000) }
    }
    for hart in harts { hart.join() }
    rig.driver.transport.status = 0
    memset(rig.driver.memory.host, 0, Int(rig.driver.memory.size))
    expectWorks(rig, device)
    rig.driver.loop.stop()
  }
}

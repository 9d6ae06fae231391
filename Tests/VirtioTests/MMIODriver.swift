import Bus
import HostSystem
import Virtio

/// A driver's use of the MMIO registers (virtio 1.2, 4.2.3).
final class MMIODriver: DriverTransport {
  let device: any BusDevice
  let wire: Wire
  init(_ device: any BusDevice, wire: Wire) {
    self.device = device
    self.wire = wire
  }

  func read(_ offset: UInt64) -> UInt32 { UInt32(device.read(offset: offset, width: 4)) }
  func write(_ offset: UInt64, _ value: UInt32) { device.write(offset: offset, width: 4, value: UInt64(value)) }

  var status: UInt8 {
    get { UInt8(read(0x70)) }
    set { write(0x70, UInt32(newValue)) }
  }
  var deviceType: UInt32 { read(0x08) }

  func deviceFeatures() -> UInt64 {
    write(0x14, 0)
    let low = UInt64(read(0x10))
    write(0x14, 1)
    return low | UInt64(read(0x10)) << 32
  }

  func setDriverFeatures(_ features: UInt64) {
    write(0x24, 0)
    write(0x20, UInt32(truncatingIfNeeded: features))
    write(0x24, 1)
    write(0x20, UInt32(features >> 32))
  }

  func maximumSize(queue: Int) -> Int {
    write(0x30, UInt32(queue))
    return Int(read(0x34))
  }

  func enable(queue: Int, _ layout: Virtqueue.Layout) {
    write(0x30, UInt32(queue))
    write(0x38, UInt32(layout.size))
    for (offset, address) in [(0x80, layout.descriptors), (0x90, layout.available), (0xa0, layout.used)] {
      write(UInt64(offset), UInt32(truncatingIfNeeded: address.rawValue))
      write(UInt64(offset + 4), UInt32(address.rawValue >> 32))
    }
    write(0x44, 1)
  }

  func isEnabled(queue: Int) -> Bool {
    write(0x30, UInt32(queue))
    return read(0x44) == 1
  }

  func reset(queue: Int) {
    write(0x30, UInt32(queue))
    write(0xc0, 1)
  }

  func notify(queue: Int) { write(0x50, UInt32(queue)) }
  func readConfiguration(_ offset: UInt64, width: Int) -> UInt64 { device.read(offset: 0x100 + offset, width: width) }
  func writeConfiguration(_ offset: UInt64, width: Int, _ value: UInt64) {
    device.write(offset: 0x100 + offset, width: width, value: value)
  }
  func configurationGeneration() -> UInt64 { UInt64(read(0xfc)) }

  func takeInterrupts() -> UInt32 {
    guard wire.level else { return 0 }
    let causes = read(0x60)
    write(0x64, causes)
    return causes
  }
}

/// A device on a transport, with a driver that hasn't begun yet.
struct Rig {
  let driver: TestDriver
  let transport: VirtioTransport
  let keeper: any StateKeeper
  let wire: Wire
  var mmio: MMIODriver? { driver.transport as? MMIODriver }
  var pci: PCIDriver? { driver.transport as? PCIDriver }

  /// Over memory that an earlier machine left, with `continuing`, to take its state.
  init(
    _ kind: TransportKind, _ device: any VirtioDevice, memorySize: UInt64 = 4 << 20, continuing earlier: Rig? = nil,
    loop: EventLoop? = nil
  ) throws {
    let memory = try earlier?.driver.memory ?? TestDriver.memory(size: memorySize)
    let loop = try loop ?? EventLoop()
    wire = Wire()
    let access: any DriverTransport
    switch kind {
    case .mmio:
      let mmio = VirtioMMIO(
        device: device, memory: memory, loop: loop, interrupt: wire.line, identifier: "virtio-test")
      access = MMIODriver(mmio, wire: wire)
      keeper = mmio
      transport = mmio.transport
    case .pci:
      let messages = MessageLog()
      let pci = VirtioPCI(
        device: device, memory: memory, loop: loop, interrupt: wire.line, messages: messages.sender,
        identifier: "virtio-test")
      pci.setBusMaster(true)
      access = PCIDriver(pci, wire: wire, messages: messages)
      keeper = pci
      transport = pci.transport
    }
    if let earlier {
      driver = TestDriver(continuing: earlier.driver, loop: loop, transport: access)
    } else {
      driver = TestDriver(arena: DriverMemory(memory), loop: loop, transport: access)
    }
  }
}

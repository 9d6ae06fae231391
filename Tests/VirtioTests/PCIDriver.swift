import Bus
import HostSystem
import Synchronization
import Virtio

/// Message-signalled interrupts that were sent.
final class MessageLog: @unchecked Sendable {
  struct Message: Equatable {
    var address: UInt64
    var data: UInt32
  }
  private let log = Mutex<[Message]>([])
  var sender: MessageInterruptSender {
    { [self] address, data in log.withLock { $0.append(Message(address: address.rawValue, data: data)) } }
  }
  func take() -> [Message] {
    log.withLock { log in
      defer { log = [] }
      return log
    }
  }
}

/// A driver's use of a virtio PCI function: finds the structures through the capabilities (virtio 1.2, 4.1.3).
final class PCIDriver: DriverTransport {
  struct Place {
    var bar = 0
    var offset: UInt64 = 0
    var length: UInt64 = 0
  }

  let function: any PCIFunction
  let wire: Wire
  let messages: MessageLog
  private(set) var places: [UInt8: Place] = [:]
  private(set) var notifyMultiplier: UInt64 = 0
  private(set) var messageCapability: UInt64 = 0
  private(set) var accessCapability: UInt64 = 0

  init(_ function: any PCIFunction, wire: Wire, messages: MessageLog) {
    self.function = function
    self.wire = wire
    self.messages = messages
    var capability = UInt64(function.capabilityPointer)
    while capability != 0 {
      let identifier = function.readConfiguration(offset: capability, width: 1)
      if identifier == 0x11 { messageCapability = capability }
      if identifier == 0x09 {
        let type = UInt8(function.readConfiguration(offset: capability + 3, width: 1))
        if type == 5 { accessCapability = capability }
        places[type] = Place(
          bar: Int(function.readConfiguration(offset: capability + 4, width: 1)),
          offset: UInt64(function.readConfiguration(offset: capability + 8, width: 4)),
          length: UInt64(function.readConfiguration(offset: capability + 12, width: 4)))
        if type == 2 { notifyMultiplier = UInt64(function.readConfiguration(offset: capability + 16, width: 4)) }
      }
      capability = UInt64(function.readConfiguration(offset: capability + 1, width: 1))
    }
  }

  func read(_ type: UInt8, _ offset: UInt64, _ width: Int) -> UInt64 {
    let place = places[type]!
    return function.read(bar: place.bar, offset: place.offset + offset, width: width)
  }

  func write(_ type: UInt8, _ offset: UInt64, _ width: Int, _ value: UInt64) {
    let place = places[type]!
    function.write(bar: place.bar, offset: place.offset + offset, width: width, value: value)
  }

  var status: UInt8 {
    get { UInt8(read(1, 0x14, 1)) }
    set { write(1, 0x14, 1, UInt64(newValue)) }
  }
  var deviceType: UInt32 { UInt32(function.deviceIdentifier) - 0x1040 }

  func deviceFeatures() -> UInt64 {
    write(1, 0, 4, 0)
    let low = read(1, 4, 4)
    write(1, 0, 4, 1)
    return low | read(1, 4, 4) << 32
  }

  func setDriverFeatures(_ features: UInt64) {
    write(1, 8, 4, 0)
    write(1, 0xc, 4, features & 0xffff_ffff)
    write(1, 8, 4, 1)
    write(1, 0xc, 4, features >> 32)
  }

  func maximumSize(queue: Int) -> Int {
    write(1, 0x16, 2, UInt64(queue))
    return Int(read(1, 0x18, 2))
  }

  func enable(queue: Int, _ layout: Virtqueue.Layout) {
    write(1, 0x16, 2, UInt64(queue))
    write(1, 0x18, 2, UInt64(layout.size))
    write(1, 0x20, 4, layout.descriptors.rawValue & 0xffff_ffff)
    write(1, 0x24, 4, layout.descriptors.rawValue >> 32)
    write(1, 0x28, 8, layout.available.rawValue)
    write(1, 0x30, 8, layout.used.rawValue)
    write(1, 0x1c, 2, 1)
  }

  func isEnabled(queue: Int) -> Bool {
    write(1, 0x16, 2, UInt64(queue))
    return read(1, 0x1c, 2) == 1
  }

  func reset(queue: Int) {
    write(1, 0x16, 2, UInt64(queue))
    write(1, 0x3a, 2, 1)
  }

  func notify(queue: Int) {
    write(1, 0x16, 2, UInt64(queue))
    let offset = read(1, 0x1e, 2) * notifyMultiplier
    write(2, offset, 2, UInt64(queue))
  }

  func readConfiguration(_ offset: UInt64, width: Int) -> UInt64 { read(4, offset, width) }
  func writeConfiguration(_ offset: UInt64, width: Int, _ value: UInt64) { write(4, offset, width, value) }
  func configurationGeneration() -> UInt64 { read(1, 0x15, 1) }

  func takeInterrupts() -> UInt32 { wire.level ? UInt32(read(3, 0, 1)) : 0 }

  // MARK: MSI-X

  func setMessageControl(enabled: Bool, masked: Bool = false) {
    function.writeConfiguration(
      offset: messageCapability + 2, width: 2, value: (enabled ? 0x8000 : 0) | (masked ? 0x4000 : 0))
  }

  private func messageWindow(_ field: UInt64) -> (bar: Int, offset: UInt64) {
    let word = function.readConfiguration(offset: messageCapability + field, width: 4)
    return (Int(word & 7), UInt64(word & ~7))
  }

  func setVector(_ vector: Int, address: UInt64, data: UInt32, masked: Bool = false) {
    let (bar, table) = messageWindow(4)
    let entry = table + 16 * UInt64(vector)
    function.write(bar: bar, offset: entry, width: 4, value: address & 0xffff_ffff)
    function.write(bar: bar, offset: entry + 4, width: 4, value: address >> 32)
    function.write(bar: bar, offset: entry + 8, width: 4, value: UInt64(data))
    function.write(bar: bar, offset: entry + 12, width: 4, value: masked ? 1 : 0)
  }

  func setMasked(_ vector: Int, _ masked: Bool) {
    let (bar, table) = messageWindow(4)
    function.write(bar: bar, offset: table + 16 * UInt64(vector) + 12, width: 4, value: masked ? 1 : 0)
  }

  func setConfigurationVector(_ vector: UInt16) -> UInt16 {
    write(1, 0x10, 2, UInt64(vector))
    return UInt16(read(1, 0x10, 2))
  }

  /// Returns the vector that reads back.
  func setVector(ofQueue queue: Int, _ vector: UInt16) -> UInt16 {
    write(1, 0x16, 2, UInt64(queue))
    write(1, 0x1a, 2, UInt64(vector))
    return UInt16(read(1, 0x1a, 2))
  }

  var pendingVectors: UInt64 {
    let (bar, pending) = messageWindow(8)
    return function.read(bar: bar, offset: pending, width: 8)
  }
}

/// The capabilities, from 0x40 on in configuration space: MSI-X (PCI 3.0, 6.8.2) and the vendor-specific ones that say
/// where the structures lie (virtio 1.2, 4.1.4).
extension VirtioPCI {
  enum Capability {
    static let messages: UInt64 = 0x40
    static let common: UInt64 = 0x4c
    static let notify: UInt64 = 0x5c
    static let interruptStatus: UInt64 = 0x70
    static let device: UInt64 = 0x80
    static let access: UInt64 = 0x90
    static let accessData: UInt64 = access + 16
    static let end: UInt64 = accessData + 4
  }

  public var capabilityPointer: UInt8 { UInt8(Capability.messages) }

  /// The bytes that never change.
  static func makeCapabilities(vectorCount: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    func append<Value: FixedWidthInteger>(_ value: Value) { withUnsafeBytes(of: value.littleEndian) { bytes += $0 } }
    func append(structure type: UInt8, next: UInt64, length: UInt8 = 16, offset: UInt64, size: UInt64) {
      bytes += [0x09, UInt8(next), length, type, UInt8(Window.registers), 0, 0, 0]
      append(UInt32(offset))
      append(UInt32(size))
    }
    bytes += [0x11, UInt8(Capability.common)]
    append(UInt16(vectorCount - 1))
    append(UInt32(Window.messages))
    append(UInt32(Window.pendingOffset) | UInt32(Window.messages))
    append(structure: 1, next: Capability.notify, offset: Structure.common, size: Structure.size)
    append(
      structure: 2, next: Capability.interruptStatus, length: 20, offset: Structure.notify, size: Structure.size)
    append(UInt32(Structure.notifyMultiplier))
    append(structure: 3, next: Capability.device, offset: Structure.interruptStatus, size: Structure.size)
    append(structure: 4, next: Capability.access, offset: Structure.device, size: Structure.size)
    append(structure: 5, next: 0, length: 20, offset: 0, size: 0)
    append(UInt32(0))
    return bytes
  }

  public func readConfiguration(offset: UInt64, width: Int) -> UInt32 {
    if offset == Capability.accessData { return readThroughAccess(width: width) }
    let window = accessWindow.withLock { $0 }
    var value: UInt32 = 0
    for index in 0..<min(width, 4) {
      value |= UInt32(configurationByte(offset + UInt64(index), window)) << UInt32(8 * index)
    }
    return value
  }

  private func configurationByte(_ offset: UInt64, _ window: AccessWindow) -> UInt8 {
    switch offset {
    case Capability.messages + 2: return UInt8(truncatingIfNeeded: interrupts.table.control)
    case Capability.messages + 3: return UInt8(truncatingIfNeeded: interrupts.table.control >> 8)
    case Capability.access + 4: return window.bar
    case Capability.access + 8..<Capability.access + 12:
      return UInt8(truncatingIfNeeded: window.offset >> UInt32(8 * (offset - Capability.access - 8)))
    case Capability.access + 12..<Capability.access + 16:
      return UInt8(truncatingIfNeeded: window.length >> UInt32(8 * (offset - Capability.access - 12)))
    case Capability.messages..<Capability.end: return capabilities[Int(offset - Capability.messages)]
    default: return 0
    }
  }

  public func writeConfiguration(offset: UInt64, width: Int, value: UInt32) {
    if offset == Capability.accessData { return writeThroughAccess(width: width, value: value) }
    for index in 0..<min(width, 4) {
      writeConfigurationByte(offset + UInt64(index), UInt8(truncatingIfNeeded: value >> UInt32(8 * index)))
    }
  }

  private func writeConfigurationByte(_ offset: UInt64, _ byte: UInt8) {
    func replace(_ word: inout UInt32, at first: UInt64) {
      let shift = UInt32(8 * (offset - first))
      word = word & ~(0xff << shift) | UInt32(byte) << shift
    }
    switch offset {
    // Of the message control word, only the high byte's two bits can be written.
    case Capability.messages + 3: interrupts.setMessageControl(UInt16(byte) << 8)
    case Capability.access + 4: accessWindow.withLock { $0.bar = byte }
    case Capability.access + 8..<Capability.access + 12:
      accessWindow.withLock { replace(&$0.offset, at: Capability.access + 8) }
    case Capability.access + 12..<Capability.access + 16:
      accessWindow.withLock { replace(&$0.length, at: Capability.access + 12) }
    default: break
    }
  }

  // MARK: Access to the windows through configuration space, for firmware that hasn't mapped them (4.1.4.9)

  /// The window that was asked for, when it is whole within a base address register.
  private func access() -> (bar: Int, offset: UInt64, width: Int)? {
    let window = accessWindow.withLock { $0 }
    guard window.length == 1 || window.length == 2 || window.length == 4,
      let bar = baseAddressRegisters.first(where: { $0.index == Int(window.bar) }),
      UInt64(window.offset) + UInt64(window.length) <= bar.size, window.offset % window.length == 0
    else { return nil }
    return (bar.index, UInt64(window.offset), Int(window.length))
  }

  private func readThroughAccess(width: Int) -> UInt32 {
    guard let access = access() else { return 0 }
    return UInt32(truncatingIfNeeded: read(bar: access.bar, offset: access.offset, width: access.width))
  }

  private func writeThroughAccess(width: Int, value: UInt32) {
    guard let access = access() else { return }
    write(bar: access.bar, offset: access.offset, width: access.width, value: UInt64(value))
  }
}

import Bus

/// The writable part of a type 0 configuration header (PCI Local Bus 3.0, 6.1).
struct PCIHeader: Codable {
  private enum Command {
    static let memorySpace: UInt32 = 1 << 1
    static let busMaster: UInt32 = 1 << 2
    static let interruptDisable: UInt32 = 1 << 10
    /// Also parity error response and SERR#, which change nothing here.
    static let writable = memorySpace | busMaster | interruptDisable | 1 << 6 | 1 << 8
  }

  private enum Status {
    static let interrupt: UInt32 = 1 << 19
    static let capabilities: UInt32 = 1 << 20
  }

  private var command: UInt32 = 0
  private var cacheLineSize: UInt32 = 0
  private var interruptLine: UInt32 = 0
  /// Base address registers without their type bits.
  private var bases = [UInt32](repeating: 0, count: 6)

  var isMemoryEnabled: Bool { command & Command.memorySpace != 0 }
  var isBusMaster: Bool { command & Command.busMaster != 0 }
  var isInterruptDisabled: Bool { command & Command.interruptDisable != 0 }
  /// Whether a decoded header has all its registers.
  var isWhole: Bool { bases.count == 6 }

  func base(of bar: PCIBaseAddressRegister) -> UInt64 {
    let low = UInt64(bases[bar.index])
    return bar.is64Bit ? low | UInt64(bases[bar.index + 1]) << 32 : low
  }

  /// Which register a base address number belongs to, and whether it is its upper half.
  private func bar(_ number: Int, of function: any PCIFunction) -> (PCIBaseAddressRegister, isUpper: Bool)? {
    for bar in function.baseAddressRegisters {
      if bar.index == number { return (bar, false) }
      if bar.is64Bit, bar.index + 1 == number { return (bar, true) }
    }
    return nil
  }

  /// Reads an aligned register below 0x40.
  func read(_ register: Int, of function: any PCIFunction, interruptLevel: Bool) -> UInt32 {
    switch register {
    case 0x00: return UInt32(function.deviceIdentifier) << 16 | UInt32(function.vendorIdentifier)
    case 0x04:
      return command | (interruptLevel ? Status.interrupt : 0)
        | (function.capabilityPointer != 0 ? Status.capabilities : 0)
    case 0x08: return function.classCode << 8 | UInt32(function.revision)
    case 0x0C: return cacheLineSize
    case 0x10..<0x28:
      let number = (register - 0x10) / 4
      guard let (bar, isUpper) = bar(number, of: function) else { return 0 }
      if isUpper { return bases[number] }
      return bases[number] | (bar.is64Bit ? 4 : 0) | (bar.isPrefetchable ? 8 : 0)
    case 0x2C: return UInt32(function.subsystemIdentifier) << 16 | UInt32(function.subsystemVendorIdentifier)
    case 0x34: return UInt32(function.capabilityPointer)
    case 0x3C: return interruptLine | (function.baseAddressRegisters.isEmpty ? 0 : 1 << 8)
    default: return 0
    }
  }

  /// Writes the bits of `mask` in an aligned register below 0x40.
  mutating func write(_ register: Int, mask: UInt32, value: UInt32, of function: any PCIFunction) {
    func merge(_ old: UInt32, writable: UInt32) -> UInt32 {
      old & ~(mask & writable) | value & mask & writable
    }
    switch register {
    case 0x04: command = merge(command, writable: Command.writable)
    case 0x0C: cacheLineSize = merge(cacheLineSize, writable: 0xFF)
    case 0x10..<0x28:
      let number = (register - 0x10) / 4
      guard let (bar, isUpper) = bar(number, of: function) else { return }
      // The bits below the size stay zero: that is how a guest learns the size.
      let addressBits = ~(bar.size &- 1)
      let writable = UInt32(truncatingIfNeeded: isUpper ? addressBits >> 32 : addressBits) & (isUpper ? .max : ~0xF)
      bases[number] = merge(bases[number], writable: writable)
    case 0x3C: interruptLine = merge(interruptLine, writable: 0xFF)
    default: break
    }
  }
}

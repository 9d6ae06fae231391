import Bus

/// The enhanced configuration access mechanism: 4 KiB for each function, 1 MiB for each bus. Only bus 0 exists.
package final class PCIConfigurationWindow: BusDevice {
  private let bridge: PCIHostBridge

  package init(_ bridge: PCIHostBridge) { self.bridge = bridge }

  private func function(at offset: UInt64) -> (slot: Int, register: Int)? {
    // Functions 1 to 7 and buses above 0 have nobody.
    guard offset >> 20 == 0, offset >> 12 & 7 == 0 else { return nil }
    return (Int(offset >> 15), Int(offset & 0xFFF))
  }

  package func read(offset: UInt64, width: Int) -> UInt64 {
    let absent: UInt64 = .max >> UInt64(64 - 8 * width)
    guard offset % UInt64(width) == 0, let (slot, register) = function(at: offset) else { return absent }
    let low = UInt64(bridge.readConfiguration(slot: slot, offset: register, width: min(width, 4)))
    guard width == 8 else { return low }
    return low | UInt64(bridge.readConfiguration(slot: slot, offset: register + 4, width: 4)) << 32
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset % UInt64(width) == 0, let (slot, register) = function(at: offset) else { return }
    bridge.writeConfiguration(
      slot: slot, offset: register, width: min(width, 4), value: UInt32(truncatingIfNeeded: value))
    guard width == 8 else { return }
    bridge.writeConfiguration(slot: slot, offset: register + 4, width: 4, value: UInt32(value >> 32))
  }
}

/// A range of PCI memory addresses: what the functions' base address registers cover is theirs, the rest is open bus.
package final class PCIMemoryWindow: BusDevice {
  private let bridge: PCIHostBridge
  private let base: UInt64
  private let openBus = OpenBus()

  package init(_ bridge: PCIHostBridge, base: PhysicalAddress) {
    self.bridge = bridge
    self.base = base.rawValue
  }

  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard let route = bridge.route(base &+ offset, width: width) else {
      return openBus.read(offset: offset, width: width)
    }
    return route.function.read(bar: route.bar, offset: base &+ offset &- route.base, width: width)
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard let route = bridge.route(base &+ offset, width: width) else { return }
    route.function.write(bar: route.bar, offset: base &+ offset &- route.base, width: width, value: value)
  }
}

import Board
import Bus
import Synchronization
import Testing

/// A function with one 64-bit register window of 16 KiB and one 32-bit one of 4 KiB.
private final class TestFunction: PCIFunction, @unchecked Sendable {
  let vendorIdentifier: UInt16 = 0x1AF4
  let deviceIdentifier: UInt16 = 0x1042
  let revision: UInt8 = 1
  let classCode: UInt32 = 0x018000
  let subsystemVendorIdentifier: UInt16 = 0x1AF4
  let subsystemIdentifier: UInt16 = 0x1100
  let baseAddressRegisters = [
    PCIBaseAddressRegister(index: 1, size: 0x1000, is64Bit: false),
    PCIBaseAddressRegister(index: 4, size: 0x4000, isPrefetchable: true),
  ]
  let capabilityPointer: UInt8 = 0x98
  var isBusMaster = false
  var writes: [(bar: Int, offset: UInt64, value: UInt64)] = []
  var configurationWrites: [UInt64] = []

  func readConfiguration(offset: UInt64, width: Int) -> UInt32 { UInt32(offset) }
  func writeConfiguration(offset: UInt64, width: Int, value: UInt32) { configurationWrites.append(offset) }
  func read(bar: Int, offset: UInt64, width: Int) -> UInt64 { UInt64(bar) << 16 | offset }
  func write(bar: Int, offset: UInt64, width: Int, value: UInt64) { writes.append((bar, offset, value)) }
  func setBusMaster(_ enabled: Bool) { isBusMaster = enabled }
}

@Suite("PCI") struct PCITests {
  private let function = TestFunction()
  private let wires = (0..<4).map { _ in RecordedLine() }
  private let bridge: PCIHostBridge
  private let configuration: PCIConfigurationWindow
  private let memory32: PCIMemoryWindow
  private let memory64: PCIMemoryWindow
  private let slot1: UInt64 = 1 << 15
  private let high = MemoryMap.pciMemory64(ramSize: 2 << 30)

  init() {
    bridge = PCIHostBridge(windows: [MemoryMap.pciMemory32, high], interrupts: wires.map(\.line))
    bridge.insert(function, slot: 1)
    configuration = PCIConfigurationWindow(bridge)
    memory32 = PCIMemoryWindow(bridge, base: MemoryMap.pciMemory32.base)
    memory64 = PCIMemoryWindow(bridge, base: high.base)
  }

  private func command(_ value: UInt32) { configuration.write(offset: slot1 + 4, width: 2, value: UInt64(value)) }

  @Test func functionsAreFoundByTheirIdentity() {
    #expect(configuration.read32(0) == 0x0008_1B36)
    #expect(configuration.read32(8) >> 8 == 0x06_0000)
    #expect(configuration.read32(slot1) == 0x1042_1AF4)
    #expect(configuration.read(offset: slot1 + 2, width: 2) == 0x1042)
    #expect(configuration.read8(slot1 + 0x34) == 0x98)
    #expect(configuration.read32(slot1 + 4) >> 16 == 0x10)
    #expect(configuration.read8(slot1 + 0x3D) == 1)
    for absent in [2 << 15, slot1 | 1 << 12, 1 << 20, 0x0FFF_F000] as [UInt64] {
      #expect(configuration.read32(absent) == 0xFFFF_FFFF)
      configuration.write32(absent, 0)
    }
    #expect(high.base.rawValue == 0x4_0000_0000)
    #expect(configuration.read32(slot1 + 0x98) == 0x98)
  }

  @Test func registersTellTheirSize() {
    for register in 0..<6 { configuration.write32(slot1 + 0x10 + UInt64(4 * register), 0xFFFF_FFFF) }
    let sizes = (0..<6).map { configuration.read32(slot1 + 0x10 + UInt64(4 * $0)) }
    #expect(sizes == [0, 0xFFFF_F000, 0, 0, 0xFFFF_C00C, 0xFFFF_FFFF])
    configuration.write32(slot1 + 0x30, 0xFFFF_FFFF)
    #expect(configuration.read32(slot1 + 0x30) == 0)
  }

  @Test func windowsAppearAndMove() {
    configuration.write32(slot1 + 0x14, 0x4000_0000)
    configuration.write32(slot1 + 0x20, 0x0010_0000)
    configuration.write32(slot1 + 0x24, 4)
    // Memory space isn't enabled yet.
    #expect(memory32.read32(0x10) == 0xFFFF_FFFF)
    command(2)
    #expect(memory32.read32(0x10) == 0x1_0010)
    #expect(memory32.read32(0x1000) == 0xFFFF_FFFF)
    #expect(memory64.read32(0x10_3FFC) == 0x4_3FFC)
    memory64.write32(0x10_0004, 77)
    #expect(function.writes.map(\.value) == [77])
    configuration.write32(slot1 + 0x14, 0x4000_2000)
    #expect(memory32.read32(0x10) == 0xFFFF_FFFF)
    #expect(memory32.read32(0x2010) == 0x1_0010)
    // Outside the bridge's windows nothing answers, wherever the guest puts the register.
    for base in [0x8000_0000, 0, 0xC00_0000, 0xFFFF_F000] as [UInt32] {
      configuration.write32(slot1 + 0x14, base)
      #expect(memory32.read32(0x10) == 0xFFFF_FFFF)
    }
    configuration.write32(slot1 + 0x20, 0xFFFF_C000)
    configuration.write32(slot1 + 0x24, 0xFFFF_FFFF)
    #expect(memory64.read32(0x10_0000) == 0xFFFF_FFFF)
  }

  @Test func busMasteringIsPassedOn() {
    command(4)
    #expect(function.isBusMaster)
    command(0)
    #expect(!function.isBusMaster)
    command(4)
    bridge.reset()
    #expect(!function.isBusMaster)
    #expect(configuration.read32(slot1 + 4) & 0xFFFF == 0)
  }

  @Test func pinsReachTheirWires() {
    let line = bridge.interruptLine(slot: 1)
    line.set(true)
    #expect(wires.map(\.level) == [false, true, false, false])
    #expect(configuration.read32(slot1 + 4) & 1 << 19 != 0)
    command(1 << 10)
    #expect(!wires[1].level)
    command(0)
    #expect(wires[1].level)
    let sharing = bridge.interruptLine(slot: 5)
    sharing.set(true)
    line.set(false)
    #expect(wires[1].level)
    sharing.set(false)
    #expect(!wires[1].level)
  }

  @Test func stateIsTakenBack() throws {
    configuration.write32(slot1 + 0x14, 0x4000_0000)
    command(6)
    let saved = try bridge.encodedState()
    bridge.reset()
    #expect(memory32.read32(0) == 0xFFFF_FFFF)
    try bridge.restoreEncodedState(saved)
    #expect(memory32.read32(4) == 0x1_0004)
    #expect(function.isBusMaster)
    let other = PCIHostBridge(windows: [], interrupts: Array(repeating: .unconnected, count: 4))
    #expect(throws: StateError.self) { try other.restoreEncodedState(saved) }
  }
}

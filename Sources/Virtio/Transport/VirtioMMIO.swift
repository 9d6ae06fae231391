import Bus
import HostSystem

/// A virtio device behind memory-mapped registers, version 2 (virtio 1.2, 4.2). Its window has 0x200 bytes.
///
/// Registers are accessed with aligned 32-bit accesses, as the specification asks; others read as zero and are
/// ignored. The device's configuration space, from 0x100 on, may be accessed with any width.
public final class VirtioMMIO: BusDevice, StateKeeper {
  /// Bytes of the register window.
  public static let windowSize: UInt64 = 0x200

  /// The registers' offsets (4.2.2).
  enum Register {
    static let magic: UInt64 = 0x000
    static let version: UInt64 = 0x004
    static let deviceID: UInt64 = 0x008
    static let vendorID: UInt64 = 0x00c
    static let deviceFeatures: UInt64 = 0x010
    static let deviceFeaturesSelect: UInt64 = 0x014
    static let driverFeatures: UInt64 = 0x020
    static let driverFeaturesSelect: UInt64 = 0x024
    static let queueSelect: UInt64 = 0x030
    static let queueSizeMaximum: UInt64 = 0x034
    static let queueSize: UInt64 = 0x038
    static let queueReady: UInt64 = 0x044
    static let queueNotify: UInt64 = 0x050
    static let interruptStatus: UInt64 = 0x060
    static let interruptAcknowledge: UInt64 = 0x064
    static let status: UInt64 = 0x070
    static let queueDescriptorsLow: UInt64 = 0x080
    static let queueDescriptorsHigh: UInt64 = 0x084
    static let queueDriverLow: UInt64 = 0x090
    static let queueDriverHigh: UInt64 = 0x094
    static let queueDeviceLow: UInt64 = 0x0a0
    static let queueDeviceHigh: UInt64 = 0x0a4
    static let sharedMemory: ClosedRange<UInt64> = 0x0b0...0x0bf
    static let queueReset: UInt64 = 0x0c0
    static let configurationGeneration: UInt64 = 0x0fc
    static let configuration: UInt64 = 0x100

    static let magicValue: UInt64 = 0x7472_6976
    /// What drivers for this board look for: xv6 takes no other disk.
    static let vendorValue: UInt64 = 0x554D_4551
  }

  private final class Interrupts: VirtioInterrupts {
    let level: LevelInterrupt
    init(line: InterruptLine) { level = LevelInterrupt(line: line) }
    func usedBuffers(queue: Int) { level.raise(LevelInterrupt.usedBuffers) }
    func configurationChanged() { level.raise(LevelInterrupt.configuration) }
    func reset() { level.acknowledge(.max) }
  }

  public let stateIdentifier: String
  public let transport: VirtioTransport
  private let interrupts: Interrupts

  /// `identifier` names the slot in saved states ("virtio-mmio3"). `interrupt` is driven from the I/O thread and from
  /// hart threads, never with a lock of the device held.
  public init(
    device: any VirtioDevice, memory: GuestMemory, loop: EventLoop, interrupt: InterruptLine, identifier: String
  ) {
    stateIdentifier = identifier
    interrupts = Interrupts(line: interrupt)
    transport = VirtioTransport(device: device, memory: memory, loop: loop, interrupts: interrupts)
  }

  /// Starts the device's backend, before the first hart runs. Throws what the backend throws. Otherwise the backend
  /// starts with the driver, and a failure shows only in the device's status.
  public func start() throws { try transport.start() }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= Register.configuration {
      return transport.device.configuration.read(offset: offset - Register.configuration, width: width)
    }
    guard width == 4, offset % 4 == 0 else { return 0 }
    switch offset {
    case Register.magic: return Register.magicValue
    case Register.version: return 2
    case Register.deviceID: return UInt64(transport.device.deviceType)
    case Register.vendorID: return Register.vendorValue
    case Register.deviceFeatures:
      return UInt64(transport.offeredFeatureWord(transport.withRegisters { $0.deviceFeatureSelect }))
    case Register.queueSizeMaximum:
      let selected = transport.withRegisters { Int($0.queueSelect) }
      return selected < transport.queueMaximumSizes.count ? UInt64(transport.queueMaximumSizes[selected]) : 0
    case Register.queueReady: return transport.selectedQueue?.isEnabled == true ? 1 : 0
    case Register.interruptStatus: return UInt64(interrupts.level.status)
    case Register.status: return UInt64(transport.status.rawValue)
    // No shared memory: its length reads as all ones.
    case Register.sharedMemory: return 0xffff_ffff
    // The reset was finished when the write returned.
    case Register.queueReset: return 0
    case Register.configurationGeneration: return UInt64(transport.device.configuration.generation)
    default: return 0
    }
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    if offset >= Register.configuration {
      return transport.device.configurationWritten(
        offset: offset - Register.configuration, width: width, value: value)
    }
    guard width == 4, offset % 4 == 0 else { return }
    let word = UInt32(truncatingIfNeeded: value)
    switch offset {
    case Register.deviceFeaturesSelect: transport.withRegisters { $0.deviceFeatureSelect = word }
    case Register.driverFeatures: transport.setDriverFeatureWord(word)
    case Register.driverFeaturesSelect: transport.withRegisters { $0.driverFeatureSelect = word }
    case Register.queueSelect: transport.withRegisters { $0.queueSelect = word }
    case Register.queueSize:
      // A size beyond 16 bits can't be meant; 0 is refused with the other invalid ones when the device starts.
      transport.withSelectedQueue { $0.layout.size = UInt16(exactly: word) ?? 0 }
    case Register.queueReady:
      if word & 1 != 0 { transport.enableSelectedQueue() } else { transport.resetSelectedQueue() }
    case Register.queueNotify: transport.notify(queue: UInt64(word))
    case Register.interruptAcknowledge: interrupts.level.acknowledge(word)
    case Register.status: transport.writeStatus(UInt8(truncatingIfNeeded: word))
    case Register.queueDescriptorsLow: transport.withSelectedQueue { $0.layout.descriptors.setLow(word) }
    case Register.queueDescriptorsHigh: transport.withSelectedQueue { $0.layout.descriptors.setHigh(word) }
    case Register.queueDriverLow: transport.withSelectedQueue { $0.layout.available.setLow(word) }
    case Register.queueDriverHigh: transport.withSelectedQueue { $0.layout.available.setHigh(word) }
    case Register.queueDeviceLow: transport.withSelectedQueue { $0.layout.used.setLow(word) }
    case Register.queueDeviceHigh: transport.withSelectedQueue { $0.layout.used.setHigh(word) }
    case Register.queueReset: if word & 1 != 0 { transport.resetSelectedQueue() }
    default: break
    }
  }

  // MARK: Saved state

  public struct State: Codable {
    var transport: VirtioTransportState
    var interruptStatus: UInt32
  }
  public static let stateVersion = 1

  public func saveState() throws -> State {
    State(transport: try transport.saveState(), interruptStatus: interrupts.level.status)
  }

  public func restoreState(_ state: State) throws {
    interrupts.level.restore(status: state.interruptStatus, masked: false)
    try transport.restoreState(state.transport, identifier: stateIdentifier)
  }
}

extension PhysicalAddress {
  mutating func setLow(_ word: UInt32) { rawValue = rawValue & ~0xffff_ffff | UInt64(word) }
  mutating func setHigh(_ word: UInt32) { rawValue = rawValue & 0xffff_ffff | UInt64(word) << 32 }
}

import Bus
import HostSystem
import Synchronization

/// A modern virtio device as a PCI function (virtio 1.2, 4.1).
///
/// Two base address registers: 0 with the device's registers, 2 with the MSI-X table and pending bits. The host bridge
/// calls in with no lock held, since a device reset waits for the I/O thread (see `VirtioTransport`).
public final class VirtioPCI: PCIFunction, StateKeeper {
  enum Window {
    static let registers = 0
    static let messages = 2
    static let registersSize: UInt64 = 0x4000
    static let messagesSize: UInt64 = 0x1000
    static let pendingOffset: UInt64 = 0x800
  }

  /// Where the structures lie in the register window, a page each, and how large they are.
  enum Structure {
    static let common: UInt64 = 0x0000
    static let interruptStatus: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let notify: UInt64 = 0x3000
    static let size: UInt64 = 0x1000
    static let notifyMultiplier: UInt64 = 4
  }

  public let vendorIdentifier: UInt16 = 0x1af4
  public let deviceIdentifier: UInt16
  /// 1 or above: not a transitional device (4.1.2.1).
  public let revision: UInt8 = 1
  public let classCode: UInt32
  public let subsystemVendorIdentifier: UInt16 = 0x1af4
  /// 0x40 or above for a modern device (4.1.2.1).
  public let subsystemIdentifier: UInt16 = 0x1100
  public let baseAddressRegisters = [
    PCIBaseAddressRegister(index: Window.registers, size: Window.registersSize),
    PCIBaseAddressRegister(index: Window.messages, size: Window.messagesSize),
  ]
  public let stateIdentifier: String
  public let transport: VirtioTransport

  let interrupts: PCIVirtioInterrupts
  let capabilities: [UInt8]
  /// The window that the PCI configuration access capability reaches (4.1.4.9).
  let accessWindow = Mutex(AccessWindow())

  struct AccessWindow: Codable, Equatable {
    var bar: UInt8 = 0
    var offset: UInt32 = 0
    var length: UInt32 = 0
  }

  /// `identifier` names the function in saved states. `interrupt` is its INTx wire; `messages` sends its MSI-X messages.
  /// Both are called from the I/O thread and from hart threads, never with a lock of the device held.
  public init(
    device: any VirtioDevice, memory: GuestMemory, loop: EventLoop, interrupt: InterruptLine,
    messages: @escaping MessageInterruptSender, identifier: String
  ) {
    stateIdentifier = identifier
    deviceIdentifier = 0x1040 + UInt16(truncatingIfNeeded: device.deviceType)
    classCode = device.pciClassCode
    let queueCount = device.queueMaximumSizes.count
    interrupts = PCIVirtioInterrupts(queueCount: queueCount, line: interrupt, messages: messages)
    capabilities = Self.makeCapabilities(vectorCount: queueCount + 1)
    transport = VirtioTransport(device: device, memory: memory, loop: loop, interrupts: interrupts)
    // Off until the driver enables it, as the command register is after reset.
    transport.setMayAccessMemory(false)
  }

  /// Starts the device's backend, before the first hart runs. Throws what the backend throws. Otherwise the backend
  /// starts with the driver, and a failure shows only in the device's status.
  public func start() throws { try transport.start() }

  public func setBusMaster(_ enabled: Bool) {
    interrupts.table.setBusMaster(enabled)
    transport.setMayAccessMemory(enabled)
  }

  // MARK: Register windows

  public func read(bar: Int, offset: UInt64, width: Int) -> UInt64 {
    if bar == Window.messages {
      return offset < Window.pendingOffset
        ? interrupts.table.readTable(offset: offset, width: width)
        : interrupts.table.readPending(offset: offset - Window.pendingOffset, width: width)
    }
    guard bar == Window.registers else { return 0 }
    let within = offset % Structure.size
    switch offset - within {
    case Structure.common: return readCommon(within, width: width)
    // Read to clear.
    case Structure.interruptStatus: return within == 0 ? UInt64(interrupts.level.take()) : 0
    case Structure.device: return transport.device.configuration.read(offset: within, width: width)
    default: return 0
    }
  }

  public func write(bar: Int, offset: UInt64, width: Int, value: UInt64) {
    if bar == Window.messages {
      if offset < Window.pendingOffset { interrupts.table.writeTable(offset: offset, width: width, value: value) }
      return
    }
    guard bar == Window.registers else { return }
    let within = offset % Structure.size
    switch offset - within {
    case Structure.common: writeCommon(within, width: width, value: value)
    case Structure.device: transport.device.configurationWritten(offset: within, width: width, value: value)
    case Structure.notify:
      // Each queue has its own address; the value says the same (4.1.5.2).
      if within % Structure.notifyMultiplier == 0 { transport.notify(queue: within / Structure.notifyMultiplier) }
    default: break
    }
  }

  // MARK: Saved state

  public struct State: Codable {
    var transport: VirtioTransportState
    var interrupts: PCIVirtioInterrupts.State
    var accessWindow: AccessWindow
  }
  public static let stateVersion = 1

  public func saveState() throws -> State {
    State(
      transport: try transport.saveState(), interrupts: interrupts.saved, accessWindow: accessWindow.withLock { $0 })
  }

  public func restoreState(_ state: State) throws {
    guard interrupts.restore(state.interrupts) else {
      throw StateError("the saved state of '\(stateIdentifier)' is of a device with other interrupt vectors")
    }
    accessWindow.withLock { $0 = state.accessWindow }
    try transport.restoreState(state.transport, identifier: stateIdentifier)
  }
}

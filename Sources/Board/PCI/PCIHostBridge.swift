import Bus
import Synchronization

/// A PCI Express root bus behind a generic ECAM host bridge (PCI Express Base Specification, 7.2.2; PCI Local Bus 3.0):
/// bus 0 with 32 slots of one function each. It owns the standard header of each function and routes the memory
/// windows to whatever base address registers the guest has set.
public final class PCIHostBridge: StateKeeper, @unchecked Sendable {
  public static let slotCount = 32
  public static let stateVersion = 1
  public let stateIdentifier = "pci"

  /// The headers of all occupied slots.
  public struct State: Codable {
    var headers: [Int: PCIHeader]
  }

  private struct Slot {
    let function: any PCIFunction
    var header = PCIHeader()
    var interruptLevel = false
  }

  /// A base address register that answers now.
  struct Route {
    let base: UInt64
    let size: UInt64
    let function: any PCIFunction
    let bar: Int
  }

  private let windows: [MemoryMap.Region]
  private let wires: [SharedInterruptLine]
  private let slots = Mutex<[Int: Slot]>([:])
  private let routes = Mutex<[Route]>([])
  private let pins: Mutex<[Int: InterruptLine]> = Mutex([:])

  /// `windows`: the ranges of the bus that belong to PCI memory; registers set to anywhere else answer nowhere.
  /// `interrupts`: the four wires INTA to INTD of slot 0.
  public init(windows: [MemoryMap.Region], interrupts: [InterruptLine]) {
    precondition(interrupts.count == 4)
    self.windows = windows
    wires = interrupts.map(SharedInterruptLine.init)
    insert(PCIHostBridgeFunction(), slot: 0)
  }

  /// PLIC source of pin `pin` (0: INTA) of slot `slot`.
  static func interruptSource(slot: Int, pin: Int) -> Int { MemoryMap.Source.pciBase + (slot + pin) % 4 }

  /// Puts `function` into a free slot (1 to 31). Before the machine runs.
  public func insert(_ function: any PCIFunction, slot: Int) {
    precondition((0..<PCIHostBridge.slotCount).contains(slot))
    slots.withLock { slots in
      precondition(slots[slot] == nil, "PCI slot \(slot) is taken")
      slots[slot] = Slot(function: function)
    }
  }

  /// The interrupt pin INTA of a slot; quiet while the guest has it disabled in the command register.
  public func interruptLine(slot: Int) -> InterruptLine {
    let wire = wires[slot % 4].newEnd()
    pins.withLock { $0[slot] = wire }
    return InterruptLine { [weak self] level in
      guard let self else { return }
      slots.withLock { slots in
        slots[slot]?.interruptLevel = level
        wire.set(level && slots[slot]?.header.isInterruptDisabled != true)
      }
    }
  }

  // MARK: configuration space

  /// Reads an aligned 32-bit register of a slot's function; all ones where there is none.
  func readConfiguration(slot: Int, register: Int) -> UInt32 {
    let found: (UInt32?, any PCIFunction)? = slots.withLock { slots in
      guard let slot = slots[slot] else { return nil }
      guard register < 0x40 else { return (nil, slot.function) }
      return (slot.header.read(register, of: slot.function, interruptLevel: slot.interruptLevel), slot.function)
    }
    guard let (value, function) = found else { return .max }
    return value ?? function.readConfiguration(offset: UInt64(register), width: 4)
  }

  /// Reads `width` bytes (1, 2 or 4) that don't cross a register.
  func readConfiguration(slot: Int, offset: Int, width: Int) -> UInt32 {
    if offset >= 0x40, let function = slots.withLock({ $0[slot]?.function }) {
      return function.readConfiguration(offset: UInt64(offset), width: width)
    }
    let value = readConfiguration(slot: slot, register: offset & ~3) >> UInt32(8 * (offset & 3))
    return width == 4 ? value : value & (1 << UInt32(8 * width) - 1)
  }

  func writeConfiguration(slot: Int, offset: Int, width: Int, value: UInt32) {
    if offset >= 0x40 {
      slots.withLock { $0[slot]?.function }?.writeConfiguration(offset: UInt64(offset), width: width, value: value)
      return
    }
    let shift = UInt32(8 * (offset & 3))
    let mask: UInt32 = (width == 4 ? .max : 1 << UInt32(8 * width) - 1) << shift
    let busMaster: (any PCIFunction, Bool)? = slots.withLock { slots in
      guard var slot_ = slots[slot] else { return nil }
      let before = slot_.header
      slot_.header.write(offset & ~3, mask: mask, value: value << shift, of: slot_.function)
      slots[slot] = slot_
      apply(slots)
      if before.isInterruptDisabled != slot_.header.isInterruptDisabled {
        let pin = pins.withLock { $0[slot] }
        pin?.set(slot_.interruptLevel && !slot_.header.isInterruptDisabled)
      }
      guard before.isBusMaster != slot_.header.isBusMaster else { return nil }
      return (slot_.function, slot_.header.isBusMaster)
    }
    if let (function, enabled) = busMaster { function.setBusMaster(enabled) }
  }

  /// Routes anew what the headers say.
  private func apply(_ slots: [Int: Slot]) {
    var found: [Route] = []
    for (_, slot) in slots.sorted(by: { $0.key < $1.key }) where slot.header.isMemoryEnabled {
      for bar in slot.function.baseAddressRegisters {
        let base = slot.header.base(of: bar)
        guard
          windows.contains(where: { window in
            let offset = base &- window.base.rawValue
            return offset < window.size && bar.size <= window.size - offset
          })
        else { continue }
        found.append(Route(base: base, size: bar.size, function: slot.function, bar: bar.index))
      }
    }
    routes.withLock { $0 = found }
  }

  /// What answers at a physical address.
  func route(_ address: UInt64, width: Int) -> Route? {
    routes.withLock { routes in
      routes.first { address &- $0.base < $0.size && UInt64(width) <= $0.size - (address &- $0.base) }
    }
  }

  // MARK: state

  /// All headers as at power-on; functions are reset by whoever owns them.
  public func reset() {
    let functions = slots.withLock { slots in
      for slot in slots.keys { slots[slot]?.header = PCIHeader() }
      apply(slots)
      return slots.values.map(\.function)
    }
    for function in functions { function.setBusMaster(false) }
  }

  public func saveState() -> State { State(headers: slots.withLock { $0.mapValues(\.header) }) }

  public func restoreState(_ saved: State) throws {
    let functions = try slots.withLock { slots in
      guard Set(saved.headers.keys) == Set(slots.keys), saved.headers.values.allSatisfy(\.isWhole) else {
        throw StateError("the saved machine has other PCI devices")
      }
      for (slot, header) in saved.headers { slots[slot]?.header = header }
      apply(slots)
      return slots.values.map { ($0.function, $0.header.isBusMaster) }
    }
    for (function, enabled) in functions { function.setBusMaster(enabled) }
  }
}

/// The bridge itself, as the bus sees it (the identity of QEMU's generic host bridge).
final class PCIHostBridgeFunction: PCIFunction {
  let vendorIdentifier: UInt16 = 0x1B36
  let deviceIdentifier: UInt16 = 0x0008
  let revision: UInt8 = 0
  let classCode: UInt32 = 0x06_00_00
  let subsystemVendorIdentifier: UInt16 = 0x1AF4
  let subsystemIdentifier: UInt16 = 0x1100
  let baseAddressRegisters: [PCIBaseAddressRegister] = []
  let capabilityPointer: UInt8 = 0

  func readConfiguration(offset: UInt64, width: Int) -> UInt32 { 0 }
  func writeConfiguration(offset: UInt64, width: Int, value: UInt32) {}
  func read(bar: Int, offset: UInt64, width: Int) -> UInt64 { 0 }
  func write(bar: Int, offset: UInt64, width: Int, value: UInt64) {}
  func setBusMaster(_ enabled: Bool) {}
}

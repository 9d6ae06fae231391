import Synchronization

/// A window of device registers. Called on hart threads, several at once: a device guards its own state.
///
/// `offset` is below the window's size, `width` is 1, 2, 4 or 8 bytes and the access lies whole within the window.
/// Registers that don't exist read as zero and ignore writes, unless the device's specification says otherwise.
public protocol BusDevice: AnyObject {
  func read(offset: UInt64, width: Int) -> UInt64
  func write(offset: UInt64, width: Int, value: UInt64)
}

/// What a physical address reaches: RAM, or a device's window. Fixed before the first hart runs, except for windows
/// that move (PCI base address registers).
public final class AddressSpace: @unchecked Sendable {
  public struct Window {
    public let base: PhysicalAddress
    public let size: UInt64
    public let device: any BusDevice
  }

  public let memory: GuestMemory
  private let windows = Mutex<[Window]>([])

  public init(memory: GuestMemory) { self.memory = memory }

  /// Puts a device's window at `base`. A window that overlaps an earlier one hides behind it.
  public func attach(_ device: any BusDevice, at base: PhysicalAddress, size: UInt64) {
    windows.withLock { $0.append(Window(base: base, size: size, device: device)) }
  }

  /// Takes every window of `device` away.
  public func detach(_ device: any BusDevice) {
    windows.withLock { $0.removeAll { $0.device === device } }
  }

  /// Takes every window away.
  public func detachAll() {
    let windows = self.windows.withLock { windows in
      defer { windows = [] }
      return windows
    }
    // Devices go here, if at all: outside of the lock.
    _ = consume windows
  }

  /// Reads `width` bytes (1, 2, 4 or 8). Nil: nothing answers there (an access fault).
  public func read(_ address: PhysicalAddress, width: Int) -> UInt64? {
    if let bytes = memory.bytes(at: address, count: UInt64(width)) {
      switch width {
      case 1: return UInt64(bytes.loadUnaligned(as: UInt8.self))
      case 2: return UInt64(bytes.loadUnaligned(as: UInt16.self))
      case 4: return UInt64(bytes.loadUnaligned(as: UInt32.self))
      default: return bytes.loadUnaligned(as: UInt64.self)
      }
    }
    guard let window = window(at: address, width: width) else { return nil }
    return window.device.read(offset: address.rawValue &- window.base.rawValue, width: width)
  }

  /// Writes the low `width` bytes of `value`. False: nothing answers there (an access fault).
  public func write(_ address: PhysicalAddress, width: Int, value: UInt64) -> Bool {
    if let bytes = memory.bytes(at: address, count: UInt64(width)) {
      switch width {
      case 1: bytes.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
      case 2: bytes.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
      case 4: bytes.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
      default: bytes.storeBytes(of: value, as: UInt64.self)
      }
      return true
    }
    guard let window = window(at: address, width: width) else { return false }
    window.device.write(offset: address.rawValue &- window.base.rawValue, width: width, value: value)
    return true
  }

  private func window(at address: PhysicalAddress, width: Int) -> Window? {
    windows.withLock { windows in
      windows.first { window in
        let offset = address.rawValue &- window.base.rawValue
        return offset < window.size && UInt64(width) <= window.size &- offset
      }
    }
  }
}

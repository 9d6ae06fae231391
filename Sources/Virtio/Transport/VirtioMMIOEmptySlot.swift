import Bus

/// A virtio-mmio slot without a device: device ID 0, which a driver passes over (virtio 1.2, 4.2.2).
public final class VirtioMMIOEmptySlot: BusDevice {
  public init() {}

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard width == 4 else { return 0 }
    switch offset {
    case VirtioMMIO.Register.magic: return VirtioMMIO.Register.magicValue
    case VirtioMMIO.Register.version: return 2
    case VirtioMMIO.Register.vendorID: return VirtioMMIO.Register.vendorValue
    default: return 0
    }
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {}
}

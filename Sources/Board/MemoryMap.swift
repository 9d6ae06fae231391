import Bus

/// Where everything stands on the physical bus: the addresses and interrupt numbers of QEMU's `virt` machine
/// (QEMU, hw/riscv/virt.c and docs/system/riscv/virt), so that guests made for it run unchanged.
public enum MemoryMap {
  /// One window of the bus.
  public struct Region: Hashable, Sendable {
    public let base: PhysicalAddress
    /// Bytes.
    public let size: UInt64

    init(_ base: UInt64, _ size: UInt64) {
      self.base = PhysicalAddress(base)
      self.size = size
    }

    /// One past the last address.
    public var end: UInt64 { base.rawValue &+ size }

    public func contains(_ address: PhysicalAddress) -> Bool { address.rawValue &- base.rawValue < size }
  }

  public static let resetROM = Region(0x1000, 0x1000)
  public static let testFinisher = Region(0x10_0000, 0x1000)
  public static let realTimeClock = Region(0x10_1000, 0x1000)
  public static let generationIdentifier = Region(0x10_2000, 0x1000)
  public static let clint = Region(0x200_0000, 0x1_0000)
  public static let pciPorts = Region(0x300_0000, 0x1_0000)
  public static let plic = Region(0xC00_0000, 0x60_0000)
  public static let uart = Region(0x1000_0000, 0x100)
  public static let virtioBase: UInt64 = 0x1000_1000
  public static let virtioSlotSize: UInt64 = 0x1000
  public static let virtioSlotCount = 8
  public static let flash0 = Region(0x2000_0000, 0x200_0000)
  public static let flash1 = Region(0x2200_0000, 0x200_0000)
  public static let pciConfiguration = Region(0x3000_0000, 0x1000_0000)
  public static let pciMemory32 = Region(0x4000_0000, 0x4000_0000)
  public static let ramBase: UInt64 = 0x8000_0000

  /// The 64-bit PCI memory window: 16 GiB, at the first multiple of its size above RAM.
  public static func pciMemory64(ramSize: UInt64) -> Region {
    let size: UInt64 = 16 << 30
    return Region((ramBase + ramSize + size - 1) / size * size, size)
  }

  /// Slot `slot` (0 to 7) of the virtio-mmio row.
  public static func virtioMMIO(slot: Int) -> Region {
    Region(virtioBase + UInt64(slot) * virtioSlotSize, virtioSlotSize)
  }

  /// PLIC source numbers.
  public enum Source {
    public static let uart = 10
    public static let realTimeClock = 11
    public static let generationIdentifier = 12
    /// INTA to INTD of PCI slot 0.
    public static let pciBase = 32
    public static func virtioMMIO(slot: Int) -> Int { 1 + slot }
  }
}

extension CFIFlash {
  /// Manufacturer (Intel) and device (28F128J3), then the lock status of blocks: none locked.
  static func identifier(_ index: Int) -> UInt8 {
    switch index {
    case 0: return 0x89
    case 1: return 0x18
    default: return 0
    }
  }

  /// The CFI query of one chip (JESD68.01): geometry and command set.
  static func queryTable(_ index: Int) -> UInt8 {
    let blocks = blockCount - 1
    // Each chip has half of a block.
    let chipBlock = blockSize / 2 / 256
    switch index {
    // "QRY", the Intel/Sharp extended command set, and where its own table lies.
    case 0x10: return 0x51
    case 0x11: return 0x52
    case 0x12: return 0x59
    case 0x13: return 0x01
    case 0x15: return 0x31
    // Supply voltages, then typical and longest times as powers of two.
    case 0x1B: return 0x45
    case 0x1C: return 0x55
    case 0x1F, 0x20: return 0x07
    case 0x21: return 0x0A
    case 0x23, 0x24, 0x25: return 0x04
    // 16 MiB a chip, 8 or 16 bits wide, buffer of 2 KiB, one kind of erase block.
    case 0x27: return 24
    case 0x28: return 0x02
    case 0x2A: return 11
    case 0x2C: return 1
    case 0x2D: return UInt8(blocks & 0xFF)
    case 0x2E: return UInt8(blocks >> 8)
    case 0x2F: return UInt8(chipBlock & 0xFF)
    case 0x30: return UInt8(chipBlock >> 8)
    // "PRI" 1.0, one protection field (which is empty).
    case 0x31: return 0x50
    case 0x32: return 0x52
    case 0x33: return 0x49
    case 0x34: return 0x31
    case 0x35: return 0x30
    case 0x3F: return 1
    default: return 0
    }
  }
}

import Bus

/// A window that reads as fixed bytes and ignores writes (the reset ROM).
final class ReadOnlyMemory: BusDevice {
  private let bytes: [UInt8]

  /// What lies beyond `bytes` reads as zero.
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func read(offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width {
      guard offset < UInt64(bytes.count), Int(offset) + index < bytes.count else { break }
      value |= UInt64(bytes[Int(offset) + index]) << UInt64(8 * index)
    }
    return value
  }

  func write(offset: UInt64, width: Int, value: UInt64) {}
}

/// A part of the bus where nothing answers and nobody complains: reads give all ones, as on PCI.
final class OpenBus: BusDevice {
  func read(offset: UInt64, width: Int) -> UInt64 { width >= 8 ? .max : 1 << UInt64(8 * width) - 1 }
  func write(offset: UInt64, width: Int, value: UInt64) {}
}

/// The jumps of x86-64 code that are led elsewhere later: what changes is a distance of 32 bits, counted from its own end.
enum HostJump {
  /// Bytes of the distance.
  static let size = 4

  /// What stands at `place`, as an address that executes, for a jump to `target`.
  static func distance(at place: UnsafeRawPointer, to target: UInt) -> Int32 {
    Int32(truncatingIfNeeded: Int(bitPattern: target) &- Int(bitPattern: place + size))
  }

  /// Where the jump goes whose distance executes at `place`.
  static func target(at place: UnsafeRawPointer) -> UInt {
    UInt(bitPattern: place + size) &+ UInt(bitPattern: Int(place.loadUnaligned(as: Int32.self)))
  }

  /// Writes a jump to `target`, which executes at `place`, to `location`.
  static func write(_ location: UnsafeMutablePointer<UInt8>, at place: UnsafeRawPointer, to target: UInt) {
    location.pointee = 0xE9
    UnsafeMutableRawPointer(location + 1).storeBytes(of: distance(at: place + 1, to: target), as: Int32.self)
  }
}

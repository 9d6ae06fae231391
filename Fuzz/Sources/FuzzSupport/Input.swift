import Foundation

/// Reads an input piece by piece; beyond its end everything is zero.
public struct Input {
  private let bytes: UnsafeRawBufferPointer
  private var position = 0

  public init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  public var isAtEnd: Bool { position >= bytes.count }

  public mutating func byte() -> UInt8 {
    defer { position += 1 }
    return position < bytes.count ? bytes[position] : 0
  }

  /// A little-endian number of `count` bytes (1 to 8).
  public mutating func number(_ count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(byte()) << UInt64(8 * $1) }
  }

  /// The next `count` bytes, or what is left.
  public mutating func take(_ count: Int) -> [UInt8] {
    let start = min(position, bytes.count)
    let end = min(start + count, bytes.count)
    position = end
    return Array(bytes[start..<end])
  }
}

/// Little-endian bytes.
public func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
  withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// Puts inputs to begin with where the fuzzer looks for them (YADORI_FUZZ_SEEDS).
public func writeSeeds(_ seeds: [[UInt8]]) {
  guard let folder = ProcessInfo.processInfo.environment["YADORI_FUZZ_SEEDS"] else { return }
  for (number, seed) in seeds.enumerated() {
    try? Data(seed).write(to: URL(fileURLWithPath: "\(folder)/\(number)"))
  }
}

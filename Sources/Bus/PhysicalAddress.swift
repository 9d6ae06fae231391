/// An address on the guest's physical bus. Its own type, so that it can't be taken for a host address or a length.
public struct PhysicalAddress: RawRepresentable, Hashable, Comparable, Codable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64

  @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inline(__always)
  public init(_ value: UInt64) { rawValue = value }

  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  /// Wraps at 2^64, as guest arithmetic does; whoever uses the result checks it again.
  public static func + (address: Self, offset: UInt64) -> Self { Self(address.rawValue &+ offset) }

  public var description: String { "0x" + String(rawValue, radix: 16) }
}

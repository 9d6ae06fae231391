import HostSystem

/// The guest's RAM: one contiguous block of the physical address space, zero when new. Devices reach it only through
/// the checked accessors here; the guest and other threads may change its bytes at any moment.
public final class GuestMemory: @unchecked Sendable {
  private let mapping: MemoryMapping
  public let base: PhysicalAddress
  /// Bytes of RAM, a multiple of 4096.
  public let size: UInt64
  /// Where the byte at `base` lies in this process.
  public let host: UnsafeMutableRawPointer

  /// Throws `HostError` when the host can't map `size` bytes.
  public init(base: PhysicalAddress, size: UInt64) throws {
    precondition(size % 4096 == 0 && size > 0)
    mapping = try MemoryMapping(anonymous: Int(size))
    self.base = base
    self.size = size
    host = mapping.base
  }

  /// The host bytes of `[address, address + count)`, or nil when any of them lies outside RAM.
  @inline(__always)
  public func bytes(at address: PhysicalAddress, count: UInt64) -> UnsafeMutableRawBufferPointer? {
    let offset = address.rawValue &- base.rawValue
    guard offset <= size, count <= size &- offset else { return nil }
    return UnsafeMutableRawBufferPointer(start: host + Int(offset), count: Int(count))
  }

  /// Reads a little-endian integer, or nil outside RAM. Alignment doesn't matter; an aligned one is read whole.
  @inline(__always)
  public func load<Value: FixedWidthInteger & BitwiseCopyable>(
    _ address: PhysicalAddress, as type: Value.Type
  ) -> Value? {
    guard let bytes = bytes(at: address, count: UInt64(MemoryLayout<Value>.size)) else { return nil }
    return Value(littleEndian: bytes.baseAddress!.loadUnaligned(as: Value.self))
  }

  /// Writes a little-endian integer; false, and nothing written, outside RAM.
  @inline(__always)
  public func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at address: PhysicalAddress) -> Bool {
    guard let bytes = bytes(at: address, count: UInt64(MemoryLayout<Value>.size)) else { return false }
    bytes.baseAddress!.storeBytes(of: value.littleEndian, as: Value.self)
    return true
  }

  /// Copies `source` into RAM; false, and nothing written, when it doesn't fit there.
  public func copy(_ source: UnsafeRawBufferPointer, to address: PhysicalAddress) -> Bool {
    guard let target = bytes(at: address, count: UInt64(source.count)) else { return false }
    target.copyMemory(from: source)
    return true
  }
}

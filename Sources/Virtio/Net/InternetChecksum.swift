/// The ones' complement sum of RFC 1071. It doesn't depend on the byte order, so long as words are read and the result
/// is stored in the same one: this is the host's.
struct InternetChecksum {
  private var sum: UInt64 = 0

  /// Adds bytes that begin at an even offset of what is summed; an odd last byte is padded with zero.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    var sum = self.sum
    while offset + 4 <= bytes.count {
      sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      offset += 4
    }
    if offset + 2 <= bytes.count {
      sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset += 2
    }
    if offset < bytes.count { sum &+= UInt64(UInt16(bytes[offset]).littleEndian) }
    self.sum = sum
  }

  /// Adds a 16-bit number.
  mutating func add(_ value: UInt16) { sum &+= UInt64(value.bigEndian) }

  /// The checksum, to be stored as it is in host memory.
  var folded: UInt16 {
    var sum = self.sum
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    return ~UInt16(sum)
  }

  /// The same, with 0 as 0xffff: for UDP, 0 would mean that there is none.
  var foldedNonzero: UInt16 {
    let value = folded
    return value == 0 ? 0xffff : value
  }
}

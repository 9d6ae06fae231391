/// An IEEE 754 binary interchange format of at most 64 bits. Another format (binary16, bfloat16) needs only a conformance
/// here to get every operation of `SoftwareFloat`.
package protocol BinaryFormat {
  /// An unsigned integer as wide as the format.
  associatedtype Bits: FixedWidthInteger & UnsignedInteger
  /// Bits of the trailing significand, without the hidden one.
  static var fractionBits: Int { get }
}

package enum Binary32: BinaryFormat {
  package typealias Bits = UInt32
  @inline(__always)
  package static var fractionBits: Int { 23 }
}

package enum Binary64: BinaryFormat {
  package typealias Bits = UInt64
  @inline(__always)
  package static var fractionBits: Int { 52 }
}

/// A finite number other than zero, taken apart: (-1)^isNegative * significand * 2^(exponent - 63), where bit 63 of the
/// significand is set.
struct UnpackedFloat {
  var isNegative: Bool
  var exponent: Int
  var significand: UInt64
}

/// IEEE 754 arithmetic on raw bits in pure integer operations, as the RISC-V F and D extensions define it: all rounding
/// modes and flags, tininess detected after rounding, every NaN result canonical.
///
/// It is the complete implementation, for any format and mode; `HostAssistedFloat` puts a quick path in front.
package enum SoftwareFloat<Format: BinaryFormat> {
  package typealias Bits = Format.Bits

  @inline(__always)
  static var signBit: Bits { 1 << Bits(truncatingIfNeeded: Bits.bitWidth &- 1) }
  @inline(__always)
  static var exponentBits: Int { Bits.bitWidth &- 1 &- Format.fractionBits }
  /// The exponent field of infinities and NaNs.
  @inline(__always)
  static var maximumExponentField: Int { (1 &<< exponentBits) &- 1 }
  @inline(__always)
  static var bias: Int { maximumExponentField &>> 1 }

  @inline(__always)
  package static var infinity: Bits {
    Bits(truncatingIfNeeded: UInt64(truncatingIfNeeded: maximumExponentField) &<< UInt64(Format.fractionBits))
  }
  /// The canonical NaN: positive, quiet, payload zero (Unprivileged Architecture, F, "NaN Generation and Propagation").
  @inline(__always)
  package static var canonicalNaN: Bits { infinity | quietBit }
  @inline(__always)
  static var quietBit: Bits { 1 &<< Bits(truncatingIfNeeded: Format.fractionBits &- 1) }

  @inline(__always)
  static func isNegative(_ value: Bits) -> Bool { value & signBit != 0 }
  @inline(__always)
  static func magnitude(_ value: Bits) -> Bits { value & ~signBit }
  @inline(__always)
  static func isNaN(_ value: Bits) -> Bool { magnitude(value) > infinity }
  @inline(__always)
  static func isSignalingNaN(_ value: Bits) -> Bool { isNaN(value) && value & quietBit == 0 }
  @inline(__always)
  static func isInfinite(_ value: Bits) -> Bool { magnitude(value) == infinity }
  @inline(__always)
  static func isZero(_ value: Bits) -> Bool { magnitude(value) == 0 }

  @inline(__always)
  static func zero(negative: Bool) -> Bits { negative ? signBit : 0 }
  @inline(__always)
  static func infinity(negative: Bool) -> Bits { zero(negative: negative) | infinity }

  /// Takes a finite number other than zero apart.
  @inline(__always)
  static func unpack(_ value: Bits) -> UnpackedFloat {
    let raw = UInt64(truncatingIfNeeded: magnitude(value))
    let field = Int(truncatingIfNeeded: raw &>> UInt64(Format.fractionBits))
    if field == 0 {
      let shift = raw.leadingZeroBitCount
      return UnpackedFloat(
        isNegative: isNegative(value), exponent: 64 &- bias &- Format.fractionBits &- shift,
        significand: raw &<< UInt64(truncatingIfNeeded: shift))
    }
    return UnpackedFloat(
      isNegative: isNegative(value), exponent: field &- bias,
      significand: (raw &<< UInt64(63 &- Format.fractionBits)) | 1 &<< 63)
  }

  /// The result of an operation with a NaN among its operands.
  @inline(__always)
  static func nan(from first: Bits, _ second: Bits, _ flags: inout UInt8) -> Bits {
    if isSignalingNaN(first) || isSignalingNaN(second) { flags |= FloatingPointFlags.invalid }
    return canonicalNaN
  }

  /// The result of an operation that has none.
  @inline(__always)
  static func invalid(_ flags: inout UInt8) -> Bits {
    flags |= FloatingPointFlags.invalid
    return canonicalNaN
  }
}

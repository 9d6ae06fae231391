extension SoftwareFloat {
  /// FCVT to an integer (Unprivileged Architecture, F, table 31): a NaN or a number above the range makes the greatest
  /// integer, one below the least, and NV; what is in range after rounding raises at most NX.
  ///
  /// The caller extends the result to the register's width, always by its top bit (even FCVT.WU).
  @inline(__always)
  package static func integer<Integer: FixedWidthInteger>(
    _ type: Integer.Type, _ a: Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Integer {
    if isZero(a) { return 0 }
    let negative = isNegative(a) && !isNaN(a)
    // The greatest magnitude of this sign.
    let limit = UInt64(truncatingIfNeeded: negative ? Integer.min.magnitude : Integer.max.magnitude)
    let x = unpack(a)
    var whole: UInt64 = 0
    var fraction: UInt64 = 0  // The places after the point, from the top of the word.
    var isOutOfRange = false
    switch x.exponent {
    case 64...: isOutOfRange = true
    case 63: whole = x.significand
    case 0..<63:
      whole = x.significand &>> UInt64(truncatingIfNeeded: 63 &- x.exponent)
      fraction = x.significand &<< UInt64(truncatingIfNeeded: x.exponent &+ 1)
    default: fraction = shiftRightSticky(x.significand, by: -1 &- x.exponent)
    }
    if roundsAway(whole: whole, fraction: fraction, rounding, negative: negative) { whole &+= 1 }

    if isOutOfRange || whole > limit || isInfinite(a) || isNaN(a) {
      flags |= FloatingPointFlags.invalid
      return negative ? .min : .max
    }
    if fraction != 0 { flags |= FloatingPointFlags.inexact }
    return Integer(truncatingIfNeeded: negative ? 0 &- whole : whole)
  }

  /// FCVT from an integer.
  @inline(__always)
  package static func float<Integer: FixedWidthInteger>(
    _ value: Integer, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits {
    if value == 0 { return 0 }
    let magnitude = UInt64(truncatingIfNeeded: value.magnitude)
    let shift = magnitude.leadingZeroBitCount
    let unpacked = UnpackedFloat(
      isNegative: value < 0, exponent: 63 &- shift, significand: magnitude &<< UInt64(truncatingIfNeeded: shift))
    return round(unpacked, rounding, &flags)
  }

  /// FCVT from another format, wider or narrower.
  @inline(__always)
  package static func convert<Source: BinaryFormat>(
    from format: Source.Type, _ value: Source.Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits {
    typealias From = SoftwareFloat<Source>
    if From.isNaN(value) { return From.isSignalingNaN(value) ? invalid(&flags) : canonicalNaN }
    let negative = From.isNegative(value)
    if From.isInfinite(value) { return infinity(negative: negative) }
    if From.isZero(value) { return zero(negative: negative) }
    return round(From.unpack(value), rounding, &flags)
  }

  @inline(__always)
  private static func roundsAway(whole: UInt64, fraction: UInt64, _ rounding: RoundingMode, negative: Bool) -> Bool {
    let half: UInt64 = 1 << 63
    switch rounding {
    case .nearestEven: return fraction > half || (fraction == half && whole & 1 != 0)
    case .nearestMaxMagnitude: return fraction >= half
    case .towardZero: return false
    case .down: return negative && fraction != 0
    case .up: return !negative && fraction != 0
    }
  }
}

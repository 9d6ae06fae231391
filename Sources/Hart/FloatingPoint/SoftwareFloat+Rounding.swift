extension SoftwareFloat {
  /// What is added below the last kept place before cutting there. `mask` covers the places that are cut off.
  @inline(__always)
  static func roundingIncrement(_ rounding: RoundingMode, negative: Bool, mask: UInt64) -> UInt64 {
    switch rounding {
    case .nearestEven, .nearestMaxMagnitude: (mask &>> 1) &+ 1
    case .towardZero: 0
    case .down: negative ? mask : 0
    case .up: negative ? 0 : mask
    }
  }

  /// Rounds a number to the format and raises OF, UF and NX. Low bits of the significand that stand for more than
  /// themselves ("sticky") must lie below the place after the last kept one.
  @inline(__always)
  static func round(_ value: UnpackedFloat, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    let cut = UInt64(63 &- Format.fractionBits)
    let mask: UInt64 = (1 &<< cut) &- 1
    let half: UInt64 = 1 &<< (cut &- 1)
    let increment = roundingIncrement(rounding, negative: value.isNegative, mask: mask)

    var significand = value.significand
    var field = value.exponent &+ bias
    var isTiny = false
    if field <= 0 {
      // Tiny after rounding: still below the smallest normal number if the exponent had no bound.
      isTiny = field < 0 || !significand.addingReportingOverflow(increment).overflow
      significand = shiftRightSticky(significand, by: 1 &- field)
      field = 1
    }

    let lost = significand & mask
    let (sum, carry) = significand.addingReportingOverflow(increment)
    var kept = sum &>> cut
    if lost == half && rounding == .nearestEven { kept &= ~1 }
    if carry { kept = 2 &<< UInt64(Format.fractionBits) }
    // The hidden bit adds one to the exponent field, and a carry out of the significand another.
    let packed = UInt64(truncatingIfNeeded: field &- 1) &<< UInt64(Format.fractionBits) &+ kept

    if field &+ (carry ? 1 : 0) >= maximumExponentField {
      flags |= FloatingPointFlags.overflow | FloatingPointFlags.inexact
      // An increment of zero means: rounds towards zero for this sign.
      return infinity(negative: value.isNegative) &- (increment == 0 ? 1 : 0)
    }
    if lost != 0 {
      flags |= FloatingPointFlags.inexact | (isTiny ? FloatingPointFlags.underflow : 0)
    }
    return zero(negative: value.isNegative) | Bits(truncatingIfNeeded: packed)
  }

  /// Shifts right by `count` >= 0; ones that fall off leave the lowest bit set.
  @inline(__always)
  static func shiftRightSticky<Word: FixedWidthInteger & UnsignedInteger>(_ value: Word, by count: Int) -> Word {
    if count >= Word.bitWidth { return value != 0 ? 1 : 0 }
    let shift = Word(truncatingIfNeeded: count)
    let lost = value & ((1 &<< shift) &- 1)
    return (value &>> shift) | (lost != 0 ? 1 : 0)
  }
}

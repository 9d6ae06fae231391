extension SoftwareFloat {
  /// FDIV.
  @inline(__always)
  package static func divide(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if isNaN(a) || isNaN(b) { return nan(from: a, b, &flags) }
    let negative = isNegative(a ^ b)
    if isInfinite(a) { return isInfinite(b) ? invalid(&flags) : infinity(negative: negative) }
    if isInfinite(b) { return zero(negative: negative) }
    if isZero(b) {
      if isZero(a) { return invalid(&flags) }
      flags |= FloatingPointFlags.divideByZero
      return infinity(negative: negative)
    }
    if isZero(a) { return zero(negative: negative) }

    let x = unpack(a)
    let y = unpack(b)
    // The high half of the dividend stays below the divisor, so that the quotient has exactly 64 places.
    let lessThanOne = x.significand < y.significand
    let high = lessThanOne ? x.significand : x.significand &>> 1
    let low = lessThanOne ? 0 : x.significand &<< 63
    let (quotient, remainder) = y.significand.dividingFullWidth((high, low))
    let result = UnpackedFloat(
      isNegative: negative, exponent: x.exponent &- y.exponent &- (lessThanOne ? 1 : 0),
      significand: quotient | (remainder != 0 ? 1 : 0))
    return round(result, rounding, &flags)
  }

  /// FSQRT.
  @inline(__always)
  package static func squareRoot(_ a: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if isNaN(a) { return nan(from: a, a, &flags) }
    if isZero(a) { return a }
    if isNegative(a) { return invalid(&flags) }
    if isInfinite(a) { return a }

    let x = unpack(a)
    // A radicand in [1, 4) times an even power of two, with two places before the point at the top of the word.
    var pending = x.exponent & 1 == 0 ? x.significand &>> 1 : x.significand
    var root: UInt64 = 0
    var remainder: UInt64 = 0
    // One place of the root for each two of the radicand, as by hand: up to the place after the last kept one.
    for _ in 0..<(Format.fractionBits &+ 2) {
      remainder = remainder &<< 2 | pending &>> 62
      pending &<<= 2
      let trial = root &<< 2 | 1
      root &<<= 1
      if remainder >= trial {
        remainder &-= trial
        root |= 1
      }
    }
    let result = UnpackedFloat(
      isNegative: false, exponent: x.exponent &>> 1,
      significand: root &<< UInt64(62 &- Format.fractionBits) | (remainder | pending != 0 ? 1 : 0))
    return round(result, rounding, &flags)
  }
}

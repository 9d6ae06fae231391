extension SoftwareFloat {
  /// FMUL.
  @inline(__always)
  package static func multiply(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if isNaN(a) || isNaN(b) { return nan(from: a, b, &flags) }
    let negative = isNegative(a ^ b)
    if isInfinite(a) || isInfinite(b) {
      return isZero(a) || isZero(b) ? invalid(&flags) : infinity(negative: negative)
    }
    if isZero(a) || isZero(b) { return zero(negative: negative) }

    let x = unpack(a)
    let y = unpack(b)
    let product = x.significand.multipliedFullWidth(by: y.significand)
    let shift = product.high.leadingZeroBitCount  // 0 or 1
    let high = product.high | (product.low != 0 ? 1 : 0)
    let result = UnpackedFloat(
      isNegative: negative, exponent: x.exponent &+ y.exponent &+ 1 &- shift,
      significand: high &<< UInt64(truncatingIfNeeded: shift))
    return round(result, rounding, &flags)
  }

  /// FMADD: a * b + c, rounded once. The other three are this one with operands negated (their sign bit turned over):
  /// FMSUB c; FNMSUB a; FNMADD a and c.
  @inline(__always)
  package static func multiplyAdd(
    _ a: Bits, _ b: Bits, _ c: Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits {
    let productIsInvalid = (isInfinite(a) && isZero(b)) || (isZero(a) && isInfinite(b))
    // Infinity times zero is invalid even when the addend is a quiet NaN.
    if productIsInvalid { return invalid(&flags) }
    if isNaN(a) || isNaN(b) || isNaN(c) {
      if isSignalingNaN(c) { flags |= FloatingPointFlags.invalid }
      return nan(from: a, b, &flags)
    }
    let negative = isNegative(a ^ b)
    if isInfinite(a) || isInfinite(b) {
      return isInfinite(c) && isNegative(c) != negative ? invalid(&flags) : infinity(negative: negative)
    }
    if isInfinite(c) { return c }
    if isZero(a) || isZero(b) {
      return isZero(c) ? sumOfZeros(zero(negative: negative), c, rounding) : c
    }

    // The exact product, with its leading one at bit 126, one place below the top.
    let x = unpack(a)
    let y = unpack(b)
    let (high, low) = x.significand.multipliedFullWidth(by: y.significand)
    var product = UInt128(high) &<< 64 | UInt128(low)
    var productExponent = x.exponent &+ y.exponent
    if high &>> 63 != 0 {
      product &>>= 1  // A significand has zeros below, so that nothing is lost.
      productExponent &+= 1
    }
    var sum = product
    var exponent = productExponent
    var resultIsNegative = negative
    if !isZero(c) {
      let z = unpack(c)
      var addend = UInt128(z.significand) &<< 63
      if productExponent >= z.exponent {
        addend = shiftRightSticky(addend, by: productExponent &- z.exponent)
      } else {
        product = shiftRightSticky(product, by: z.exponent &- productExponent)
        exponent = z.exponent
      }
      if z.isNegative == negative {
        sum = product &+ addend
      } else if product == addend {
        return zero(negative: rounding == .down)
      } else if product > addend {
        sum = product &- addend
      } else {
        sum = addend &- product
        resultIsNegative = z.isNegative
      }
    }
    let shift = sum.leadingZeroBitCount
    sum &<<= UInt128(truncatingIfNeeded: shift)
    let sticky: UInt64 = UInt64(truncatingIfNeeded: sum) != 0 ? 1 : 0
    let result = UnpackedFloat(
      isNegative: resultIsNegative, exponent: exponent &+ 1 &- shift,
      significand: UInt64(truncatingIfNeeded: sum &>> 64) | sticky)
    return round(result, rounding, &flags)
  }
}

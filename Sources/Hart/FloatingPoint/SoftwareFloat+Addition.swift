extension SoftwareFloat {
  /// FADD (Unprivileged Architecture, F, "Single-Precision Floating-Point Computational Instructions").
  @inline(__always)
  package static func add(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if isNaN(a) || isNaN(b) { return nan(from: a, b, &flags) }
    if isInfinite(a) { return isInfinite(b) && a != b ? invalid(&flags) : a }
    if isInfinite(b) { return b }
    if isZero(a) { return isZero(b) ? sumOfZeros(a, b, rounding) : b }
    if isZero(b) { return a }

    var large = unpack(a)
    var small = unpack(b)
    if large.exponent < small.exponent { swap(&large, &small) }
    // One place of headroom for the carry. At least ten places remain below the last kept one.
    let first = large.significand &>> 1
    let second = shiftRightSticky(small.significand &>> 1, by: large.exponent &- small.exponent)
    var sum = first &+ second
    var negative = large.isNegative
    if large.isNegative != small.isNegative {
      sum = first &- second
      if sum == 0 { return zero(negative: rounding == .down) }
      if second > first {
        sum = 0 &- sum
        negative.toggle()
      }
    }
    let shift = sum.leadingZeroBitCount
    let result = UnpackedFloat(
      isNegative: negative, exponent: large.exponent &+ 1 &- shift,
      significand: sum &<< UInt64(truncatingIfNeeded: shift))
    return round(result, rounding, &flags)
  }

  /// FSUB.
  @inline(__always)
  package static func subtract(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    // A NaN keeps its signaling nature with the other sign, and no NaN's sign reaches a result.
    add(a, b ^ signBit, rounding, &flags)
  }

  /// Zeros of one sign keep it; of two signs, they make +0, or -0 when rounding down (IEEE 754, 6.3).
  @inline(__always)
  static func sumOfZeros(_ a: Bits, _ b: Bits, _ rounding: RoundingMode) -> Bits {
    a == b ? a : zero(negative: rounding == .down)
  }
}

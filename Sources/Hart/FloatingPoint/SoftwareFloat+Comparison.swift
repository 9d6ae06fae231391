extension SoftwareFloat {
  /// FEQ: quiet, only a signaling NaN is invalid.
  @inline(__always)
  package static func isEqual(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool {
    if isNaN(a) || isNaN(b) {
      _ = nan(from: a, b, &flags)
      return false
    }
    return a == b || isZero(a | b)
  }

  /// FLT: signaling, any NaN is invalid.
  @inline(__always)
  package static func isLess(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool {
    if isNaN(a) || isNaN(b) {
      flags |= FloatingPointFlags.invalid
      return false
    }
    return !isZero(a | b) && isOrderedBefore(a, b)
  }

  /// FLE: signaling, any NaN is invalid.
  @inline(__always)
  package static func isLessOrEqual(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool {
    if isNaN(a) || isNaN(b) {
      flags |= FloatingPointFlags.invalid
      return false
    }
    return a == b || isZero(a | b) || isOrderedBefore(a, b)
  }

  /// FMIN (version 2.2, IEEE 754-2019 minimumNumber): the number where only one operand is a NaN; -0 is less than +0.
  @inline(__always)
  package static func minimum(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bits {
    if isNaN(a) || isNaN(b) { return number(of: a, b, &flags) }
    return isOrderedBefore(a, b) ? a : b
  }

  /// FMAX (version 2.2, IEEE 754-2019 maximumNumber).
  @inline(__always)
  package static func maximum(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bits {
    if isNaN(a) || isNaN(b) { return number(of: a, b, &flags) }
    return isOrderedBefore(a, b) ? b : a
  }

  /// FSGNJ: `a` with the sign of `b`.
  @inline(__always)
  package static func copySign(_ a: Bits, _ b: Bits) -> Bits { magnitude(a) | (b & signBit) }

  /// FSGNJN: `a` with the opposite of the sign of `b`.
  @inline(__always)
  package static func copyNegatedSign(_ a: Bits, _ b: Bits) -> Bits { magnitude(a) | (~b & signBit) }

  /// FSGNJX: `a` with the exclusive or of both signs.
  @inline(__always)
  package static func xorSign(_ a: Bits, _ b: Bits) -> Bits { a ^ (b & signBit) }

  /// FCLASS: one of ten bits (Unprivileged Architecture, F, "Single-Precision Floating-Point Classify Instruction").
  @inline(__always)
  package static func classify(_ a: Bits) -> UInt64 {
    if isNaN(a) { return isSignalingNaN(a) ? 1 << 8 : 1 << 9 }
    // Bits 0 to 3 are the negative classes from infinity to zero, bits 4 to 7 the positive ones back to infinity.
    let rank: UInt64
    if isInfinite(a) {
      rank = 0
    } else if isZero(a) {
      rank = 3
    } else {
      rank = magnitude(a) &>> Bits(truncatingIfNeeded: Format.fractionBits) == 0 ? 2 : 1
    }
    return 1 &<< (isNegative(a) ? rank : 7 &- rank)
  }

  /// The total order of numbers that aren't NaN, where -0 comes before +0.
  @inline(__always)
  static func isOrderedBefore(_ a: Bits, _ b: Bits) -> Bool {
    switch (isNegative(a), isNegative(b)) {
    case (false, false): a < b
    case (true, true): a > b
    case (let negative, _): negative
    }
  }

  @inline(__always)
  private static func number(of a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bits {
    let result = nan(from: a, b, &flags)
    if !isNaN(a) { return a }
    return isNaN(b) ? result : b
  }
}

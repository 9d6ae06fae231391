/// How a floating-point result that doesn't fit is rounded, by the encoding in `frm` and in the instruction's `rm` field
/// (Unprivileged Architecture, F, table 29). 5 and 6 are reserved; 7 (dynamic) stands for `frm` and is resolved by the
/// caller.
package enum RoundingMode: UInt8, Sendable, CaseIterable {
  /// RNE: to nearest, ties to even.
  case nearestEven = 0
  /// RTZ: towards zero.
  case towardZero = 1
  /// RDN: towards minus infinity.
  case down = 2
  /// RUP: towards plus infinity.
  case up = 3
  /// RMM: to nearest, ties away from zero.
  case nearestMaxMagnitude = 4
}

/// The accrued exception flags, as bits of `fflags` (Unprivileged Architecture, F, table 30). Every operation here takes
/// the flags so far as `inout UInt8` and only ever adds bits.
package enum FloatingPointFlags {
  /// NX: the result was rounded.
  package static let inexact: UInt8 = 1 << 0
  /// UF: the result was rounded, and tiny even after rounding to unbounded exponent range.
  package static let underflow: UInt8 = 1 << 1
  /// OF: the rounded result was above the largest finite number.
  package static let overflow: UInt8 = 1 << 2
  /// DZ: a finite number divided by zero.
  package static let divideByZero: UInt8 = 1 << 3
  /// NV: the operation has no useful result.
  package static let invalid: UInt8 = 1 << 4
}

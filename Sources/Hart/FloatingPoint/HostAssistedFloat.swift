/// A format the host computes in.
package protocol HostFormat: BinaryFormat {
  associatedtype Host: BinaryFloatingPoint
  static func host(_ bits: Bits) -> Host
  static func bits(_ host: Host) -> Bits
}

extension Binary32: HostFormat {
  @inline(__always)
  package static func host(_ bits: UInt32) -> Float { Float(bitPattern: bits) }
  @inline(__always)
  package static func bits(_ host: Float) -> UInt32 { host.bitPattern }
}

extension Binary64: HostFormat {
  @inline(__always)
  package static func host(_ bits: UInt64) -> Double { Double(bitPattern: bits) }
  @inline(__always)
  package static func bits(_ host: Double) -> UInt64 { host.bitPattern }
}

/// Arithmetic of F (`Float32Bits`) and D (`Float64Bits`) on raw bits, as a hart executes it.
///
/// The host's own instruction does the work where its result and flags are certain to be the guest's, without a look at
/// the host's flags: when rounding is to nearest even (the host's mode, which nothing in this process changes) and NX is
/// set already, so that inexactness shows nothing new. Only OF, UF, DZ and NV are left, and the result tells: one that
/// is finite had finite operands and none of OF, DZ and NV, and one above the smallest normal number can't have been
/// tiny. (The smallest normal number itself can be a tiny one rounded up.) Everything else goes to `SoftwareFloat`,
/// which is also where the first inexact operation of a program sets NX.
///
/// QEMU calls the same idea "hardfloat".
package enum HostAssistedFloat<Format: HostFormat> {
  package typealias Bits = Format.Bits
  package typealias Software = SoftwareFloat<Format>

  @inline(__always)
  static func mayUseHost(_ rounding: RoundingMode, _ flags: UInt8) -> Bool {
    rounding == .nearestEven && flags & FloatingPointFlags.inexact != 0
  }

  @inline(__always)
  static func isFinite(_ value: Bits) -> Bool { Software.magnitude(value) < Software.infinity }

  /// Finite, and above the smallest normal number.
  @inline(__always)
  static func isClearlyNormal(_ value: Bits) -> Bool {
    let smallestNormal: Bits = 1 &<< Bits(truncatingIfNeeded: Format.fractionBits)
    return Software.magnitude(value) &- (smallestNormal &+ 1) < Software.infinity &- (smallestNormal &+ 1)
  }

  @inline(__always)
  package static func add(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(a) + Format.host(b))
      // A sum that is subnormal or zero is exact.
      if isFinite(result) { return result }
    }
    return softwareAdd(a, b, rounding, &flags)
  }

  @inline(__always)
  package static func subtract(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(a) - Format.host(b))
      if isFinite(result) { return result }
    }
    return softwareAdd(a, b ^ Software.signBit, rounding, &flags)
  }

  @inline(__always)
  package static func multiply(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(a) * Format.host(b))
      if isClearlyNormal(result) { return result }
      if Software.isZero(result) && (Software.isZero(a) || Software.isZero(b)) { return result }
    }
    return softwareMultiply(a, b, rounding, &flags)
  }

  @inline(__always)
  package static func divide(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(a) / Format.host(b))
      if isClearlyNormal(result) { return result }
      if Software.isZero(result) && Software.isZero(a) { return result }
    }
    return softwareDivide(a, b, rounding, &flags)
  }

  @inline(__always)
  package static func squareRoot(_ a: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(a).squareRoot())
      // A root neither overflows nor gets tiny.
      if isFinite(result) { return result }
    }
    return softwareSquareRoot(a, rounding, &flags)
  }

  /// a * b + c, rounded once; see `SoftwareFloat.multiplyAdd`.
  @inline(__always)
  package static func multiplyAdd(
    _ a: Bits, _ b: Bits, _ c: Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits {
    if mayUseHost(rounding, flags) {
      let result = Format.bits(Format.host(c).addingProduct(Format.host(a), Format.host(b)))
      if isClearlyNormal(result) { return result }
    }
    return softwareMultiplyAdd(a, b, c, rounding, &flags)
  }

  @inline(__always)
  package static func isEqual(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool { Software.isEqual(a, b, &flags) }
  @inline(__always)
  package static func isLess(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool { Software.isLess(a, b, &flags) }
  @inline(__always)
  package static func isLessOrEqual(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bool {
    Software.isLessOrEqual(a, b, &flags)
  }
  @inline(__always)
  package static func minimum(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bits { Software.minimum(a, b, &flags) }
  @inline(__always)
  package static func maximum(_ a: Bits, _ b: Bits, _ flags: inout UInt8) -> Bits { Software.maximum(a, b, &flags) }
  @inline(__always)
  package static func copySign(_ a: Bits, _ b: Bits) -> Bits { Software.copySign(a, b) }
  @inline(__always)
  package static func copyNegatedSign(_ a: Bits, _ b: Bits) -> Bits { Software.copyNegatedSign(a, b) }
  @inline(__always)
  package static func xorSign(_ a: Bits, _ b: Bits) -> Bits { Software.xorSign(a, b) }
  @inline(__always)
  package static func negate(_ a: Bits) -> Bits { a ^ Software.signBit }
  @inline(__always)
  package static func classify(_ a: Bits) -> UInt64 { Software.classify(a) }

  /// To an integer; see `SoftwareFloat.integer`.
  @inline(__always)
  package static func integer<Integer: FixedWidthInteger>(
    _ type: Integer.Type, _ a: Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Integer { Software.integer(type, a, rounding, &flags) }

  /// From an integer.
  @inline(__always)
  package static func float<Integer: FixedWidthInteger>(
    _ value: Integer, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits { Software.float(value, rounding, &flags) }

  /// From another format.
  @inline(__always)
  package static func convert<Source: BinaryFormat>(
    from format: Source.Type, _ value: Source.Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits { Software.convert(from: format, value, rounding, &flags) }
}

/// The rare way, kept out of the interpreter's code.
extension HostAssistedFloat {
  @inline(never)
  static func softwareAdd(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    Software.add(a, b, rounding, &flags)
  }
  @inline(never)
  static func softwareMultiply(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    Software.multiply(a, b, rounding, &flags)
  }
  @inline(never)
  static func softwareDivide(_ a: Bits, _ b: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    Software.divide(a, b, rounding, &flags)
  }
  @inline(never)
  static func softwareSquareRoot(_ a: Bits, _ rounding: RoundingMode, _ flags: inout UInt8) -> Bits {
    Software.squareRoot(a, rounding, &flags)
  }
  @inline(never)
  static func softwareMultiplyAdd(
    _ a: Bits, _ b: Bits, _ c: Bits, _ rounding: RoundingMode, _ flags: inout UInt8
  ) -> Bits {
    Software.multiplyAdd(a, b, c, rounding, &flags)
  }
}

/// Arithmetic of the F extension.
package typealias Float32Bits = HostAssistedFloat<Binary32>
/// Arithmetic of the D extension.
package typealias Float64Bits = HostAssistedFloat<Binary64>

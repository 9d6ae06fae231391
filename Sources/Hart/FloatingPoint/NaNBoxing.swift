/// Single-precision numbers in 64-bit registers (Unprivileged Architecture, D, "NaN Boxing of Narrower Values").
package enum NaNBoxing {
  /// The register content for a single-precision number: ones above it.
  @inline(__always)
  package static func box(_ value: UInt32) -> UInt64 { 0xffff_ffff_0000_0000 | UInt64(value) }

  /// The single-precision number in a register: the canonical NaN where the bits above it aren't all ones.
  @inline(__always)
  package static func unbox(_ register: UInt64) -> UInt32 {
    register >= 0xffff_ffff_0000_0000 ? UInt32(truncatingIfNeeded: register) : SoftwareFloat<Binary32>.canonicalNaN
  }
}

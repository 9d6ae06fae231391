/// Operand values at which integer instructions tend to go wrong.
enum IntegerOperands {
  static let directed: [UInt64] = [
    0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
    0x1_0000_0000, 0xffff_ffff_8000_0000, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, 0xffff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fffe, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0x0102_0304_0506_0708,
  ]

  /// A number of random width, sometimes negative, sometimes sparse.
  static func random(_ generator: inout SeededGenerator) -> UInt64 {
    let width = UInt64.random(in: 1...64, using: &generator)
    var value = generator.next() >> (64 - width)
    switch Int.random(in: 0..<6, using: &generator) {
    case 0: value = 0 &- value
    case 1: value &= generator.next() & generator.next()
    case 2: value = directed.randomElement(using: &generator)!
    default: break
    }
    return value
  }
}

/// Floating-point operands, as raw bits of a format with `fractionBits` bits of fraction in `width` bits.
struct FloatingPointOperands {
  let width: Int
  let fractionBits: Int
  let directed: [UInt64]
  /// A few of the directed values, for instructions with three operands.
  let essential: [UInt64]

  static let single = FloatingPointOperands(width: 32, fractionBits: 23)
  static let double = FloatingPointOperands(width: 64, fractionBits: 52)

  private init(width: Int, fractionBits: Int) {
    self.width = width
    self.fractionBits = fractionBits
    let sign: UInt64 = 1 << (width - 1)
    let ulp: UInt64 = 1 << fractionBits
    let infinity = (sign - 1) & ~(ulp - 1)
    let quiet = ulp >> 1
    let bias = (1 << (width - fractionBits - 2)) - 1
    func power(_ exponent: Int) -> UInt64 { UInt64(exponent + bias) << fractionBits }
    let one = power(0)
    var positive: [UInt64] = [
      0, 1, 2, ulp >> 1, ulp - 1, ulp, ulp + 1,  // zero, subnormal, the smallest normal
      one - 1, one, one + 1, one + (ulp >> 1), power(1), power(1) + (ulp >> 1), power(1) + (ulp >> 2),
      power(-1) - 1, power(-1), power(-1) + 1, power(-2),
      infinity - 1, infinity - 2, infinity - ulp, infinity,
    ]
    // Around the ends of the integers, and where the last place is a half, one, two.
    for exponent in [31, 32, 63, 64, fractionBits - 1, fractionBits, fractionBits + 1] {
      positive += [power(exponent) - 1, power(exponent), power(exponent) + 1]
    }
    let nans = [infinity | quiet, infinity | quiet | 0x1234, infinity | 1, infinity | (quiet - 1)]
    directed = (positive + nans).flatMap { [$0, $0 | sign] }
    essential =
      [0, 1, ulp - 1, ulp, one, one + 1, one - 1, power(1) + (ulp >> 1), infinity - 1, infinity].flatMap {
        [$0, $0 | sign]
      }
      + [infinity | quiet, infinity | 1, power(fractionBits), power(-bias / 2)]
  }

  /// Random numbers whose exponents lie so that sums align, and products and quotients come close to the ends of the
  /// range; with fractions that are dense, sparse or close to a power of two.
  func random(_ count: Int, _ generator: inout SeededGenerator) -> [UInt64] {
    let maximum = (1 << (width - fractionBits - 1)) - 1
    let bias = maximum >> 1
    var exponent = Int.random(in: 0...maximum, using: &generator)
    var values: [UInt64] = []
    for _ in 0..<count {
      let fractionMask: UInt64 = (1 << fractionBits) - 1
      var fraction = generator.next() & fractionMask
      switch Int.random(in: 0..<6, using: &generator) {
      case 0: fraction &= generator.next() & generator.next()
      case 1: fraction = 1 << UInt64.random(in: 0..<UInt64(fractionBits), using: &generator)
      case 2: fraction = fractionMask ^ (fraction >> UInt64.random(in: 0..<UInt64(fractionBits), using: &generator))
      case 3: fraction >>= UInt64.random(in: 0..<UInt64(fractionBits), using: &generator)
      default: break
      }
      let sign = (generator.next() & 1) << UInt64(width - 1)
      values.append(sign | UInt64(exponent) << fractionBits | fraction)
      let near = Int.random(in: -3...3, using: &generator)
      switch Int.random(in: 0..<6, using: &generator) {
      case 0: exponent = Int.random(in: 0...maximum, using: &generator)
      case 1: exponent += near
      case 2: exponent += Int.random(in: -fractionBits - 2...fractionBits + 2, using: &generator)
      case 3: exponent = bias - exponent + near  // a product near the smallest normal number
      case 4: exponent = 3 * bias - exponent + near  // a product near the greatest number
      default: exponent = bias + Int.random(in: -70...70, using: &generator)
      }
      exponent = min(max(exponent, 0), maximum)
    }
    return values
  }
}

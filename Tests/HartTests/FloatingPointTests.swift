import Hart
import Testing

private typealias Single = SoftwareFloat<Binary32>
private typealias Double64 = SoftwareFloat<Binary64>

private let nx = FloatingPointFlags.inexact
private let uf = FloatingPointFlags.underflow
private let of = FloatingPointFlags.overflow
private let dz = FloatingPointFlags.divideByZero
private let nv = FloatingPointFlags.invalid

/// What the F and D chapters and IEEE 754 say outright, in single precision.
struct FloatingPointDefinitionTests {
  static let one: UInt32 = 0x3f80_0000
  static let negativeOne: UInt32 = 0xbf80_0000
  static let largest: UInt32 = 0x7f7f_ffff
  static let smallestNormal: UInt32 = 0x0080_0000
  static let infinity: UInt32 = 0x7f80_0000
  static let negativeInfinity: UInt32 = 0xff80_0000
  static let negativeZero: UInt32 = 0x8000_0000
  static let nan: UInt32 = 0x7fc0_0000
  static let quiet: UInt32 = 0xffc1_2345
  static let signaling: UInt32 = 0x7f80_0001

  private func expect(
    _ result: UInt32, _ flags: UInt8, sourceLocation: SourceLocation = #_sourceLocation,
    _ operation: (inout UInt8) -> UInt32
  ) {
    var raised: UInt8 = 0
    let actual = operation(&raised)
    #expect(actual == result, sourceLocation: sourceLocation)
    #expect(raised == flags, sourceLocation: sourceLocation)
  }

  @Test func everyNaNResultIsCanonical() {
    expect(Self.nan, 0) { Single.add(Self.quiet, Self.one, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.multiply(Self.one, Self.signaling, .nearestEven, &$0) }
    expect(Self.nan, 0) { Single.squareRoot(Self.quiet, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.convert(from: Binary64.self, 0xfff0_0000_0000_0001, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.add(Self.infinity, Self.negativeInfinity, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.subtract(Self.infinity, Self.infinity, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.multiply(0, Self.infinity, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.divide(0, Self.negativeZero, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.divide(Self.infinity, Self.infinity, .nearestEven, &$0) }
    expect(Self.nan, nv) { Single.squareRoot(Self.negativeOne, .nearestEven, &$0) }
  }

  @Test func infinityTimesZeroIsInvalidEvenWithQuietAddend() {
    expect(Self.nan, nv) { Single.multiplyAdd(Self.infinity, 0, Self.quiet, .nearestEven, &$0) }
    expect(Self.nan, nv) { Float32Bits.multiplyAdd(Self.negativeZero, Self.infinity, Self.one, .nearestEven, &$0) }
  }

  @Test(arguments: RoundingMode.allCases) func overflowGoesWhereTheModeSays(_ mode: RoundingMode) {
    let up: UInt32 = mode == .towardZero || mode == .down ? Self.largest : Self.infinity
    let down: UInt32 = mode == .towardZero || mode == .up ? Self.largest : Self.infinity
    expect(up, of | nx) { Single.add(Self.largest, Self.largest, mode, &$0) }
    expect(down | 1 << 31, of | nx) { Single.multiply(Self.largest, Self.largest | 1 << 31, mode, &$0) }
  }

  @Test(arguments: RoundingMode.allCases) func cancellationMakesPositiveZeroExceptDown(_ mode: RoundingMode) {
    let zero = mode == .down ? Self.negativeZero : 0
    expect(zero, 0) { Single.add(Self.one, Self.negativeOne, mode, &$0) }
    expect(zero, 0) { Single.add(0, Self.negativeZero, mode, &$0) }
    expect(zero, 0) { Single.multiplyAdd(Self.one, Self.one, Self.negativeOne, mode, &$0) }
    expect(Self.negativeZero, 0) { Single.add(Self.negativeZero, Self.negativeZero, mode, &$0) }
    expect(Self.negativeZero, 0) { Single.squareRoot(Self.negativeZero, mode, &$0) }
  }

  @Test func tininessIsDetectedAfterRounding() {
    // Both numbers lie just below the smallest normal one and become it. Only the closer one would also reach it if the
    // exponent had no bound, and so isn't tiny.
    let closer: UInt64 = 0x380f_ffff_ff00_0000  // 2^-126 * (1 - 2^-29)
    let further: UInt64 = 0x380f_ffff_e000_0000  // 2^-126 * (1 - 2^-24)
    expect(Self.smallestNormal, nx) { Single.convert(from: Binary64.self, closer, .nearestEven, &$0) }
    expect(Self.smallestNormal, nx | uf) { Single.convert(from: Binary64.self, further, .nearestEven, &$0) }
    // An exact subnormal result raises nothing.
    expect(0x0040_0000, 0) { Single.multiply(Self.smallestNormal, 0x3f00_0000, .nearestEven, &$0) }
  }

  @Test func divisionByZeroMakesInfinity() {
    expect(Self.negativeInfinity, dz) { Single.divide(Self.one, Self.negativeZero, .towardZero, &$0) }
    expect(Self.infinity, 0) { Single.divide(Self.infinity, 0, .towardZero, &$0) }
  }

  @Test func minimumAndMaximumPreferNumbers() {
    expect(Self.one, 0) { Single.minimum(Self.one, Self.quiet, &$0) }
    expect(Self.one, nv) { Single.maximum(Self.signaling, Self.one, &$0) }
    expect(Self.nan, 0) { Single.minimum(Self.quiet, Self.quiet, &$0) }
    expect(Self.nan, nv) { Single.maximum(Self.quiet, Self.signaling, &$0) }
    expect(Self.negativeZero, 0) { Single.minimum(0, Self.negativeZero, &$0) }
    expect(0, 0) { Single.maximum(Self.negativeZero, 0, &$0) }
  }

  @Test func comparisonsSignalAsTheyShould() {
    var flags: UInt8 = 0
    #expect(!Single.isEqual(Self.quiet, Self.quiet, &flags) && flags == 0)
    #expect(!Single.isEqual(Self.one, Self.signaling, &flags) && flags == nv)
    flags = 0
    #expect(!Single.isLess(Self.quiet, Self.one, &flags) && flags == nv)
    flags = 0
    #expect(!Single.isLessOrEqual(Self.one, Self.quiet, &flags) && flags == nv)
    flags = 0
    #expect(Single.isEqual(0, Self.negativeZero, &flags) && Single.isLessOrEqual(0, Self.negativeZero, &flags))
    #expect(!Single.isLess(Self.negativeZero, 0, &flags) && Single.isLess(Self.negativeOne, Self.one, &flags))
    #expect(flags == 0)
  }

  @Test func classesHaveTheirBits() {
    let classes: [UInt32] = [
      Self.negativeInfinity, Self.negativeOne, 0x8000_0001, Self.negativeZero, 0, 1, Self.one, Self.infinity,
      Self.signaling, Self.quiet,
    ]
    for (bit, value) in classes.enumerated() { #expect(Single.classify(value) == 1 << UInt64(bit)) }
  }

  @Test func conversionsToIntegersSaturate() {
    func check<Integer: FixedWidthInteger>(_ bits: UInt32, _ result: Integer, _ flags: UInt8, _ mode: RoundingMode) {
      var raised: UInt8 = 0
      #expect(Single.integer(Integer.self, bits, mode, &raised) == result)
      #expect(raised == flags)
    }
    check(Self.quiet, Int32.max, nv, .nearestEven)
    check(Self.signaling, UInt64.max, nv, .nearestEven)
    check(Self.negativeInfinity, Int64.min, nv, .nearestEven)
    check(Self.infinity, UInt32.max, nv, .nearestEven)
    check(Self.negativeOne, UInt32(0), nv, .nearestEven)
    check(0xbf00_0000, UInt32(0), nx, .nearestEven)  // -0.5
    check(0xbf00_0000, UInt32(0), nv, .nearestMaxMagnitude)  // -0.5 away from zero
    check(0xbf7f_ffff, UInt64(0), nx, .towardZero)
    check(0xbf7f_ffff, UInt64(0), nv, .down)
    check(0x4f00_0000, Int32.max, nv, .nearestEven)  // 2^31
    check(0xcf00_0000, Int32.min, 0, .nearestEven)
    check(0x4f80_0000, Int64(1) << 32, 0, .nearestEven)
    check(0x5f80_0000, UInt64.max, nv, .nearestEven)  // 2^64
    check(0x5f7f_ffff, UInt64(0xffff_ff00_0000_0000), 0, .nearestEven)
    check(0x4020_0000, Int32(2), nx, .nearestEven)  // 2.5
    check(0x4020_0000, Int32(3), nx, .nearestMaxMagnitude)
    check(0x0000_0001, Int32(1), nx, .up)
  }

  @Test func signsAreInjected() {
    #expect(Single.copySign(Self.one, Self.quiet) == Self.negativeOne)
    #expect(Single.copyNegatedSign(Self.signaling, Self.one) == Self.signaling | 1 << 31)
    #expect(Single.xorSign(Self.negativeOne, Self.negativeOne) == Self.one)
  }

  @Test func boxesAreCheckedOnOpening() {
    #expect(NaNBoxing.unbox(NaNBoxing.box(Self.one)) == Self.one)
    #expect(NaNBoxing.unbox(UInt64(Self.one)) == Self.nan)
    #expect(NaNBoxing.unbox(0x7fff_ffff_3f80_0000) == Self.nan)
  }
}

/// The integer implementation against this host's floating-point unit, and against itself in other modes.
struct FloatingPointHostTests {
  #if DEBUG
    static let rounds = 3_000
  #else
    static let rounds = 100_000
  #endif

  @Test func singleAgreesWithTheHost() { agree(Binary32.self, .single) }
  @Test func doubleAgreesWithTheHost() { agree(Binary64.self, .double) }

  private func operands<Format: BinaryFormat>(
    _ format: Format.Type, _ values: FloatingPointOperands, _ generator: inout SeededGenerator
  ) -> [Format.Bits] {
    values.random(3, &generator).map {
      let value = Int.random(in: 0..<8, using: &generator) == 0 ? values.directed.randomElement(using: &generator)! : $0
      return Format.Bits(truncatingIfNeeded: value)
    }
  }

  private func agree<Format: HostFormat>(_ format: Format.Type, _ values: FloatingPointOperands) {
    typealias Software = SoftwareFloat<Format>
    typealias Assisted = HostAssistedFloat<Format>
    typealias Operation = (Format.Bits, Format.Bits, Format.Bits, RoundingMode, inout UInt8) -> Format.Bits
    let operations: [(String, Operation, Operation, (Format.Host, Format.Host, Format.Host) -> Format.Host)] = [
      ("add", { Software.add($0, $1, $3, &$4) }, { Assisted.add($0, $1, $3, &$4) }, { a, b, _ in a + b }),
      (
        "subtract", { Software.subtract($0, $1, $3, &$4) }, { Assisted.subtract($0, $1, $3, &$4) }, { a, b, _ in a - b }
      ),
      (
        "multiply", { Software.multiply($0, $1, $3, &$4) }, { Assisted.multiply($0, $1, $3, &$4) }, { a, b, _ in a * b }
      ),
      ("divide", { Software.divide($0, $1, $3, &$4) }, { Assisted.divide($0, $1, $3, &$4) }, { a, b, _ in a / b }),
      (
        "square root", { a, _, _, mode, flags in Software.squareRoot(a, mode, &flags) },
        { a, _, _, mode, flags in Assisted.squareRoot(a, mode, &flags) }, { a, _, _ in a.squareRoot() }
      ),
      ("multiply-add", Software.multiplyAdd, Assisted.multiplyAdd, { a, b, c in c.addingProduct(a, b) }),
    ]
    var generator = SeededGenerator(seed: 6)
    var mistakes: [String] = []
    for (name, software, assisted, host) in operations {
      for _ in 0..<Self.rounds {
        let s = operands(format, values, &generator)
        let unit = host(Format.host(s[0]), Format.host(s[1]), Format.host(s[2]))
        let expected = unit.isNaN ? Software.canonicalNaN : Format.bits(unit)
        var flags: UInt8 = 0
        let result = software(s[0], s[1], s[2], .nearestEven, &flags)
        var fastFlags = nx
        let fast = assisted(s[0], s[1], s[2], .nearestEven, &fastFlags)
        // Directed rounding brackets the exact result; the other modes take one of its ends.
        let ends = [RoundingMode.down, .up, .towardZero, .nearestMaxMagnitude].map { mode -> (Format.Bits, UInt8) in
          var flags: UInt8 = 0
          let result = software(s[0], s[1], s[2], mode, &flags)
          return (result, flags)
        }
        let (low, high) = (Format.host(ends[0].0), Format.host(ends[1].0))
        let bracketed =
          expected == Software.canonicalNaN
          || (flags & nx == 0 ? low == high : low.nextUp == high) && low <= unit && unit <= high
            && (ends[2].0 == ends[0].0 || ends[2].0 == ends[1].0) && (ends[3].0 == ends[0].0 || ends[3].0 == ends[1].0)
        let sameNX = ends.allSatisfy { ($0.1 ^ flags) & (nx | nv | dz) == 0 }
        if result != expected || fast != expected || fastFlags != flags | nx || !bracketed || !sameNX {
          mistakes.append("\(name) of \(s.map { String($0, radix: 16) }): \(String(result, radix: 16)), flags \(flags)")
        }
      }
    }
    #expect(mistakes.isEmpty, "\(mistakes.count) wrong, such as \(mistakes.prefix(5))")
  }

  @Test func conversionsAgreeWithTheHost() {
    var generator = SeededGenerator(seed: 7)
    for _ in 0..<Self.rounds {
      let integer = IntegerOperands.random(&generator)
      var flags: UInt8 = 0
      #expect(Single.float(integer, .nearestEven, &flags) == Float(integer).bitPattern)
      #expect(
        Single.float(Int64(bitPattern: integer), .nearestEven, &flags) == Float(Int64(bitPattern: integer)).bitPattern)
      flags = 0
      let signed = Double64.float(Int64(bitPattern: integer), .nearestEven, &flags)
      #expect(signed == Double(Int64(bitPattern: integer)).bitPattern)
      #expect((flags == 0) == (Double(exactly: Int64(bitPattern: integer)) != nil))

      let bits = FloatingPointOperands.double.random(1, &generator)[0]
      let value = Double(bitPattern: bits)
      if value.isNaN { continue }
      #expect(Single.convert(from: Binary64.self, bits, .nearestEven, &flags) == Float(value).bitPattern)
      let single = UInt32(truncatingIfNeeded: FloatingPointOperands.single.random(1, &generator)[0])
      if !Float(bitPattern: single).isNaN {
        #expect(
          Double64.convert(from: Binary32.self, single, .nearestEven, &flags)
            == Double(Float(bitPattern: single)).bitPattern)
      }
      let rules: [(RoundingMode, FloatingPointRoundingRule)] = [
        (.nearestEven, .toNearestOrEven), (.towardZero, .towardZero), (.down, .down), (.up, .up),
        (.nearestMaxMagnitude, .toNearestOrAwayFromZero),
      ]
      for (mode, rule) in rules {
        flags = 0
        let rounded = value.rounded(rule)
        let result = Double64.integer(Int64.self, bits, mode, &flags)
        if let exact = Int64(exactly: rounded) {
          #expect(result == exact && flags == (rounded == value ? 0 : nx))
        } else {
          #expect(result == (value < 0 ? .min : .max) && flags == nv)
        }
      }
    }
  }
}

/// Another format needs nothing but its description.
private enum Binary16: BinaryFormat {
  typealias Bits = UInt16
  static var fractionBits: Int { 10 }
}

struct FloatingPointFormatTests {
  /// A sum or product of two half-precision numbers in single precision, rounded again, is the half-precision one:
  /// single has more than twice the places.
  @Test func halfPrecisionAgreesWithSingle() {
    typealias Half = SoftwareFloat<Binary16>
    var generator = SeededGenerator(seed: 8)
    for _ in 0..<20_000 {
      let a = UInt16(truncatingIfNeeded: generator.next())
      let b = UInt16(truncatingIfNeeded: generator.next())
      var flags: UInt8 = 0
      let x = Float(bitPattern: Single.convert(from: Binary16.self, a, .nearestEven, &flags))
      let y = Float(bitPattern: Single.convert(from: Binary16.self, b, .nearestEven, &flags))
      func half(_ value: Float) -> UInt16 { Half.convert(from: Binary32.self, value.bitPattern, .nearestEven, &flags) }
      let results = (half(x + y), half(x * y), half(x / y), half(x.squareRoot()))
      #expect(Half.add(a, b, .nearestEven, &flags) == results.0)
      #expect(Half.multiply(a, b, .nearestEven, &flags) == results.1)
      #expect(Half.divide(a, b, .nearestEven, &flags) == results.2)
      #expect(Half.squareRoot(a, .nearestEven, &flags) == results.3)
      #expect(Half.integer(Int64.self, a, .towardZero, &flags) == (x.isFinite ? Int64(x) : x < 0 ? .min : .max))
    }
  }
}

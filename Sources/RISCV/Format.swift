/// An operand as assembly language writes it.
package enum Operand: Hashable, Sendable {
  case rd, rs1, rs2
  case fd, fs1, fs2, fs3
  case roundingMode
  /// The rounding mode of a conversion that is always exact: rne is understood.
  case exactRoundingMode
  /// A signed or unsigned number.
  case immediate
  /// Bits 31...12 of lui and auipc, as a number of 20 bits.
  case upperImmediate
  /// `immediate(rs1)`.
  case memory
  /// `(rs1)`.
  case address
  /// pc + immediate.
  case target
  case csr
  /// The 5 bits of rs1 as a number.
  case zimm
  /// The two sets of fence.
  case fenceSets
}

/// Where the number of a register stands in an encoding: `(bits >> shift & mask) | base`. An absent or implied register
/// has mask 0.
package struct RegisterField: Hashable, Sendable {
  package let shift: UInt8
  package let mask: UInt8
  package let base: UInt8

  package static let none = implied(0)
  package static func implied(_ number: UInt8) -> RegisterField { RegisterField(shift: 0, mask: 0, base: number) }
  /// The 5-bit fields.
  package static func at(_ shift: UInt8) -> RegisterField { RegisterField(shift: shift, mask: 31, base: 0) }
  /// The 3-bit fields of compressed encodings: x8...x15 or f8...f15.
  package static func primeAt(_ shift: UInt8) -> RegisterField { RegisterField(shift: shift, mask: 7, base: 8) }
}

/// Where the bits of an immediate stand in an encoding.
package struct ImmediateField: Hashable, Sendable {
  /// `width` bits of the encoding from bit `from` upwards are the immediate's bits from `to` upwards.
  package struct Segment: Hashable, Sendable {
    package let from: UInt8
    package let width: UInt8
    package let to: UInt8
  }

  package let segments: [Segment]
  /// The immediate's topmost bit is its sign.
  package let signed: Bool

  private init(signed: Bool, _ segments: [(from: UInt8, width: UInt8, to: UInt8)]) {
    self.segments = segments.map { Segment(from: $0.from, width: $0.width, to: $0.to) }
    self.signed = signed
  }

  package static func signed(_ segments: (from: UInt8, width: UInt8, to: UInt8)...) -> ImmediateField {
    ImmediateField(signed: true, segments)
  }
  package static func unsigned(_ segments: (from: UInt8, width: UInt8, to: UInt8)...) -> ImmediateField {
    ImmediateField(signed: false, segments)
  }

  package static let none = unsigned()

  /// Number of bits of the immediate, those that are always 0 included.
  package var width: UInt8 { segments.map { $0.to + $0.width }.max() ?? 0 }

  package func extract(from bits: UInt32) -> Int64 {
    var value: UInt64 = 0
    for segment in segments {
      value |= UInt64(bits >> segment.from & (1 << segment.width - 1)) << segment.to
    }
    guard signed else { return Int64(value) }
    let unused = 64 - width
    return (Int64(bitPattern: value) << unused) >> unused
  }

  /// The bits of the encoding for `value`; those of its bits that have no place are lost.
  package func insert(_ value: Int64) -> UInt32 {
    var bits: UInt32 = 0
    for segment in segments {
      bits |= UInt32(truncatingIfNeeded: value >> segment.to & (1 << segment.width - 1)) << segment.from
    }
    return bits
  }
}

/// How operands lie in an encoding and how they are written: what decoder, encoder and disassembler know in common.
package struct Format: Hashable, Sendable {
  package let operands: [Operand]
  package let rd: RegisterField
  package let rs1: RegisterField
  package let rs2: RegisterField
  package let rs3: RegisterField
  package let immediate: ImmediateField
  /// Bits 14...12 are a rounding mode; 5 and 6 are reserved.
  package var hasRoundingMode: Bool { operands.contains { $0 == .roundingMode || $0 == .exactRoundingMode } }

  package init(
    _ operands: [Operand], rd: RegisterField = .none, rs1: RegisterField = .none, rs2: RegisterField = .none,
    rs3: RegisterField = .none, _ immediate: ImmediateField = .none
  ) {
    self.operands = operands
    self.rd = rd
    self.rs1 = rs1
    self.rs2 = rs2
    self.rs3 = rs3
    self.immediate = immediate
  }
}

// The immediates of 32-bit encodings (Unprivileged Architecture, 2.3).
extension ImmediateField {
  static let i = signed((20, 12, 0))
  static let s = signed((7, 5, 0), (25, 7, 5))
  static let b = signed((8, 4, 1), (25, 6, 5), (7, 1, 11), (31, 1, 12))
  static let u = signed((12, 20, 12))
  static let j = signed((21, 10, 1), (20, 1, 11), (12, 8, 12), (31, 1, 20))
  static let shift6 = unsigned((20, 6, 0))
  static let shift5 = unsigned((20, 5, 0))
  /// The number of a round of AES.
  static let round = unsigned((20, 4, 0))
  /// 12 bits without a sign: a CSR's number, fence's operands.
  static let raw12 = unsigned((20, 12, 0))
  static let acquireRelease = unsigned((25, 2, 0))
  static let prefetch = signed((25, 7, 5))
}

// The formats of 32-bit encodings.
extension Format {
  private static let rdField = RegisterField.at(7)
  private static let rs1Field = RegisterField.at(15)
  private static let rs2Field = RegisterField.at(20)
  private static let rs3Field = RegisterField.at(27)

  private static func registers(_ operands: [Operand]) -> Format {
    Format(operands, rd: rdField, rs1: rs1Field, rs2: rs2Field)
  }
  private static func unary(_ operands: [Operand]) -> Format {
    Format(operands, rd: rdField, rs1: rs1Field)
  }
  private static func immediate(_ operands: [Operand], _ field: ImmediateField) -> Format {
    Format(operands, rd: rdField, rs1: rs1Field, field)
  }

  static let none = Format([])
  static let r = registers([.rd, .rs1, .rs2])
  static let rUnary = unary([.rd, .rs1])
  static let i = immediate([.rd, .rs1, .immediate], .i)
  static let shift6 = immediate([.rd, .rs1, .immediate], .shift6)
  static let shift5 = immediate([.rd, .rs1, .immediate], .shift5)
  static let round = immediate([.rd, .rs1, .immediate], .round)
  static let load = immediate([.rd, .memory], .i)
  static let store = Format([.rs2, .memory], rs1: rs1Field, rs2: rs2Field, .s)
  static let branch = Format([.rs1, .rs2, .target], rs1: rs1Field, rs2: rs2Field, .b)
  static let upper = Format([.rd, .upperImmediate], rd: rdField, .u)
  static let jump = Format([.rd, .target], rd: rdField, .j)
  static let fence = Format([.fenceSets], .raw12)
  /// Encodings that have a mnemonic of their own and mean one of the others.
  static let fixedImmediate = immediate([], .raw12)
  static let csr = immediate([.rd, .csr, .rs1], .raw12)
  static let csrImmediate = immediate([.rd, .csr, .zimm], .raw12)
  static let loadReserved = immediate([.rd, .address], .acquireRelease)
  static let atomic = Format([.rd, .rs2, .address], rd: rdField, rs1: rs1Field, rs2: rs2Field, .acquireRelease)
  static let address = Format([.address], rs1: rs1Field)
  static let prefetch = Format([.memory], rs1: rs1Field, .prefetch)
  static let addressFence = Format([.rs1, .rs2], rs1: rs1Field, rs2: rs2Field)

  static let floatLoad = immediate([.fd, .memory], .i)
  static let floatStore = Format([.fs2, .memory], rs1: rs1Field, rs2: rs2Field, .s)
  static let float = registers([.fd, .fs1, .fs2])
  static let floatRounded = registers([.fd, .fs1, .fs2, .roundingMode])
  static let floatUnaryRounded = unary([.fd, .fs1, .roundingMode])
  static let floatUnaryExact = unary([.fd, .fs1, .exactRoundingMode])
  static let floatFused = Format(
    [.fd, .fs1, .fs2, .fs3, .roundingMode], rd: rdField, rs1: rs1Field, rs2: rs2Field, rs3: rs3Field)
  static let floatCompare = registers([.rd, .fs1, .fs2])
  static let floatToInteger = unary([.rd, .fs1])
  static let floatToIntegerRounded = unary([.rd, .fs1, .roundingMode])
  static let integerToFloat = unary([.fd, .rs1])
  static let integerToFloatRounded = unary([.fd, .rs1, .roundingMode])
  static let integerToFloatExact = unary([.fd, .rs1, .exactRoundingMode])
}

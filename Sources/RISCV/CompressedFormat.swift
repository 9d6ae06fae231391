// The immediates of 16-bit encodings (Unprivileged Architecture, chapter "C", instruction listings).
extension ImmediateField {
  static let ci = signed((2, 5, 0), (12, 1, 5))
  static let ciShift = unsigned((2, 5, 0), (12, 1, 5))
  static let ciUpper = signed((2, 5, 12), (12, 1, 17))
  static let ciStackAdjust = signed((6, 1, 4), (2, 1, 5), (5, 1, 6), (3, 2, 7), (12, 1, 9))
  static let ciLoadWord = unsigned((4, 3, 2), (12, 1, 5), (2, 2, 6))
  static let ciLoadDouble = unsigned((5, 2, 3), (12, 1, 5), (2, 3, 6))
  static let cssWord = unsigned((9, 4, 2), (7, 2, 6))
  static let cssDouble = unsigned((10, 3, 3), (7, 3, 6))
  static let ciw = unsigned((6, 1, 2), (5, 1, 3), (11, 2, 4), (7, 4, 6))
  static let clWord = unsigned((6, 1, 2), (10, 3, 3), (5, 1, 6))
  static let clDouble = unsigned((10, 3, 3), (5, 2, 6))
  static let cb = signed((3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8))
  static let cj = signed(
    (3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7), (9, 2, 8), (8, 1, 10), (12, 1, 11))
}

// The formats of 16-bit encodings: the register fields are those of the instruction that the encoding expands to, the
// operands those of the compressed mnemonic.
extension Format {
  private static let full = RegisterField.at(7)
  private static let second = RegisterField.at(2)
  private static let primeHigh = RegisterField.primeAt(7)
  private static let primeLow = RegisterField.primeAt(2)
  private static let zero = RegisterField.implied(0)
  private static let ra = RegisterField.implied(1)
  private static let sp = RegisterField.implied(2)

  static let cNopHint = Format([.immediate], .ci)
  static let cAddi = Format([.rd, .immediate], rd: full, rs1: full, .ci)
  static let cLi = Format([.rd, .immediate], rd: full, rs1: zero, .ci)
  static let cLui = Format([.rd, .upperImmediate], rd: full, .ciUpper)
  static let cSlli = Format([.rd, .immediate], rd: full, rs1: full, .ciShift)
  static let cSlliHint = Format([.rd], rd: full, rs1: full)
  static let cAddi16sp = Format([.rd, .immediate], rd: sp, rs1: sp, .ciStackAdjust)
  static let cAddi4spn = Format([.rd, .rs1, .immediate], rd: primeLow, rs1: sp, .ciw)

  static let cLoadWord = Format([.rd, .memory], rd: primeLow, rs1: primeHigh, .clWord)
  static let cLoadDouble = Format([.rd, .memory], rd: primeLow, rs1: primeHigh, .clDouble)
  static let cFloatLoadDouble = Format([.fd, .memory], rd: primeLow, rs1: primeHigh, .clDouble)
  static let cStoreWord = Format([.rs2, .memory], rs1: primeHigh, rs2: primeLow, .clWord)
  static let cStoreDouble = Format([.rs2, .memory], rs1: primeHigh, rs2: primeLow, .clDouble)
  static let cFloatStoreDouble = Format([.fs2, .memory], rs1: primeHigh, rs2: primeLow, .clDouble)

  static let cLoadWordStack = Format([.rd, .memory], rd: full, rs1: sp, .ciLoadWord)
  static let cLoadDoubleStack = Format([.rd, .memory], rd: full, rs1: sp, .ciLoadDouble)
  static let cFloatLoadDoubleStack = Format([.fd, .memory], rd: full, rs1: sp, .ciLoadDouble)
  static let cStoreWordStack = Format([.rs2, .memory], rs1: sp, rs2: second, .cssWord)
  static let cStoreDoubleStack = Format([.rs2, .memory], rs1: sp, rs2: second, .cssDouble)
  static let cFloatStoreDoubleStack = Format([.fs2, .memory], rs1: sp, rs2: second, .cssDouble)

  static let cShift = Format([.rd, .immediate], rd: primeHigh, rs1: primeHigh, .ciShift)
  static let cShiftHint = Format([.rd], rd: primeHigh, rs1: primeHigh)
  static let cAndi = Format([.rd, .immediate], rd: primeHigh, rs1: primeHigh, .ci)
  static let cArithmetic = Format([.rd, .rs2], rd: primeHigh, rs1: primeHigh, rs2: primeLow)
  static let cMove = Format([.rd, .rs2], rd: full, rs1: zero, rs2: second)
  static let cAdd = Format([.rd, .rs2], rd: full, rs1: full, rs2: second)

  static let cJump = Format([.target], rd: zero, .cj)
  static let cBranch = Format([.rs1, .target], rs1: primeHigh, rs2: zero, .cb)
  static let cJumpRegister = Format([.rs1], rd: zero, rs1: full)
  static let cJumpRegisterLink = Format([.rs1], rd: ra, rs1: full)
}

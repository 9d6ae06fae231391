/// A general-purpose register of the host, by its number in encodings (Intel SDM, volume 2, 2.1.5).
struct HostRegister: Equatable, Sendable {
  let number: UInt8
  init(_ number: UInt8) { self.number = number }

  static let rax = HostRegister(0)
  static let rcx = HostRegister(1)
  static let rdx = HostRegister(2)
  static let rbx = HostRegister(3)
  static let rsp = HostRegister(4)
  static let rbp = HostRegister(5)
  static let rsi = HostRegister(6)
  static let rdi = HostRegister(7)
  static let r8 = HostRegister(8)
  static let r9 = HostRegister(9)
  static let r10 = HostRegister(10)
  static let r11 = HostRegister(11)
  static let r12 = HostRegister(12)
  static let r13 = HostRegister(13)
  static let r14 = HostRegister(14)
  static let r15 = HostRegister(15)
}

/// An SSE register of the host.
struct VectorRegister: Equatable, Sendable {
  let number: UInt8
  init(_ number: UInt8) { self.number = number }

  static let xmm0 = VectorRegister(0)
  static let xmm1 = VectorRegister(1)
  static let xmm2 = VectorRegister(2)
}

/// The last operand of a floating-point instruction.
enum FloatOperand: Sendable {
  case register(VectorRegister)
  case memory(HostAddress)
}

/// A memory operand: base + displacement, or base + index * scale + displacement.
struct HostAddress: Sendable {
  var base: HostRegister
  var index: HostRegister?
  /// log2 of the scale, 0...3.
  var shift: UInt8 = 0
  var displacement: Int32

  init(_ base: HostRegister, _ displacement: Int32 = 0) {
    self.base = base
    self.displacement = displacement
  }

  init(_ base: HostRegister, index: HostRegister, shift: UInt8 = 0, _ displacement: Int32 = 0) {
    self.base = base
    self.index = index
    self.shift = shift
    self.displacement = displacement
  }
}

/// Operand width of an integer instruction.
enum HostWidth: Sendable { case long, quad }

/// Conditions of jcc, setcc and cmovcc, by their number in the opcode.
enum HostCondition: UInt8, Sendable {
  case overflow = 0, noOverflow, below, aboveOrEqual, equal, notEqual, belowOrEqual, above
  case negative, notNegative, parity, noParity, less, greaterOrEqual, lessOrEqual, greater

  var inverted: HostCondition { HostCondition(rawValue: rawValue ^ 1)! }
}

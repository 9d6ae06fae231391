/// Writes instructions as assembly language, in the form that llvm-objdump has: names of the ABI for registers, numbers
/// in hexadecimal, branch targets as addresses.
public struct Disassembler: Sendable {
  private let decoder: Decoder
  /// Whether pseudoinstructions (`ret`, `li`, `beqz` ...) stand for the instructions that they are, and 16-bit encodings
  /// for the ones that they expand to.
  public let usesAliases: Bool

  /// An instruction, or a place where there is none, in a range of bytes.
  public struct Line: Hashable, Sendable {
    public var address: UInt64
    /// In bytes: 2 or 4, or 1...3 for what is left over at the end.
    public var length: Int
    public var bits: UInt32
    public var text: String
  }

  /// What stands for an encoding that is no instruction.
  public static let unknown = "<unknown>"

  public init(extensions: ExtensionSet = .yadori, aliases: Bool = true) {
    // By its encoding pause is a fence, its mnemonic an alias.
    decoder = Decoder(extensions: aliases ? extensions : extensions.subtracting(.zihintpause))
    usesAliases = aliases
  }

  /// The text of the instruction `bits` at `address`: mnemonic, a space, operands separated by ", ".
  public func text(_ bits: UInt32, at address: UInt64) -> String {
    // Reserved for ever to be illegal, and named.
    if bits & 0xffff == 0 { return usesAliases ? "unimp" : "c.unimp" }
    guard let row = decoder.pattern(bits) else { return Self.unknown }
    let instruction = decoder.decode(bits)
    if usesAliases, let alias = Alias.of(instruction, row) {
      return Self.text(alias.mnemonic, alias.operands, instruction, at: address)
    }
    let expands = usesAliases && row.length == 2 && !row.isHint(instruction)
    let shown = expands ? instruction.operation.pattern ?? row : row
    return Self.text(
      shown.mnemonic(for: instruction), shown.operands(for: instruction, aliases: usesAliases), instruction,
      at: address)
  }

  /// The instructions in `bytes`, whose first lies at `address`, one after the other.
  public func lines<Bytes: RandomAccessCollection & Sendable>(
    _ bytes: Bytes, at address: UInt64
  ) -> some Sequence<Line> where Bytes.Element == UInt8 {
    var position = bytes.startIndex
    var address = address
    return AnyIterator<Line> {
      let left = bytes.distance(from: position, to: bytes.endIndex)
      guard left > 0 else { return nil }
      var bits: UInt32 = 0
      for (offset, byte) in bytes[position...].prefix(4).enumerated() { bits |= UInt32(byte) << (offset * 8) }
      let length = bits & 3 == 3 ? 4 : 2
      let line: Line
      if length <= left {
        if length == 2 { bits &= 0xffff }
        line = Line(address: address, length: length, bits: bits, text: self.text(bits, at: address))
      } else {
        line = Line(address: address, length: left, bits: bits, text: Self.unknown)
      }
      position = bytes.index(position, offsetBy: line.length)
      address &+= UInt64(line.length)
      return line
    }
  }

  private static func text(
    _ mnemonic: String, _ operands: [Operand], _ instruction: Instruction, at address: UInt64
  ) -> String {
    guard !operands.isEmpty else { return mnemonic }
    return mnemonic + " " + operands.map { $0.text(instruction, at: address) }.joined(separator: ", ")
  }
}

extension InstructionPattern {
  /// With the suffixes that a field of the encoding adds.
  fileprivate func mnemonic(for instruction: Instruction) -> String {
    guard format.immediate == .acquireRelease else { return mnemonic }
    return mnemonic + ["", ".rl", ".aq", ".aqrl"][Int(instruction.immediate & 3)]
  }

  /// Without the operands whose value goes without saying.
  fileprivate func operands(for instruction: Instruction, aliases: Bool) -> [Operand] {
    guard format.hasRoundingMode else { return format.operands }
    return format.operands.filter { operand in
      switch operand {
      case .roundingMode: !(aliases && instruction.roundingMode == 7)
      case .exactRoundingMode: instruction.roundingMode != 0
      default: true
      }
    }
  }

  /// Whether `instruction`, encoded as this row says, is one of the 16-bit encodings that do nothing and are set aside
  /// as hints.
  func isHint(_ instruction: Instruction) -> Bool {
    guard length == 2, instruction.bits != 0x0001 else { return false }
    switch instruction.operation {
    case .addi: return instruction.rd == 0 || instruction.rd == instruction.rs1 && instruction.immediate == 0
    case .slli, .srli, .srai: return instruction.rd == 0 || instruction.immediate == 0
    case .lui, .add: return instruction.rd == 0
    default: return false
    }
  }
}

extension Operand {
  fileprivate func text(_ instruction: Instruction, at address: UInt64) -> String {
    switch self {
    case .rd: RegisterName.integer(instruction.rd)
    case .rs1: RegisterName.integer(instruction.rs1)
    case .rs2: RegisterName.integer(instruction.rs2)
    case .fd: RegisterName.floatingPoint(instruction.rd)
    case .fs1: RegisterName.floatingPoint(instruction.rs1)
    case .fs2: RegisterName.floatingPoint(instruction.rs2)
    case .fs3: RegisterName.floatingPoint(instruction.rs3)
    case .roundingMode, .exactRoundingMode:
      ["rne", "rtz", "rdn", "rup", "rmm", "?", "?", "dyn"][Int(instruction.roundingMode & 7)]
    case .immediate: Self.hexadecimal(instruction.immediate)
    case .upperImmediate: Self.hexadecimal(instruction.immediate >> 12 & 0xfffff)
    case .memory: "\(Self.hexadecimal(instruction.immediate))(\(RegisterName.integer(instruction.rs1)))"
    case .address: "(\(RegisterName.integer(instruction.rs1)))"
    case .target: "0x" + String(address &+ UInt64(bitPattern: instruction.immediate), radix: 16)
    case .csr:
      ControlRegisterName.name(of: Int(instruction.immediate)) ?? Self.hexadecimal(instruction.immediate)
    case .zimm: Self.hexadecimal(Int64(instruction.rs1))
    case .fenceSets:
      Self.fenceSet(instruction.immediate >> 4) + ", " + Self.fenceSet(instruction.immediate)
    }
  }

  private static func hexadecimal(_ value: Int64) -> String {
    (value < 0 ? "-0x" : "0x") + String(value.magnitude, radix: 16)
  }

  private static func fenceSet(_ bits: Int64) -> String {
    let letters = zip("iorw", [8, 4, 2, 1] as [Int64]).filter { bits & $0.1 != 0 }.map(\.0)
    return letters.isEmpty ? "0" : String(letters)
  }
}

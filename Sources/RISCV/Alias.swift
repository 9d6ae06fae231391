/// A pseudoinstruction: another name for an instruction with certain operands (Unprivileged Architecture, chapter
/// "RISC-V Assembly Programmer's Handbook").
struct Alias: Sendable {
  enum Condition: Sendable {
    case rd(UInt8)
    case rs1(UInt8)
    case rs2(UInt8)
    case immediate(Int64)
    /// rs1 and rs2 are the same register.
    case sameSources
  }

  let operation: Operation
  let mnemonic: String
  let operands: [Operand]
  let conditions: [Condition]

  private init(_ operation: Operation, _ mnemonic: String, _ operands: [Operand], _ conditions: Condition...) {
    self.operation = operation
    self.mnemonic = mnemonic
    self.operands = operands
    self.conditions = conditions
  }

  /// The alias of an instruction that was encoded as `row` says.
  static func of(_ instruction: Instruction, _ row: InstructionPattern) -> Alias? {
    if row.isHint(instruction) {
      // Of the two encodings of the same hints only one has the names.
      return row.mnemonic == "c.add" ? first(of: compressedHints, holding: instruction) : nil
    }
    if row.mnemonic == "c.mv" { return compressedMove }
    return first(of: byOperation[instruction.operation] ?? [], holding: instruction)
  }

  private static func first(of aliases: [Alias], holding instruction: Instruction) -> Alias? {
    aliases.first { $0.operation == instruction.operation && $0.conditions.allSatisfy { $0.holds(instruction) } }
  }

  private static let byOperation: [Operation: [Alias]] = Dictionary(grouping: all, by: \.operation)

  private static let compressedMove = Alias(.add, "mv", [.rd, .rs2])

  private static let compressedHints: [Alias] = [
    Alias(.add, "c.ntl.p1", [], .rs1(0), .rs2(2)),
    Alias(.add, "c.ntl.pall", [], .rs1(0), .rs2(3)),
    Alias(.add, "c.ntl.s1", [], .rs1(0), .rs2(4)),
    Alias(.add, "c.ntl.all", [], .rs1(0), .rs2(5)),
  ]

  /// The first whose conditions hold is meant.
  private static let all: [Alias] = integer + branches + system + floatingPoint

  private static let integer: [Alias] = [
    Alias(.addi, "nop", [], .rd(0), .rs1(0), .immediate(0)),
    Alias(.addi, "li", [.rd, .immediate], .rs1(0)),
    Alias(.addi, "mv", [.rd, .rs1], .immediate(0)),
    Alias(.xori, "not", [.rd, .rs1], .immediate(-1)),
    Alias(.andi, "zext.b", [.rd, .rs1], .immediate(255)),
    Alias(.sub, "neg", [.rd, .rs2], .rs1(0)),
    Alias(.subw, "negw", [.rd, .rs2], .rs1(0)),
    Alias(.addiw, "sext.w", [.rd, .rs1], .immediate(0)),
    Alias(.add_uw, "zext.w", [.rd, .rs1], .rs2(0)),
    Alias(.sltiu, "seqz", [.rd, .rs1], .immediate(1)),
    Alias(.sltu, "snez", [.rd, .rs2], .rs1(0)),
    Alias(.slt, "sltz", [.rd, .rs1], .rs2(0)),
    Alias(.slt, "sgtz", [.rd, .rs2], .rs1(0)),
    Alias(.add, "ntl.p1", [], .rd(0), .rs1(0), .rs2(2)),
    Alias(.add, "ntl.pall", [], .rd(0), .rs1(0), .rs2(3)),
    Alias(.add, "ntl.s1", [], .rd(0), .rs1(0), .rs2(4)),
    Alias(.add, "ntl.all", [], .rd(0), .rs1(0), .rs2(5)),
  ]

  private static let branches: [Alias] = [
    Alias(.beq, "beqz", [.rs1, .target], .rs2(0)),
    Alias(.bne, "bnez", [.rs1, .target], .rs2(0)),
    Alias(.bge, "blez", [.rs2, .target], .rs1(0)),
    Alias(.bge, "bgez", [.rs1, .target], .rs2(0)),
    Alias(.blt, "bltz", [.rs1, .target], .rs2(0)),
    Alias(.blt, "bgtz", [.rs2, .target], .rs1(0)),
    Alias(.jal, "j", [.target], .rd(0)),
    Alias(.jal, "jal", [.target], .rd(1)),
    Alias(.jalr, "ret", [], .rd(0), .rs1(1), .immediate(0)),
    Alias(.jalr, "jr", [.rs1], .rd(0), .immediate(0)),
    Alias(.jalr, "jr", [.memory], .rd(0)),
    Alias(.jalr, "jalr", [.rs1], .rd(1), .immediate(0)),
    Alias(.jalr, "jalr", [.memory], .rd(1)),
    Alias(.jalr, "jalr", [.rd, .rs1], .immediate(0)),
  ]

  private static let system: [Alias] = [
    Alias(.fence, "fence", [], .immediate(0x0ff)),
    Alias(.sfence_vma, "sfence.vma", [], .rs1(0), .rs2(0)),
    Alias(.sfence_vma, "sfence.vma", [.rs1], .rs2(0)),
    Alias(.csrrs, "frflags", [.rd], .rs1(0), .immediate(0x001)),
    Alias(.csrrs, "frrm", [.rd], .rs1(0), .immediate(0x002)),
    Alias(.csrrs, "frcsr", [.rd], .rs1(0), .immediate(0x003)),
    Alias(.csrrs, "rdcycle", [.rd], .rs1(0), .immediate(0xc00)),
    Alias(.csrrs, "rdtime", [.rd], .rs1(0), .immediate(0xc01)),
    Alias(.csrrs, "rdinstret", [.rd], .rs1(0), .immediate(0xc02)),
    Alias(.csrrs, "csrr", [.rd, .csr], .rs1(0)),
    Alias(.csrrs, "csrs", [.csr, .rs1], .rd(0)),
    Alias(.csrrc, "csrc", [.csr, .rs1], .rd(0)),
    Alias(.csrrw, "unimp", [], .rd(0), .rs1(0), .immediate(0xc00)),
    Alias(.csrrw, "fsflags", [.rs1], .rd(0), .immediate(0x001)),
    Alias(.csrrw, "fsrm", [.rs1], .rd(0), .immediate(0x002)),
    Alias(.csrrw, "fscsr", [.rs1], .rd(0), .immediate(0x003)),
    Alias(.csrrw, "fsflags", [.rd, .rs1], .immediate(0x001)),
    Alias(.csrrw, "fsrm", [.rd, .rs1], .immediate(0x002)),
    Alias(.csrrw, "fscsr", [.rd, .rs1], .immediate(0x003)),
    Alias(.csrrw, "csrw", [.csr, .rs1], .rd(0)),
    Alias(.csrrwi, "fsflagsi", [.zimm], .rd(0), .immediate(0x001)),
    Alias(.csrrwi, "fsrmi", [.zimm], .rd(0), .immediate(0x002)),
    Alias(.csrrwi, "fsflagsi", [.rd, .zimm], .immediate(0x001)),
    Alias(.csrrwi, "fsrmi", [.rd, .zimm], .immediate(0x002)),
    Alias(.csrrwi, "csrwi", [.csr, .zimm], .rd(0)),
    Alias(.csrrsi, "csrsi", [.csr, .zimm], .rd(0)),
    Alias(.csrrci, "csrci", [.csr, .zimm], .rd(0)),
  ]

  private static let floatingPoint: [Alias] = [
    Alias(.fsgnj_s, "fmv.s", [.fd, .fs1], .sameSources),
    Alias(.fsgnjn_s, "fneg.s", [.fd, .fs1], .sameSources),
    Alias(.fsgnjx_s, "fabs.s", [.fd, .fs1], .sameSources),
    Alias(.fsgnj_d, "fmv.d", [.fd, .fs1], .sameSources),
    Alias(.fsgnjn_d, "fneg.d", [.fd, .fs1], .sameSources),
    Alias(.fsgnjx_d, "fabs.d", [.fd, .fs1], .sameSources),
  ]
}

extension Alias.Condition {
  fileprivate func holds(_ instruction: Instruction) -> Bool {
    switch self {
    case .rd(let number): instruction.rd == number
    case .rs1(let number): instruction.rs1 == number
    case .rs2(let number): instruction.rs2 == number
    case .immediate(let value): instruction.immediate == value
    case .sameSources: instruction.rs1 == instruction.rs2
    }
  }
}

import RISCV

/// Sign extension as late as possible. The instructions on words (RV64I, 4.2) leave a 32-bit result in sign-extended form,
/// which costs an instruction of its own here and is seldom looked at: most results go into other such instructions,
/// narrow stores, or comparisons with their like.
extension X86BackEnd {
  /// Extends the sources of the next step that are read in full.
  mutating func prepareSources(_ i: Instruction) {
    if unextended == 0 { return }
    if i.operation.effects.contains(.branches) {
      if current == trace.count - 1 {
        // A loop's begin may have it otherwise; what follows the loop extends what is left.
        extendAll(but: loopUnextended)
        if unextended == 0 { return }
      }
      if i.operation == .jal { return }
      let operands = UInt32(1) << UInt32(i.rs1) | 1 << UInt32(i.rs2)
      if operands & unextended == 0 { return }
      // Order is the same among words as among their extensions, whether signed or not.
      if operands & ~words == 0 {
        comparisonWidth = .long
        return
      }
    } else {
      switch i.operation {
      // The lower halves of both.
      case .addw, .subw, .sllw, .srlw, .sraw, .mulw, .divw, .divuw, .remw, .remuw, .rolw, .rorw: return
      // What has one source, of which the lower half.
      case .slliw, .srliw, .sraiw, .roriw, .clzw, .ctzw, .cpopw, .zext_h, .sext_b, .sext_h, .slli_uw: return
      case .fcvt_d_w, .fcvt_d_wu, .fcvt_s_w, .fcvt_s_wu, .fmv_w_x: return
      case .addiw: return
      case .addi where i.immediate == 0: return
      case .andi where i.immediate >= 0: return
      case .slli where i.immediate >= 32: return
      case .and, .or, .xor:
        let operands = UInt32(1) << UInt32(i.rs1) | 1 << UInt32(i.rs2)
        if operands & ~words == 0 { return }
      case .add_uw, .sh1add_uw, .sh2add_uw, .sh3add_uw: return extend(i.rs2)
      case .sb, .sh, .sw: return extend(i.rs1)
      default: break
      }
    }
    extend(i.rs1)
    extend(i.rs2)
  }

  /// Whether the result of a step is a sign-extended 32-bit value, judged before it is emitted.
  @inline(__always)
  func isWordResult(_ i: Instruction) -> Bool {
    func isWord(_ register: UInt8) -> Bool { words & 1 << UInt32(register) != 0 }
    switch i.operation {
    case .lw, .lh, .lb, .lhu, .lbu, .lui, .slt, .slti, .sltu, .sltiu: return true
    case .addiw, .slliw, .srliw, .sraiw, .sext_b, .sext_h, .zext_h: return true
    case .clz, .ctz, .cpop, .clzw, .ctzw, .cpopw, .bext, .bexti: return true
    case .addi: return i.rs1 == 0 || i.immediate == 0 && isWord(i.rs1)
    case .andi: return i.immediate >= 0 || isWord(i.rs1)
    case .ori, .xori: return isWord(i.rs1)
    case .and, .or, .xor, .min, .max, .minu, .maxu: return isWord(i.rs1) && isWord(i.rs2)
    default: return false
    }
  }

  /// Whether the result of a step is as unextended as its sources, which `prepareSources` has left so.
  static func passesUnextended(_ i: Instruction, _ unextended: UInt32) -> Bool {
    switch i.operation {
    case .addi where i.immediate == 0: return unextended & 1 << UInt32(i.rs1) != 0
    case .and, .or, .xor: return unextended & (1 << UInt32(i.rs1) | 1 << UInt32(i.rs2)) != 0
    default: return false
    }
  }

  /// Extends a register in full, if it isn't. Clobbers rcx.
  mutating func extend(_ register: UInt8) {
    let bit = UInt32(1) << UInt32(register)
    if unextended & bit == 0 { return }
    unextended &= ~bit
    if let host = located(register) {
      assembler.signExtend32(host, host)
      registers.dirty |= UInt64(bit)
    } else if held == register {
      assembler.signExtend32(.rax, .rax)
      assembler.store(StateLayout.integer(register), .rax)
    } else {
      assembler.signExtend32(.rcx, StateLayout.integer(register))
      assembler.store(StateLayout.integer(register), .rcx)
    }
  }

  mutating func extendAll(but kept: UInt32 = 0) {
    while unextended & ~kept != 0 { extend(UInt8((unextended & ~kept).trailingZeroBitCount)) }
  }

  /// Registers that a loop's turn leaves as words and the next one begins by using as such: their signs wait from turn to
  /// turn. Not before there was a turn, for till then they are whatever they are.
  func unextendedAtHead(of loop: RegisterMap) -> UInt32 {
    var result: UInt32 = 0
    for register in UInt8(1)..<32 where loop.host(register) != nil {
      let bit = UInt32(1) << UInt32(register)
      guard let last = (0..<trace.count).last(where: { trace.steps[$0].target == register }),
        Self.isWordComputation(trace.steps[last].instruction.operation),
        let first = (0..<trace.count).first(where: {
          trace.steps[$0].sources & bit != 0 || trace.steps[$0].target == register
        }),
        Self.isWordComputation(trace.steps[first].instruction.operation)
      else { continue }
      result |= bit
    }
    return result
  }

  /// Whether an operation reads lower halves only, and its result is a sign-extended 32-bit value.
  private static func isWordComputation(_ operation: Operation) -> Bool {
    switch operation {
    case .addiw, .addw, .subw, .mulw, .slliw, .srliw, .sraiw, .sllw, .srlw, .sraw, .roriw, .rolw, .rorw: true
    default: false
    }
  }
}

import Hart
import RISCV

/// What each instruction becomes. Scratch registers: rax, rcx; and rdx, which an access group's address is lost from.
extension X86BackEnd {
  mutating func emit(_ step: Trace.Step) {
    let i = step.instruction
    if Self.losesGroupAddress(i) {
      loadedGroup = -1
      loadedAddend = -1
    }
    let isJump = current == trace.count - 1 && (i.operation == .jal || i.operation == .jalr)
    if isJump {
      if loop == nil {
        prepareSources(i)
        // What a return compares may be in a register still.
        if !Self.isReturn(i) { restoreCanonical() }
      }
    } else {
      placeOperands(step)
    }
    prepareSources(i)
    takeSnapshot()
    isResultUnextended = false
    isCarryLeft = isCarryNext
    isCarryNext = false
    let isWord = isWordResult(i)
    let wasUnextended = Self.passesUnextended(i, unextended)
    emitOperation(step)
    forgetPending()
    guard step.target != 0 else { return }
    let bit = UInt32(1) << UInt32(i.rd)
    if isResultUnextended || wasUnextended { unextended |= bit } else { unextended &= ~bit }
    if isWord || isResultUnextended { words |= bit } else { words &= ~bit }
  }

  private static func isReturn(_ i: Instruction) -> Bool {
    i.operation == .jalr && i.rd == 0 && i.rs1 == 1 && i.immediate == 0
  }

  private mutating func emitOperation(_ step: Trace.Step) {
    let i = step.instruction
    switch i.operation {
    // RV64I: integer computation (2.4, 4.2)
    case .addi: emitAddImmediate(i)
    case .lui: setConstant(i.rd, UInt64(bitPattern: i.immediate))
    case .auipc: setFromPage(i.rd, Int64(step.offset) + i.immediate)
    case .slti: emitSetLess(i, .less, Int32(i.immediate))
    case .sltiu: emitSetLess(i, .below, Int32(i.immediate))
    case .xori: emitImmediate(.xor, i)
    case .ori: emitImmediate(.or, i)
    case .andi: emitImmediate(.and, i)
    case .slli: emitShift(.left, i)
    case .srli: emitShift(.right, i)
    case .srai: emitShift(.rightSigned, i)
    case .add: emitAdd(i)
    case .sub: emitBinary(.sub, i)
    case .sll: emitVariableShift(.left, i)
    case .srl: emitVariableShift(.right, i)
    case .sra: emitVariableShift(.rightSigned, i)
    case .slt: emitSetLess(i, .less, nil)
    case .sltu: emitSetLess(i, .below, nil)
    case .xor: emitBinary(.xor, i, commutes: true)
    case .or: emitBinary(.or, i, commutes: true)
    case .and: emitBinary(.and, i, commutes: true)
    case .addiw: emitAddImmediateWord(i)
    case .slliw: emitShift(.left, i, .long)
    case .srliw: emitShift(.right, i, .long)
    case .sraiw: emitShift(.rightSigned, i, .long)
    case .addw: emitBinary(.add, i, .long, commutes: true)
    case .subw: emitBinary(.sub, i, .long)
    case .sllw: emitVariableShift(.left, i, .long)
    case .srlw: emitVariableShift(.right, i, .long)
    case .sraw: emitVariableShift(.rightSigned, i, .long)

    // RV64I: control transfer (2.5)
    case .beq: emitBranch(step, .equal)
    case .bne: emitBranch(step, .notEqual)
    case .blt: emitBranch(step, .less)
    case .bge: emitBranch(step, .greaterOrEqual)
    case .bltu: emitBranch(step, .below)
    case .bgeu: emitBranch(step, .aboveOrEqual)
    case .jal: emitJumpAndLink(step)
    case .jalr: emitJumpAndLinkRegister(step)

    // Loads and stores
    case .ld: emitLoad(step, 3, isSigned: true)
    case .lw: emitLoad(step, 2, isSigned: true)
    case .lh: emitLoad(step, 1, isSigned: true)
    case .lb: emitLoad(step, 0, isSigned: true)
    case .lwu: emitLoad(step, 2, isSigned: false)
    case .lhu: emitLoad(step, 1, isSigned: false)
    case .lbu: emitLoad(step, 0, isSigned: false)
    case .sd: emitStore(step, 3)
    case .sw: emitStore(step, 2)
    case .sh: emitStore(step, 1)
    case .sb: emitStore(step, 0)
    case .fld: emitFloatLoad(step, 3)
    case .flw: emitFloatLoad(step, 2)
    case .fsd: emitFloatStore(step, 3)
    case .fsw: emitFloatStore(step, 2)

    // M
    case .mul: emitMultiply(i, .quad)
    case .mulw: emitMultiply(i, .long)
    case .mulh, .mulhu, .mulhsu: emitMultiplyHigh(i)
    case .div: emitDivide(i, .quad, isSigned: true, remainder: false)
    case .divu: emitDivide(i, .quad, isSigned: false, remainder: false)
    case .rem: emitDivide(i, .quad, isSigned: true, remainder: true)
    case .remu: emitDivide(i, .quad, isSigned: false, remainder: true)
    case .divw: emitDivide(i, .long, isSigned: true, remainder: false)
    case .divuw: emitDivide(i, .long, isSigned: false, remainder: false)
    case .remw: emitDivide(i, .long, isSigned: true, remainder: true)
    case .remuw: emitDivide(i, .long, isSigned: false, remainder: true)

    // Zba, Zbb, Zbs, Zicond
    case .sh1add: emitShiftAdd(i, 1, isWord: false)
    case .sh2add: emitShiftAdd(i, 2, isWord: false)
    case .sh3add: emitShiftAdd(i, 3, isWord: false)
    case .add_uw: emitShiftAdd(i, 0, isWord: true)
    case .sh1add_uw: emitShiftAdd(i, 1, isWord: true)
    case .sh2add_uw: emitShiftAdd(i, 2, isWord: true)
    case .sh3add_uw: emitShiftAdd(i, 3, isWord: true)
    case .slli_uw:
      if i.rd == 0 { break }
      assembler.move(target(i.rd), read(i.rs1, .rax), .long)
      if i.immediate > 0 { assembler.shift(.left, target(i.rd), by: UInt8(i.immediate)) }
      finish(i.rd)
    case .andn:
      let right = read(i.rs2, .rcx)
      let left = read(i.rs1, .rax)
      assembler.andNot(.rax, inverted: right, left)
      write(i.rd, .rax)
    case .orn:
      readInto(.rax, i.rs2)
      assembler.not(.rax)
      assembler.arithmetic(.or, .rax, read(i.rs1, .rcx))
      write(i.rd, .rax)
    case .xnor:
      readInto(.rax, i.rs1)
      assembler.arithmetic(.xor, .rax, read(i.rs2, .rcx))
      assembler.not(.rax)
      write(i.rd, .rax)
    case .clz, .ctz, .cpop, .clzw, .ctzw, .cpopw: emitCount(i)
    case .min: emitChoice(i, .less)
    case .max: emitChoice(i, .greater)
    case .minu: emitChoice(i, .below)
    case .maxu: emitChoice(i, .above)
    case .sext_b:
      assembler.signExtend8(target(i.rd), byteSource(i.rs1))
      finish(i.rd)
    case .sext_h:
      assembler.signExtend16(target(i.rd), read(i.rs1, .rax))
      finish(i.rd)
    case .zext_h:
      assembler.zeroExtend16(target(i.rd), read(i.rs1, .rax))
      finish(i.rd)
    case .rori:
      assembler.rotateRight(target(i.rd), read(i.rs1, .rax), by: UInt8(i.immediate))
      finish(i.rd)
    case .roriw:
      assembler.rotateRight(target(i.rd), read(i.rs1, .rax), by: UInt8(i.immediate), .long)
      isResultUnextended = true
      finish(i.rd)
    case .rol, .ror, .rolw, .rorw:
      let isWord = i.operation == .rolw || i.operation == .rorw
      readInto(.rcx, i.rs2)
      readInto(.rax, i.rs1)
      let isLeft = i.operation == .rol || i.operation == .rolw
      assembler.shiftByCL(isLeft ? .rotateLeft : .rotateRight, .rax, isWord ? .long : .quad)
      isResultUnextended = isWord
      write(i.rd, .rax)
    case .rev8:
      readInto(.rax, i.rs1)
      assembler.swapBytes(.rax)
      write(i.rd, .rax)
    case .bclri: emitBit(.clear, i)
    case .bseti: emitBit(.set, i)
    case .binvi: emitBit(.complement, i)
    case .bclr: emitBit(.clear, i, isImmediate: false)
    case .bset: emitBit(.set, i, isImmediate: false)
    case .binv: emitBit(.complement, i, isImmediate: false)
    case .bexti:
      readInto(.rax, i.rs1)
      assembler.shift(.right, .rax, by: UInt8(i.immediate))
      assembler.arithmetic(.and, .rax, immediate: 1, .long)
      write(i.rd, .rax)
    case .bext:
      assembler.shift(.right, .rax, read(i.rs1, .rax), by: read(i.rs2, .rcx))
      assembler.arithmetic(.and, .rax, immediate: 1, .long)
      write(i.rd, .rax)
    case .czero_eqz, .czero_nez:
      readInto(.rax, i.rs1)
      assembler.moveImmediate(.rcx, 0)
      if let host = located(i.rs2) {
        assembler.test(host, host)
      } else if i.rs2 == 0 {
        assembler.test(.rcx, .rcx)
      } else {
        assembler.arithmetic(.compare, StateLayout.integer(i.rs2), immediate: 0)
      }
      assembler.move(.rax, .rcx, if: i.operation == .czero_eqz ? .equal : .notEqual)
      write(i.rd, .rax)

    case .clmul, .clmulh, .clmulr: emitCarrylessMultiply(i)
    case .orc_b:
      // Bit 7 of each byte that isn't zero, then all its bits.
      let source = read(i.rs1, .rdx)
      assembler.moveImmediate(.rcx, 0x7F7F_7F7F_7F7F_7F7F)
      assembler.move(.rax, source)
      assembler.arithmetic(.and, .rax, .rcx)
      assembler.arithmetic(.add, .rax, .rcx)
      assembler.arithmetic(.or, .rax, source)
      assembler.not(.rcx)
      assembler.arithmetic(.and, .rcx, .rax)
      assembler.move(.rax, .rcx)
      assembler.shift(.right, .rax, by: 7)
      assembler.move(.rdx, .rcx)
      assembler.arithmetic(.sub, .rdx, .rax)
      assembler.arithmetic(.or, .rcx, .rdx)
      write(i.rd, .rcx)

    // Memory ordering (2.7): the host orders all but earlier stores against later loads.
    case .fence:
      if i.immediate & 0x12 == 0x12 { assembler.memoryFence(StateLayout.slowValue) }
    case .prefetch_i, .prefetch_r, .prefetch_w: break

    case .cbo_zero: emitZeroBlock(step)

    case .lr_w: emitLoadReserved(step, .long)
    case .lr_d: emitLoadReserved(step, .quad)
    case .sc_w: emitStoreConditional(step, .long)
    case .sc_d: emitStoreConditional(step, .quad)
    case .amoswap_w, .amoadd_w, .amoand_w, .amoor_w, .amoxor_w: emitAtomic(step, .long)
    case .amoswap_d, .amoadd_d, .amoand_d, .amoor_d, .amoxor_d: emitAtomic(step, .quad)

    case .csrrs where i.immediate == Self.fflags && i.rs1 == 0: emitFlagsRead(step)
    case .csrrw where i.immediate == Self.fflags, .csrrwi where i.immediate == Self.fflags: emitFlagsWrite(step)

    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci: emitControlRegister(step)

    default:
      if i.operation.effects.contains(.usesFloatingPoint) {
        emitFloat(step)
      } else if emitCryptography(step) {
      } else {
        emitExecuteOne(step)
      }
    }
  }

  /// Whether what `emit` makes of an instruction overwrites rdx. Slow paths keep it.
  static func losesGroupAddress(_ instruction: Instruction) -> Bool {
    switch instruction.operation {
    case .orc_b, .mulh, .mulhu, .mulhsu, .div, .divu, .rem, .remu, .divw, .divuw, .remw, .remuw: true
    case .lr_w, .lr_d, .sc_w, .sc_d, .amoswap_w, .amoadd_w, .amoand_w, .amoor_w, .amoxor_w: true
    case .amoswap_d, .amoadd_d, .amoand_d, .amoor_d, .amoxor_d: true
    default: false
    }
  }

  // MARK: registers

  /// The host register that holds a guest register, which is loaded into `scratch` where it lives in memory.
  mutating func read(_ register: UInt8, _ scratch: HostRegister) -> HostRegister {
    if let host = located(register) { return host }
    readInto(scratch, register)
    return scratch
  }

  mutating func readInto(_ host: HostRegister, _ register: UInt8, _ width: HostWidth = .quad) {
    if host == .rax {
      let isThere = held == register
      held = nil
      if isThere { return }
    }
    if register == 0 {
      assembler.moveImmediate(host, 0)
    } else if let source = located(register) {
      assembler.move(host, source, width)
    } else {
      assembler.load(host, StateLayout.integer(register), width)
    }
  }

  /// Where the result for a guest register is computed: its host register, or rax, which `finish` stores.
  func target(_ register: UInt8) -> HostRegister { located(register) ?? .rax }

  /// Ends the computation of a guest register in `target`.
  mutating func finish(_ register: UInt8) {
    known[Int(register)] = .nothing
    if register == 0 { return }
    if located(register) != nil {
      noteWritten(register)
    } else {
      if trace.event(register, from: current + 1) != Trace.overwritten {
        assembler.store(StateLayout.integer(register), .rax)
      }
      nextHeld = register
    }
  }

  /// Gives a guest register the value of a scratch register.
  mutating func write(_ register: UInt8, _ host: HostRegister) {
    known[Int(register)] = .nothing
    if register == 0 { return }
    if let place = located(register) {
      if place != host { assembler.move(place, host) }
      noteWritten(register)
    } else {
      assembler.store(StateLayout.integer(register), host)
      if host == .rax { nextHeld = register }
    }
  }

  /// The place of a guest register has got a new value.
  private mutating func noteWritten(_ register: UInt8) {
    registers.dirty |= 1 << UInt64(register)
    if pending == register { pending = RegisterMap.none }
  }

  /// A register whose low byte can be read on its own.
  private mutating func byteSource(_ register: UInt8) -> HostRegister {
    readInto(.rax, register)
    return .rax
  }

  mutating func setConstant(_ register: UInt8, _ value: UInt64) {
    if register == 0 { return }
    if located(register) == nil, Int64(bitPattern: value) == Int64(Int32(truncatingIfNeeded: value)) {
      assembler.storeImmediate(StateLayout.integer(register), Int32(truncatingIfNeeded: value))
    } else {
      assembler.moveImmediate(target(register), value)
      finish(register)
    }
    known[Int(register)] = .constant(value)
  }

  mutating func setFromPage(_ register: UInt8, _ offset: Int64) {
    if register == 0 { return }
    let host = target(register)
    guard let short = Int32(exactly: offset) else {
      assembler.moveImmediate(.rax, UInt64(bitPattern: offset))
      assembler.arithmetic(.add, .rax, pageBase(.rcx))
      return write(register, .rax)
    }
    assembler.loadAddress(host, HostAddress(pageBase(host), short))
    finish(register)
    known[Int(register)] = .fromPage(offset)
  }

  /// The host register that holds the address of the page that is executed, which is loaded into `scratch` where it has
  /// made room for another.
  mutating func pageBase(_ scratch: HostRegister) -> HostRegister {
    if let host = located(RegisterMap.pageBase) { return host }
    assembler.load(scratch, StateLayout.pageBase)
    return scratch
  }

  // MARK: computation

  private mutating func emitAddImmediate(_ i: Instruction) {
    if i.rd == 0 { return }
    let immediate = Int32(i.immediate)
    if i.rs1 == 0 { return setConstant(i.rd, UInt64(bitPattern: i.immediate)) }
    switch known[Int(i.rs1)] {
    case .constant(let value): return setConstant(i.rd, value &+ UInt64(bitPattern: i.immediate))
    case .fromPage(let offset): return setFromPage(i.rd, offset + i.immediate)
    case .nothing: break
    }
    if let source = located(i.rs1) {
      let host = target(i.rd)
      if host == source {
        assembler.arithmetic(.add, host, immediate: immediate)
      } else if immediate == 0 {
        if host == .rax { return write(i.rd, source) }
        assembler.move(host, source)
      } else {
        assembler.loadAddress(host, HostAddress(source, immediate))
      }
    } else if i.rd == i.rs1, held != i.rs1 {
      assembler.arithmetic(.add, StateLayout.integer(i.rd), immediate: immediate)
      known[Int(i.rd)] = .nothing
      return
    } else {
      let host = target(i.rd)
      if held == i.rs1 {
        held = nil
        if host != .rax { assembler.move(host, .rax) }
      } else {
        assembler.load(host, StateLayout.integer(i.rs1))
      }
      if immediate != 0 { assembler.arithmetic(.add, host, immediate: immediate) }
    }
    finish(i.rd)
  }

  private mutating func emitAddImmediateWord(_ i: Instruction) {
    if i.rd == 0 { return }
    if i.rs1 == 0 { return setConstant(i.rd, UInt64(bitPattern: i.immediate)) }
    if case .constant(let value) = known[Int(i.rs1)] {
      let sum = Int32(truncatingIfNeeded: value &+ UInt64(bitPattern: i.immediate))
      return setConstant(i.rd, UInt64(bitPattern: Int64(sum)))
    }
    let host = target(i.rd)
    if i.immediate == 0 {
      if held == i.rs1 {
        held = nil
        assembler.signExtend32(host, .rax)
      } else if let source = located(i.rs1) {
        assembler.signExtend32(host, source)
      } else {
        assembler.signExtend32(host, StateLayout.integer(i.rs1))
      }
    } else {
      let source = read(i.rs1, .rax)
      if source == host {
        assembler.arithmetic(.add, host, immediate: Int32(i.immediate), .long)
      } else {
        assembler.loadAddress(host, HostAddress(source, Int32(i.immediate)), .long)
      }
      isResultUnextended = true
    }
    finish(i.rd)
  }

  private mutating func emitImmediate(_ operation: Assembler.Arithmetic, _ i: Instruction) {
    if i.rd == 0 { return }
    let host = target(i.rd)
    if operation == .and, i.immediate == 0xFF {
      if let source = located(i.rs1) {
        assembler.zeroExtend8(host, source)
      } else {
        readInto(.rax, i.rs1)
        assembler.zeroExtend8(host, .rax)
      }
      return finish(i.rd)
    }
    readInto(host, i.rs1, unless: host)
    if operation == .xor, i.immediate == -1 {
      assembler.not(host)
    } else {
      // A mask that isn't negative clears the upper half: the short form does so too.
      let width = operation == .and && i.immediate >= 0 ? HostWidth.long : .quad
      assembler.arithmetic(operation, host, immediate: Int32(i.immediate), width)
    }
    finish(i.rd)
  }

  /// `readInto`, unless the register is in `host` already.
  private mutating func readInto(_ host: HostRegister, _ register: UInt8, unless same: HostRegister) {
    if located(register) != same { readInto(host, register) }
  }

  private mutating func emitAdd(_ i: Instruction) {
    if i.rd == 0 { return }
    if isCarryWanted(i) {
      var (left, right) = (i.rs1, i.rs2)
      let host = target(i.rd)
      if located(right) == host { swap(&left, &right) }
      readInto(host, left, unless: host)
      arithmetic(.add, host, right, .quad)
      isCarryNext = true
      return finish(i.rd)
    }
    if i.rs1 == 0 || i.rs2 == 0 {
      let source = i.rs1 == 0 ? i.rs2 : i.rs1
      let host = target(i.rd)
      readInto(host, source, unless: host)
      return finish(i.rd)
    }
    if let left = located(i.rs1), let right = located(i.rs2) {
      let host = target(i.rd)
      if host == left {
        assembler.arithmetic(.add, host, right)
      } else if host == right {
        assembler.arithmetic(.add, host, left)
      } else {
        assembler.loadAddress(host, HostAddress(left, index: right))
      }
      return finish(i.rd)
    }
    emitBinary(.add, i, commutes: true)
  }

  /// Whether the next step asks for the carry of this addition: whether the sum is below one of its parts.
  @inline(__always)
  private func isCarryWanted(_ i: Instruction) -> Bool {
    guard current + 1 < trace.count, i.rs1 != 0, i.rs2 != 0 else { return false }
    let next = trace.steps[current + 1].instruction
    return next.operation == .sltu && next.rs1 == i.rd && next.rs2 != i.rd && (next.rs2 == i.rs1 || next.rs2 == i.rs2)
  }

  private mutating func arithmetic(
    _ operation: Assembler.Arithmetic, _ host: HostRegister, _ register: UInt8, _ width: HostWidth
  ) {
    if register == 0 {
      if operation == .and { assembler.moveImmediate(host, 0) }
      if operation == .compare { assembler.test(host, host, width) }
    } else if let other = located(register) {
      assembler.arithmetic(operation, host, other, width)
    } else if held == register, host != .rax {
      assembler.arithmetic(operation, host, .rax, width)
    } else {
      assembler.arithmetic(operation, host, StateLayout.integer(register), width)
    }
  }

  private mutating func emitBinary(
    _ operation: Assembler.Arithmetic, _ i: Instruction, _ width: HostWidth = .quad, commutes: Bool = false
  ) {
    if i.rd == 0 { return }
    var host = target(i.rd)
    var (left, right) = (i.rs1, i.rs2)
    if located(right) == host, located(left) != host {
      if commutes { swap(&left, &right) } else { host = .rax }
    }
    if width == .quad, i.rd == left, located(left) == nil, held != left,
      let source = located(right)
    {
      assembler.arithmetic(operation, StateLayout.integer(left), source)
      known[Int(left)] = .nothing
      return
    }
    readInto(host, left, unless: host)
    arithmetic(operation, host, right, width)
    if host != target(i.rd) { assembler.move(target(i.rd), host) }
    isResultUnextended = width == .long
    finish(i.rd)
  }

  private mutating func emitShift(_ kind: Assembler.Shift, _ i: Instruction, _ width: HostWidth = .quad) {
    if i.rd == 0 { return }
    let host = target(i.rd)
    readInto(host, i.rs1, unless: host)
    assembler.shift(kind, host, by: UInt8(i.immediate), width)
    // What was shifted right has no sign.
    isResultUnextended = width == .long && (kind != .right || i.immediate == 0)
    finish(i.rd)
  }

  private mutating func emitVariableShift(_ kind: Assembler.Shift, _ i: Instruction, _ width: HostWidth = .quad) {
    if i.rd == 0 { return }
    let host = target(i.rd)
    let count = read(i.rs2, .rcx)
    assembler.shift(kind, host, read(i.rs1, .rax), by: count, width)
    isResultUnextended = width == .long
    finish(i.rd)
  }

  /// Sets the flags by comparing two guest registers.
  private mutating func emitCompare(_ left: UInt8, _ right: UInt8) {
    arithmetic(.compare, read(left, .rax), right, comparisonWidth)
  }

  private mutating func emitSetLess(_ i: Instruction, _ condition: HostCondition, _ immediate: Int32?) {
    if i.rd == 0 { return }
    if let immediate {
      assembler.arithmetic(.compare, read(i.rs1, .rax), immediate: immediate)
    } else if !(isCarryLeft && condition == .below) {
      emitCompare(i.rs1, i.rs2)
    }
    assembler.clearKeepingFlags(target(i.rd))
    assembler.set(condition, target(i.rd))
    finish(i.rd)
  }

  private mutating func emitMultiply(_ i: Instruction, _ width: HostWidth) {
    if i.rd == 0 { return }
    var (left, right) = (i.rs1, i.rs2)
    let host = target(i.rd)
    if located(right) == host { swap(&left, &right) }
    readInto(host, left, unless: host)
    assembler.multiply(host, read(right, .rcx), width)
    isResultUnextended = width == .long
    finish(i.rd)
  }

  private mutating func emitMultiplyHigh(_ i: Instruction) {
    if i.rd == 0 { return }
    let right = read(i.rs2, .rcx)
    if i.operation == .mulhu {
      readInto(.rdx, i.rs1)
      assembler.multiplyHigh(target(i.rd), low: .rax, right)
      return finish(i.rd)
    }
    readInto(.rax, i.rs1)
    assembler.multiplyWide(right, signed: i.operation == .mulh)
    if i.operation == .mulhsu {
      // Minus the right side where the left one is negative.
      readInto(.rax, i.rs1)
      assembler.shift(.rightSigned, .rax, by: 63)
      assembler.arithmetic(.and, .rax, right)
      assembler.arithmetic(.sub, .rdx, .rax)
    }
    write(i.rd, .rdx)
  }

  /// Division by zero and overflow have defined results (12.2).
  private mutating func emitDivide(_ i: Instruction, _ width: HostWidth, isSigned: Bool, remainder: Bool) {
    if i.rd == 0 { return }
    readInto(.rcx, i.rs2)
    readInto(.rax, i.rs1)
    assembler.test(.rcx, .rcx, width)
    let byZero = assembler.jump(if: .equal)
    var byMinusOne: Assembler.Patch?
    if isSigned {
      assembler.arithmetic(.compare, .rcx, immediate: -1, width)
      byMinusOne = assembler.jump(if: .equal)
      assembler.signIntoRDX(width)
    } else {
      assembler.xor(.rdx, .rdx, .long)
    }
    assembler.divide(.rcx, signed: isSigned, width)
    if remainder { assembler.move(.rax, .rdx) }
    let done = assembler.jump()
    var doneToo: Assembler.Patch?
    if let byMinusOne {
      assembler.fillHere(byMinusOne)
      if remainder { assembler.moveImmediate(.rax, 0) } else { assembler.negate(.rax, width) }
      doneToo = assembler.jump()
    }
    assembler.fillHere(byZero)
    // The remainder is the dividend, which rax holds.
    if !remainder { assembler.moveImmediate(.rax, ~0) }
    assembler.fillHere(done)
    if let doneToo { assembler.fillHere(doneToo) }
    isResultUnextended = width == .long
    write(i.rd, .rax)
  }

  private mutating func emitShiftAdd(_ i: Instruction, _ shift: UInt8, isWord: Bool) {
    if i.rd == 0 { return }
    let right = read(i.rs2, .rcx)
    var left = read(i.rs1, .rax)
    if isWord {
      assembler.move(.rax, left, .long)
      left = .rax
    }
    assembler.loadAddress(target(i.rd), HostAddress(right, index: left, shift: shift))
    finish(i.rd)
  }

  private mutating func emitCount(_ i: Instruction) {
    if i.rd == 0 { return }
    let source = read(i.rs1, .rcx)
    let host = target(i.rd)
    switch i.operation {
    case .clz: assembler.countLeadingZeros(host, source, .quad)
    case .ctz: assembler.countTrailingZeros(host, source, .quad)
    case .cpop: assembler.countOnes(host, source, .quad)
    case .clzw: assembler.countLeadingZeros(host, source, .long)
    case .ctzw: assembler.countTrailingZeros(host, source, .long)
    default: assembler.countOnes(host, source, .long)
    }
    finish(i.rd)
  }

  /// The one of two registers that stands in `condition` to the other.
  private mutating func emitChoice(_ i: Instruction, _ condition: HostCondition) {
    if i.rd == 0 { return }
    readInto(.rax, i.rs2)
    let left = read(i.rs1, .rcx)
    assembler.arithmetic(.compare, left, .rax)
    assembler.move(.rax, left, if: condition)
    write(i.rd, .rax)
  }

  private mutating func emitBit(_ operation: Assembler.BitOperation, _ i: Instruction, isImmediate: Bool = true) {
    if i.rd == 0 { return }
    if isImmediate {
      readInto(.rax, i.rs1)
      assembler.bit(operation, .rax, UInt8(i.immediate))
    } else {
      let index = read(i.rs2, .rcx)
      readInto(.rax, i.rs1)
      assembler.bit(operation, .rax, index)
    }
    write(i.rd, .rax)
  }

  private mutating func emitCarrylessMultiply(_ i: Instruction) {
    if i.rd == 0 { return }
    let right = read(i.rs2, .rcx)
    assembler.move(.xmm0, read(i.rs1, .rax))
    assembler.move(.xmm1, right)
    assembler.carrylessMultiply(.xmm0, .xmm1)
    if i.operation != .clmulh { assembler.move(.rax, .xmm0) }
    if i.operation != .clmul {
      assembler.moveHighDown(.xmm0)
      assembler.move(i.operation == .clmulr ? .rcx : .rax, .xmm0)
    }
    if i.operation == .clmulr {
      assembler.shift(.right, .rax, by: 63)
      assembler.loadAddress(.rax, HostAddress(.rax, index: .rcx, shift: 1))
    }
    write(i.rd, .rax)
  }

  // MARK: control transfer

  private mutating func emitBranch(_ step: Trace.Step, _ condition: HostCondition) {
    let i = step.instruction
    var condition = condition
    if i.rs1 == 0, i.rs2 != 0 {
      // 0 < x is x > 0, and so on.
      emitCompare(i.rs2, 0)
      switch condition {
      case .less: condition = .greater
      case .greaterOrEqual: condition = .lessOrEqual
      case .below: condition = .above
      case .aboveOrEqual: condition = .belowOrEqual
      default: break
      }
    } else if i.rs2 == 0, i.rs1 != 0, located(i.rs1) == nil, held != i.rs1 {
      assembler.arithmetic(.compare, StateLayout.integer(i.rs1), immediate: 0, comparisonWidth)
    } else {
      emitCompare(i.rs1, i.rs2)
    }
    comparisonWidth = .quad
    let target = Int64(step.offset) + i.immediate
    let left = uncounted - 1
    if left == 0, let loop {
      return emitTurn(loop.head, loop.map, if: condition)
    }
    if left == 0 {
      restoreCanonical()
      takeSnapshot()
    }
    if left == 0, target >= 0, target < 4096 {
      let index = Int(target) >> 1
      let entry = translations.entryPoints[index]
      if entry != UInt32(truncatingIfNeeded: thunks.exitDispatch) {
        assembler.jump(UInt(entry), if: condition)
      } else {
        let patch = assembler.jump(if: condition)
        wait(patch, index)
        postpone(.link(patch, Int(target)))
      }
      return
    }
    postpone(.side(assembler.jump(if: condition), target, left))
    nextHeld = held
  }

  private mutating func emitJumpAndLink(_ step: Trace.Step) {
    let i = step.instruction
    let target = Int64(step.offset) + i.immediate
    let next = step.offset + Int(i.length)
    setFromPage(i.rd, Int64(next))
    // A jump that the trace follows has a step behind it.
    if current + 1 < trace.count { return }
    if let loop {
      return emitTurn(loop.head, loop.map)
    }
    let isInPage = target >= 0 && target < 4096
    guard i.rd == 1 else {
      if isInPage { emitEnd(toOffset: Int(target)) } else { emitFarJump(target, isCall: false) }
      return
    }
    emitPushReturn(.rax)
    if isInPage {
      let index = Int(target) >> 1
      let entry = translations.entryPoints[index]
      if entry != UInt32(truncatingIfNeeded: thunks.exitDispatch) {
        assembler.call(UInt(entry))
      } else {
        let patch = assembler.call()
        wait(patch, index)
        postpone(.link(patch, Int(target)))
      }
    } else {
      emitFarJump(target, isCall: true)
    }
    emitLanding(next)
  }

  private mutating func emitJumpAndLinkRegister(_ step: Trace.Step) {
    let i = step.instruction
    let next = step.offset + Int(i.length)
    if Self.isReturn(i) {
      assembler.arithmetic(.compare, read(1, .rax), HostAddress(.rsp, 8))
      restoreCanonical()
      assembler.jump(thunks.returnMiss, if: .notEqual)
      assembler.ret()
      return
    }
    if case .fromPage(let offset) = known[Int(i.rs1)] {
      let target = (offset + i.immediate) & ~1
      setFromPage(i.rd, Int64(next))
      if i.rd == 1 {
        emitPushReturn(.rax)
        emitFarJump(target, isCall: true)
        emitLanding(next)
      } else {
        emitFarJump(target, isCall: false)
      }
      return
    }
    let source = read(i.rs1, .rax)
    if i.immediate != 0 || source != .rax {
      assembler.loadAddress(.rax, HostAddress(source, Int32(i.immediate)))
    }
    if i.rd == 1 {
      assembler.loadAddress(.rcx, HostAddress(PinnedRegisters.pageBase, Int32(next)))
      assembler.store(StateLayout.integer(1), .rcx)
      emitPushReturn(.rcx)
      assembler.fill(Self.emitIndirectJump(&assembler, isCall: true), thunks.exitAbsolute)
      emitLanding(next)
    } else {
      if i.rd != 0 {
        // rax is taken.
        let link = located(i.rd) ?? .rcx
        assembler.loadAddress(link, HostAddress(PinnedRegisters.pageBase, Int32(next)))
        if link == .rcx { assembler.store(StateLayout.integer(i.rd), link) }
      }
      assembler.fill(Self.emitIndirectJump(&assembler, isCall: false), thunks.exitAbsolute)
    }
  }

  // MARK: the interpreter's help

  /// Has the interpreter execute the present instruction.
  mutating func emitExecuteOne(_ step: Trace.Step) {
    extendAll()
    forgetPending()
    restoreCanonical()
    held = nil
    nextHeld = nil
    countWhole()
    assembler.moveImmediate(.rcx, UInt64(site(step).bits))
    assembler.call(thunks.executeOne)
    if countsDown { assembler.arithmetic(.sub, PinnedRegisters.remaining, StateLayout.loopRest) }
    known[Int(step.instruction.rd)] = .nothing
    isFloatChecked = false
    isFloatDirty = false
    boxed = 0
  }

  func site(
    _ step: Trace.Step, widthShift: UInt8 = 0, isSigned: Bool = false, isStore: Bool = false
  ) -> SiteDescription {
    SiteDescription(
      offset: step.offset, uncounted: uncounted, length: step.instruction.length, widthShift: widthShift,
      isSigned: isSigned, isStore: isStore)
  }
}

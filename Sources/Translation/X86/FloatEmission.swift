import Hart
import RISCV

/// F and D (Unprivileged Architecture, 20 and 21) on SSE2 and FMA.
///
/// Generated code computes only while mstatus.FS isn't off and frm is round-to-nearest-even, which is MXCSR's setting; the
/// interpreter executes what comes otherwise. Exceptions gather in MXCSR, which has RISC-V's meaning for all of them
/// (both detect tininess after rounding). A result that is a NaN becomes the canonical one.
extension X86BackEnd {
  /// Emits the check that floating point may be computed here, unless the block has done so before.
  mutating func checkFloat(_ step: Trace.Step) {
    if isFloatChecked { return }
    isFloatChecked = true
    held = nil
    assembler.compare8(StateLayout.isFloatReady, immediate: 0)
    let missing = assembler.jump(if: .equal)
    postpone(.floatReady(missing, step.offset, uncounted, assembler.here))
  }

  /// Marks the floating-point state dirty, unless the block has done so before.
  mutating func makeFloatDirty() {
    if isFloatDirty { return }
    isFloatDirty = true
    assembler.arithmetic(.or, StateLayout.mstatus, immediate: Int32(MachineStatus.fs), .long)
  }

  // MARK: registers

  /// The host register that holds a guest register, which is loaded into `scratch` where it lives in memory: all 64 bits,
  /// so that the box of a single-precision value goes with it.
  mutating func read(float register: UInt8, _ scratch: VectorRegister) -> VectorRegister {
    if let host = PinnedFloats.host(register) { return host }
    assembler.load(scratch, StateLayout.float(register), .double)
    return scratch
  }

  private func operand(_ register: UInt8) -> FloatOperand {
    PinnedFloats.host(register).map { .register($0) } ?? .memory(StateLayout.float(register))
  }

  /// Where the result for a guest register is computed: its host register, or xmm0, which `finish` stores.
  func target(float register: UInt8) -> VectorRegister { PinnedFloats.host(register) ?? .xmm0 }

  /// Ends the computation of a guest register in `target`. A single-precision result is boxed there.
  mutating func finish(float register: UInt8, _ format: Assembler.Scalar) {
    if PinnedFloats.host(register) == nil { assembler.store(StateLayout.float(register), .xmm0, .double) }
    if format == .single { boxed |= 1 << UInt32(register) } else { boxed &= ~(1 << UInt32(register)) }
  }

  /// Gives a guest register a double-precision value, or one of unknown kind.
  mutating func write(float register: UInt8, _ host: VectorRegister) {
    if let pinned = PinnedFloats.host(register) {
      if pinned != host { assembler.move(pinned, host) }
    } else {
      assembler.store(StateLayout.float(register), host, .double)
    }
    boxed &= ~(1 << UInt32(register))
  }

  /// Leaves the instruction to the interpreter where a source isn't a boxed single-precision value. Clobbers rax.
  private mutating func checkBoxed(_ format: Assembler.Scalar, _ registers: UInt8...) -> [Assembler.Patch] {
    var misses: [Assembler.Patch] = []
    if format == .double { return misses }
    for register in registers where boxed & 1 << UInt32(register) == 0 {
      if let host = PinnedFloats.host(register) {
        assembler.moveUpper(.rax, host)
        assembler.arithmetic(.compare, .rax, immediate: -1, .long)
      } else {
        assembler.arithmetic(.compare, StateLayout.floatUpper(register), immediate: -1, .long)
      }
      misses.append(assembler.jump(if: .notEqual))
      boxed |= 1 << UInt32(register)
    }
    return misses
  }

  /// Whether an operation that rounds does so to nearest even, as MXCSR has it.
  private func roundsToNearest(_ i: Instruction) -> Bool { i.roundingMode == 0 || i.roundingMode == 7 }

  mutating func emitFloat(_ step: Trace.Step) {
    let i = step.instruction
    switch i.operation {
    case .fadd_d: emitScalar(step, .add, .double)
    case .fsub_d: emitScalar(step, .subtract, .double)
    case .fmul_d: emitScalar(step, .multiply, .double)
    case .fdiv_d: emitScalar(step, .divide, .double)
    case .fsqrt_d: emitScalar(step, .squareRoot, .double)
    case .fadd_s: emitScalar(step, .add, .single)
    case .fsub_s: emitScalar(step, .subtract, .single)
    case .fmul_s: emitScalar(step, .multiply, .single)
    case .fdiv_s: emitScalar(step, .divide, .single)
    case .fsqrt_s: emitScalar(step, .squareRoot, .single)
    case .fmadd_d: emitFused(step, .double, negatedProduct: false, negatedAddend: false)
    case .fmsub_d: emitFused(step, .double, negatedProduct: false, negatedAddend: true)
    case .fnmsub_d: emitFused(step, .double, negatedProduct: true, negatedAddend: false)
    case .fnmadd_d: emitFused(step, .double, negatedProduct: true, negatedAddend: true)
    case .fmadd_s: emitFused(step, .single, negatedProduct: false, negatedAddend: false)
    case .fmsub_s: emitFused(step, .single, negatedProduct: false, negatedAddend: true)
    case .fnmsub_s: emitFused(step, .single, negatedProduct: true, negatedAddend: false)
    case .fnmadd_s: emitFused(step, .single, negatedProduct: true, negatedAddend: true)
    case .fmin_d: emitExtreme(step, .minimum, .double)
    case .fmax_d: emitExtreme(step, .maximum, .double)
    case .fmin_s: emitExtreme(step, .minimum, .single)
    case .fmax_s: emitExtreme(step, .maximum, .single)
    case .feq_d, .flt_d, .fle_d: emitComparison(step, .double)
    case .feq_s, .flt_s, .fle_s: emitComparison(step, .single)
    case .fsgnj_d, .fsgnjn_d, .fsgnjx_d: emitSignInjection(step, .double)
    case .fsgnj_s, .fsgnjn_s, .fsgnjx_s: emitSignInjection(step, .single)
    case .fmv_x_d:
      checkFloat(step)
      if let source = PinnedFloats.host(i.rs1) {
        assembler.move(target(i.rd), source)
      } else {
        assembler.load(target(i.rd), StateLayout.float(i.rs1))
      }
      finish(i.rd)
    case .fmv_x_w:
      checkFloat(step)
      if let source = PinnedFloats.host(i.rs1) {
        assembler.moveLong(.rax, source)
        assembler.signExtend32(target(i.rd), .rax)
      } else {
        assembler.signExtend32(target(i.rd), StateLayout.float(i.rs1))
      }
      finish(i.rd)
    case .fmv_d_x:
      checkFloat(step)
      makeFloatDirty()
      assembler.move(target(float: i.rd), read(i.rs1, .rax))
      finish(float: i.rd, .double)
    case .fmv_w_x:
      checkFloat(step)
      makeFloatDirty()
      assembler.moveLong(.xmm0, read(i.rs1, .rax))
      assembler.bitwise(.or, target(float: i.rd), .xmm0, .memory(StateLayout.singleBox))
      finish(float: i.rd, .single)
    case .fcvt_d_w, .fcvt_d_wu, .fcvt_d_l, .fcvt_d_lu: emitFromInteger(step, .double)
    case .fcvt_s_w, .fcvt_s_wu, .fcvt_s_l, .fcvt_s_lu: emitFromInteger(step, .single)
    case .fcvt_w_d: emitToInteger(step, .double, .long)
    case .fcvt_l_d: emitToInteger(step, .double, .quad)
    case .fcvt_w_s: emitToInteger(step, .single, .long)
    case .fcvt_l_s: emitToInteger(step, .single, .quad)
    case .fcvt_wu_d: emitToUnsigned(step, .double, isWord: true)
    case .fcvt_lu_d: emitToUnsigned(step, .double, isWord: false)
    case .fcvt_wu_s: emitToUnsigned(step, .single, isWord: true)
    case .fcvt_lu_s: emitToUnsigned(step, .single, isWord: false)
    case .fcvt_d_s, .fcvt_s_d: emitFormatConversion(step)
    default: emitExecuteOne(step)
    }
  }

  /// Sends the places in `misses` to the interpreter for this instruction, and back to here.
  private mutating func leaveToInterpreter(_ step: Trace.Step, _ misses: [Assembler.Patch]) {
    if !misses.isEmpty { nextHeld = nil }
    for miss in misses { postpone(.executeOne(miss, site(step).bits, assembler.here)) }
  }

  /// What was taken for granted of a source may not be so where the interpreter executed the instruction, whose result is
  /// of the right kind all the same.
  private mutating func forgetSources(_ misses: [Assembler.Patch], _ registers: UInt8...) {
    if misses.isEmpty { return }
    for register in registers { boxed &= ~(1 << UInt32(register)) }
  }

  /// Ends the computation of a result, of which a NaN becomes the canonical one.
  private mutating func finishNumber(_ register: UInt8, _ format: Assembler.Scalar) {
    let host = target(float: register)
    assembler.compare(host, .register(host), format, signaling: false)
    postpone(.notANumber(assembler.jump(if: .parity), host, isSingle: format == .single, assembler.here))
    finish(float: register, format)
  }

  private mutating func emitScalar(
    _ step: Trace.Step, _ operation: Assembler.ScalarOperation, _ format: Assembler.Scalar
  ) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    let host = target(float: i.rd)
    let misses: [Assembler.Patch]
    if operation == .squareRoot {
      misses = checkBoxed(format, i.rs1)
      let source = read(float: i.rs1, .xmm0)
      assembler.scalar(operation, host, source, .register(source), format)
      forgetSources(misses, i.rs1)
    } else {
      misses = checkBoxed(format, i.rs1, i.rs2)
      assembler.scalar(operation, host, read(float: i.rs1, .xmm0), operand(i.rs2), format)
      forgetSources(misses, i.rs1, i.rs2)
    }
    finishNumber(i.rd, format)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitFused(
    _ step: Trace.Step, _ format: Assembler.Scalar, negatedProduct: Bool, negatedAddend: Bool
  ) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    var misses = checkBoxed(format, i.rs1, i.rs2, i.rs3)
    forgetSources(misses, i.rs1, i.rs2, i.rs3)
    if let source = PinnedFloats.host(i.rs1) {
      assembler.move(.xmm0, source)
    } else {
      assembler.load(.xmm0, StateLayout.float(i.rs1), .double)
    }
    assembler.fusedMultiplyAdd(
      .xmm0, read(float: i.rs2, .xmm1), addend: operand(i.rs3), negatedProduct: negatedProduct,
      negatedAddend: negatedAddend, format)
    // Infinity times zero is invalid even where the addend is a quiet NaN: the interpreter knows.
    assembler.compare(.xmm0, .register(.xmm0), format, signaling: false)
    misses.append(assembler.jump(if: .parity))
    write(float: i.rd, .xmm0)
    if format == .single { boxed |= 1 << UInt32(i.rd) }
    leaveToInterpreter(step, misses)
  }

  /// The smaller or larger of two numbers, of which -0 is smaller than +0; the interpreter knows what NaNs give.
  private mutating func emitExtreme(
    _ step: Trace.Step, _ operation: Assembler.ScalarOperation, _ format: Assembler.Scalar
  ) {
    let i = step.instruction
    checkFloat(step)
    makeFloatDirty()
    var misses = checkBoxed(format, i.rs1, i.rs2)
    forgetSources(misses, i.rs1, i.rs2)
    let left = read(float: i.rs1, .xmm0)
    let right = read(float: i.rs2, .xmm1)
    assembler.compare(left, .register(right), format, signaling: false)
    misses.append(assembler.jump(if: .parity))
    // Of equal operands the host takes the second one: of both orders' results, all bits or any.
    assembler.scalar(operation, .xmm2, left, .register(right), format)
    assembler.scalar(operation, .xmm1, right, .register(left), format)
    assembler.bitwise(operation == .minimum ? .or : .and, target(float: i.rd), .xmm2, .register(.xmm1))
    finish(float: i.rd, format)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitComparison(_ step: Trace.Step, _ format: Assembler.Scalar) {
    let i = step.instruction
    checkFloat(step)
    let misses = checkBoxed(format, i.rs1, i.rs2)
    forgetSources(misses, i.rs1, i.rs2)
    switch i.operation {
    case .feq_d, .feq_s:
      assembler.compare(read(float: i.rs1, .xmm0), operand(i.rs2), format, signaling: false)
      assembler.set(.noParity, .rax)
      assembler.set(.equal, .rcx)
      assembler.arithmetic(.and, .rax, .rcx, .long)
    default:
      // a < b is b above a, which an unordered pair isn't.
      assembler.compare(read(float: i.rs2, .xmm0), operand(i.rs1), format, signaling: true)
      assembler.set(i.operation == .flt_d || i.operation == .flt_s ? .above : .aboveOrEqual, .rax)
    }
    if i.rd != 0 { assembler.zeroExtend8(target(i.rd), .rax) }
    finish(i.rd)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitSignInjection(_ step: Trace.Step, _ format: Assembler.Scalar) {
    let i = step.instruction
    checkFloat(step)
    makeFloatDirty()
    let misses = checkBoxed(format, i.rs1, i.rs2)
    let sign = format == .double ? StateLayout.doubleSign : StateLayout.singleSign
    let host = target(float: i.rd)
    let left = read(float: i.rs1, .xmm0)
    switch i.operation {
    case .fsgnj_d where i.rs1 == i.rs2, .fsgnj_s where i.rs1 == i.rs2:
      if host != left { assembler.move(host, left) }
    case .fsgnjn_d where i.rs1 == i.rs2, .fsgnjn_s where i.rs1 == i.rs2:
      assembler.bitwise(.xor, host, left, .memory(sign))
    default:
      // The sign to take, or to turn by.
      let right = read(float: i.rs2, .xmm1)
      assembler.load(.xmm2, sign, .double)
      switch i.operation {
      case .fsgnjx_d, .fsgnjx_s:
        assembler.bitwise(.and, .xmm1, right, .register(.xmm2))
        assembler.bitwise(.xor, host, left, .register(.xmm1))
      default:
        let isInverted = i.operation == .fsgnjn_d || i.operation == .fsgnjn_s
        assembler.bitwise(isInverted ? .andNot : .and, .xmm1, right, .register(.xmm2))
        assembler.bitwise(.andNot, .xmm2, .xmm2, .register(left))
        assembler.bitwise(.or, host, .xmm2, .register(.xmm1))
      }
    }
    forgetSources(misses, i.rs1, i.rs2)
    finish(float: i.rd, format)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitFromInteger(_ step: Trace.Step, _ format: Assembler.Scalar) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    var source = read(i.rs1, .rax)
    var width = HostWidth.long
    var misses: [Assembler.Patch] = []
    switch i.operation {
    case .fcvt_d_lu, .fcvt_s_lu:
      width = .quad
      assembler.test(source, source)
      misses = [assembler.jump(if: .negative)]
    case .fcvt_d_l, .fcvt_s_l: width = .quad
    case .fcvt_d_wu, .fcvt_s_wu:
      assembler.move(.rax, source, .long)
      source = .rax
      width = .quad
    default: break
    }
    emitUpper(format)
    assembler.convert(target(float: i.rd), source, upper: .xmm0, width, to: format)
    finish(float: i.rd, format)
    leaveToInterpreter(step, misses)
  }

  /// Puts into xmm0 what stands above a result of `format`: the box, or nothing to wait for.
  private mutating func emitUpper(_ format: Assembler.Scalar) {
    if format == .single { assembler.setOnes(.xmm0) } else { assembler.clear(.xmm0) }
  }

  /// To an unsigned integer: where the value isn't negative and a signed 64-bit conversion gives the same.
  private mutating func emitToUnsigned(_ step: Trace.Step, _ format: Assembler.Scalar, isWord: Bool) {
    let i = step.instruction
    // Truncation only: rounding could reach a limit that the value is below.
    guard i.roundingMode == 1 else { return emitExecuteOne(step) }
    checkFloat(step)
    var misses = checkBoxed(format, i.rs1)
    forgetSources(misses, i.rs1)
    let source = read(float: i.rs1, .xmm0)
    // As bits, values that aren't negative are in order, and the others above them all.
    if format == .double {
      assembler.move(.rax, source)
      assembler.moveImmediate(.rcx, isWord ? 0x41F0_0000_0000_0000 : 0x43E0_0000_0000_0000)
      assembler.arithmetic(.compare, .rax, .rcx)
    } else {
      assembler.moveLong(.rax, source)
      assembler.arithmetic(.compare, .rax, immediate: isWord ? 0x4F80_0000 : 0x5F00_0000, .long)
    }
    misses.append(assembler.jump(if: .aboveOrEqual))
    assembler.convert(.rax, .register(source), from: format, .quad, truncating: true)
    if isWord { assembler.signExtend32(.rax, .rax) }
    write(i.rd, .rax)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitToInteger(_ step: Trace.Step, _ format: Assembler.Scalar, _ width: HostWidth) {
    let i = step.instruction
    // To nearest even, toward zero, down, up.
    guard roundsToNearest(i) || i.roundingMode <= 3 else { return emitExecuteOne(step) }
    checkFloat(step)
    var misses = checkBoxed(format, i.rs1)
    forgetSources(misses, i.rs1)
    if i.roundingMode == 2 || i.roundingMode == 3 {
      let source = read(float: i.rs1, .xmm0)
      assembler.round(.xmm0, source, source, i.roundingMode - 1, format)
      assembler.convert(.rax, .register(.xmm0), from: format, width, truncating: true)
    } else {
      assembler.convert(.rax, operand(i.rs1), from: format, width, truncating: i.roundingMode == 1)
    }
    // The smallest integer also stands for everything that is out of range.
    assembler.arithmetic(.compare, .rax, immediate: 1, width)
    misses.append(assembler.jump(if: .overflow))
    if width == .long { assembler.signExtend32(.rax, .rax) }
    write(i.rd, .rax)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitFormatConversion(_ step: Trace.Step) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    let source: Assembler.Scalar = i.operation == .fcvt_d_s ? .single : .double
    let misses = checkBoxed(source, i.rs1)
    forgetSources(misses, i.rs1)
    emitUpper(source == .single ? .double : .single)
    assembler.convert(target(float: i.rd), operand(i.rs1), upper: .xmm0, from: source)
    finishNumber(i.rd, source == .single ? .double : .single)
    leaveToInterpreter(step, misses)
  }

  // MARK: fflags (20.2)

  /// The number of the CSR.
  static let fflags: Int64 = 0x001

  /// Leaves fflags in eax: those the guest has set or seen, and what MXCSR has gathered since.
  private mutating func emitFlags() {
    assembler.storeControl(StateLayout.guestFloatControl)
    assembler.load(.rax, StateLayout.guestFloatControl, .long)
    assembler.arithmetic(.and, .rax, immediate: 0x3F, .long)
    assembler.zeroExtend8(.rax, StateLayout.flagsOfHost(.rax))
    assembler.or8(.rax, StateLayout.floatFlags)
  }

  mutating func emitFlagsRead(_ step: Trace.Step) {
    checkFloat(step)
    emitFlags()
    write(step.instruction.rd, .rax)
  }

  mutating func emitFlagsWrite(_ step: Trace.Step) {
    let i = step.instruction
    checkFloat(step)
    makeFloatDirty()
    if i.operation == .csrrw { readInto(.rcx, i.rs1) } else { assembler.moveImmediate(.rcx, UInt64(i.rs1)) }
    if i.rd != 0 {
      emitFlags()
      write(i.rd, .rax)
    } else {
      assembler.storeControl(StateLayout.guestFloatControl)
    }
    assembler.arithmetic(.and, .rcx, immediate: 31, .long)
    assembler.store8(StateLayout.floatFlags, .rcx)
    assembler.test(StateLayout.guestFloatControl, immediate: 0x3F)
    let clean = assembler.jump(if: .equal)
    assembler.arithmetic(.and, StateLayout.guestFloatControl, immediate: ~0x3F, .long)
    assembler.loadControl(StateLayout.guestFloatControl)
    assembler.fillHere(clean)
  }
}

import Hart
import RISCV

/// F and D (Unprivileged Architecture, 20 and 21) on SSE2 and FMA.
///
/// Generated code computes only while mstatus.FS isn't off and frm is round-to-nearest-even, which is MXCSR's setting; the
/// interpreter executes what comes otherwise. Exceptions gather in MXCSR, which has RISC-V's meaning for all of them
/// (both detect tininess after rounding). A result that is a NaN becomes the canonical one.
extension BlockTranslator {
  /// Emits the check that floating point may be computed here, unless the block has done so before.
  mutating func checkFloat(_ step: Step) {
    if isFloatChecked { return }
    isFloatChecked = true
    held = nil
    assembler.load(.rax, StateLayout.mstatus, .long)
    assembler.test(.rax, immediate: Int32(MachineStatus.fs), .long)
    postpone(.interpretOn(assembler.jump(if: .equal), step.offset, uncounted))
    assembler.compare8(StateLayout.rounding, immediate: 0)
    postpone(.interpretOn(assembler.jump(if: .notEqual), step.offset, uncounted))
  }

  /// Marks the floating-point state dirty, unless the block has done so before.
  mutating func makeFloatDirty() {
    if isFloatDirty { return }
    isFloatDirty = true
    assembler.arithmetic(.or, StateLayout.mstatus, immediate: Int32(MachineStatus.fs), .long)
  }

  /// Fills the upper half of a register that holds a single-precision value.
  mutating func box(_ register: UInt8) {
    if boxed & 1 << UInt32(register) != 0 { return }
    assembler.storeImmediate(StateLayout.floatUpper(register), -1, .long)
    boxed |= 1 << UInt32(register)
  }

  /// Leaves the instruction to the interpreter where a source isn't a boxed single-precision value.
  private mutating func checkBoxed(_ step: Step, _ registers: [UInt8]) -> [Assembler.Patch] {
    var misses: [Assembler.Patch] = []
    for register in registers where boxed & 1 << UInt32(register) == 0 {
      assembler.arithmetic(.compare, StateLayout.floatUpper(register), immediate: -1, .long)
      misses.append(assembler.jump(if: .notEqual))
    }
    return misses
  }

  /// Whether an operation that rounds does so to nearest even, as MXCSR has it.
  private func roundsToNearest(_ i: Instruction) -> Bool { i.roundingMode == 0 || i.roundingMode == 7 }

  mutating func emitFloat(_ step: Step) {
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
    case .feq_d, .flt_d, .fle_d: emitComparison(step, .double)
    case .feq_s, .flt_s, .fle_s: emitComparison(step, .single)
    case .fsgnj_d, .fsgnjn_d, .fsgnjx_d: emitSignInjection(step)
    case .fmv_x_d:
      checkFloat(step)
      assembler.load(target(i.rd), StateLayout.float(i.rs1))
      finish(i.rd)
    case .fmv_x_w:
      checkFloat(step)
      assembler.signExtend32(target(i.rd), StateLayout.float(i.rs1))
      finish(i.rd)
    case .fmv_d_x:
      checkFloat(step)
      makeFloatDirty()
      assembler.store(StateLayout.float(i.rd), read(i.rs1, .rax))
      boxed &= ~(1 << UInt32(i.rd))
    case .fmv_w_x:
      checkFloat(step)
      makeFloatDirty()
      assembler.store(StateLayout.float(i.rd), read(i.rs1, .rax), .long)
      box(i.rd)
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
  private mutating func leaveToInterpreter(_ step: Step, _ misses: [Assembler.Patch]) {
    if !misses.isEmpty { nextHeld = nil }
    for miss in misses { postpone(.executeOne(miss, site(step).bits, assembler.here)) }
  }

  /// Stores xmm0 as the result, or the canonical NaN where it is one.
  private mutating func storeResult(_ register: UInt8, _ format: Assembler.Scalar) {
    assembler.compare(.xmm0, .xmm0, format, signaling: false)
    let notANumber = assembler.jump(if: .parity)
    assembler.store(StateLayout.float(register), .xmm0, format)
    if format == .single { box(register) } else { boxed &= ~(1 << UInt32(register)) }
    postpone(.notANumber(notANumber, register, isSingle: format == .single, assembler.here))
  }

  private mutating func emitScalar(_ step: Step, _ operation: Assembler.ScalarOperation, _ format: Assembler.Scalar) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    let isUnary = operation == .squareRoot
    let misses = format == .single ? checkBoxed(step, isUnary ? [i.rs1] : [i.rs1, i.rs2]) : []
    if isUnary {
      assembler.clear(.xmm0)
      assembler.scalar(operation, .xmm0, StateLayout.float(i.rs1), format)
    } else {
      assembler.load(.xmm0, StateLayout.float(i.rs1), format)
      assembler.scalar(operation, .xmm0, StateLayout.float(i.rs2), format)
    }
    storeResult(i.rd, format)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitFused(
    _ step: Step, _ format: Assembler.Scalar, negatedProduct: Bool, negatedAddend: Bool
  ) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    var misses = format == .single ? checkBoxed(step, [i.rs1, i.rs2, i.rs3]) : []
    assembler.load(.xmm0, StateLayout.float(i.rs1), format)
    assembler.load(.xmm1, StateLayout.float(i.rs3), format)
    assembler.fusedMultiplyAdd(
      .xmm0, multiplier: StateLayout.float(i.rs2), addend: .xmm1, negatedProduct: negatedProduct,
      negatedAddend: negatedAddend, format)
    // Infinity times zero is invalid even where the addend is a quiet NaN: the interpreter knows.
    assembler.compare(.xmm0, .xmm0, format, signaling: false)
    misses.append(assembler.jump(if: .parity))
    assembler.store(StateLayout.float(i.rd), .xmm0, format)
    if format == .single { box(i.rd) } else { boxed &= ~(1 << UInt32(i.rd)) }
    leaveToInterpreter(step, misses)
  }

  private mutating func emitComparison(_ step: Step, _ format: Assembler.Scalar) {
    let i = step.instruction
    checkFloat(step)
    let misses = format == .single ? checkBoxed(step, [i.rs1, i.rs2]) : []
    switch i.operation {
    case .feq_d, .feq_s:
      assembler.load(.xmm0, StateLayout.float(i.rs1), format)
      assembler.compare(.xmm0, StateLayout.float(i.rs2), format, signaling: false)
      assembler.set(.noParity, .rax)
      assembler.set(.equal, .rcx)
      assembler.arithmetic(.and, .rax, .rcx, .long)
    default:
      // a < b is b above a, which an unordered pair isn't.
      assembler.load(.xmm0, StateLayout.float(i.rs2), format)
      assembler.compare(.xmm0, StateLayout.float(i.rs1), format, signaling: true)
      assembler.set(i.operation == .flt_d || i.operation == .flt_s ? .above : .aboveOrEqual, .rax)
    }
    if i.rd != 0 { assembler.zeroExtend8(target(i.rd), .rax) }
    finish(i.rd)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitSignInjection(_ step: Step) {
    let i = step.instruction
    checkFloat(step)
    makeFloatDirty()
    assembler.load(.rax, StateLayout.float(i.rs1))
    if i.rs1 == i.rs2 {
      // fmv, fneg, fabs
      if i.operation == .fsgnjn_d { assembler.bit(.complement, .rax, 63) }
      if i.operation == .fsgnjx_d { assembler.bit(.clear, .rax, 63) }
    } else {
      assembler.load(.rcx, StateLayout.float(i.rs2))
      if i.operation == .fsgnjn_d { assembler.not(.rcx) }
      assembler.shift(.right, .rcx, by: 63)
      assembler.shift(.left, .rcx, by: 63)
      if i.operation != .fsgnjx_d { assembler.bit(.clear, .rax, 63) }
      assembler.arithmetic(.xor, .rax, .rcx)
    }
    assembler.store(StateLayout.float(i.rd), .rax)
    boxed &= ~(1 << UInt32(i.rd))
  }

  private mutating func emitFromInteger(_ step: Step, _ format: Assembler.Scalar) {
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
    assembler.clear(.xmm0)
    assembler.convert(.xmm0, source, width, to: format)
    assembler.store(StateLayout.float(i.rd), .xmm0, format)
    if format == .single { box(i.rd) } else { boxed &= ~(1 << UInt32(i.rd)) }
    leaveToInterpreter(step, misses)
  }

  /// To an unsigned integer: where the value isn't negative and a signed 64-bit conversion gives the same.
  private mutating func emitToUnsigned(_ step: Step, _ format: Assembler.Scalar, isWord: Bool) {
    let i = step.instruction
    // Truncation only: rounding could reach a limit that the value is below.
    guard i.roundingMode == 1 else { return emitExecuteOne(step) }
    checkFloat(step)
    var misses = format == .single ? checkBoxed(step, [i.rs1]) : []
    // As bits, values that aren't negative are in order, and the others above them all.
    if format == .double {
      assembler.load(.rax, StateLayout.float(i.rs1))
      assembler.moveImmediate(.rcx, isWord ? 0x41F0_0000_0000_0000 : 0x43E0_0000_0000_0000)
      assembler.arithmetic(.compare, .rax, .rcx)
    } else {
      assembler.load(.rax, StateLayout.float(i.rs1), .long)
      assembler.arithmetic(.compare, .rax, immediate: isWord ? 0x4F80_0000 : 0x5F00_0000, .long)
    }
    misses.append(assembler.jump(if: .aboveOrEqual))
    assembler.convert(.rax, StateLayout.float(i.rs1), from: format, .quad, truncating: true)
    if isWord { assembler.signExtend32(.rax, .rax) }
    write(i.rd, .rax)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitToInteger(_ step: Step, _ format: Assembler.Scalar, _ width: HostWidth) {
    let i = step.instruction
    guard roundsToNearest(i) || i.roundingMode == 1 else { return emitExecuteOne(step) }
    checkFloat(step)
    var misses = format == .single ? checkBoxed(step, [i.rs1]) : []
    assembler.convert(.rax, StateLayout.float(i.rs1), from: format, width, truncating: i.roundingMode == 1)
    // The smallest integer also stands for everything that is out of range.
    assembler.arithmetic(.compare, .rax, immediate: 1, width)
    misses.append(assembler.jump(if: .overflow))
    if width == .long { assembler.signExtend32(.rax, .rax) }
    write(i.rd, .rax)
    leaveToInterpreter(step, misses)
  }

  private mutating func emitFormatConversion(_ step: Step) {
    let i = step.instruction
    guard roundsToNearest(i) else { return emitExecuteOne(step) }
    checkFloat(step)
    makeFloatDirty()
    let source: Assembler.Scalar = i.operation == .fcvt_d_s ? .single : .double
    let misses = source == .single ? checkBoxed(step, [i.rs1]) : []
    assembler.clear(.xmm0)
    assembler.convert(.xmm0, StateLayout.float(i.rs1), from: source)
    storeResult(i.rd, source == .single ? .double : .single)
    leaveToInterpreter(step, misses)
  }
}

import RISCV

/// F and D: computation, by the arithmetic in FloatingPoint (Unprivileged Architecture, 20 and 21).
extension Hart {
  /// Executes a floating-point instruction that computes. The caller has checked that mstatus.FS isn't off. False: the
  /// rounding mode is reserved, and the instruction illegal.
  @inline(never)
  func executeFloatingPoint(_ slot: Slot) -> Bool {
    let state = self.state
    let x = self.x
    let rd = Int(slot.rd)
    let code = slot.roundingMode == 7 ? state.pointee.floatingPointRounding : slot.roundingMode
    var flags = state.pointee.floatingPointFlags
    let rounding: RoundingMode
    if let mode = RoundingMode(rawValue: code) {
      rounding = mode
    } else {
      // Only instructions that round have the field; for the others the decoder leaves it 0.
      return false
    }

    @inline(__always) func s(_ register: UInt8) -> UInt32 { NaNBoxing.unbox(state.pointee.f[unchecked: Int(register)]) }
    @inline(__always) func d(_ register: UInt8) -> UInt64 { state.pointee.f[unchecked: Int(register)] }
    @inline(__always) func setS(_ value: UInt32) {
      state.pointee.f[unchecked: rd] = NaNBoxing.box(value)
      state.pointee.mstatus |= MachineStatus.fs
    }
    @inline(__always) func setD(_ value: UInt64) {
      state.pointee.f[unchecked: rd] = value
      state.pointee.mstatus |= MachineStatus.fs
    }

    switch slot.operation {
    case .fadd_s: setS(Float32Bits.add(s(slot.rs1), s(slot.rs2), rounding, &flags))
    case .fsub_s: setS(Float32Bits.subtract(s(slot.rs1), s(slot.rs2), rounding, &flags))
    case .fmul_s: setS(Float32Bits.multiply(s(slot.rs1), s(slot.rs2), rounding, &flags))
    case .fdiv_s: setS(Float32Bits.divide(s(slot.rs1), s(slot.rs2), rounding, &flags))
    case .fsqrt_s: setS(Float32Bits.squareRoot(s(slot.rs1), rounding, &flags))
    case .fmadd_s:
      setS(Float32Bits.multiplyAdd(s(slot.rs1), s(slot.rs2), s(slot.auxiliary), rounding, &flags))
    case .fmsub_s:
      setS(Float32Bits.multiplyAdd(s(slot.rs1), s(slot.rs2), Float32Bits.negate(s(slot.auxiliary)), rounding, &flags))
    case .fnmsub_s:
      setS(Float32Bits.multiplyAdd(Float32Bits.negate(s(slot.rs1)), s(slot.rs2), s(slot.auxiliary), rounding, &flags))
    case .fnmadd_s:
      setS(
        Float32Bits.multiplyAdd(
          Float32Bits.negate(s(slot.rs1)), s(slot.rs2), Float32Bits.negate(s(slot.auxiliary)), rounding, &flags))
    case .fsgnj_s: setS(Float32Bits.copySign(s(slot.rs1), s(slot.rs2)))
    case .fsgnjn_s: setS(Float32Bits.copyNegatedSign(s(slot.rs1), s(slot.rs2)))
    case .fsgnjx_s: setS(Float32Bits.xorSign(s(slot.rs1), s(slot.rs2)))
    case .fmin_s: setS(Float32Bits.minimum(s(slot.rs1), s(slot.rs2), &flags))
    case .fmax_s: setS(Float32Bits.maximum(s(slot.rs1), s(slot.rs2), &flags))
    case .feq_s: x[rd] = Float32Bits.isEqual(s(slot.rs1), s(slot.rs2), &flags) ? 1 : 0
    case .flt_s: x[rd] = Float32Bits.isLess(s(slot.rs1), s(slot.rs2), &flags) ? 1 : 0
    case .fle_s: x[rd] = Float32Bits.isLessOrEqual(s(slot.rs1), s(slot.rs2), &flags) ? 1 : 0
    case .fclass_s: x[rd] = Float32Bits.classify(s(slot.rs1))
    case .fcvt_w_s:
      let value = Float32Bits.integer(Int32.self, s(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: Int64(value))
    case .fcvt_wu_s:
      let value = Float32Bits.integer(UInt32.self, s(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: Int64(Int32(bitPattern: value)))
    case .fcvt_l_s:
      let value = Float32Bits.integer(Int64.self, s(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: value)
    case .fcvt_lu_s:
      let value = Float32Bits.integer(UInt64.self, s(slot.rs1), rounding, &flags)
      x[rd] = value
    case .fcvt_s_w: setS(Float32Bits.float(Int32(truncatingIfNeeded: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_s_wu: setS(Float32Bits.float(UInt32(truncatingIfNeeded: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_s_l: setS(Float32Bits.float(Int64(bitPattern: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_s_lu: setS(Float32Bits.float(x[Int(slot.rs1)], rounding, &flags))
    case .fadd_d: setD(Float64Bits.add(d(slot.rs1), d(slot.rs2), rounding, &flags))
    case .fsub_d: setD(Float64Bits.subtract(d(slot.rs1), d(slot.rs2), rounding, &flags))
    case .fmul_d: setD(Float64Bits.multiply(d(slot.rs1), d(slot.rs2), rounding, &flags))
    case .fdiv_d: setD(Float64Bits.divide(d(slot.rs1), d(slot.rs2), rounding, &flags))
    case .fsqrt_d: setD(Float64Bits.squareRoot(d(slot.rs1), rounding, &flags))
    case .fmadd_d:
      setD(Float64Bits.multiplyAdd(d(slot.rs1), d(slot.rs2), d(slot.auxiliary), rounding, &flags))
    case .fmsub_d:
      setD(Float64Bits.multiplyAdd(d(slot.rs1), d(slot.rs2), Float64Bits.negate(d(slot.auxiliary)), rounding, &flags))
    case .fnmsub_d:
      setD(Float64Bits.multiplyAdd(Float64Bits.negate(d(slot.rs1)), d(slot.rs2), d(slot.auxiliary), rounding, &flags))
    case .fnmadd_d:
      setD(
        Float64Bits.multiplyAdd(
          Float64Bits.negate(d(slot.rs1)), d(slot.rs2), Float64Bits.negate(d(slot.auxiliary)), rounding, &flags))
    case .fsgnj_d: setD(Float64Bits.copySign(d(slot.rs1), d(slot.rs2)))
    case .fsgnjn_d: setD(Float64Bits.copyNegatedSign(d(slot.rs1), d(slot.rs2)))
    case .fsgnjx_d: setD(Float64Bits.xorSign(d(slot.rs1), d(slot.rs2)))
    case .fmin_d: setD(Float64Bits.minimum(d(slot.rs1), d(slot.rs2), &flags))
    case .fmax_d: setD(Float64Bits.maximum(d(slot.rs1), d(slot.rs2), &flags))
    case .feq_d: x[rd] = Float64Bits.isEqual(d(slot.rs1), d(slot.rs2), &flags) ? 1 : 0
    case .flt_d: x[rd] = Float64Bits.isLess(d(slot.rs1), d(slot.rs2), &flags) ? 1 : 0
    case .fle_d: x[rd] = Float64Bits.isLessOrEqual(d(slot.rs1), d(slot.rs2), &flags) ? 1 : 0
    case .fclass_d: x[rd] = Float64Bits.classify(d(slot.rs1))
    case .fcvt_w_d:
      let value = Float64Bits.integer(Int32.self, d(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: Int64(value))
    case .fcvt_wu_d:
      let value = Float64Bits.integer(UInt32.self, d(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: Int64(Int32(bitPattern: value)))
    case .fcvt_l_d:
      let value = Float64Bits.integer(Int64.self, d(slot.rs1), rounding, &flags)
      x[rd] = UInt64(bitPattern: value)
    case .fcvt_lu_d:
      let value = Float64Bits.integer(UInt64.self, d(slot.rs1), rounding, &flags)
      x[rd] = value
    case .fcvt_d_w: setD(Float64Bits.float(Int32(truncatingIfNeeded: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_d_wu: setD(Float64Bits.float(UInt32(truncatingIfNeeded: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_d_l: setD(Float64Bits.float(Int64(bitPattern: x[Int(slot.rs1)]), rounding, &flags))
    case .fcvt_d_lu: setD(Float64Bits.float(x[Int(slot.rs1)], rounding, &flags))
    case .fcvt_s_d: setS(Float32Bits.convert(from: Binary64.self, d(slot.rs1), rounding, &flags))
    case .fcvt_d_s: setD(Float64Bits.convert(from: Binary32.self, s(slot.rs1), rounding, &flags))
    // Moves take the bits as they are, boxed or not.
    case .fmv_x_w: x[rd] = UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: d(slot.rs1))))
    case .fmv_w_x: setS(UInt32(truncatingIfNeeded: x[Int(slot.rs1)]))
    case .fmv_x_d: x[rd] = d(slot.rs1)
    case .fmv_d_x: setD(x[Int(slot.rs1)])
    default: return false
    }
    if flags != state.pointee.floatingPointFlags {
      state.pointee.floatingPointFlags = flags
      state.pointee.mstatus |= MachineStatus.fs
    }
    return true
  }
}

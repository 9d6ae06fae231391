// F: single-precision floating point.
extension InstructionPattern {
  static let singlePrecisionRows: [InstructionPattern] = [
    .init(.flw, "flw", .floatLoad, 0x0000_2007, 0x0000_707f, .f, .floatLoad),
    .init(.fsw, "fsw", .floatStore, 0x0000_2027, 0x0000_707f, .f, .floatStore),
    // Arithmetic
    .init(.fmadd_s, "fmadd.s", .floatFused, 0x0000_0043, 0x0600_007f, .f, .floatArithmetic),
    .init(.fmsub_s, "fmsub.s", .floatFused, 0x0000_0047, 0x0600_007f, .f, .floatArithmetic),
    .init(.fnmsub_s, "fnmsub.s", .floatFused, 0x0000_004b, 0x0600_007f, .f, .floatArithmetic),
    .init(.fnmadd_s, "fnmadd.s", .floatFused, 0x0000_004f, 0x0600_007f, .f, .floatArithmetic),
    .init(.fadd_s, "fadd.s", .floatRounded, 0x0000_0053, 0xfe00_007f, .f, .floatArithmetic),
    .init(.fsub_s, "fsub.s", .floatRounded, 0x0800_0053, 0xfe00_007f, .f, .floatArithmetic),
    .init(.fmul_s, "fmul.s", .floatRounded, 0x1000_0053, 0xfe00_007f, .f, .floatArithmetic),
    .init(.fdiv_s, "fdiv.s", .floatRounded, 0x1800_0053, 0xfe00_007f, .f, .floatArithmetic),
    .init(.fsqrt_s, "fsqrt.s", .floatUnaryRounded, 0x5800_0053, 0xfff0_007f, .f, .floatArithmetic),
    .init(.fmin_s, "fmin.s", .float, 0x2800_0053, 0xfe00_707f, .f, .floatArithmetic),
    .init(.fmax_s, "fmax.s", .float, 0x2800_1053, 0xfe00_707f, .f, .floatArithmetic),
    // Signs
    .init(.fsgnj_s, "fsgnj.s", .float, 0x2000_0053, 0xfe00_707f, .f, .floatMove),
    .init(.fsgnjn_s, "fsgnjn.s", .float, 0x2000_1053, 0xfe00_707f, .f, .floatMove),
    .init(.fsgnjx_s, "fsgnjx.s", .float, 0x2000_2053, 0xfe00_707f, .f, .floatMove),
    // Comparison
    .init(.feq_s, "feq.s", .floatCompare, 0xa000_2053, 0xfe00_707f, .f, .floatToInteger),
    .init(.flt_s, "flt.s", .floatCompare, 0xa000_1053, 0xfe00_707f, .f, .floatToInteger),
    .init(.fle_s, "fle.s", .floatCompare, 0xa000_0053, 0xfe00_707f, .f, .floatToInteger),
    .init(.fclass_s, "fclass.s", .floatToInteger, 0xe000_1053, 0xfff0_707f, .f, .integerFromFloat),
    // Conversion
    .init(.fcvt_w_s, "fcvt.w.s", .floatToIntegerRounded, 0xc000_0053, 0xfff0_007f, .f, .floatToInteger),
    .init(.fcvt_wu_s, "fcvt.wu.s", .floatToIntegerRounded, 0xc010_0053, 0xfff0_007f, .f, .floatToInteger),
    .init(.fcvt_l_s, "fcvt.l.s", .floatToIntegerRounded, 0xc020_0053, 0xfff0_007f, .f, .floatToInteger),
    .init(.fcvt_lu_s, "fcvt.lu.s", .floatToIntegerRounded, 0xc030_0053, 0xfff0_007f, .f, .floatToInteger),
    .init(.fcvt_s_w, "fcvt.s.w", .integerToFloatRounded, 0xd000_0053, 0xfff0_007f, .f, .floatArithmetic),
    .init(.fcvt_s_wu, "fcvt.s.wu", .integerToFloatRounded, 0xd010_0053, 0xfff0_007f, .f, .floatArithmetic),
    .init(.fcvt_s_l, "fcvt.s.l", .integerToFloatRounded, 0xd020_0053, 0xfff0_007f, .f, .floatArithmetic),
    .init(.fcvt_s_lu, "fcvt.s.lu", .integerToFloatRounded, 0xd030_0053, 0xfff0_007f, .f, .floatArithmetic),
    .init(.fmv_x_w, "fmv.x.w", .floatToInteger, 0xe000_0053, 0xfff0_707f, .f, .integerFromFloat),
    .init(.fmv_w_x, "fmv.w.x", .integerToFloat, 0xf000_0053, 0xfff0_707f, .f, .floatMove),
  ]
}

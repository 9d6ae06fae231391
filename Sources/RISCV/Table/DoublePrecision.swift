// D: double-precision floating point.
extension InstructionPattern {
  static let doublePrecisionRows: [InstructionPattern] = [
    .init(.fld, "fld", .floatLoad, 0x0000_3007, 0x0000_707f, .d, .floatLoad),
    .init(.fsd, "fsd", .floatStore, 0x0000_3027, 0x0000_707f, .d, .floatStore),
    // Arithmetic
    .init(.fmadd_d, "fmadd.d", .floatFused, 0x0200_0043, 0x0600_007f, .d, .floatArithmetic),
    .init(.fmsub_d, "fmsub.d", .floatFused, 0x0200_0047, 0x0600_007f, .d, .floatArithmetic),
    .init(.fnmsub_d, "fnmsub.d", .floatFused, 0x0200_004b, 0x0600_007f, .d, .floatArithmetic),
    .init(.fnmadd_d, "fnmadd.d", .floatFused, 0x0200_004f, 0x0600_007f, .d, .floatArithmetic),
    .init(.fadd_d, "fadd.d", .floatRounded, 0x0200_0053, 0xfe00_007f, .d, .floatArithmetic),
    .init(.fsub_d, "fsub.d", .floatRounded, 0x0a00_0053, 0xfe00_007f, .d, .floatArithmetic),
    .init(.fmul_d, "fmul.d", .floatRounded, 0x1200_0053, 0xfe00_007f, .d, .floatArithmetic),
    .init(.fdiv_d, "fdiv.d", .floatRounded, 0x1a00_0053, 0xfe00_007f, .d, .floatArithmetic),
    .init(.fsqrt_d, "fsqrt.d", .floatUnaryRounded, 0x5a00_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fmin_d, "fmin.d", .float, 0x2a00_0053, 0xfe00_707f, .d, .floatArithmetic),
    .init(.fmax_d, "fmax.d", .float, 0x2a00_1053, 0xfe00_707f, .d, .floatArithmetic),
    // Signs
    .init(.fsgnj_d, "fsgnj.d", .float, 0x2200_0053, 0xfe00_707f, .d, .floatMove),
    .init(.fsgnjn_d, "fsgnjn.d", .float, 0x2200_1053, 0xfe00_707f, .d, .floatMove),
    .init(.fsgnjx_d, "fsgnjx.d", .float, 0x2200_2053, 0xfe00_707f, .d, .floatMove),
    // Comparison
    .init(.feq_d, "feq.d", .floatCompare, 0xa200_2053, 0xfe00_707f, .d, .floatToInteger),
    .init(.flt_d, "flt.d", .floatCompare, 0xa200_1053, 0xfe00_707f, .d, .floatToInteger),
    .init(.fle_d, "fle.d", .floatCompare, 0xa200_0053, 0xfe00_707f, .d, .floatToInteger),
    .init(.fclass_d, "fclass.d", .floatToInteger, 0xe200_1053, 0xfff0_707f, .d, .integerFromFloat),
    // Conversion
    .init(.fcvt_w_d, "fcvt.w.d", .floatToIntegerRounded, 0xc200_0053, 0xfff0_007f, .d, .floatToInteger),
    .init(.fcvt_wu_d, "fcvt.wu.d", .floatToIntegerRounded, 0xc210_0053, 0xfff0_007f, .d, .floatToInteger),
    .init(.fcvt_l_d, "fcvt.l.d", .floatToIntegerRounded, 0xc220_0053, 0xfff0_007f, .d, .floatToInteger),
    .init(.fcvt_lu_d, "fcvt.lu.d", .floatToIntegerRounded, 0xc230_0053, 0xfff0_007f, .d, .floatToInteger),
    .init(.fcvt_d_w, "fcvt.d.w", .integerToFloatExact, 0xd200_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fcvt_d_wu, "fcvt.d.wu", .integerToFloatExact, 0xd210_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fcvt_d_l, "fcvt.d.l", .integerToFloatRounded, 0xd220_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fcvt_d_lu, "fcvt.d.lu", .integerToFloatRounded, 0xd230_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fcvt_s_d, "fcvt.s.d", .floatUnaryRounded, 0x4010_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fcvt_d_s, "fcvt.d.s", .floatUnaryExact, 0x4200_0053, 0xfff0_007f, .d, .floatArithmetic),
    .init(.fmv_x_d, "fmv.x.d", .floatToInteger, 0xe200_0053, 0xfff0_707f, .d, .integerFromFloat),
    .init(.fmv_d_x, "fmv.d.x", .integerToFloat, 0xf200_0053, 0xfff0_707f, .d, .floatMove),
  ]
}

// A: load-reserved, store-conditional and atomic memory operations. The bits aq and rl may have any value.
extension InstructionPattern {
  static let atomicRows: [InstructionPattern] = [
    // Words
    .init(.lr_w, "lr.w", .loadReserved, 0x1000_202f, 0xf9f0_707f, .a, .load),
    .init(.sc_w, "sc.w", .atomic, 0x1800_202f, 0xf800_707f, .a, .storeConditional),
    .init(.amoswap_w, "amoswap.w", .atomic, 0x0800_202f, 0xf800_707f, .a, .atomic),
    .init(.amoadd_w, "amoadd.w", .atomic, 0x0000_202f, 0xf800_707f, .a, .atomic),
    .init(.amoxor_w, "amoxor.w", .atomic, 0x2000_202f, 0xf800_707f, .a, .atomic),
    .init(.amoand_w, "amoand.w", .atomic, 0x6000_202f, 0xf800_707f, .a, .atomic),
    .init(.amoor_w, "amoor.w", .atomic, 0x4000_202f, 0xf800_707f, .a, .atomic),
    .init(.amomin_w, "amomin.w", .atomic, 0x8000_202f, 0xf800_707f, .a, .atomic),
    .init(.amomax_w, "amomax.w", .atomic, 0xa000_202f, 0xf800_707f, .a, .atomic),
    .init(.amominu_w, "amominu.w", .atomic, 0xc000_202f, 0xf800_707f, .a, .atomic),
    .init(.amomaxu_w, "amomaxu.w", .atomic, 0xe000_202f, 0xf800_707f, .a, .atomic),
    // Doublewords
    .init(.lr_d, "lr.d", .loadReserved, 0x1000_302f, 0xf9f0_707f, .a, .load),
    .init(.sc_d, "sc.d", .atomic, 0x1800_302f, 0xf800_707f, .a, .storeConditional),
    .init(.amoswap_d, "amoswap.d", .atomic, 0x0800_302f, 0xf800_707f, .a, .atomic),
    .init(.amoadd_d, "amoadd.d", .atomic, 0x0000_302f, 0xf800_707f, .a, .atomic),
    .init(.amoxor_d, "amoxor.d", .atomic, 0x2000_302f, 0xf800_707f, .a, .atomic),
    .init(.amoand_d, "amoand.d", .atomic, 0x6000_302f, 0xf800_707f, .a, .atomic),
    .init(.amoor_d, "amoor.d", .atomic, 0x4000_302f, 0xf800_707f, .a, .atomic),
    .init(.amomin_d, "amomin.d", .atomic, 0x8000_302f, 0xf800_707f, .a, .atomic),
    .init(.amomax_d, "amomax.d", .atomic, 0xa000_302f, 0xf800_707f, .a, .atomic),
    .init(.amominu_d, "amominu.d", .atomic, 0xc000_302f, 0xf800_707f, .a, .atomic),
    .init(.amomaxu_d, "amomaxu.d", .atomic, 0xe000_302f, 0xf800_707f, .a, .atomic),
  ]
}

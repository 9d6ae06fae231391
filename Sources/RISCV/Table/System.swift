// Fences, environment calls, CSRs and the Privileged Architecture's instructions.
extension InstructionPattern {
  static let systemRows: [InstructionPattern] = [
    // Fences: fields that mean nothing yet are ignored, as chapter 2.7 demands
    .init(.fence, "fence", .fence, 0x0000_000f, 0x0000_707f, .i, []),
    .init(.fence, "fence.tso", .fixedImmediate, 0x8330_000f, 0xffff_ffff, .i, []),
    .init(.fence_i, "fence.i", .none, 0x0000_100f, 0x0000_707f, .zifencei, .endsBlock),
    .init(.pause, "pause", .none, 0x0100_000f, 0xffff_ffff, .zihintpause, .endsBlock),
    // Environment
    .init(.ecall, "ecall", .none, 0x0000_0073, 0xffff_ffff, .i, .alwaysTraps),
    .init(.ebreak, "ebreak", .none, 0x0010_0073, 0xffff_ffff, .i, .alwaysTraps),
    .init(.mret, "mret", .none, 0x3020_0073, 0xffff_ffff, .i, .trapReturn),
    .init(.sret, "sret", .none, 0x1020_0073, 0xffff_ffff, .i, .trapReturn),
    .init(.wfi, "wfi", .none, 0x1050_0073, 0xffff_ffff, .i, [.mayTrap, .endsBlock]),
    .init(.wrs_nto, "wrs.nto", .none, 0x00d0_0073, 0xffff_ffff, .zawrs, [.mayTrap, .endsBlock]),
    .init(.wrs_sto, "wrs.sto", .none, 0x01d0_0073, 0xffff_ffff, .zawrs, .endsBlock),
    // Address translation
    .init(.sfence_vma, "sfence.vma", .addressFence, 0x1200_0073, 0xfe00_7fff, .i, .translationFence),
    .init(.sinval_vma, "sinval.vma", .addressFence, 0x1600_0073, 0xfe00_7fff, .svinval, .translationFence),
    .init(.sfence_w_inval, "sfence.w.inval", .none, 0x1800_0073, 0xffff_ffff, .svinval, .translationFence),
    .init(.sfence_inval_ir, "sfence.inval.ir", .none, 0x1810_0073, 0xffff_ffff, .svinval, .translationFence),
    // Control and status registers
    .init(.csrrw, "csrrw", .csr, 0x0000_1073, 0x0000_707f, .zicsr, .csr),
    .init(.csrrw, "unimp", .fixedImmediate, 0xc000_1073, 0xffff_ffff, .zicsr, .csr),
    .init(.csrrs, "csrrs", .csr, 0x0000_2073, 0x0000_707f, .zicsr, .csr),
    .init(.csrrc, "csrrc", .csr, 0x0000_3073, 0x0000_707f, .zicsr, .csr),
    .init(.csrrwi, "csrrwi", .csrImmediate, 0x0000_5073, 0x0000_707f, .zicsr, .csr),
    .init(.csrrsi, "csrrsi", .csrImmediate, 0x0000_6073, 0x0000_707f, .zicsr, .csr),
    .init(.csrrci, "csrrci", .csrImmediate, 0x0000_7073, 0x0000_707f, .zicsr, .csr),
  ]
}

/// What an instruction does, whatever its encoding: `c.addi` and `addi` are both `.addi`. The names are the mnemonics of
/// the specification with '.' written as '_'. Raw values are dense, so that tables may be indexed by them; they are not
/// stable between versions and don't belong into saved state.
public enum Operation: UInt16, CaseIterable, Sendable {
  /// No instruction: the encoding is reserved, or belongs to an extension that isn't there.
  case reserved = 0

  // RV64I (Unprivileged Architecture, chapters 2 and 4)
  case lui, auipc, jal, jalr
  case beq, bne, blt, bge, bltu, bgeu
  case lb, lh, lw, ld, lbu, lhu, lwu
  case sb, sh, sw, sd
  case addi, slti, sltiu, xori, ori, andi, slli, srli, srai
  case add, sub, sll, slt, sltu, xor, srl, sra, or, and
  case addiw, slliw, srliw, sraiw
  case addw, subw, sllw, srlw, sraw
  case fence, ecall, ebreak

  // Zifencei, Zicsr
  case fence_i
  case csrrw, csrrs, csrrc, csrrwi, csrrsi, csrrci

  // Zihintpause, Zawrs
  case pause
  case wrs_nto, wrs_sto

  // M
  case mul, mulh, mulhsu, mulhu, div, divu, rem, remu
  case mulw, divw, divuw, remw, remuw

  // A
  case lr_w, sc_w, amoswap_w, amoadd_w, amoxor_w, amoand_w, amoor_w, amomin_w, amomax_w, amominu_w, amomaxu_w
  case lr_d, sc_d, amoswap_d, amoadd_d, amoxor_d, amoand_d, amoor_d, amomin_d, amomax_d, amominu_d, amomaxu_d

  // F
  case flw, fsw
  case fmadd_s, fmsub_s, fnmsub_s, fnmadd_s
  case fadd_s, fsub_s, fmul_s, fdiv_s, fsqrt_s
  case fsgnj_s, fsgnjn_s, fsgnjx_s, fmin_s, fmax_s
  case fcvt_w_s, fcvt_wu_s, fcvt_l_s, fcvt_lu_s, fcvt_s_w, fcvt_s_wu, fcvt_s_l, fcvt_s_lu
  case fmv_x_w, fmv_w_x, feq_s, flt_s, fle_s, fclass_s

  // D
  case fld, fsd
  case fmadd_d, fmsub_d, fnmsub_d, fnmadd_d
  case fadd_d, fsub_d, fmul_d, fdiv_d, fsqrt_d
  case fsgnj_d, fsgnjn_d, fsgnjx_d, fmin_d, fmax_d
  case fcvt_w_d, fcvt_wu_d, fcvt_l_d, fcvt_lu_d, fcvt_d_w, fcvt_d_wu, fcvt_d_l, fcvt_d_lu
  case fcvt_s_d, fcvt_d_s
  case fmv_x_d, fmv_d_x, feq_d, flt_d, fle_d, fclass_d

  // Zba
  case add_uw, sh1add, sh2add, sh3add, sh1add_uw, sh2add_uw, sh3add_uw, slli_uw

  // Zbb
  case andn, orn, xnor, clz, ctz, cpop, clzw, ctzw, cpopw
  case min, minu, max, maxu, sext_b, sext_h, zext_h
  case rol, ror, rori, rolw, rorw, roriw, orc_b, rev8

  // Zbc, Zbs
  case clmul, clmulh, clmulr
  case bclr, bclri, bext, bexti, binv, binvi, bset, bseti

  // Zbkb, Zbkx
  case pack, packh, packw, brev8
  case xperm4, xperm8

  // Zknd, Zkne
  case aes64ds, aes64dsm, aes64es, aes64esm, aes64im, aes64ks1i, aes64ks2

  // Zknh
  case sha256sig0, sha256sig1, sha256sum0, sha256sum1
  case sha512sig0, sha512sig1, sha512sum0, sha512sum1

  // Zicond
  case czero_eqz, czero_nez

  // Zicbom, Zicboz, Zicbop
  case cbo_clean, cbo_flush, cbo_inval, cbo_zero
  case prefetch_i, prefetch_r, prefetch_w

  // Privileged Architecture; Svinval
  case mret, sret, wfi, sfence_vma
  case sinval_vma, sfence_w_inval, sfence_inval_ir
}

import RISCV
import Testing

@Suite struct DecoderTests {
  let decoder = Decoder(extensions: .yadori)

  @Test func decodesOperandsOfEachFormat() {
    let cases: [(UInt32, Instruction)] = [
      // addi a0, a1, -1
      (0xfff5_8513, Instruction(operation: .addi, rd: 10, rs1: 11, immediate: -1)),
      // sub s1, t0, a7
      (0x4112_84b3, Instruction(operation: .sub, rd: 9, rs1: 5, rs2: 17)),
      // lui t0, 0x80000
      (0x8000_02b7, Instruction(operation: .lui, rd: 5, immediate: -0x8000_0000)),
      // auipc gp, 1
      (0x0000_1197, Instruction(operation: .auipc, rd: 3, immediate: 0x1000)),
      // jal ra, . - 4
      (0xffdf_f0ef, Instruction(operation: .jal, rd: 1, immediate: -4)),
      // jalr zero, 8(ra)
      (0x0080_8067, Instruction(operation: .jalr, rs1: 1, immediate: 8)),
      // beq a0, a1, . + 8
      (0x00b5_0463, Instruction(operation: .beq, rs1: 10, rs2: 11, immediate: 8)),
      // ld a0, -8(sp)
      (0xff81_3503, Instruction(operation: .ld, rd: 10, rs1: 2, immediate: -8)),
      // sd a0, -8(sp)
      (0xfea1_3c23, Instruction(operation: .sd, rs1: 2, rs2: 10, immediate: -8)),
      // slli a0, a0, 63
      (0x03f5_1513, Instruction(operation: .slli, rd: 10, rs1: 10, immediate: 63)),
      // sraiw a0, a0, 31
      (0x41f5_551b, Instruction(operation: .sraiw, rd: 10, rs1: 10, immediate: 31)),
      // csrrwi a0, satp, 31
      (0x180f_d573, Instruction(operation: .csrrwi, rd: 10, rs1: 31, immediate: 0x180)),
      // amoadd.w.aqrl a0, a1, (a2)
      (0x06b6_252f, Instruction(operation: .amoadd_w, rd: 10, rs1: 12, rs2: 11, immediate: 3)),
      // lr.d.aq a0, (a1)
      (0x1405_b52f, Instruction(operation: .lr_d, rd: 10, rs1: 11, immediate: 2)),
      // fence rw, w
      (0x0310_000f, Instruction(operation: .fence, immediate: 0x031)),
      // fence.tso
      (0x8330_000f, Instruction(operation: .fence, immediate: 0x833)),
      // fmadd.d fa0, fa1, fa2, fa3, rtz
      (0x6ac5_9543, Instruction(operation: .fmadd_d, rd: 10, rs1: 11, rs2: 12, rs3: 13, roundingMode: 1)),
      // fcvt.w.s a0, fa0 (dyn)
      (0xc005_7553, Instruction(operation: .fcvt_w_s, rd: 10, rs1: 10, roundingMode: 7)),
      // packw a0, a1, a2, and with x0
      (0x08c5_c53b, Instruction(operation: .packw, rd: 10, rs1: 11, rs2: 12)),
      (0x0805_c53b, Instruction(operation: .zext_h, rd: 10, rs1: 11)),
      // aes64ks1i a0, a1, 10
      (0x31a5_9513, Instruction(operation: .aes64ks1i, rd: 10, rs1: 11, immediate: 10)),
      // prefetch.w -32(a0)
      (0xfe35_6013, Instruction(operation: .prefetch_w, rs1: 10, immediate: -32)),
      (0x0100_000f, Instruction(operation: .pause)),
      (0x3020_0073, Instruction(operation: .mret)),
    ]
    for (bits, expected) in cases {
      var expected = expected
      expected.bits = bits
      #expect(decoder.decode(bits) == expected, "0x\(String(bits, radix: 16))")
    }
  }

  @Test func expandsCompressedEncodings() {
    let cases: [(UInt32, Instruction)] = [
      (0x0001, Instruction(operation: .addi)),  // c.nop
      (0x1141, Instruction(operation: .addi, rd: 2, rs1: 2, immediate: -16)),  // c.addi sp, -16
      (0x7139, Instruction(operation: .addi, rd: 2, rs1: 2, immediate: -64)),  // c.addi16sp sp, -64
      (0x0800, Instruction(operation: .addi, rd: 8, rs1: 2, immediate: 16)),  // c.addi4spn s0, sp, 16
      (0x4505, Instruction(operation: .addi, rd: 10, immediate: 1)),  // c.li a0, 1
      (0x757d, Instruction(operation: .lui, rd: 10, immediate: -0x1000)),  // c.lui a0, 0xfffff
      (0x852e, Instruction(operation: .add, rd: 10, rs2: 11)),  // c.mv a0, a1
      (0x952e, Instruction(operation: .add, rd: 10, rs1: 10, rs2: 11)),  // c.add a0, a1
      (0x8082, Instruction(operation: .jalr, rs1: 1)),  // c.jr ra
      (0x9502, Instruction(operation: .jalr, rd: 1, rs1: 10)),  // c.jalr a0
      (0x9002, Instruction(operation: .ebreak)),
      (0xbffd, Instruction(operation: .jal, immediate: -2)),  // c.j . - 2
      (0xd97d, Instruction(operation: .beq, rs1: 10, immediate: -10)),  // c.beqz a0, . - 10
      (0x60e2, Instruction(operation: .ld, rd: 1, rs1: 2, immediate: 24)),  // c.ldsp ra, 24(sp)
      (0xec06, Instruction(operation: .sd, rs1: 2, rs2: 1, immediate: 24)),  // c.sdsp ra, 24(sp)
      (0x4188, Instruction(operation: .lw, rd: 10, rs1: 11)),  // c.lw a0, 0(a1)
      (0x0506, Instruction(operation: .slli, rd: 10, rs1: 10, immediate: 1)),  // c.slli a0, 1
    ]
    for (bits, expected) in cases {
      var expected = expected
      expected.bits = bits
      expected.length = 2
      #expect(decoder.decode(bits) == expected, "0x\(String(bits, radix: 16))")
      // What follows the 16 bits doesn't matter.
      #expect(decoder.decode(0xabcd_0000 | bits) == expected, "0x\(String(bits, radix: 16))")
    }
  }

  @Test func hintsAreInstructions() {
    for (bits, operation) in [
      (0x0005, .addi),  // c.nop 1
      (0x0501, .addi),  // c.addi a0, 0
      (0x4005, .addi),  // c.li zero, 1
      (0x6005, .lui),  // c.lui zero, 1
      (0x0006, .slli),  // c.slli zero, 1
      (0x0502, .slli),  // c.slli a0, 0
      (0x8101, .srli),  // c.srli a0, 0
      (0x802e, .add),  // c.mv zero, a1
      (0x900a, .add),  // c.add zero, sp (ntl.p1)
      (0x0020_0033, .add),  // ntl.p1
    ] as [(UInt32, Operation)] {
      let instruction = decoder.decode(bits)
      #expect(instruction.operation == operation, "0x\(String(bits, radix: 16))")
    }
  }

  @Test func reservedEncodings() {
    let reserved: [(UInt32, String)] = [
      (0x0000, "all zero"),
      (0x0008, "c.addi4spn with immediate 0"),
      (0x8000, "quadrant 0, funct3 100 (Zcb)"),
      (0x2005, "c.addiw to x0"),
      (0x6101, "c.addi16sp with immediate 0"),
      (0x6501, "c.lui with immediate 0"),
      (0x6081, "c.mop.1 (Zcmop)"),
      (0x9c41, "quadrant 1, misc-alu 1 10"),
      (0x9c61, "quadrant 1, misc-alu 1 11"),
      (0x4002, "c.lwsp to x0"),
      (0x6002, "c.ldsp to x0"),
      (0x8002, "c.jr x0"),
      (0xffff_ffff, "all ones"),
      (0x0000_001f, "a 48-bit encoding"),
      (0x0000_003f, "a 64-bit encoding"),
      (0x0000_0000, "zero as 32 bits"),
      (0x0000_7003, "load, funct3 111"),
      (0x0000_4023, "store, funct3 100"),
      (0x0000_2063, "branch, funct3 010"),
      (0x0000_1067, "jalr, funct3 001"),
      (0x0400_1013, "slli with shamt 64"),
      (0x0200_101b, "slliw with shamt 32"),
      (0x0200_501b, "srliw with shamt 32"),
      (0x4200_501b, "sraiw with shamt 32"),
      (0x00b5_5053, "fadd.s with rounding mode 5"),
      (0x00b5_6053, "fadd.s with rounding mode 6"),
      (0xc005_5553, "fcvt.w.s with rounding mode 5"),
      (0x6ac5_e543, "fmadd.d with rounding mode 6"),
      (0x5810_0053, "fsqrt.s with rs2 1"),
      (0x04b5_0553, "fadd.h (Zfh)"),
      (0x06b5_0553, "fadd.q"),
      (0x1010_252f, "lr.w with rs2 1"),
      (0x0000_002f, "amo with funct3 0"),
      (0x0000_00f3, "ecall with rd 1"),
      (0x0000_8073, "ecall with rs1 1"),
      (0x0030_0073, "SYSTEM, immediate 3"),
      (0x3020_00f3, "mret with rd 1"),
      (0x1020_8073, "sret with rs1 1"),
      (0x0020_0073, "uret"),
      (0x7020_0073, "mnret (Smrnmi)"),
      (0x1050_00f3, "wfi with rd 1"),
      (0x1200_00f3, "sfence.vma with rd 1"),
      (0x1800_80f3, "sfence.w.inval with rs1 1"),
      (0x1820_0073, "sfence.inval with rs2 2"),
      (0x2200_0073, "hfence.bvma (H)"),
      (0x0000_4073, "SYSTEM, funct3 100"),
      (0x0030_200f, "cbo with number 3"),
      (0x0000_208f, "cbo.inval with rd 1"),
      (0x0000_300f, "MISC-MEM, funct3 011"),
      (0x31b0_1013, "aes64ks1i with round 11"),
      (0x08f0_1013, "zip (RV32)"),
      (0x6801_5013, "rev8 of RV32"),
    ]
    for (bits, what) in reserved {
      let instruction = decoder.decode(bits)
      let length: UInt8 = bits & 3 == 3 ? 4 : 2
      #expect(instruction == Instruction(operation: .reserved, length: length, bits: bits), "\(what)")
    }
  }
}

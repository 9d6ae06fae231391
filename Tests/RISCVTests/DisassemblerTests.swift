import RISCV
import Testing

@Suite struct DisassemblerTests {
  @Test func writesAliasesOrNot() {
    let aliases = Disassembler()
    let plain = Disassembler(aliases: false)
    for (bits, withAliases, without) in [
      (0x0000_8067, "ret", "jalr zero, 0x0(ra)"),
      (0x8082, "ret", "c.jr ra"),
      (0x0005_0463, "beqz a0, 0x1008", "beq a0, zero, 0x1008"),
      (0xffdf_f0ef, "jal 0xffc", "jal ra, 0xffc"),
      (0xc010_2573, "rdtime a0", "csrrs a0, time, zero"),
      (0x3052_9073, "csrw mtvec, t0", "csrrw zero, mtvec, t0"),
      (0x06b6_252f, "amoadd.w.aqrl a0, a1, (a2)", "amoadd.w.aqrl a0, a1, (a2)"),
      (0x00b5_7553, "fadd.s fa0, fa0, fa1", "fadd.s fa0, fa0, fa1, dyn"),
      (0x0ff0_000f, "fence", "fence iorw, iorw"),
      (0x0100_000f, "pause", "fence w, 0"),
      (0x0000, "unimp", "c.unimp"),
      (0x0000_707b, "<unknown>", "<unknown>"),
    ] as [(UInt32, String, String)] {
      #expect(aliases.text(bits, at: 0x1000) == withAliases)
      #expect(plain.text(bits, at: 0x1000) == without)
    }
  }

  @Test func walksThroughBytes() {
    // c.li a0, 1; addi a0, a0, -1; ret; half an instruction
    let bytes: [UInt8] = [0x05, 0x45, 0x13, 0x05, 0xf5, 0xff, 0x82, 0x80, 0x13, 0x05]
    let lines = Array(Disassembler().lines(bytes, at: 0x8000_0000))
    #expect(lines.map(\.address) == [0x8000_0000, 0x8000_0002, 0x8000_0006, 0x8000_0008])
    #expect(lines.map(\.length) == [2, 4, 2, 2])
    #expect(lines.map(\.bits) == [0x4505, 0xfff5_0513, 0x8082, 0x0513])
    #expect(lines.map(\.text) == ["li a0, 0x1", "addi a0, a0, -0x1", "ret", "<unknown>"])
    #expect(Array(Disassembler().lines(bytes[0..<1], at: 0)).map(\.length) == [1])
    #expect(Array(Disassembler().lines([] as [UInt8], at: 0)).isEmpty)
  }

  @Test func namesControlRegisters() {
    #expect(ControlRegisterName.name(of: 0x300) == "mstatus")
    #expect(ControlRegisterName.name(of: 0x3a1) == nil)
    #expect(ControlRegisterName.name(of: -1) == nil)
    #expect(ControlRegisterName.name(of: 4096) == nil)
    #expect(ControlRegisterName.number(of: "hpmcounter31") == 0xc1f)
    #expect(ControlRegisterName.number(of: "nonsense") == nil)
  }
}

import RISCV
import Testing

@Suite struct ExtensionTests {
  @Test func isaStringOfYadori() {
    #expect(
      ExtensionSet.yadori.isaString
        == "rv64imafdc_zicbom_zicbop_zicboz_zicntr_zicond_zicsr_zifencei_zihintntl_zihintpause_zihpm_zawrs"
        + "_zba_zbb_zbc_zbkb_zbkc_zbkx_zbs_zknd_zkne_zknh_sscounterenw_sstc_sstvala_sstvecd_svade_svinval_svnapot_svpbmt"
    )
    #expect(ExtensionSet.rv64gc.isaString == "rv64imafdc_zicsr_zifencei")
    #expect(([.i] as ExtensionSet).isaString == "rv64i")
    #expect(ExtensionSet.base == "rv64i")
    #expect(ExtensionSet.rv64gc.names == ["i", "m", "a", "f", "d", "c", "zicsr", "zifencei"])
  }

  @Test func everyExtensionIsDescribedOnce() {
    var described: ExtensionSet = []
    for one in Extension.all {
      #expect(one.set.rawValue.nonzeroBitCount == 1 && !described.contains(one.set), "\(one.name)")
      #expect(one.version.wholeMatch(of: #/[0-9]+\.[0-9]+/#) != nil, "\(one.name)")
      #expect(!one.summary.isEmpty && !one.summary.contains("\n"), "\(one.name)")
      described.formUnion(one.set)
    }
    #expect(described == .yadori)
  }

  @Test func orderIsCanonical() {
    let letters = "imafdqlcbkjtpvnh"
    func rank(_ name: String) -> (Int, Int, String) {
      func position(_ letter: Character) -> Int {
        letters.firstIndex(of: letter).map { letters.distance(from: letters.startIndex, to: $0) } ?? letters.count
      }
      if name.count == 1 { return (0, position(name.first!), name) }
      return name.hasPrefix("z") ? (1, position(name.dropFirst().first!), name) : (2, 0, name)
    }
    let names = Extension.all.map(\.name)
    #expect(names == names.sorted { rank($0) < rank($1) })
  }

  @Test func profiles() {
    #expect(ExtensionSet.yadori.profiles.map(\.name) == ["RVA20U64", "RVA20S64"])
    #expect(ExtensionSet.yadori.subtracting(.svade).profiles.map(\.name) == ["RVA20U64"])
    #expect(ExtensionSet.rv64gc.profiles.isEmpty)
  }

  @Test func decoderKeepsToItsExtensions() {
    let cases: [(UInt32, ExtensionSet, Operation)] = [
      (0x02b5_0533, .m, .mul), (0x06b6_252f, .a, .amoadd_w), (0x00b5_7553, .f, .fadd_s), (0x02b5_7553, .d, .fadd_d),
      (0x0000_4501, .c, .addi), (0x3000_2573, .zicsr, .csrrs), (0x0000_100f, .zifencei, .fence_i),
      (0x20b5_2533, .zba, .sh1add), (0x6005_9513, .zbb, .clz), (0x0ab5_2533, .zbc, .clmulr),
      (0x48b5_1533, .zbs, .bclr), (0x0eb5_5533, .zicond, .czero_eqz), (0x0015_200f, .zicbom, .cbo_clean),
      (0x0045_200f, .zicboz, .cbo_zero), (0x00d0_0073, .zawrs, .wrs_nto), (0x16b5_0073, .svinval, .sinval_vma),
      (0x08b5_4533, .zbkb, .pack), (0x28b5_2533, .zbkx, .xperm4), (0x3ab5_0533, .zknd, .aes64ds),
      (0x32b5_0533, .zkne, .aes64es), (0x1005_1513, .zknh, .sha256sum0),
    ]
    for (bits, needed, operation) in cases {
      #expect(Decoder(extensions: .yadori).decode(bits).operation == operation)
      #expect(Decoder(extensions: [.i, needed]).decode(bits).operation == operation)
      #expect(Decoder(extensions: .yadori.subtracting(needed)).decode(bits).operation == .reserved)
    }
    // Either extension will do.
    let shared: [(UInt32, ExtensionSet, ExtensionSet, Operation)] = [
      (0x40b5_7533, .zbb, .zbkb, .andn), (0x6b85_5513, .zbb, .zbkb, .rev8), (0x0ab5_1533, .zbc, .zbkc, .clmul),
      (0x7eb5_0533, .zkne, .zknd, .aes64ks2), (0x3105_1513, .zkne, .zknd, .aes64ks1i),
    ]
    for (bits, one, other, operation) in shared {
      #expect(Decoder(extensions: [.i, one]).decode(bits).operation == operation)
      #expect(Decoder(extensions: [.i, other]).decode(bits).operation == operation)
      #expect(Decoder(extensions: .yadori.subtracting([one, other])).decode(bits).operation == .reserved)
    }
    // zext.h is Zbb's name for what Zbkb has as packw.
    #expect(Decoder(extensions: [.i, .zbb]).decode(0x0805_453b).operation == .zext_h)
    #expect(Decoder(extensions: [.i, .zbkb]).decode(0x0805_453b).operation == .packw)
    // Hints are what they are without their extension.
    #expect(Decoder(extensions: .rv64gc).decode(0x0100_000f).operation == .fence)
    #expect(Decoder(extensions: .rv64gc).decode(0x0035_6013).operation == .ori)
    // c.fld needs both C and D.
    #expect(Decoder(extensions: [.i, .c, .f]).decode(0x2108).operation == .reserved)
  }
}

/// Names of control and status registers (Privileged Architecture, chapter "CSR Listing", and the extensions that add
/// some), whether a hart has them or not.
public enum ControlRegisterName {
  /// nil: the number has no name.
  public static func name(of number: Int) -> String? {
    if names.indices.contains(number), let name = names[number] { return name }
    return nil
  }

  /// The number of the register of that name.
  public static func number(of name: String) -> Int? { names.firstIndex(of: name) }

  private static let names: [String?] = {
    var names = [String?](repeating: nil, count: 4096)
    for (number, name) in single { names[number] = name }
    for index in 3...31 {
      names[0x320 + index] = "mhpmevent\(index)"
      names[0xb00 + index] = "mhpmcounter\(index)"
      names[0xc00 + index] = "hpmcounter\(index)"
    }
    // RV64 has the even ones only.
    for index in stride(from: 0, through: 14, by: 2) { names[0x3a0 + index] = "pmpcfg\(index)" }
    for index in 0...63 { names[0x3b0 + index] = "pmpaddr\(index)" }
    return names
  }()

  private static let single: [(Int, String)] = unprivileged + supervisor + hypervisor + machine

  private static let unprivileged: [(Int, String)] = [
    (0x001, "fflags"), (0x002, "frm"), (0x003, "fcsr"), (0x008, "vstart"), (0x009, "vxsat"), (0x00a, "vxrm"),
    (0x00f, "vcsr"), (0x011, "ssp"), (0x015, "seed"), (0x017, "jvt"),
    (0xc00, "cycle"), (0xc01, "time"), (0xc02, "instret"), (0xc20, "vl"), (0xc21, "vtype"), (0xc22, "vlenb"),
  ]

  private static let supervisor: [(Int, String)] = [
    (0x100, "sstatus"), (0x104, "sie"), (0x105, "stvec"), (0x106, "scounteren"), (0x10a, "senvcfg"),
    (0x10c, "sstateen0"), (0x10d, "sstateen1"), (0x10e, "sstateen2"), (0x10f, "sstateen3"), (0x120, "scountinhibit"),
    (0x140, "sscratch"), (0x141, "sepc"), (0x142, "scause"), (0x143, "stval"), (0x144, "sip"), (0x14d, "stimecmp"),
    (0x14e, "sctrctl"), (0x14f, "sctrstatus"), (0x150, "siselect"), (0x151, "sireg"), (0x152, "sireg2"),
    (0x153, "sireg3"), (0x155, "sireg4"), (0x156, "sireg5"), (0x157, "sireg6"), (0x15c, "stopei"),
    (0x15f, "sctrdepth"), (0x180, "satp"), (0x181, "srmcfg"), (0x5a8, "scontext"), (0xda0, "scountovf"),
    (0xdb0, "stopi"),
  ]

  private static let hypervisor: [(Int, String)] = [
    (0x200, "vsstatus"), (0x204, "vsie"), (0x205, "vstvec"), (0x240, "vsscratch"), (0x241, "vsepc"),
    (0x242, "vscause"), (0x243, "vstval"), (0x244, "vsip"), (0x24d, "vstimecmp"), (0x24e, "vsctrctl"),
    (0x250, "vsiselect"), (0x251, "vsireg"), (0x252, "vsireg2"), (0x253, "vsireg3"), (0x255, "vsireg4"),
    (0x256, "vsireg5"), (0x257, "vsireg6"), (0x25c, "vstopei"), (0x280, "vsatp"), (0xeb0, "vstopi"),
    (0x600, "hstatus"), (0x602, "hedeleg"), (0x603, "hideleg"), (0x604, "hie"), (0x605, "htimedelta"),
    (0x606, "hcounteren"), (0x607, "hgeie"), (0x608, "hvien"), (0x609, "hvictl"), (0x60a, "henvcfg"),
    (0x60c, "hstateen0"), (0x60d, "hstateen1"), (0x60e, "hstateen2"), (0x60f, "hstateen3"), (0x643, "htval"),
    (0x644, "hip"), (0x645, "hvip"), (0x646, "hviprio1"), (0x647, "hviprio2"), (0x64a, "htinst"), (0x680, "hgatp"),
    (0x6a8, "hcontext"), (0xe12, "hgeip"),
  ]

  private static let machine: [(Int, String)] = [
    (0x300, "mstatus"), (0x301, "misa"), (0x302, "medeleg"), (0x303, "mideleg"), (0x304, "mie"), (0x305, "mtvec"),
    (0x306, "mcounteren"), (0x308, "mvien"), (0x309, "mvip"), (0x30a, "menvcfg"), (0x30c, "mstateen0"),
    (0x30d, "mstateen1"), (0x30e, "mstateen2"), (0x30f, "mstateen3"), (0x320, "mcountinhibit"), (0x321, "mcyclecfg"),
    (0x322, "minstretcfg"), (0x340, "mscratch"), (0x341, "mepc"), (0x342, "mcause"), (0x343, "mtval"), (0x344, "mip"),
    (0x34a, "mtinst"), (0x34b, "mtval2"), (0x34e, "mctrctl"), (0x350, "miselect"), (0x351, "mireg"),
    (0x352, "mireg2"), (0x353, "mireg3"), (0x355, "mireg4"), (0x356, "mireg5"), (0x357, "mireg6"), (0x35c, "mtopei"),
    (0x740, "mnscratch"), (0x741, "mnepc"), (0x742, "mncause"), (0x744, "mnstatus"), (0x747, "mseccfg"),
    (0x7a0, "tselect"), (0x7a1, "tdata1"), (0x7a2, "tdata2"), (0x7a3, "tdata3"), (0x7a4, "tinfo"),
    (0x7a5, "tcontrol"), (0x7a8, "mcontext"), (0x7aa, "mscontext"), (0x7b0, "dcsr"), (0x7b1, "dpc"),
    (0x7b2, "dscratch0"), (0x7b3, "dscratch1"), (0xb00, "mcycle"), (0xb02, "minstret"), (0xf11, "mvendorid"),
    (0xf12, "marchid"), (0xf13, "mimpid"), (0xf14, "mhartid"), (0xf15, "mconfigptr"), (0xfb0, "mtopi"),
  ]
}

import Hart

extension Hart {
  private enum MachineCSR {
    static let mstatus = 0x300, medeleg = 0x302, mideleg = 0x303, mcounteren = 0x306, menvcfg = 0x30A
    static let scounteren = 0x106
    static let pmpcfg0 = 0x3A0, pmpaddr0 = 0x3B0
  }

  /// The machine-mode state that firmware would leave behind for a kernel in S-mode.
  func prepareForSupervisor() {
    // Everything but calls from S-mode, which the SBI serves, and M-mode's own.
    _ = writeCSR(MachineCSR.medeleg, 0xB1FF)
    _ = writeCSR(MachineCSR.mideleg, 0x222)
    _ = writeCSR(MachineCSR.mcounteren, 0xFFFF_FFFF)
    // U-mode reads cycle, time and instret, as OpenSBI has it: Linux's vDSO relies on time.
    _ = writeCSR(MachineCSR.scounteren, 7)
    // STCE and PBMTE; CBZE, CBCFE and CBIE (invalidate); ADUE stays off.
    _ = writeCSR(MachineCSR.menvcfg, 1 << 63 | 1 << 62 | 1 << 7 | 1 << 6 | 3 << 4)
    // The first entry opens all of memory (NAPOT, read, write, execute).
    _ = writeCSR(MachineCSR.pmpaddr0, .max)
    _ = writeCSR(MachineCSR.pmpcfg0, 0x1F)
    // Floating point is on, as OpenSBI leaves it.
    _ = writeCSR(MachineCSR.mstatus, (readCSR(MachineCSR.mstatus) ?? 0) | 1 << 13)
  }
}

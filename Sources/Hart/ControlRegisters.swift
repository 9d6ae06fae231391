import Bus

/// Control and status registers (Privileged Architecture, chapter 2; Unprivileged Architecture, Zicsr, Zicntr, Zihpm).
package enum ControlRegister {
  static let fflags = 0x001, frm = 0x002, fcsr = 0x003
  static let cycle = 0xC00, time = 0xC01, instret = 0xC02, hpmcounter3 = 0xC03, hpmcounter31 = 0xC1F
  static let sstatus = 0x100, sie = 0x104, stvec = 0x105, scounteren = 0x106, senvcfg = 0x10A
  static let sscratch = 0x140, sepc = 0x141, scause = 0x142, stval = 0x143, sip = 0x144, stimecmp = 0x14D
  static let satp = 0x180
  static let mstatus = 0x300, misa = 0x301, medeleg = 0x302, mideleg = 0x303, mie = 0x304, mtvec = 0x305
  static let mcounteren = 0x306, menvcfg = 0x30A, mcountinhibit = 0x320, mhpmevent3 = 0x323, mhpmevent31 = 0x33F
  static let mscratch = 0x340, mepc = 0x341, mcause = 0x342, mtval = 0x343, mip = 0x344
  static let pmpcfg0 = 0x3A0, pmpcfg2 = 0x3A2, pmpaddr0 = 0x3B0, pmpaddr15 = 0x3BF
  static let tselect = 0x7A0, tdata1 = 0x7A1, tdata2 = 0x7A2, tdata3 = 0x7A3
  static let mcycle = 0xB00, minstret = 0xB02, mhpmcounter3 = 0xB03, mhpmcounter31 = 0xB1F
  static let mvendorid = 0xF11, marchid = 0xF12, mimpid = 0xF13, mhartid = 0xF14, mconfigptr = 0xF15
}

/// What executing a CSR instruction came to.
enum ControlRegisterOutcome {
  case done
  /// The instruction is illegal here.
  case illegal
  /// Something that the run loop keeps at hand has changed (contexts, floating-point state).
  case changed
  /// An interrupt may be deliverable now.
  case interruptible
}

extension Hart {
  static let delegableExceptions: UInt64 = 0xB3FF
  static let delegableInterrupts: UInt64 = 1 << 1 | 1 << 5 | 1 << 9
  static let machineInterrupts: UInt64 = 1 << 3 | 1 << 7 | 1 << 11
  /// RV64 with A, C, D, F, I, M, S and U.
  static let misa: UInt64 = 2 << 62 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20

  /// mip as software sees it.
  var visibleInterrupts: UInt64 { pendingInterrupts }

  /// Every interrupt that is pending now: lines from outside, timers, and SEIP as software set it.
  @inline(__always)
  var pendingInterrupts: UInt64 { lines.pointee.load(ordering: .relaxed) | state.pointee.softwareExternal }

  var hasSupervisorTimer: Bool { state.pointee.menvcfg & EnvironmentConfiguration.supervisorTimer != 0 }

  /// Executes `csrrw` and its relatives. `operand` nil: no write. Writes the old value to x[rd] unless rd is 0.
  func executeCSR(
    number: Int, rd: Int, operand: UInt64?, combine: (_ old: UInt64, _ operand: UInt64) -> UInt64
  ) -> ControlRegisterOutcome {
    let privilege = state.pointee.privilege
    guard Int(privilege.rawValue) >= number >> 8 & 3 else { return .illegal }
    if operand != nil, number >> 10 == 3 { return .illegal }
    guard isAccessible(number, privilege), let old = readCSR(number) else { return .illegal }
    var outcome = ControlRegisterOutcome.done
    if let operand {
      var base = old
      // Read-modify-write of mip works on the software-writable SEIP, not on the controller's line (3.1.9).
      if number == ControlRegister.mip {
        base = (old & ~(1 << 9)) | state.pointee.softwareExternal
      }
      guard writeCSR(number, combine(base, operand)) else { return .illegal }
      switch number {
      case ControlRegister.sstatus, ControlRegister.mstatus, ControlRegister.satp:
        selectContexts()
        outcome = deliverableInterrupts() != 0 ? .interruptible : .changed
      case ControlRegister.mie, ControlRegister.sie, ControlRegister.mip, ControlRegister.sip, ControlRegister.mideleg,
        ControlRegister.stimecmp, ControlRegister.menvcfg:
        outcome = .interruptible
      case ControlRegister.pmpcfg0...ControlRegister.pmpaddr15: outcome = .changed
      default: break
      }
    }
    if rd != 0 { state.pointee.x[rd] = old }
    return outcome
  }

  /// Conditions beyond the privilege in the number: counters, floating point, TVM, Sstc.
  private func isAccessible(_ number: Int, _ privilege: Privilege) -> Bool {
    switch number {
    case ControlRegister.fflags...ControlRegister.fcsr:
      return state.pointee.mstatus & MachineStatus.fs != 0
    case ControlRegister.cycle...ControlRegister.hpmcounter31:
      let bit = UInt64(1) << UInt64(number & 31)
      if privilege == .machine { return true }
      if state.pointee.mcounteren & bit == 0 { return false }
      return privilege == .supervisor || state.pointee.scounteren & bit != 0
    case ControlRegister.satp:
      return privilege == .machine || state.pointee.mstatus & MachineStatus.tvm == 0
    case ControlRegister.stimecmp:
      return privilege == .machine || (hasSupervisorTimer && state.pointee.mcounteren & 2 != 0)
    default: return true
    }
  }

  /// Reads a CSR by number, without a privilege check: for set-up like firmware's, debuggers and tests. Nil: there is
  /// no such CSR.
  public func readCSR(_ number: Int) -> UInt64? {
    let s = state
    switch number {
    case ControlRegister.fflags: return UInt64(s.pointee.floatingPointFlags)
    case ControlRegister.frm: return UInt64(s.pointee.floatingPointRounding)
    case ControlRegister.fcsr:
      return UInt64(s.pointee.floatingPointFlags) | UInt64(s.pointee.floatingPointRounding) << 5
    case ControlRegister.cycle, ControlRegister.mcycle: return s.pointee.retired &+ s.pointee.cycleOffset
    case ControlRegister.time: return clock.ticks()
    case ControlRegister.instret, ControlRegister.minstret: return s.pointee.retired &+ s.pointee.instretOffset
    case ControlRegister.hpmcounter3...ControlRegister.hpmcounter31,
      ControlRegister.mhpmcounter3...ControlRegister.mhpmcounter31,
      ControlRegister.mhpmevent3...ControlRegister.mhpmevent31:
      return 0
    case ControlRegister.sstatus: return status & MachineStatus.supervisorVisible
    case ControlRegister.sie: return s.pointee.mie & s.pointee.mideleg
    case ControlRegister.stvec: return s.pointee.stvec
    case ControlRegister.scounteren: return s.pointee.scounteren
    case ControlRegister.senvcfg: return s.pointee.senvcfg
    case ControlRegister.sscratch: return s.pointee.sscratch
    case ControlRegister.sepc: return s.pointee.sepc
    case ControlRegister.scause: return s.pointee.scause
    case ControlRegister.stval: return s.pointee.stval
    case ControlRegister.sip: return visibleInterrupts & s.pointee.mideleg
    case ControlRegister.stimecmp: return s.pointee.stimecmp
    case ControlRegister.satp: return s.pointee.satp
    case ControlRegister.mstatus: return status
    case ControlRegister.misa: return Hart.misa
    case ControlRegister.medeleg: return s.pointee.medeleg
    case ControlRegister.mideleg: return s.pointee.mideleg
    case ControlRegister.mie: return s.pointee.mie
    case ControlRegister.mtvec: return s.pointee.mtvec
    case ControlRegister.mcounteren: return s.pointee.mcounteren
    case ControlRegister.menvcfg: return s.pointee.menvcfg
    case ControlRegister.mcountinhibit: return s.pointee.mcountinhibit
    case ControlRegister.mscratch: return s.pointee.mscratch
    case ControlRegister.mepc: return s.pointee.mepc
    case ControlRegister.mcause: return s.pointee.mcause
    case ControlRegister.mtval: return s.pointee.mtval
    case ControlRegister.mip: return visibleInterrupts
    case ControlRegister.pmpcfg0: return readProtectionConfiguration(0)
    case ControlRegister.pmpcfg2: return readProtectionConfiguration(2)
    case ControlRegister.pmpaddr0...ControlRegister.pmpaddr15:
      return s.pointee.pmpaddr[number - ControlRegister.pmpaddr0]
    // No triggers: tselect and what it selects read as zero (Debug Specification, 5.7).
    case ControlRegister.tselect...ControlRegister.tdata3: return 0
    case ControlRegister.mvendorid, ControlRegister.marchid, ControlRegister.mconfigptr: return 0
    case ControlRegister.mimpid: return 1
    case ControlRegister.mhartid: return UInt64(identifier)
    default: return nil
    }
  }

  /// mstatus with its SD bit, which sums up FS.
  private var status: UInt64 {
    let value = state.pointee.mstatus
    return value & MachineStatus.fs == MachineStatus.fs ? value | MachineStatus.sd : value
  }

  /// Writes a CSR by number, without a privilege check; fields keep to their legal values. False: there is no such CSR.
  @discardableResult
  public func writeCSR(_ number: Int, _ value: UInt64) -> Bool {
    let s = state
    switch number {
    case ControlRegister.fflags:
      s.pointee.floatingPointFlags = UInt8(value & 31)
      s.pointee.mstatus |= MachineStatus.fs
    case ControlRegister.frm:
      s.pointee.floatingPointRounding = UInt8(value & 7)
      s.pointee.mstatus |= MachineStatus.fs
    case ControlRegister.fcsr:
      s.pointee.floatingPointFlags = UInt8(value & 31)
      s.pointee.floatingPointRounding = UInt8(value >> 5 & 7)
      s.pointee.mstatus |= MachineStatus.fs
    case ControlRegister.sstatus:
      let kept = s.pointee.mstatus & ~MachineStatus.supervisorWritable
      s.pointee.mstatus = kept | value & MachineStatus.supervisorWritable
      selectContexts()
    case ControlRegister.sie:
      s.pointee.mie = s.pointee.mie & ~s.pointee.mideleg | value & s.pointee.mideleg
    case ControlRegister.stvec: s.pointee.stvec = value & ~2
    case ControlRegister.scounteren: s.pointee.scounteren = value & 0xFFFF_FFFF
    case ControlRegister.senvcfg:
      s.pointee.senvcfg = environmentConfiguration(
        value, writable: EnvironmentConfiguration.supervisorWritable, old: s.pointee.senvcfg)
    case ControlRegister.sscratch: s.pointee.sscratch = value
    case ControlRegister.sepc: s.pointee.sepc = value & ~1
    case ControlRegister.scause: s.pointee.scause = value
    case ControlRegister.stval: s.pointee.stval = value
    case ControlRegister.sip:
      // Only SSIP is software's in sip.
      setLine(1 << 1 & s.pointee.mideleg, value & 2 != 0)
    case ControlRegister.stimecmp:
      s.pointee.stimecmp = value
      updateTimers()
    case ControlRegister.satp:
      let mode = value >> 60
      // An unsupported mode makes the whole write have no effect (12.1.11).
      guard mode == 0 || (mode >= 8 && mode <= highestTranslationMode) else { break }
      s.pointee.satp = mode == 0 ? 0 : value
      selectContexts()
    case ControlRegister.mstatus:
      var new = s.pointee.mstatus & ~MachineStatus.writable | value & MachineStatus.writable
      // MPP has no mode 2: such a write leaves the field as it was.
      if new >> MachineStatus.mppShift & 3 == 2 {
        new = new & ~MachineStatus.mpp | s.pointee.mstatus & MachineStatus.mpp
      }
      s.pointee.mstatus = new
      selectContexts()
    case ControlRegister.misa: break
    case ControlRegister.medeleg: s.pointee.medeleg = value & Hart.delegableExceptions
    case ControlRegister.mideleg: s.pointee.mideleg = value & Hart.delegableInterrupts
    case ControlRegister.mie:
      s.pointee.mie = value & (Hart.delegableInterrupts | Hart.machineInterrupts)
    case ControlRegister.mtvec: s.pointee.mtvec = value & ~2
    case ControlRegister.mcounteren: s.pointee.mcounteren = value & 0xFFFF_FFFF
    case ControlRegister.menvcfg:
      s.pointee.menvcfg = environmentConfiguration(
        value, writable: EnvironmentConfiguration.machineWritable, old: s.pointee.menvcfg)
      translations.clearAll()
      updateTimers()
    case ControlRegister.mcountinhibit: s.pointee.mcountinhibit = 0
    case ControlRegister.mscratch: s.pointee.mscratch = value
    case ControlRegister.mepc: s.pointee.mepc = value & ~1
    case ControlRegister.mcause: s.pointee.mcause = value
    case ControlRegister.mtval: s.pointee.mtval = value
    case ControlRegister.mip:
      s.pointee.softwareExternal = value & 1 << 9
      setLine(1 << 1, value & 1 << 1 != 0)
      if !hasSupervisorTimer { setLine(1 << 5, value & 1 << 5 != 0) }
    case ControlRegister.pmpcfg0: writeProtectionConfiguration(0, value)
    case ControlRegister.pmpcfg2: writeProtectionConfiguration(2, value)
    case ControlRegister.pmpaddr0...ControlRegister.pmpaddr15:
      writeProtectionAddress(number - ControlRegister.pmpaddr0, value)
    case ControlRegister.tselect...ControlRegister.tdata3: break
    case ControlRegister.mcycle: s.pointee.cycleOffset = value &- s.pointee.retired
    // The write's own retirement doesn't count, so that the next read gives the value written.
    case ControlRegister.minstret: s.pointee.instretOffset = value &- s.pointee.retired &- 1
    case ControlRegister.mhpmcounter3...ControlRegister.mhpmcounter31,
      ControlRegister.mhpmevent3...ControlRegister.mhpmevent31:
      break
    default: return readCSR(number) != nil && number >> 10 != 3
    }
    return true
  }

  /// CBIE has no value 2: such a write leaves the field as it was.
  private func environmentConfiguration(_ value: UInt64, writable: UInt64, old: UInt64) -> UInt64 {
    let field = EnvironmentConfiguration.cacheBlockInvalidate
    let new = value & writable
    return new & field == 2 << 4 ? new & ~field | old & field : new
  }

  /// Brings the timer interrupts up to date with the clock. The hart's own thread.
  func updateTimers() {
    let now = clock.ticks()
    setLine(1 << 7, now >= machineTimeCompare)
    if hasSupervisorTimer { setLine(1 << 5, now >= state.pointee.stimecmp) }
  }
}

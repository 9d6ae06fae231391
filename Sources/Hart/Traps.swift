/// Taking and leaving traps (Privileged Architecture, 3.1.6, 3.1.7, 3.3.2).
extension Hart {
  /// Enters the handler for `cause`: an exception, or an interrupt with the top bit set. `state.pc` is the instruction
  /// that trapped or the one that would have come next.
  package func takeTrap(_ cause: UInt64, _ value: UInt64) {
    if cause == TrapCause.unrepeatable { return }
    trapCount &+= 1
    let isInterrupt = cause & TrapCause.interrupt != 0
    let code = cause & 63
    let delegation = isInterrupt ? state.pointee.mideleg : state.pointee.medeleg
    let status = state.pointee.mstatus
    let previous = state.pointee.privilege
    if previous != .machine, delegation >> code & 1 != 0 {
      state.pointee.scause = cause
      state.pointee.sepc = state.pointee.pc
      state.pointee.stval = value
      var new = status & ~(MachineStatus.spie | MachineStatus.spp | MachineStatus.sie)
      if status & MachineStatus.sie != 0 { new |= MachineStatus.spie }
      if previous == .supervisor { new |= MachineStatus.spp }
      state.pointee.mstatus = new
      state.pointee.privilege = .supervisor
      state.pointee.pc = vector(state.pointee.stvec, cause)
    } else {
      state.pointee.mcause = cause
      state.pointee.mepc = state.pointee.pc
      state.pointee.mtval = value
      var new = status & ~(MachineStatus.mpie | MachineStatus.mpp | MachineStatus.mie)
      if status & MachineStatus.mie != 0 { new |= MachineStatus.mpie }
      new |= UInt64(previous.rawValue) << MachineStatus.mppShift
      state.pointee.mstatus = new
      state.pointee.privilege = .machine
      state.pointee.pc = vector(state.pointee.mtvec, cause)
    }
    selectContexts()
  }

  private func vector(_ base: UInt64, _ cause: UInt64) -> UInt64 {
    let isVectored = base & 1 != 0 && cause & TrapCause.interrupt != 0
    return (base & ~3) &+ (isVectored ? 4 &* (cause & 63) : 0)
  }

  /// MRET. False: illegal in this mode.
  func returnFromMachineTrap() -> Bool {
    guard state.pointee.privilege == .machine else { return false }
    let status = state.pointee.mstatus
    let privilege = Privilege(rawValue: UInt8(status >> MachineStatus.mppShift & 3)) ?? .user
    var new = status & ~(MachineStatus.mie | MachineStatus.mpp)
    if status & MachineStatus.mpie != 0 { new |= MachineStatus.mie }
    new |= MachineStatus.mpie
    if privilege != .machine { new &= ~MachineStatus.mprv }
    state.pointee.mstatus = new
    state.pointee.privilege = privilege
    state.pointee.pc = state.pointee.mepc
    selectContexts()
    return true
  }

  /// SRET. False: illegal in this mode, or trapped by TSR.
  func returnFromSupervisorTrap() -> Bool {
    let status = state.pointee.mstatus
    switch state.pointee.privilege {
    case .user: return false
    case .supervisor where status & MachineStatus.tsr != 0: return false
    default: break
    }
    var new = status & ~(MachineStatus.sie | MachineStatus.spp | MachineStatus.mprv)
    if status & MachineStatus.spie != 0 { new |= MachineStatus.sie }
    new |= MachineStatus.spie
    state.pointee.mstatus = new
    state.pointee.privilege = status & MachineStatus.spp != 0 ? .supervisor : .user
    state.pointee.pc = state.pointee.sepc
    selectContexts()
    return true
  }

  /// The interrupts by falling priority (3.1.9): external, software, timer; machine before supervisor.
  private static let priority: [UInt64] = [11, 3, 7, 9, 1, 5]

  /// Interrupts that the present mode lets through, by privilege they'd be taken in; 0 when none is to be taken.
  @inline(__always)
  package func deliverableInterrupts() -> UInt64 {
    let pending = pendingInterrupts & state.pointee.mie
    if pending == 0 { return 0 }
    let status = state.pointee.mstatus
    let mode = state.pointee.privilege
    let machine = pending & ~state.pointee.mideleg
    if machine != 0, mode != .machine || status & MachineStatus.mie != 0 { return machine }
    let supervisor = pending & state.pointee.mideleg
    if supervisor != 0, mode == .user || (mode == .supervisor && status & MachineStatus.sie != 0) { return supervisor }
    return 0
  }

  /// Whether the run loop has something to do before the next instruction.
  @inline(__always)
  package var hasReasonToLeave: Bool {
    attention.load(ordering: .relaxed) != 0 || state.pointee.isWaiting || deliverableInterrupts() != 0
  }

  /// Takes the most urgent interrupt, if there is one to take.
  func takeInterrupt() {
    let deliverable = deliverableInterrupts()
    guard deliverable != 0, let code = Self.priority.first(where: { deliverable >> $0 & 1 != 0 }) else { return }
    takeTrap(TrapCause.interrupt | code, 0)
  }
}

import Bus
import Glibc
import RISCV

/// What became of a system instruction.
enum SystemOutcome {
  /// It's done; the next one follows.
  case next
  /// It raised a trap.
  case trap
  /// `state.pc` says where to go on; what the run loop keeps at hand has changed.
  case jump
  /// Like `jump`, and the run loop should look for interrupts and requests first.
  case leave
}

extension Hart {
  /// Executes the CSR or floating-point instruction at half-word `index` of `page`, whose address is `state.pc` and which
  /// has no other effect than on the hart's registers. False: it isn't one, or didn't complete; nothing has happened
  /// then that executing it again wouldn't do.
  package func executeRegisterInstruction(_ page: UnsafeMutablePointer<CodePage>, _ index: Int) -> Bool {
    if slots(of: page)[index].operation == .reserved { decode(page, index) }
    let slot = slots(of: page)[index]
    let effects = slot.operation.effects
    if effects.contains(.accessesCSR) {
      let pc = state.pointee.pc
      switch executeSystem(slot) {
      case .next: break
      case .jump where state.pointee.pc == pc &+ UInt64(slot.length) &* 2: break
      default:
        // It trapped, or lets an interrupt in: the interpreter does it again, or the CSR is written already.
        guard state.pointee.pc == pc else { break }
        return false
      }
      state.pointee.pc = pc &+ UInt64(slot.length) &* 2
      state.pointee.retired &+= 1
      return true
    }
    guard effects.contains(.usesFloatingPoint), effects.isDisjoint(with: [.readsMemory, .writesMemory]),
      state.pointee.mstatus & MachineStatus.fs != 0, executeFloatingPoint(slot)
    else { return false }
    state.pointee.pc &+= UInt64(slot.length) &* 2
    state.pointee.retired &+= 1
    return true
  }

  /// Executes the instruction at half-word `index` of `page`, whose address is `state.pc`, where it is one of those that
  /// end blocks of generated code, and takes the trap that it raises. False: it is another one, and nothing has happened.
  package func executeBlockEnd(_ page: UnsafeMutablePointer<CodePage>, _ index: Int) -> Bool {
    if slots(of: page)[index].operation == .reserved { decode(page, index) }
    let slot = slots(of: page)[index]
    switch slot.operation {
    case .ecall, .ebreak, .mret, .sret, .wfi, .sfence_vma, .sinval_vma, .fence_i,
      .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci:
      break
    default: return false
    }
    switch executeSystem(slot) {
    case .trap:
      takeTrap(state.pointee.trapCause, state.pointee.trapValue)
      return true
    case .next: state.pointee.pc &+= UInt64(slot.length) &* 2
    case .jump, .leave: break
    }
    state.pointee.retired &+= 1
    return true
  }

  /// Executes one of the rare instructions: CSRs, traps, fences, cache blocks. `state.pc` is its address.
  @inline(never)
  func executeSystem(_ slot: Slot) -> SystemOutcome {
    if rehearsal != nil, !isRepeatable(slot), endsRehearsal() { return .trap }
    let next = state.pointee.pc &+ UInt64(slot.length) &* 2
    switch slot.operation {
    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci: return executeCSR(slot, next)
    case .ecall: return environmentCall(next)
    case .ebreak:
      if isSemihostingCall, let environment, environment.semihostingCall(self) {
        state.pointee.pc = next
        return .leave
      }
      raise(TrapCause.breakpoint, state.pointee.pc)
      return .trap
    case .mret: return returnFromMachineTrap() ? afterReturn() : illegal()
    case .sret: return returnFromSupervisorTrap() ? afterReturn() : illegal()
    case .wfi:
      let privilege = state.pointee.privilege
      if privilege != .machine, privilege == .user || state.pointee.mstatus & MachineStatus.tw != 0 {
        return illegal()
      }
      state.pointee.isWaiting = true
      state.pointee.pc = next
      return .leave
    case .sfence_vma, .sinval_vma:
      let privilege = state.pointee.privilege
      if privilege == .user || (privilege == .supervisor && state.pointee.mstatus & MachineStatus.tvm != 0) {
        return illegal()
      }
      fenceTranslations(
        address: slot.rs1 == 0 ? nil : x[Int(slot.rs1)], asid: slot.rs2 == 0 ? nil : x[Int(slot.rs2)] & 0xFFFF)
      // Code in pages that have got a new owner since is looked at again, too: xv6 loads programs without a FENCE.I.
      if slot.rs1 == 0, slot.rs2 == 0 { fenceInstructions() }
      state.pointee.pc = next
      return .jump
    case .sfence_w_inval, .sfence_inval_ir:
      return state.pointee.privilege == .user ? illegal() : .next
    case .fence_i:
      fenceInstructions()
      state.pointee.pc = next
      return .jump
    case .cbo_clean, .cbo_flush:
      guard isCacheOperationAllowed(EnvironmentConfiguration.cacheBlockClean) else { return illegal() }
      return manageBlock(x[Int(slot.rs1)]) ? .next : .trap
    case .cbo_inval:
      guard isCacheOperationAllowed(EnvironmentConfiguration.cacheBlockInvalidate) else { return illegal() }
      return manageBlock(x[Int(slot.rs1)]) ? .next : .trap
    case .cbo_zero:
      guard isCacheOperationAllowed(EnvironmentConfiguration.cacheBlockZero) else { return illegal() }
      return zeroBlock(x[Int(slot.rs1)]) ? .next : .trap
    case .pause, .wrs_nto, .wrs_sto:
      // Somebody else has to get something done first: let the host's scheduler run it.
      sched_yield()
      return .next
    default: return illegal()
    }
  }

  private func afterReturn() -> SystemOutcome { deliverableInterrupts() != 0 ? .leave : .jump }

  private func illegal() -> SystemOutcome {
    raiseIllegal(at: state.pointee.pc)
    return .trap
  }

  /// Raises an illegal-instruction exception with the instruction's bits as its value (Sstvala).
  @inline(never)
  func raiseIllegal(at pc: UInt64) {
    raise(TrapCause.illegalInstruction, UInt64(instruction(at: pc) ?? 0))
  }

  /// The bits of the instruction at `pc`, as a fetch sees them; nil where a fetch faults.
  package func instruction(at pc: UInt64) -> UInt32? {
    guard let low = fetchHalf(pc) else { return nil }
    if low & 3 != 3 { return low }
    guard let high = fetchHalf(pc &+ 2) else { return nil }
    return low | high << 16
  }

  private func fetchHalf(_ pc: UInt64) -> UInt32? {
    guard let translation = physicalAddress(pc, size: 2, .fetch) else { return nil }
    return addressSpace.read(PhysicalAddress(translation.physical), width: 2).map { UInt32(truncatingIfNeeded: $0) }
  }

  /// The three instructions that mark a semihosting call: slli x0, x0, 0x1f; ebreak; srai x0, x0, 7, not compressed
  /// (RISC-V Semihosting, 2).
  private var isSemihostingCall: Bool {
    instruction(at: state.pointee.pc) == 0x0010_0073 && instruction(at: state.pointee.pc &- 4) == 0x01F0_1013
      && instruction(at: state.pointee.pc &+ 4) == 0x4070_5013
  }

  private func isCacheOperationAllowed(_ field: UInt64) -> Bool {
    let privilege = state.pointee.privilege
    if privilege == .machine { return true }
    if state.pointee.menvcfg & field == 0 { return false }
    return privilege == .supervisor || state.pointee.senvcfg & field != 0
  }

  private func environmentCall(_ next: UInt64) -> SystemOutcome {
    switch state.pointee.privilege {
    case .user: raise(TrapCause.environmentCallFromUser, 0)
    case .machine: raise(TrapCause.environmentCallFromMachine, 0)
    case .supervisor:
      if let environment, environment.supervisorCall(self) {
        // A call that begins the hart anew (hart_stop, hart_suspend) has set pc itself.
        if isBegunAnew { isBegunAnew = false } else { state.pointee.pc = next }
        return .leave
      }
      raise(TrapCause.environmentCallFromSupervisor, 0)
    }
    return .trap
  }

  private func executeCSR(_ slot: Slot, _ next: UInt64) -> SystemOutcome {
    let number = Int(slot.immediate)
    let isImmediate = slot.operation == .csrrwi || slot.operation == .csrrsi || slot.operation == .csrrci
    let operand = isImmediate ? UInt64(slot.rs1) : x[Int(slot.rs1)]
    let outcome: ControlRegisterOutcome
    switch slot.operation {
    case .csrrw, .csrrwi:
      outcome = executeCSR(number: number, rd: Int(slot.rd), operand: operand) { $1 }
    case .csrrs, .csrrsi:
      outcome = executeCSR(number: number, rd: Int(slot.rd), operand: slot.rs1 == 0 ? nil : operand) { $0 | $1 }
    default:
      outcome = executeCSR(number: number, rd: Int(slot.rd), operand: slot.rs1 == 0 ? nil : operand) { $0 & ~$1 }
    }
    switch outcome {
    case .done: return .next
    case .illegal: return illegal()
    case .changed:
      state.pointee.pc = next
      return .jump
    case .interruptible:
      state.pointee.pc = next
      return deliverableInterrupts() != 0 ? .leave : .jump
    }
  }
}

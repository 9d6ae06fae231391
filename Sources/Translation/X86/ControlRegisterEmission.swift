import Hart
import RISCV

/// The control registers that systems use all the time (Supervisor-Level CSRs; Privileged Architecture, 12.1). Everything
/// else about them is the interpreter's.
extension X86BackEnd {
  /// Those that only hold a value, and the bits that they hold.
  private static func plainRegister(_ number: Int64) -> (place: HostAddress, kept: Int32)? {
    switch number {
    case 0x140: (StateLayout.sscratch, -1)
    case 0x141: (StateLayout.sepc, -2)
    case 0x142: (StateLayout.scause, -1)
    case 0x143: (StateLayout.stval, -1)
    default: nil
    }
  }

  private static let sstatus: Int64 = 0x100

  mutating func emitControlRegister(_ step: Trace.Step) {
    let i = step.instruction
    let isRead = (i.operation == .csrrs || i.operation == .csrrc) && i.rs1 == 0
    if let (place, kept) = Self.plainRegister(i.immediate), isRead || i.operation == .csrrw {
      emitPlainRegister(step, place, kept, isRead: isRead)
    } else if i.immediate == Self.sstatus, isRead {
      let misses = emitStatusChecks()
      emitSupervisorStatus()
      write(i.rd, .rax)
      for miss in misses { postpone(.executeOne(miss, site(step).bits, assembler.here)) }
      forgetFloat()
    } else if i.immediate == Self.sstatus {
      emitStatusChange(step)
    } else {
      emitExecuteOne(step)
    }
  }

  /// Returns the jump that is taken in U-mode.
  private mutating func emitPrivilegeCheck() -> Assembler.Patch {
    held = nil
    assembler.compare8(StateLayout.privilege, immediate: Privilege.supervisor.rawValue)
    return assembler.jump(if: .below)
  }

  /// The same, and those that are taken while MXCSR may hold exceptions that make FS dirty.
  private mutating func emitStatusChecks() -> [Assembler.Patch] {
    let miss = emitPrivilegeCheck()
    assembler.compare8(StateLayout.isFloatReady, immediate: 0)
    return [miss, assembler.jump(if: .notEqual)]
  }

  private mutating func emitPlainRegister(_ step: Trace.Step, _ place: HostAddress, _ kept: Int32, isRead: Bool) {
    let i = step.instruction
    let miss = emitPrivilegeCheck()
    if !isRead {
      readInto(.rcx, i.rs1)
      if kept != -1 { assembler.arithmetic(.and, .rcx, immediate: kept) }
    }
    assembler.load(.rax, place)
    if !isRead { assembler.store(place, .rcx) }
    write(i.rd, .rax)
    postpone(.executeOne(miss, site(step).bits, assembler.here))
    nextHeld = nil
  }

  /// Leaves sstatus in rax: what of mstatus is visible, and SD where FS is dirty.
  private mutating func emitSupervisorStatus() {
    assembler.load(.rax, StateLayout.mstatus)
    assembler.moveImmediate(.rcx, MachineStatus.supervisorVisible)
    assembler.arithmetic(.and, .rcx, .rax)
    // FS + 1 carries out of its two bits where both are set.
    assembler.arithmetic(.and, .rax, immediate: Int32(MachineStatus.fs), .long)
    assembler.arithmetic(.add, .rax, immediate: Int32(1 << 13), .long)
    assembler.shift(.right, .rax, by: 15)
    assembler.shift(.left, .rax, by: 63)
    assembler.arithmetic(.or, .rax, .rcx)
  }

  /// Changes of sstatus after which no interrupt can be taken that couldn't before, floating point isn't switched off
  /// while its registers are in use, and the same translations are valid, or those of the context known for the other
  /// SUM.
  private mutating func emitStatusChange(_ step: Trace.Step) {
    let i = step.instruction
    var misses = emitStatusChecks()
    // The bits to change, in rcx.
    let isImmediate = i.operation == .csrrwi || i.operation == .csrrsi || i.operation == .csrrci
    if isImmediate { assembler.moveImmediate(.rcx, UInt64(i.rs1)) } else { readInto(.rcx, i.rs1) }
    assembler.load(.rax, StateLayout.mstatus, .long)
    switch i.operation {
    case .csrrw, .csrrwi: assembler.xor(.rcx, .rax, .long)
    case .csrrs, .csrrsi: assembler.andNot(.rcx, inverted: .rax, .rcx)
    default: assembler.arithmetic(.and, .rcx, .rax, .long)
    }
    assembler.arithmetic(.and, .rcx, immediate: Int32(MachineStatus.supervisorWritable), .long)
    assembler.test(.rcx, immediate: Int32(MachineStatus.mxr | MachineStatus.fs), .long)
    misses.append(assembler.jump(if: .notEqual))
    // SIE set: only while nothing waits for it.
    assembler.test(.rcx, immediate: Int32(MachineStatus.sie), .long)
    let unchanged = assembler.jump(if: .equal)
    assembler.test(.rax, immediate: Int32(MachineStatus.sie), .long)
    let cleared = assembler.jump(if: .notEqual)
    assembler.load(.rax, StateLayout.lines)
    assembler.arithmetic(.or, .rax, StateLayout.softwareExternal)
    assembler.arithmetic(.and, .rax, StateLayout.mie)
    misses.append(assembler.jump(if: .notEqual))
    assembler.fillHere(unchanged)
    assembler.fillHere(cleared)
    assembler.test(.rcx, immediate: Int32(MachineStatus.sum), .long)
    let sameUserAccess = assembler.jump(if: .equal)
    assembler.compare8(StateLayout.privilege, immediate: Privilege.supervisor.rawValue)
    misses.append(assembler.jump(if: .notEqual))
    assembler.load(.rax, StateLayout.alternateContext)
    assembler.test(.rax, .rax)
    misses.append(assembler.jump(if: .equal))
    assembler.store(StateLayout.slowValue, .rcx)
    assembler.load(.rcx, StateLayout.dataContext)
    assembler.store(StateLayout.alternateContext, .rcx)
    assembler.store(StateLayout.dataContext, .rax)
    assembler.load(.rcx, HostAddress(.rax, StateLayout.contextRead))
    assembler.store(StateLayout.readEntries, .rcx)
    assembler.load(.rcx, HostAddress(.rax, StateLayout.contextWrite))
    assembler.store(StateLayout.writeEntries, .rcx)
    assembler.load(.rcx, StateLayout.slowValue)
    assembler.fillHere(sameUserAccess)
    if i.rd != 0 {
      assembler.store(StateLayout.slowValue, .rcx)
      emitSupervisorStatus()
      assembler.load(.rcx, StateLayout.slowValue)
    }
    assembler.arithmetic(.xor, StateLayout.mstatus, .rcx, .long)
    write(i.rd, .rax)
    for miss in misses { postpone(.executeOne(miss, site(step).bits, assembler.here)) }
    forgetFloat()
  }

  /// Floating point has to be looked at anew: the interpreter may have executed the instruction.
  private mutating func forgetFloat() {
    nextHeld = nil
    isFloatChecked = false
    isFloatDirty = false
    boxed = 0
  }
}

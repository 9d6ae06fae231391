import Hart

/// The code that every block shares: the way in, the ways out, and the calls of slow paths. Made once for each code
/// memory, at its start.
///
/// The boundary: generated code runs with the guest's pinned registers in host registers; those of floating point are
/// there only while `isFloatReady`, from the first use on, so that other code has nothing to do with them. A slow path is
/// called with the address in rax, the site's description in ecx and the value of a store in `slowValue`, on the host's
/// own stack; everything that the guest can see is in the state by then. It returns 0 to go on (its value is in
/// `slowValue`; rdx is as it was) or 1 to leave. It never throws and never unwinds through generated code.
struct Thunks {
  /// A C function: (state, address of a block) to an `ExitReason`.
  private(set) var enter: Assembler.Label = 0
  /// eax: an `ExitReason`.
  private(set) var exit: Assembler.Label = 0
  /// eax: offset in the page of `pageBase`, where to go on; for each `ExitReason`.
  private(set) var exitDispatch: Assembler.Label = 0
  private(set) var exitBudget: Assembler.Label = 0
  private(set) var exitInterpretOne: Assembler.Label = 0
  private(set) var exitInterpretOn: Assembler.Label = 0
  /// rax: the guest address to go on at.
  private(set) var exitAbsolute: Assembler.Label = 0
  /// A guest return whose address isn't what the host's stack has on top.
  private(set) var returnMiss: Assembler.Label = 0
  /// Looks the address in rax up in the second table, for the first table's entry at rcx. The flags say equal where the
  /// entry was filled: the access should be tried again. Changes no register.
  private(set) var refillRead: Assembler.Label = 0
  private(set) var refillWrite: Assembler.Label = 0
  private(set) var slowAccess: Assembler.Label = 0
  private(set) var prepareAccess: Assembler.Label = 0
  private(set) var executeOne: Assembler.Label = 0
  /// rax: offset in the page of the instruction that ends the block, for which there is no host code.
  private(set) var executeBlockEnd: Assembler.Label = 0
  /// Fills the pinned floating-point registers. eax: 1, or 0 where floating point is off or doesn't round to nearest.
  private(set) var makeFloatReady: Assembler.Label = 0
  /// The check of an access group fails: go on, at the offset in the page in eax, in a block without groups, and lead the
  /// jump whose distance is at rcx there.
  private(set) var exitUngrouped: Assembler.Label = 0

  init(_ a: inout Assembler) {
    emitExits(&a)
    emitReturnMiss(&a)
    emitEnter(&a)
    refillRead = emitRefill(&a, StateLayout.readEntries)
    refillWrite = emitRefill(&a, StateLayout.writeEntries)
    slowAccess = emitSlowPath(&a, unsafeBitCast(slowAccessFunction, to: UInt.self))
    prepareAccess = emitSlowPath(&a, unsafeBitCast(prepareAccessFunction, to: UInt.self))
    executeOne = emitSlowPath(&a, unsafeBitCast(executeOneFunction, to: UInt.self))
    executeBlockEnd = emitBlockEnd(&a)
    emitMakeFloatReady(&a)
  }

  private func storePinned(_ a: inout Assembler) {
    for (guest, host) in PinnedRegisters.all { a.store(StateLayout.integer(guest), host) }
    a.store(StateLayout.remaining, PinnedRegisters.remaining)
    ifFloatReady(&a) { a in
      for (guest, host) in PinnedFloats.all { a.store(StateLayout.float(guest), host, .double) }
      // It masks all exceptions and rounds to nearest: as Swift expects.
      a.storeControl(StateLayout.guestFloatControl)
    }
  }

  private func loadPinned(_ a: inout Assembler) {
    a.load(PinnedRegisters.remaining, StateLayout.remaining)
    a.load(PinnedRegisters.pageBase, StateLayout.pageBase)
    for (guest, host) in PinnedRegisters.all { a.load(host, StateLayout.integer(guest)) }
  }

  private func loadPinnedFloats(_ a: inout Assembler) {
    a.loadControl(StateLayout.guestFloatControl)
    for (guest, host) in PinnedFloats.all { a.load(host, StateLayout.float(guest), .double) }
  }

  private func ifFloatReady(_ a: inout Assembler, _ body: (inout Assembler) -> Void) {
    a.compare8(StateLayout.isFloatReady, immediate: 0)
    let skip = a.jump(if: .equal)
    body(&a)
    a.fillHere(skip)
  }

  private func emitRefill(_ a: inout Assembler, _ entries: HostAddress) -> Assembler.Label {
    let label = a.here
    a.push(.rdx)
    a.push(.rsi)
    a.move(.rdx, .rax)
    a.shift(.right, .rdx, by: 12)
    a.move(.rsi, .rdx)
    a.shift(.right, .rsi, by: 12)
    a.xor(.rsi, .rdx)
    a.arithmetic(.and, .rsi, StateLayout.secondMask, .long)
    a.shift(.left, .rsi, by: 4, .long)
    a.arithmetic(.add, .rsi, entries)
    a.shift(.left, .rdx, by: 12)
    // Known already: the access crosses the page's end.
    a.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    let known = a.jump(if: .equal)
    let second = Int32(TranslationCache.entryCount * MemoryLayout<TranslationEntry>.stride)
    a.arithmetic(.compare, .rdx, HostAddress(.rsi, second))
    let missing = a.jump(if: .notEqual)
    a.store(HostAddress(.rcx, 0), .rdx)
    a.load(.rdx, HostAddress(.rsi, second + 8))
    a.store(HostAddress(.rcx, 8), .rdx)
    a.fillHere(missing)
    a.pop(.rsi)
    a.pop(.rdx)
    a.ret()
    a.fillHere(known)
    a.test(.rsp, .rsp)
    a.pop(.rsi)
    a.pop(.rdx)
    a.ret()
    return label
  }

  private mutating func emitMakeFloatReady(_ a: inout Assembler) {
    makeFloatReady = a.here
    a.load(.rax, StateLayout.mstatus, .long)
    a.test(.rax, immediate: Int32(MachineStatus.fs), .long)
    let off = a.jump(if: .equal)
    a.compare8(StateLayout.rounding, immediate: 0)
    let rounding = a.jump(if: .notEqual)
    a.store8(StateLayout.isFloatReady, immediate: 1)
    loadPinnedFloats(&a)
    a.moveImmediate(.rax, 1)
    a.ret()
    a.fillHere(off)
    a.fillHere(rounding)
    a.moveImmediate(.rax, 0)
    a.ret()
  }

  private static let saved: [HostRegister] = [.rbx, .rbp, .r12, .r13, .r14, .r15]

  private mutating func emitExits(_ a: inout Assembler) {
    exit = a.here
    storePinned(&a)
    a.store8(StateLayout.isFloatReady, immediate: 0)
    a.load(.rsp, StateLayout.hostStack)
    for register in Self.saved.reversed() { a.pop(register) }
    a.ret()
    func offsetExit(_ reason: ExitReason) -> Assembler.Label {
      let label = a.here
      a.arithmetic(.add, .rax, PinnedRegisters.pageBase)
      a.store(StateLayout.pc, .rax)
      a.moveImmediate(.rax, UInt64(reason.rawValue))
      a.jump(exit)
      return label
    }
    exitDispatch = offsetExit(.dispatch)
    exitBudget = offsetExit(.budget)
    exitInterpretOne = offsetExit(.interpretOne)
    exitInterpretOn = offsetExit(.interpretOn)
    exitUngrouped = a.here
    a.store(StateLayout.slowValue, .rcx)
    _ = offsetExit(.ungrouped)
    exitAbsolute = a.here
    a.arithmetic(.and, .rax, immediate: -2)
    a.store(StateLayout.pc, .rax)
    a.moveImmediate(.rax, UInt64(ExitReason.dispatch.rawValue))
    a.jump(exit)
  }

  /// Forgets the host's stack, and jumps to where ra says.
  private mutating func emitReturnMiss(_ a: inout Assembler) {
    returnMiss = a.here
    a.load(.rsp, StateLayout.returnStackBase)
    a.load(.rax, StateLayout.integer(1))
    let missing = X86BackEnd.emitIndirectJump(&a, isCall: false)
    a.fill(missing, exitAbsolute)
  }

  private static let returnStackSize: Int32 = 1 << 15

  private mutating func emitEnter(_ a: inout Assembler) {
    enter = a.here
    for register in Self.saved { a.push(register) }
    a.loadAddress(.rbp, HostAddress(.rdi, StateLayout.bias))
    a.store(StateLayout.hostStack, .rsp)
    a.arithmetic(.sub, .rsp, immediate: 64)
    a.arithmetic(.and, .rsp, immediate: -16)
    a.store(StateLayout.returnStackBase, .rsp)
    a.loadAddress(.rax, HostAddress(.rsp, -Self.returnStackSize))
    a.store(StateLayout.returnStackLimit, .rax)
    // At the bottom: an address that few guests return to, and if one does, the long way.
    a.moveImmediate(.rax, UInt64(returnMiss))
    a.store(HostAddress(.rsp, 0), .rax)
    a.storeImmediate(HostAddress(.rsp, 8), -1)
    a.move(.rdx, .rsi)
    loadPinned(&a)
    a.jump(.rdx)
  }

  /// Calls a C function: (state, address, description) to 0 or 1. In between, rbx is the stack pointer.
  private func emitCall(
    _ a: inout Assembler, _ function: UInt, goingOn emitWayOn: (inout Assembler) -> Void
  ) -> Assembler.Label {
    let label = a.here
    storePinned(&a)
    a.move(.rbx, .rsp)
    a.loadAddress(.rdi, HostAddress(.rbp, -StateLayout.bias))
    a.store(StateLayout.keptGroup, .rdx)
    a.move(.rsi, .rax)
    a.move(.rdx, .rcx, .long)
    a.arithmetic(.and, .rsp, immediate: -16)
    a.moveImmediate(.rax, UInt64(function))
    a.call(.rax)
    a.test(.rax, .rax, .long)
    let leave = a.jump(if: .notEqual)
    emitWayOn(&a)
    // The registers are in the state, perhaps changed there: load them, for the way out stores them.
    a.fillHere(leave)
    a.store8(StateLayout.isFloatReady, immediate: 0)
    loadPinned(&a)
    a.moveImmediate(.rax, UInt64(ExitReason.left.rawValue))
    a.jump(exit)
    return label
  }

  private func emitSlowPath(_ a: inout Assembler, _ function: UInt) -> Assembler.Label {
    emitCall(&a, function) { a in
      a.move(.rsp, .rbx)
      loadPinned(&a)
      ifFloatReady(&a, loadPinnedFloats)
      a.load(.rdx, StateLayout.keptGroup)
      a.load(.rax, StateLayout.slowValue)
      a.ret()
    }
  }

  /// Goes on at pc, wherever that is now, and with no more than the state knows: returns and floating point have to be
  /// looked at anew, for code behind may belong to another mode, address space or version of its page.
  private func emitBlockEnd(_ a: inout Assembler) -> Assembler.Label {
    emitCall(&a, unsafeBitCast(executeBlockEndFunction, to: UInt.self)) { a in
      a.load(.rsp, StateLayout.returnStackBase)
      a.store8(StateLayout.isFloatReady, immediate: 0)
      loadPinned(&a)
      a.load(.rax, StateLayout.pc)
      let missing = X86BackEnd.emitIndirectJump(&a, isCall: false)
      a.fill(missing, exitAbsolute)
    }
  }
}

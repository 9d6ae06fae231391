import Hart

/// The C functions that generated code calls. `state` is the hart's state, whose `translator` leads back here.

typealias SlowPath = @convention(c) (UnsafeMutableRawPointer, UInt64, UInt32) -> UInt32

/// Without the reference counting that a variable of class type would bring.
@inline(__always)
private func withTranslator(
  _ state: UnsafeMutableRawPointer, _ body: (Translator, Hart) -> UInt32
) -> UInt32 {
  Unmanaged<Translator>.fromOpaque(
    state.assumingMemoryBound(to: HartState.self).pointee.translator.unsafelyUnwrapped
  )._withUnsafeGuaranteedRef { translator in
    translator.hart._withUnsafeGuaranteedRef { hart in body(translator, hart) }
  }
}

/// A load or store that matched no remembered translation.
let slowAccessFunction: SlowPath = { state, address, bits in
  withTranslator(state) { $0.accessSlowly($1, address, SiteDescription(bits: bits)) }
}

/// Remembers a translation for several accesses to one page; `slowValue` 1 where that went well, else 0.
let prepareAccessFunction: SlowPath = { state, address, bits in
  withTranslator(state) { $0.prepareAccess($1, address, SiteDescription(bits: bits)) }
}

/// Has the interpreter execute one instruction, after which generated code goes on.
let executeOneFunction: SlowPath = { state, _, bits in
  withTranslator(state) { $0.executeOne($1, SiteDescription(bits: bits)) }
}

/// Executes the instruction that ends a block, at an offset in the page; generated code goes on where it leads.
let executeBlockEndFunction: SlowPath = { state, offset, _ in
  withTranslator(state) { $0.executeBlockEnd($1, offset) }
}

extension Translator {
  /// Brings pc and the counts up to date for the instruction that takes a slow path.
  private func settle(_ site: SiteDescription) {
    state.pointee.pc = state.pointee.pageBase &+ site.offset
    state.pointee.remaining &+= site.uncounted
    state.pointee.retired = state.pointee.horizon &- UInt64(bitPattern: state.pointee.remaining)
    collectFloatingPointFlags()
  }

  fileprivate func accessSlowly(_ hart: Hart, _ address: UInt64, _ site: SiteDescription) -> UInt32 {
    settle(site)
    let width = 1 << Int(site.widthShift)
    if site.isStore {
      guard hart.storeSlowly(address, width: width, state.pointee.slowValue & ~0 >> UInt64(64 - 8 * width)) else {
        return leaveForTrap(hart)
      }
      if hart.attention.load(ordering: .relaxed) != 0 {
        state.pointee.pc &+= site.length
        state.pointee.remaining &-= 1
        return 1
      }
    } else {
      guard let loaded = hart.loadSlowly(address, width: width) else { return leaveForTrap(hart) }
      state.pointee.slowValue =
        site.isSigned
        ? UInt64(bitPattern: Int64(bitPattern: loaded << UInt64(64 - 8 * width)) >> Int64(64 - 8 * width)) : loaded
    }
    state.pointee.remaining &-= site.uncounted
    return 0
  }

  private func leaveForTrap(_ hart: Hart) -> UInt32 {
    hart.takeTrap(state.pointee.trapCause, state.pointee.trapValue)
    // A trap counts as an instruction of the stretch, so that a handler that traps itself can't stay for ever.
    state.pointee.remaining &-= 1
    state.pointee.horizon &-= 1
    return 1
  }

  fileprivate func prepareAccess(_ hart: Hart, _ address: UInt64, _ site: SiteDescription) -> UInt32 {
    // Only a profiler looks at it here.
    state.pointee.pc = state.pointee.pageBase &+ site.offset
    state.pointee.slowValue = hart.prepareAccess(address, isStore: site.isStore) ? 1 : 0
    return 0
  }

  fileprivate func executeOne(_ hart: Hart, _ site: SiteDescription) -> UInt32 {
    settle(site)
    let context = state.pointee.fetchEntries
    let before = forgottenPages
    let next = state.pointee.pc &+ site.length
    let retired = state.pointee.retired
    let entry = state.fetchEntry(state.pointee.pc)
    if entry.pointee.tag != state.pointee.pageBase
      || !hart.executeRegisterInstruction(entry.pointee.page.unsafelyUnwrapped, Int(site.offset >> 1))
    {
      hart.interpret(1)
    }
    if state.pointee.pc == next, state.pointee.retired == retired &+ 1, state.pointee.fetchEntries == context,
      forgottenPages == before, !mustLeave(hart)
    {
      state.pointee.remaining &-= site.uncounted
      if state.pointee.mstatus & MachineStatus.fs == 0 || state.pointee.floatingPointRounding != 0 {
        state.pointee.isFloatReady = 0
      }
      return 0
    }
    state.pointee.remaining &-= 1
    state.pointee.horizon = state.pointee.retired &+ UInt64(bitPattern: state.pointee.remaining)
    return 1
  }

  fileprivate func executeBlockEnd(_ hart: Hart, _ offset: UInt64) -> UInt32 {
    let base = state.pointee.pageBase
    state.pointee.pc = base &+ offset
    state.pointee.retired = state.pointee.horizon &- UInt64(bitPattern: state.pointee.remaining)
    guard state.pointee.remaining > 0 else { return 1 }
    collectFloatingPointFlags()
    let before = state.pointee.retired &+ hart.trapCount
    let entry = state.fetchEntry(base)
    if entry.pointee.tag != base || !hart.executeBlockEnd(entry.pointee.page.unsafelyUnwrapped, Int(offset >> 1)) {
      hart.interpret(1)
    }
    // As in `interpret`: a trap counts.
    state.pointee.remaining -= max(1, Int64(bitPattern: state.pointee.retired &+ hart.trapCount &- before))
    state.pointee.horizon = state.pointee.retired &+ UInt64(bitPattern: state.pointee.remaining)
    return state.pointee.remaining > 0 && !mustLeave(hart) ? 0 : 1
  }
}

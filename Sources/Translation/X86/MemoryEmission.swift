import Hart
import RISCV

/// Loads, stores and atomics: a look among the remembered translations, then the access.
extension X86BackEnd {
  /// Emits the look-up of a group's page, which leaves its address in rdx.
  private mutating func emitGroup(_ step: Trace.Step, _ group: AccessGroup) {
    // The way back to here has lost it.
    held = nil
    extend(group.base)
    let retry = assembler.here
    let low = Int32(group.low)
    let span = Int32(group.high - group.low)
    let description = site(step, isStore: group.isStore).bits
    let entries = group.isStore ? StateLayout.writeEntries : StateLayout.readEntries
    let base = located(group.base)
    let isRelative = base != nil || group.isSpread
    trace.groups[Int(step.group)].isRelative = isRelative
    if let base {
      if low != 0 { assembler.loadAddress(.rax, HostAddress(base, low)) } else { assembler.move(.rax, base) }
    } else {
      assembler.load(.rax, StateLayout.integer(group.base))
      if low != 0 { assembler.arithmetic(.add, .rax, immediate: low) }
    }
    let again = assembler.here
    emitEntry(of: .rax, entries)
    let distance = isRelative ? HostRegister.rax : .rdx
    if !isRelative { assembler.move(.rdx, .rax) }
    assembler.arithmetic(.sub, distance, HostAddress(.rcx, 0))
    assembler.arithmetic(.compare, distance, immediate: 4096 - span)
    let missing = assembler.jump(if: .above)
    postpone(
      .prepare(
        Miss(jump: missing, retry: again), description, span, step.offset, uncounted, isStore: group.isStore,
        isDistance: isRelative, retry))
    assembler.load(.rdx, HostAddress(.rcx, 8))
    if !isRelative { assembler.arithmetic(.add, .rdx, .rax) }
    if group.slot >= 0 { assembler.store(StateLayout.groupSlot(Int(group.slot)), .rdx) }
  }

  /// Leaves the place of the entry for a guest address in rcx.
  mutating func emitEntry(of address: HostRegister, _ entries: HostAddress) {
    assembler.rotateRight(.rcx, address, by: 8, .long)
    assembler.arithmetic(.and, .rcx, immediate: Int32(TranslationCache.indexMask) << 4, .long)
    assembler.arithmetic(.add, .rcx, entries)
  }

  /// Compares the address in rax, whose distance from the entry's page it leaves there.
  private mutating func emitCheck(_ entries: HostAddress, _ lastFit: Int32) -> Miss {
    let retry = assembler.here
    emitEntry(of: .rax, entries)
    assembler.arithmetic(.sub, .rax, HostAddress(.rcx, 0))
    assembler.arithmetic(.compare, .rax, immediate: lastFit)
    return Miss(jump: assembler.jump(if: .above), retry: retry)
  }

  /// What `locate` says: the host address of an access; the jump that is taken where the page isn't known, with the
  /// address less that of the entry's page in rax and the entry's place in rcx; and a register that is free.
  private struct Location {
    var place: HostAddress
    var missing: Miss?
    var free: HostRegister
  }

  /// The host address of a plain access: in its group, or by a look-up of its own.
  private mutating func locate(_ step: Trace.Step, isStore: Bool, widthShift: UInt8) -> Location {
    let i = step.instruction
    if countsDown, step.loopAccess >= 0 { return locateInLoop(step) }
    if step.group >= 0 {
      if trace.groups[Int(step.group)].first == current { emitGroup(step, trace.groups[Int(step.group)]) }
      let group = trace.groups[Int(step.group)]
      if group.first == current {
        // rdx has it.
      } else if loadedGroup != step.group {
        assembler.load(.rdx, StateLayout.groupSlot(Int(group.slot)))
      }
      loadedGroup = step.group
      if group.isRelative {
        if let base = located(i.rs1) {
          return Location(place: HostAddress(.rdx, index: base, Int32(i.immediate)), missing: nil, free: .rcx)
        }
        assembler.load(.rcx, StateLayout.integer(i.rs1))
        held = nil
        return Location(place: HostAddress(.rdx, index: .rcx, Int32(i.immediate)), missing: nil, free: .rax)
      }
      return Location(place: HostAddress(.rdx, Int32(step.groupOffset - group.low)), missing: nil, free: .rcx)
    }
    defer { held = nil }
    let entries = isStore ? StateLayout.writeEntries : StateLayout.readEntries
    let lastFit = 4096 - Int32(1) << Int32(widthShift)
    if let base = located(i.rs1) {
      let offset = Int32(i.immediate)
      if offset != 0 { assembler.loadAddress(.rax, HostAddress(base, offset)) } else { assembler.move(.rax, base) }
      let missing = emitCheck(entries, lastFit)
      assembler.load(.rcx, HostAddress(.rcx, 8))
      return Location(place: HostAddress(.rcx, index: base, offset), missing: missing, free: .rax)
    }
    switch known[Int(i.rs1)] {
    case .fromPage(let offset) where Int32(exactly: offset + i.immediate) != nil:
      assembler.loadAddress(.rax, HostAddress(pageBase(.rax), Int32(offset + i.immediate)))
    default:
      readInto(.rax, i.rs1)
      if i.immediate != 0 { assembler.arithmetic(.add, .rax, immediate: Int32(i.immediate)) }
    }
    let missing = emitCheck(entries, lastFit)
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 0))
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 8))
    return Location(place: HostAddress(.rax), missing: missing, free: .rcx)
  }

  /// The host address of an access that was looked up before the loop.
  private mutating func locateInLoop(_ step: Trace.Step) -> Location {
    let i = step.instruction
    let keeps = keepsAddend
    let addend = keeps ? HostRegister.rdx : .rcx
    if !keeps || loadedAddend != step.loopAccess {
      assembler.load(addend, StateLayout.loopAddend(Int(step.loopAccess)))
      loadedAddend = step.loopAccess
    }
    if let base = located(i.rs1) {
      return Location(place: HostAddress(addend, index: base, Int32(i.immediate)), missing: nil, free: .rax)
    }
    if keeps {
      assembler.load(.rcx, StateLayout.integer(i.rs1))
      return Location(place: HostAddress(.rdx, index: .rcx, Int32(i.immediate)), missing: nil, free: .rax)
    }
    assembler.arithmetic(.add, .rcx, StateLayout.integer(i.rs1))
    return Location(place: HostAddress(.rcx, Int32(i.immediate)), missing: nil, free: .rax)
  }

  mutating func emitLoad(_ step: Trace.Step, _ widthShift: UInt8, isSigned: Bool) {
    let i = step.instruction
    let location = locate(step, isStore: false, widthShift: widthShift)
    let place = location.place
    let host = i.rd == 0 ? HostRegister.rax : target(i.rd)
    switch (widthShift, isSigned) {
    case (0, true): assembler.signExtend8(host, place)
    case (0, false): assembler.zeroExtend8(host, place)
    case (1, true): assembler.signExtend16(host, place)
    case (1, false): assembler.zeroExtend16(host, place)
    case (2, true): assembler.signExtend32(host, place)
    case (2, false): assembler.load(host, place, .long)
    default: assembler.load(host, place)
    }
    if let missing = location.missing {
      let description = site(step, widthShift: widthShift, isSigned: isSigned)
      postpone(.slowLoad(missing, description.bits, host, assembler.here))
    }
    finish(i.rd)
  }

  mutating func emitStore(_ step: Trace.Step, _ widthShift: UInt8) {
    let i = step.instruction
    let location = locate(step, isStore: true, widthShift: widthShift)
    let place = location.place
    if i.rs2 == 0, widthShift >= 2 {
      assembler.storeImmediate(place, 0, widthShift == 3 ? .quad : .long)
    } else {
      // rax is as it was where a group had found the page before.
      let value = held == i.rs2 ? .rax : read(i.rs2, location.free)
      switch widthShift {
      case 0: assembler.store8(place, value)
      case 1: assembler.store16(place, value)
      case 2: assembler.store(place, value, .long)
      default: assembler.store(place, value)
      }
    }
    if let missing = location.missing {
      let description = site(step, widthShift: widthShift, isStore: true)
      // x0's place in memory is never written and holds zero.
      postpone(
        .slowStore(
          missing, description.bits, located(i.rs2), StateLayout.integer(i.rs2), assembler.here))
    }
    nextHeld = held
  }

  // MARK: floating point (20.5, 21.3)

  mutating func emitFloatLoad(_ step: Trace.Step, _ widthShift: UInt8) {
    let i = step.instruction
    checkFloat(step)
    let location = locate(step, isStore: false, widthShift: widthShift)
    let format: Assembler.Scalar = widthShift == 3 ? .double : .single
    // The slow path's value comes in xmm0.
    let host = location.missing == nil && format == .double ? target(float: i.rd) : .xmm0
    assembler.load(host, location.place, format)
    if let missing = location.missing {
      let description = site(step, widthShift: widthShift)
      postpone(.slowFloatLoad(missing, description.bits, assembler.here))
    }
    // Not before: a load that traps leaves it as it was.
    makeFloatDirty()
    if format == .single {
      assembler.bitwise(.or, target(float: i.rd), host, .memory(StateLayout.singleBox))
      finish(float: i.rd, .single)
    } else {
      write(float: i.rd, host)
    }
  }

  mutating func emitFloatStore(_ step: Trace.Step, _ widthShift: UInt8) {
    let i = step.instruction
    checkFloat(step)
    let format: Assembler.Scalar = widthShift == 3 ? .double : .single
    // Before a look-up of its own: the slow path stores it, too. Behind that of a group, which may have been on a slow path
    // that leaves nothing in xmm0.
    let early = step.group < 0 ? read(float: i.rs2, .xmm0) : nil
    let location = locate(step, isStore: true, widthShift: widthShift)
    let value = early ?? read(float: i.rs2, .xmm0)
    assembler.store(location.place, value, format)
    if let missing = location.missing {
      let description = site(step, widthShift: widthShift, isStore: true)
      postpone(.slowFloatStore(missing, description.bits, value, assembler.here))
    }
  }

  // MARK: cache blocks (Zicboz)

  /// CBO.ZERO of RAM in S-mode, where menvcfg lets it: how kernels clear pages.
  mutating func emitZeroBlock(_ step: Trace.Step) {
    held = nil
    assembler.compare8(StateLayout.privilege, immediate: Privilege.supervisor.rawValue)
    let elsewhere = assembler.jump(if: .notEqual)
    assembler.load(.rax, StateLayout.menvcfg, .long)
    assembler.test(.rax, immediate: Int32(EnvironmentConfiguration.cacheBlockZero), .long)
    let forbidden = assembler.jump(if: .equal)
    readInto(.rax, step.instruction.rs1)
    assembler.arithmetic(.and, .rax, immediate: -64)
    let missing = emitCheck(StateLayout.writeEntries, 4096 - 64)
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 0))
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 8))
    assembler.clear(.xmm0)
    for offset in stride(from: Int32(0), to: 64, by: 16) { assembler.storeWhole(HostAddress(.rax, offset), .xmm0) }
    let description = site(step).bits
    postpone(.executeOne(elsewhere, description, assembler.here))
    postpone(.executeOne(forbidden, description, assembler.here))
    postpone(.zeroBlock(missing, description, assembler.here))
  }

  // MARK: atomics (13)

  /// Looks the address in rax up; leaves the host's in rax. Clobbers rcx and rdx. Returns the jump taken on a miss or a
  /// misaligned address.
  private mutating func emitAlignedLookup(isStore: Bool, widthShift: UInt8) -> Assembler.Patch {
    emitEntry(of: .rax, isStore ? StateLayout.writeEntries : StateLayout.readEntries)
    // The low bits must be zero: they are compared, too.
    assembler.move(.rdx, .rax)
    assembler.arithmetic(.and, .rdx, immediate: -4096 | (1 << Int32(widthShift) - 1))
    assembler.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    let missing = assembler.jump(if: .notEqual)
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 8))
    return missing
  }

  /// An AMO on RAM that is remembered as writable; the interpreter does the others.
  mutating func emitAtomic(_ step: Trace.Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitAlignedLookup(isStore: true, widthShift: width == .quad ? 3 : 2)
    switch i.operation {
    case .amoswap_w, .amoswap_d:
      readInto(.rcx, i.rs2)
      assembler.exchange(HostAddress(.rax), .rcx, width)
    case .amoadd_w, .amoadd_d:
      readInto(.rcx, i.rs2)
      assembler.atomicExchangeAdd(HostAddress(.rax), .rcx, width)
    default:
      let operation: Assembler.Arithmetic =
        switch i.operation {
        case .amoand_w, .amoand_d: .and
        case .amoor_w, .amoor_d: .or
        default: .xor
        }
      assembler.move(.rdx, .rax)
      assembler.load(.rax, HostAddress(.rdx), width)
      let again = assembler.here
      assembler.move(.rcx, .rax)
      if let host = located(i.rs2) {
        assembler.arithmetic(operation, .rcx, host, width)
      } else {
        assembler.arithmetic(operation, .rcx, StateLayout.integer(i.rs2), width)
      }
      assembler.atomicCompareExchange(HostAddress(.rdx), .rcx, width)
      assembler.jump(again, if: .notEqual)
      assembler.move(.rcx, .rax)
    }
    if width == .long { assembler.signExtend32(.rcx, .rcx) }
    write(i.rd, .rcx)
    postpone(.executeOne(missing, site(step).bits, assembler.here))
  }

  mutating func emitLoadReserved(_ step: Trace.Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitAlignedLookup(isStore: false, widthShift: width == .quad ? 3 : 2)
    assembler.load(.rcx, HostAddress(.rax), width)
    assembler.arithmetic(.add, .rax, StateLayout.hostToPhysical)
    assembler.store(StateLayout.reservedAddress, .rax)
    assembler.store(StateLayout.reservedValue, .rcx)
    assembler.storeImmediate(StateLayout.reservedWidth, width == .quad ? 8 : 4)
    if width == .long { assembler.signExtend32(.rcx, .rcx) }
    write(i.rd, .rcx)
    postpone(.executeOne(missing, site(step).bits, assembler.here))
  }

  /// Succeeds when the reserved location still holds what LR saw.
  mutating func emitStoreConditional(_ step: Trace.Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitAlignedLookup(isStore: true, widthShift: width == .quad ? 3 : 2)
    assembler.move(.rdx, .rax)
    assembler.arithmetic(.add, .rax, StateLayout.hostToPhysical)
    assembler.arithmetic(.compare, .rax, StateLayout.reservedAddress)
    let elsewhere = assembler.jump(if: .notEqual)
    assembler.arithmetic(.compare, StateLayout.reservedWidth, immediate: width == .quad ? 8 : 4)
    let otherWidth = assembler.jump(if: .notEqual)
    assembler.load(.rax, StateLayout.reservedValue)
    assembler.atomicCompareExchange(HostAddress(.rdx), read(i.rs2, .rcx), width)
    assembler.fillHere(elsewhere)
    assembler.fillHere(otherWidth)
    assembler.set(.notEqual, .rax)
    assembler.zeroExtend8(.rax, .rax)
    assembler.storeImmediate(StateLayout.reservedAddress, -1)
    write(i.rd, .rax)
    nextHeld = nil
    postpone(.executeOne(missing, site(step).bits, assembler.here))
  }
}

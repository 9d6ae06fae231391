import Hart
import RISCV

/// Loads, stores and atomics: a look among the remembered translations, then the access.
extension BlockTranslator {
  /// The width in bytes of a plain access, and whether it stores; nil for other operations.
  private static func plainAccess(_ operation: Operation) -> (width: Int64, isStore: Bool)? {
    switch operation {
    case .lb, .lbu: (1, false)
    case .lh, .lhu: (2, false)
    case .lw, .lwu, .flw: (4, false)
    case .ld, .fld: (8, false)
    case .sb: (1, true)
    case .sh: (2, true)
    case .sw, .fsw: (4, true)
    case .sd, .fsd: (8, true)
    default: nil
    }
  }

  /// The largest distance, in bytes, between the ends of the accesses of one group.
  private static let largestSpan: Int64 = 256

  /// Looks ahead for accesses off the same register as the present step's, and if there are any, looks their page up
  /// once for all. The group's address is in rdx then.
  private mutating func formGroup(_ step: Step) {
    let base = step.instruction.rs1
    guard let first = Self.plainAccess(step.instruction.operation), base != 0 else { return }
    var low = step.instruction.immediate
    var high = low + first.width
    var stores = first.isStore
    var last = current
    var members = 1
    var index = current
    // So that what follows is judged as it will be with the group.
    group = AccessGroup(base: base, low: 0, last: stepCount)
    defer { if members == 1 { group = nil } }
    while true {
      let effects = steps[index].instruction.operation.effects
      if effects.contains(.writesInteger), steps[index].instruction.rd == base { break }
      index += 1
      guard index < stepCount else { break }
      let next = steps[index].instruction
      if usesRDX(next) { break }
      guard let access = Self.plainAccess(next.operation), next.rs1 == base else { continue }
      let newLow = min(low, next.immediate)
      let newHigh = max(high, next.immediate + access.width)
      if newHigh - newLow > Self.largestSpan { break }
      (low, high) = (newLow, newHigh)
      stores = stores || access.isStore
      last = index
      members += 1
    }
    guard members > 1 else { return }
    // The way back to here has lost it.
    held = nil
    let retry = assembler.here
    let source = read(base, .rax)
    if source != .rax || low != 0 { assembler.loadAddress(.rax, HostAddress(source, Int32(low))) }
    assembler.move(.rcx, .rax, .long)
    assembler.shift(.right, .rcx, by: 8, .long)
    assembler.arithmetic(.and, .rcx, immediate: Int32(TranslationCache.indexMask) << 4, .long)
    assembler.arithmetic(.add, .rcx, stores ? StateLayout.writeEntries : StateLayout.readEntries)
    assembler.loadAddress(.rdx, HostAddress(.rax, Int32(high - low - 1)))
    assembler.arithmetic(.and, .rdx, immediate: -4096)
    assembler.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    let missing = assembler.jump(if: .notEqual)
    postpone(.prepare(missing, site(step, isStore: stores).bits, step.offset, uncounted, retry))
    assembler.load(.rdx, HostAddress(.rcx, 8))
    assembler.arithmetic(.add, .rdx, .rax)
    group = AccessGroup(base: base, low: low, last: last)
  }

  /// The host address of a plain access: in the present group, or by a look-up of its own, whose miss is returned.
  private mutating func locate(_ step: Step, isStore: Bool, widthShift: UInt8) -> (HostAddress, Assembler.Patch?) {
    let i = step.instruction
    if group == nil { formGroup(step) }
    if let group { return (HostAddress(.rdx, Int32(i.immediate - group.low)), nil) }
    defer { held = nil }
    switch known[Int(i.rs1)] {
    case .fromPage(let offset) where Int32(exactly: offset + i.immediate) != nil:
      assembler.load(.rax, StateLayout.pageBase)
      assembler.arithmetic(.add, .rax, immediate: Int32(offset + i.immediate))
    default:
      let source = read(i.rs1, .rax)
      if source != .rax || i.immediate != 0 { assembler.loadAddress(.rax, HostAddress(source, Int32(i.immediate))) }
    }
    return (HostAddress(.rax, 0), emitLookup(isStore: isStore, widthShift: widthShift, aligned: false))
  }

  /// Looks the address in rax up; leaves the host's in rax. Clobbers rcx and rdx. Returns the jump taken on a miss, with
  /// the guest's address still in rax.
  private mutating func emitLookup(isStore: Bool, widthShift: UInt8, aligned: Bool) -> Assembler.Patch {
    assembler.move(.rcx, .rax, .long)
    assembler.shift(.right, .rcx, by: 8, .long)
    assembler.arithmetic(.and, .rcx, immediate: Int32(TranslationCache.indexMask) << 4, .long)
    assembler.arithmetic(.add, .rcx, isStore ? StateLayout.writeEntries : StateLayout.readEntries)
    if aligned {
      // The low bits must be zero: they are compared, too.
      assembler.move(.rdx, .rax)
      assembler.arithmetic(.and, .rdx, immediate: -4096 | (1 << Int32(widthShift) - 1))
    } else {
      // The page of the last byte: an access across the page's end doesn't match.
      if widthShift == 0 {
        assembler.move(.rdx, .rax)
      } else {
        assembler.loadAddress(.rdx, HostAddress(.rax, 1 << Int32(widthShift) - 1))
      }
      assembler.arithmetic(.and, .rdx, immediate: -4096)
    }
    assembler.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    let missing = assembler.jump(if: .notEqual)
    assembler.arithmetic(.add, .rax, HostAddress(.rcx, 8))
    return missing
  }

  mutating func emitLoad(_ step: Step, _ widthShift: UInt8, isSigned: Bool) {
    let i = step.instruction
    let (place, missing) = locate(step, isStore: false, widthShift: widthShift)
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
    if let missing {
      let description = site(step, widthShift: widthShift, isSigned: isSigned)
      postpone(.slowLoad(missing, description.bits, host, assembler.here))
    }
    finish(i.rd)
    if group?.base == i.rd { group = nil }
  }

  mutating func emitStore(_ step: Step, _ widthShift: UInt8) {
    let i = step.instruction
    let (place, missing) = locate(step, isStore: true, widthShift: widthShift)
    let pinned = PinnedRegisters.host(i.rs2)
    if i.rs2 == 0, widthShift >= 2 {
      assembler.storeImmediate(place, 0, widthShift == 3 ? .quad : .long)
    } else {
      // rcx is free once the page is found; rax is as it was where a group had found it before.
      let value = held == i.rs2 ? .rax : read(i.rs2, .rcx)
      switch widthShift {
      case 0: assembler.store8(place, value)
      case 1: assembler.store16(place, value)
      case 2: assembler.store(place, value, .long)
      default: assembler.store(place, value)
      }
    }
    if let missing {
      let description = site(step, widthShift: widthShift, isStore: true)
      // x0's place in memory is never written and holds zero.
      postpone(.slowStore(missing, description.bits, pinned, StateLayout.integer(i.rs2), assembler.here))
    }
    nextHeld = held
  }

  // MARK: floating point (20.5, 21.3)

  mutating func emitFloatLoad(_ step: Step, _ widthShift: UInt8) {
    let i = step.instruction
    checkFloat(step)
    let (place, missing) = locate(step, isStore: false, widthShift: widthShift)
    assembler.load(.rax, place, widthShift == 3 ? .quad : .long)
    if let missing {
      let description = site(step, widthShift: widthShift)
      postpone(.slowFloatLoad(missing, description.bits, assembler.here))
    }
    // Not before: a load that traps leaves it as it was.
    makeFloatDirty()
    if widthShift == 3 {
      assembler.store(StateLayout.float(i.rd), .rax)
      boxed &= ~(1 << UInt32(i.rd))
    } else {
      assembler.store(StateLayout.float(i.rd), .rax, .long)
      box(i.rd)
    }
  }

  mutating func emitFloatStore(_ step: Step, _ widthShift: UInt8) {
    let i = step.instruction
    checkFloat(step)
    let (place, missing) = locate(step, isStore: true, widthShift: widthShift)
    assembler.load(.rcx, StateLayout.float(i.rs2), widthShift == 3 ? .quad : .long)
    assembler.store(place, .rcx, widthShift == 3 ? .quad : .long)
    if let missing {
      let description = site(step, widthShift: widthShift, isStore: true)
      postpone(.slowStore(missing, description.bits, nil, StateLayout.float(i.rs2), assembler.here))
    }
  }

  // MARK: atomics (13)

  /// An AMO on RAM that is remembered as writable; the interpreter does the others.
  mutating func emitAtomic(_ step: Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitLookup(isStore: true, widthShift: width == .quad ? 3 : 2, aligned: true)
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
      if let host = PinnedRegisters.host(i.rs2) {
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

  mutating func emitLoadReserved(_ step: Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitLookup(isStore: false, widthShift: width == .quad ? 3 : 2, aligned: true)
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
  mutating func emitStoreConditional(_ step: Step, _ width: HostWidth) {
    let i = step.instruction
    readInto(.rax, i.rs1)
    let missing = emitLookup(isStore: true, widthShift: width == .quad ? 3 : 2, aligned: true)
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

import RISCV

/// Which guest registers live in host registers within a block. Where a block begins and ends the pinned ones do; in
/// between, a register that is read several times soon takes the place of one that isn't.
///
/// A trap, a slow path and a way out find the state as the block's borders have it: what stands behind the block moves the
/// registers there first, so that nothing is moved where all goes well.
extension BlockTranslator {
  // MARK: what comes

  /// What happens next to a register's value: the step that reads it, if this is less than `lastEvent`.
  typealias Event = UInt16
  static let lastEvent: Event = 0xFF00
  /// It is overwritten, and nobody can have seen it till then.
  static let overwritten: Event = 0xFFFD
  /// It is overwritten, but the block may be left before.
  static let overwrittenLater: Event = 0xFFFE
  /// Nothing until the block's end.
  static let untouched: Event = 0xFFFF

  /// Registers in a row of `events`.
  static let eventStride = 33

  /// The integer registers that an instruction reads, a bit each.
  static func integerSources(_ i: Instruction, _ effects: Effects) -> UInt32 {
    switch i.operation {
    case .csrrwi, .csrrsi, .csrrci: return 0
    case .csrrw, .csrrs, .csrrc: return 1 << UInt32(i.rs1) & ~1
    default: break
    }
    if effects.contains(.usesFloatingPoint) {
      switch i.operation {
      case .fld, .flw, .fsd, .fsw, .fmv_d_x, .fmv_w_x, .fcvt_d_w, .fcvt_d_wu, .fcvt_d_l, .fcvt_d_lu, .fcvt_s_w,
        .fcvt_s_wu, .fcvt_s_l, .fcvt_s_lu:
        return 1 << UInt32(i.rs1) & ~1
      default: return 0
      }
    }
    return (1 << UInt32(i.rs1) | 1 << UInt32(i.rs2)) & ~1
  }

  /// Whether the block may be left at a step, or others see the registers there.
  func isExit(_ step: Step, at index: Int) -> Bool {
    if step.effects == .writesInteger { return false }
    if step.instruction.operation == .jal, step.instruction.rd == 0, index + 1 < stepCount { return false }
    if step.group >= 0, groups[Int(step.group)].first != index,
      !step.effects.contains(.usesFloatingPoint)
    {
      return false
    }
    return true
  }

  /// Fills `events`: for each step, what happens next to each register before it, the step itself included. A loop goes
  /// on from its end at its begin.
  mutating func planEvents(isLoop: Bool) {
    let last = events + stepCount * Self.eventStride
    last.update(repeating: Self.untouched, count: Self.eventStride)
    fillEvents()
    guard isLoop else { return }
    for register in 0..<Self.eventStride where events[register] < Self.lastEvent {
      last[register] = events[register] + Event(stepCount)
    }
    fillEvents()
  }

  private mutating func fillEvents() {
    var index = stepCount
    while index > 0 {
      index -= 1
      let row = events + index * Self.eventStride
      row.update(from: row + Self.eventStride, count: Self.eventStride)
      row[Int(steps[index].target)] = Self.overwritten
      row[0] = Self.untouched
      if isExit(steps[index], at: index) {
        for register in 1..<32 where row[register] == Self.overwritten { row[register] = Self.overwrittenLater }
      }
      var sources = steps[index].sources
      while sources != 0 {
        row[sources.trailingZeroBitCount] = Event(index)
        sources &= sources - 1
      }
    }
  }

  /// What happens to a register from the step `index` on.
  @inline(__always)
  func event(_ register: UInt8, from index: Int) -> Event { events[index * Self.eventStride + Int(register)] }

  /// How many steps from `index` on read a register before it is overwritten, as far as `limit`.
  @inline(__always)
  private func reads(of register: UInt8, from index: Int, limit: Int) -> Int {
    var count = 0
    var next = event(register, from: index)
    while count < limit, next < Self.lastEvent {
      count += 1
      if Int(next) >= stepCount { break }
      next = event(register, from: Int(next) + 1)
    }
    return count
  }

  // MARK: places

  /// The host register that holds a guest register now; nil: it is in memory.
  @inline(__always)
  func located(_ register: UInt8) -> HostRegister? { registers.host(register) }

  /// Begins a block: how many places there are, and which registers live there.
  mutating func beginRegisters() {
    let usesRDX = (0..<stepCount).contains { steps[$0].group >= 0 || self.usesRDX(steps[$0].instruction) }
    placeCount = RegisterMap.places.count - (usesRDX ? 1 : 0)
    registers = .canonical
    snapshotCount = 0
    pending = RegisterMap.none
  }

  /// The registers of a loop of one block: those that it uses most.
  mutating func loopRegisters() -> RegisterMap {
    var uses = InlineArray<33, Int>(repeating: 0)
    for index in 0..<stepCount {
      var sources = steps[index].sources
      while sources != 0 {
        uses[sources.trailingZeroBitCount] += 1
        sources &= sources - 1
      }
      uses[Int(steps[index].target)] += 1
    }
    uses[0] = 0
    // A count in memory is read and written once a turn.
    uses[Int(RegisterMap.remaining)] = 2
    var chosen = RegisterMap.canonical
    for guest in UInt8(1)..<32 where RegisterMap.home(guest) == RegisterMap.none && uses[Int(guest)] > 1 {
      var victim = RegisterMap.none
      var fewest = uses[Int(guest)] - 1
      for index in 0..<placeCount {
        let host = RegisterMap.places[index]
        let occupant = chosen.guests[Int(host)]
        let count = occupant == RegisterMap.none ? -1 : uses[Int(occupant)]
        if count < fewest {
          fewest = count
          victim = host
        }
      }
      if victim == RegisterMap.none { continue }
      if chosen.guests[Int(victim)] != RegisterMap.none { chosen.remove(chosen.guests[Int(victim)]) }
      chosen.put(guest, into: victim)
    }
    return chosen
  }

  /// Finds places for what the present step reads and writes, where it's worth it.
  mutating func placeOperands(_ step: Step) {
    let (sources, target) = (step.sources, step.target)
    stepLocked = sources | 1 << UInt32(target)
    var rest = sources
    while rest != 0 {
      let register = UInt8(rest.trailingZeroBitCount)
      rest &= rest - 1
      if registers.host(register) == nil { placeSource(register, isTarget: register == target) }
    }
    if target == 0 || registers.host(target) != nil || sources & 1 << UInt32(target) != 0 { return }
    let next = event(target, from: current + 1)
    if next < Self.lastEvent, let place = makeRoom(for: target, next) {
      registers.put(target, into: place)
      registers.dirty &= ~(1 << UInt64(target))
      pending = target
    }
  }

  private mutating func placeSource(_ register: UInt8, isTarget: Bool) {
    let next = event(register, from: current + 1)
    // What a loop reads once a turn may as well stay in memory.
    guard next < Event(stepCount), let place = makeRoom(for: register, next) else { return }
    if held == register {
      held = nil
      assembler.move(HostRegister(place), .rax)
    } else {
      assembler.fill(place, with: register)
    }
    registers.put(register, into: place)
    registers.dirty &= ~(1 << UInt64(register))
  }

  /// A host register for a guest register that is read at `next` again; nil where those there are of more use.
  private mutating func makeRoom(for register: UInt8, _ next: Event) -> UInt8? {
    var best = RegisterMap.none
    var bestCost = Int.max
    var bestNext = Event(0)
    let places = RegisterMap.places
    for index in 0..<placeCount {
      let place = places[index]
      let occupant = registers.guests[Int(place)]
      if occupant == RegisterMap.none { return place }
      if occupant < 32, stepLocked & 1 << UInt32(occupant) != 0 { continue }
      let event = event(occupant, from: current)
      if event == Self.overwritten {
        registers.remove(occupant)
        return place
      }
      // It has to be stored and loaded again; but what doesn't belong here has to be stored once in any case.
      let isHome = RegisterMap.home(occupant) == place
      // A loop's next turn wants it back.
      let isLoops = loop != nil && loop!.map.guests[Int(place)] == occupant
      var cost = registers.isDirty(occupant) && (isHome || event < Self.lastEvent) ? 1 : 0
      if event < Self.lastEvent {
        if event <= next { continue }
        cost += 1
      } else if isHome && event == Self.untouched || isLoops {
        cost += 1
      }
      if cost < bestCost || cost == bestCost && event > bestNext {
        best = place
        bestCost = cost
        bestNext = event
      }
    }
    if best == RegisterMap.none { return nil }
    if bestCost > 0, reads(of: register, from: current + 1, limit: bestCost + 1) <= bestCost { return nil }
    let occupant = registers.guests[Int(best)]
    if registers.isDirty(occupant) { assembler.spill(occupant, from: best) }
    registers.remove(occupant)
    return best
  }

  /// Moves every register where a block's borders have it. Changes no flags.
  mutating func restoreCanonical() {
    if registers.isCanonical { return }
    assembler.convert(registers, to: .canonical)
    var canonical = RegisterMap.canonical
    // What was loaded is as memory has it.
    let places = RegisterMap.places
    for index in places.indices {
      let host = places[index]
      let guest = canonical.guests[Int(host)]
      if guest != RegisterMap.none, registers.guests[Int(host)] != guest || !registers.isDirty(guest) {
        canonical.dirty &= ~(1 << UInt64(guest))
      }
    }
    registers = canonical
  }

  /// The present step writes its result by another way than to `target`'s place.
  mutating func forgetPending() {
    if pending != RegisterMap.none { registers.remove(pending) }
    pending = RegisterMap.none
  }

  // MARK: for what stands behind the block

  /// Notes where the registers are, for what is postponed from now on.
  mutating func takeSnapshot() {
    (snapshots + snapshotCount).initialize(to: (registers, pending, countsDown))
    snapshotCount += 1
  }

  /// Makes the state what it is at a block's borders, where `unextended` registers need their signs. Clobbers rcx.
  mutating func emitCanonical(_ snapshot: Int, _ unextended: UInt32) {
    var (map, pending, countsDown) = snapshots[snapshot]
    var rest = unextended
    while rest != 0 {
      let register = UInt8(rest.trailingZeroBitCount)
      rest &= rest - 1
      if let host = map.host(register), register != pending {
        assembler.signExtend32(host, host)
        map.dirty |= 1 << UInt64(register)
      } else {
        assembler.signExtend32(.rcx, StateLayout.integer(register))
        assembler.store(StateLayout.integer(register), .rcx)
      }
    }
    assembler.convert(map, to: .canonical, pending: pending)
    if countsDown { assembler.arithmetic(.add, PinnedRegisters.remaining, StateLayout.loopRest) }
  }

  /// Undoes `emitCanonical` after a call of a slow path.
  mutating func emitRestore(_ snapshot: Int) {
    let (map, _, countsDown) = snapshots[snapshot]
    if countsDown {
      assembler.arithmetic(.sub, PinnedRegisters.remaining, StateLayout.loopRest)
      if map.host(RegisterMap.remaining) == nil { assembler.store(StateLayout.remaining, PinnedRegisters.remaining) }
    }
    assembler.restore(map)
  }
}

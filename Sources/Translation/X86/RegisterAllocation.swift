import RISCV

/// Which guest registers live in host registers within a block. Where a block begins and ends the pinned ones do; in
/// between, a register that is read several times soon takes the place of one that isn't.
///
/// A trap, a slow path and a way out find the state as the block's borders have it: what stands behind the block moves the
/// registers there first, so that nothing is moved where all goes well.
extension X86BackEnd {
  // MARK: places

  /// The host register that holds a guest register now; nil: it is in memory.
  @inline(__always)
  func located(_ register: UInt8) -> HostRegister? { registers.host(register) }

  /// Begins a block: how many places there are, and which registers live there.
  mutating func beginRegisters() {
    let usesRDX = (0..<trace.count).contains {
      trace.steps[$0].group >= 0 || Self.losesGroupAddress(trace.steps[$0].instruction)
    }
    placeCount = RegisterMap.places.count - (usesRDX ? 1 : 0)
    registers = .canonical
    snapshotCount = 0
    pending = RegisterMap.none
  }

  /// The registers of a loop of one block: those that it uses most.
  mutating func loopRegisters() -> RegisterMap {
    var uses = InlineArray<34, Int>(repeating: 0)
    for index in 0..<trace.count {
      if trace.steps[index].instruction.operation == .auipc { uses[Int(RegisterMap.pageBase)] += 1 }
      var sources = trace.steps[index].sources
      while sources != 0 {
        uses[sources.trailingZeroBitCount] += 1
        sources &= sources - 1
      }
      uses[Int(trace.steps[index].target)] += 1
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
  mutating func placeOperands(_ step: Trace.Step) {
    let (sources, target) = (step.sources, step.target)
    stepLocked = sources | 1 << UInt32(target)
    var rest = sources
    while rest != 0 {
      let register = UInt8(rest.trailingZeroBitCount)
      rest &= rest - 1
      if registers.host(register) == nil { placeSource(register, isTarget: register == target) }
    }
    if target == 0 || registers.host(target) != nil || sources & 1 << UInt32(target) != 0 { return }
    let next = trace.event(target, from: current + 1)
    if next < Trace.lastEvent, let place = makeRoom(for: target, next) {
      registers.put(target, into: place)
      registers.dirty &= ~(1 << UInt64(target))
      pending = target
    }
  }

  private mutating func placeSource(_ register: UInt8, isTarget: Bool) {
    let next = trace.event(register, from: current + 1)
    // What a loop reads once a turn may as well stay in memory.
    guard next < Trace.Event(trace.count), let place = makeRoom(for: register, next) else { return }
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
  private mutating func makeRoom(for register: UInt8, _ next: Trace.Event) -> UInt8? {
    var best = RegisterMap.none
    var bestCost = Int.max
    var bestNext = Trace.Event(0)
    let places = RegisterMap.places
    for index in 0..<placeCount {
      let place = places[index]
      let occupant = registers.guests[Int(place)]
      if occupant == RegisterMap.none { return place }
      if occupant < 32, stepLocked & 1 << UInt32(occupant) != 0 { continue }
      let event = trace.event(occupant, from: current)
      if event == Trace.overwritten {
        registers.remove(occupant)
        return place
      }
      // It has to be stored and loaded again; but what doesn't belong here has to be stored once in any case.
      let isHome = RegisterMap.home(occupant) == place
      // A loop's next turn wants it back.
      let isLoops = loop != nil && loop!.map.guests[Int(place)] == occupant
      var cost = registers.isDirty(occupant) && (isHome || event < Trace.lastEvent) ? 1 : 0
      if event < Trace.lastEvent {
        if event <= next { continue }
        cost += 1
      } else if isHome && event == Trace.untouched || isLoops {
        cost += 1
      }
      if cost < bestCost || cost == bestCost && event > bestNext {
        best = place
        bestCost = cost
        bestNext = event
      }
    }
    if best == RegisterMap.none { return nil }
    if bestCost > 0, trace.reads(of: register, from: current + 1, limit: bestCost + 1) <= bestCost { return nil }
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

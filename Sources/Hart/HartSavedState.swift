import Bus

/// A hart as it stands between two instructions. Caches, decoded code and remembered translations aren't part of it.
extension Hart: StateKeeper {
  public static let stateVersion = 1

  public var stateIdentifier: String { "hart\(identifier)" }

  /// Architectural state; register numbers index the arrays. Names as in the specifications.
  public struct State: Codable {
    var x: [UInt64]
    var f: [UInt64]
    var pc: UInt64
    var privilege: Privilege
    var fflags: UInt8
    var frm: UInt8
    var retired: UInt64
    var reservedAddress: UInt64
    var reservedValue: UInt64
    var reservedWidth: UInt64
    /// CSRs that are plain words, by name.
    var registers: [String: UInt64]
    var pmpcfg: [UInt8]
    var pmpaddr: [UInt64]
    var isWaiting: Bool
    var interruptLines: UInt64
    var mtimecmp: UInt64
    var lifecycle: Lifecycle
  }

  /// The words of `HartState` that `State.registers` holds, by name.
  static let registerFields: [(name: String, field: WritableKeyPath<HartState, UInt64>)] = [
    ("mstatus", \.mstatus), ("medeleg", \.medeleg), ("mideleg", \.mideleg), ("mie", \.mie), ("mtvec", \.mtvec),
    ("mcounteren", \.mcounteren), ("mcountinhibit", \.mcountinhibit), ("mscratch", \.mscratch), ("mepc", \.mepc),
    ("mcause", \.mcause), ("mtval", \.mtval), ("menvcfg", \.menvcfg), ("stvec", \.stvec),
    ("scounteren", \.scounteren), ("sscratch", \.sscratch), ("sepc", \.sepc), ("scause", \.scause),
    ("stval", \.stval), ("senvcfg", \.senvcfg), ("satp", \.satp), ("stimecmp", \.stimecmp),
    ("softwareExternal", \.softwareExternal), ("cycleOffset", \.cycleOffset), ("instretOffset", \.instretOffset),
  ]

  public func saveState() -> State {
    applyPendingStart()
    let s = state.pointee
    return State(
      x: (0..<32).map { s.x[$0] }, f: (0..<32).map { s.f[$0] }, pc: s.pc, privilege: s.privilege,
      fflags: s.floatingPointFlags, frm: s.floatingPointRounding, retired: s.retired,
      reservedAddress: s.reservedAddress, reservedValue: s.reservedValue, reservedWidth: s.reservedWidth,
      registers: Dictionary(uniqueKeysWithValues: Self.registerFields.map { ($0.name, s[keyPath: $0.field]) }),
      pmpcfg: (0..<16).map { s.pmpcfg[$0] }, pmpaddr: (0..<16).map { s.pmpaddr[$0] }, isWaiting: s.isWaiting,
      interruptLines: interruptLines, mtimecmp: machineTimeCompare, lifecycle: lifecycle)
  }

  /// Throws `StateError` where the state can't be a hart's.
  public func restoreState(_ saved: State) throws {
    guard saved.x.count == 32, saved.f.count == 32, saved.pmpcfg.count == 16, saved.pmpaddr.count == 16,
      saved.x[0] == 0, saved.frm <= 7, saved.fflags <= 31
    else { throw StateError("the saved state of '\(stateIdentifier)' is damaged") }
    reset()
    for index in 0..<32 {
      state.pointee.x[index] = saved.x[index]
      state.pointee.f[index] = saved.f[index]
    }
    for (name, field) in Self.registerFields {
      guard let value = saved.registers[name] else {
        throw StateError("the saved state of '\(stateIdentifier)' lacks '\(name)'")
      }
      state.pointee[keyPath: field] = value
    }
    for index in 0..<16 {
      state.pointee.pmpcfg[index] = saved.pmpcfg[index]
      state.pointee.pmpaddr[index] = saved.pmpaddr[index]
    }
    state.pointee.pc = saved.pc
    state.pointee.privilege = saved.privilege
    state.pointee.floatingPointFlags = saved.fflags
    state.pointee.floatingPointRounding = saved.frm
    state.pointee.retired = saved.retired
    state.pointee.reservedAddress = saved.reservedAddress
    state.pointee.reservedValue = saved.reservedValue
    state.pointee.reservedWidth = saved.reservedWidth
    state.pointee.isWaiting = saved.isWaiting
    memoryProtectionChanged()
    restoreWires(lines: saved.interruptLines, timeCompare: saved.mtimecmp, lifecycle: saved.lifecycle)
    selectContexts()
  }
}

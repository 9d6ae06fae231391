/// What an operation may do besides computing a register, for those who put instructions in order, cut blocks or decide
/// what must be exact at which moment.
public struct Effects: OptionSet, Hashable, Sendable {
  public let rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// May raise an exception, an illegal-instruction exception because of the hart's state (FS, TVM ...) included.
  @inlinable public static var mayTrap: Effects { Effects(rawValue: 1 << 0) }
  @inlinable public static var readsMemory: Effects { Effects(rawValue: 1 << 1) }
  @inlinable public static var writesMemory: Effects { Effects(rawValue: 1 << 2) }
  /// Writes pc: a branch, a jump or a return from a trap.
  @inlinable public static var branches: Effects { Effects(rawValue: 1 << 3) }
  /// The next instruction may not be prefetched past this one: it branches, always traps, waits, or changes how
  /// instructions are fetched, translated or interrupted.
  @inlinable public static var endsBlock: Effects { Effects(rawValue: 1 << 4) }
  /// Needs mstatus.FS to be other than off.
  @inlinable public static var usesFloatingPoint: Effects { Effects(rawValue: 1 << 5) }
  /// May set bits of fflags.
  @inlinable public static var setsFloatingPointFlags: Effects { Effects(rawValue: 1 << 6) }
  /// Not for U-mode.
  @inlinable public static var privileged: Effects { Effects(rawValue: 1 << 7) }
  /// Reads or writes a CSR by number, counters and time included.
  @inlinable public static var accessesCSR: Effects { Effects(rawValue: 1 << 8) }
  /// Writes an integer register rd.
  @inlinable public static var writesInteger: Effects { Effects(rawValue: 1 << 9) }
  /// Writes a floating-point register rd.
  @inlinable public static var writesFloatingPoint: Effects { Effects(rawValue: 1 << 10) }
}

// Groups that rows of the instruction table share.
extension Effects {
  static let load: Effects = [.mayTrap, .readsMemory, .writesInteger]
  static let store: Effects = [.mayTrap, .writesMemory]
  static let storeConditional: Effects = [.mayTrap, .writesMemory, .writesInteger]
  static let atomic: Effects = [.mayTrap, .readsMemory, .writesMemory, .writesInteger]
  static let cacheBlock: Effects = [.mayTrap, .readsMemory, .writesMemory]

  static let branch: Effects = [.mayTrap, .branches, .endsBlock]
  static let jump: Effects = [.mayTrap, .branches, .endsBlock]
  static let jumpAndLink: Effects = [.mayTrap, .branches, .endsBlock, .writesInteger]
  static let alwaysTraps: Effects = [.mayTrap, .endsBlock]
  static let trapReturn: Effects = [.mayTrap, .branches, .endsBlock, .privileged]
  static let translationFence: Effects = [.mayTrap, .endsBlock, .privileged]
  static let csr: Effects = [.mayTrap, .endsBlock, .accessesCSR, .writesInteger]

  static let floatLoad: Effects = [.mayTrap, .readsMemory, .usesFloatingPoint, .writesFloatingPoint]
  static let floatStore: Effects = [.mayTrap, .writesMemory, .usesFloatingPoint]
  static let floatMove: Effects = [.mayTrap, .usesFloatingPoint, .writesFloatingPoint]
  static let floatArithmetic: Effects = [
    .mayTrap, .usesFloatingPoint, .setsFloatingPointFlags, .writesFloatingPoint,
  ]
  static let integerFromFloat: Effects = [.mayTrap, .usesFloatingPoint, .writesInteger]
  static let floatToInteger: Effects = [.mayTrap, .usesFloatingPoint, .setsFloatingPointFlags, .writesInteger]
}

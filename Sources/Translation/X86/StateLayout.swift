import Hart

/// Where generated code finds what it uses: rbp points behind x0...x31's middle, so that the displacements of x5...x31 and
/// of the words behind them fit a signed byte.
enum StateLayout {
  static let bias: Int32 = 168

  private static func displacement(_ path: PartialKeyPath<HartState>) -> Int32 {
    Int32(MemoryLayout<HartState>.offset(of: path)!) - bias
  }

  private static let x = displacement(\.x)
  private static let f = displacement(\.f)
  static let pc = HostAddress(.rbp, displacement(\.pc))
  static let privilege = HostAddress(.rbp, displacement(\.privilege))
  static let lines = HostAddress(.rbp, displacement(\.lines))
  static let softwareExternal = HostAddress(.rbp, displacement(\.softwareExternal))
  static let mie = HostAddress(.rbp, displacement(\.mie))
  static let sscratch = HostAddress(.rbp, displacement(\.sscratch))
  static let sepc = HostAddress(.rbp, displacement(\.sepc))
  static let scause = HostAddress(.rbp, displacement(\.scause))
  static let stval = HostAddress(.rbp, displacement(\.stval))
  static let menvcfg = HostAddress(.rbp, displacement(\.menvcfg))
  static let mstatus = HostAddress(.rbp, displacement(\.mstatus))
  static let rounding = HostAddress(.rbp, displacement(\.floatingPointRounding))
  static let readEntries = HostAddress(.rbp, displacement(\.readEntries))
  static let writeEntries = HostAddress(.rbp, displacement(\.writeEntries))
  static let fetchEntries = HostAddress(.rbp, displacement(\.fetchEntries))
  static let dataContext = HostAddress(.rbp, displacement(\.dataContext))
  static let alternateContext = HostAddress(.rbp, displacement(\.alternateContext))
  static let contextRead = Int32(MemoryLayout<TranslationCache.Context>.offset(of: \.read)!)
  static let contextWrite = Int32(MemoryLayout<TranslationCache.Context>.offset(of: \.write)!)
  // Offsets in a `FetchEntry` and a `CodePage`.
  static let fetchPage = Int32(MemoryLayout<FetchEntry>.offset(of: \.page)!)
  static let fetchEntryPoints = Int32(MemoryLayout<FetchEntry>.offset(of: \.entryPoints)!)
  static let pageSource = Int32(MemoryLayout<CodePage>.offset(of: \.source)!)
  static let remaining = HostAddress(.rbp, displacement(\.remaining))
  static let pageBase = HostAddress(.rbp, displacement(\.pageBase))
  static let hostStack = HostAddress(.rbp, displacement(\.hostStack))
  static let returnStackBase = HostAddress(.rbp, displacement(\.returnStackBase))
  static let returnStackLimit = HostAddress(.rbp, displacement(\.returnStackLimit))
  static let guestFloatControl = HostAddress(.rbp, displacement(\.guestFloatControl))
  static let floatFlags = HostAddress(.rbp, displacement(\.floatingPointFlags))
  private static let flagsOfHost = displacement(\.flagsOfHost)
  /// The guest's flags for the host's in a register.
  static func flagsOfHost(_ host: HostRegister) -> HostAddress { HostAddress(.rbp, index: host, flagsOfHost) }
  static let slowValue = HostAddress(.rbp, displacement(\.slowValue))
  static let isFloatReady = HostAddress(.rbp, displacement(\.isFloatReady))
  static let singleBox = HostAddress(.rbp, displacement(\.singleBox))
  static let doubleSign = HostAddress(.rbp, displacement(\.doubleSign))
  static let singleSign = HostAddress(.rbp, displacement(\.singleSign))
  private static let groupSlots = displacement(\.groupSlots)
  static func groupSlot(_ index: Int) -> HostAddress { HostAddress(.rbp, groupSlots + 8 * Int32(index)) }
  static let keptGroup = groupSlot(AccessGroup.slotCount)

  static let loopRest = HostAddress(.rbp, displacement(\.loopRest))
  private static let loopAddends = displacement(\.loopAddends)
  static func loopAddend(_ index: Int) -> HostAddress { HostAddress(.rbp, loopAddends + 8 * Int32(index)) }

  static let fetchMask = HostAddress(.rbp, displacement(\.fetchMask))
  static let secondMask = HostAddress(.rbp, displacement(\.secondMask))
  static let hostToPhysical = HostAddress(.rbp, displacement(\.hostToPhysical))
  static let reservedAddress = HostAddress(.rbp, displacement(\.reservedAddress))
  static let reservedValue = HostAddress(.rbp, displacement(\.reservedValue))
  static let reservedWidth = HostAddress(.rbp, displacement(\.reservedWidth))

  static func integer(_ register: UInt8) -> HostAddress { HostAddress(.rbp, x + 8 * Int32(register)) }
  static func float(_ register: UInt8) -> HostAddress { HostAddress(.rbp, f + 8 * Int32(register)) }
  /// The upper half of a floating-point register: all ones where it holds a boxed single-precision value.
  static func floatUpper(_ register: UInt8) -> HostAddress { HostAddress(.rbp, f + 8 * Int32(register) + 4) }
}

/// The guest registers that live in host registers throughout generated code: those that Debian's programs use most.
/// rax, rcx and rdx are scratch, rbp holds the state, rsp the guest's return addresses, r12 the instructions left, r15 the
/// address of the page that is executed, which the state has, too.
enum PinnedRegisters {
  static let all: [(guest: UInt8, host: HostRegister)] = [
    (2, .rbx), (8, .rsi), (9, .r13), (10, .rdi), (11, .r8), (12, .r9), (13, .r10), (14, .r11), (15, .r14),
  ]
  static let remaining = HostRegister.r12
  static let pageBase = HostRegister.r15

  /// By guest register; nil: it lives in memory.
  @inline(__always)
  static func host(_ guest: UInt8) -> HostRegister? {
    switch guest {
    case 2: .rbx
    case 8: .rsi
    case 9: .r13
    case 10: .rdi
    case 11: .r8
    case 12: .r9
    case 13: .r10
    case 14: .r11
    case 15: .r14
    default: nil
    }
  }
}

/// The guest's floating-point registers that live in host registers while `isFloatReady`. xmm0, xmm1 and xmm2 are scratch.
enum PinnedFloats {
  static let all: [(guest: UInt8, host: VectorRegister)] = (0..<32).compactMap { guest in
    host(guest).map { (guest, $0) }
  }

  /// By guest register: fa0-fa7, ft0, ft1, fs0-fs2; nil: it lives in memory.
  @inline(__always)
  static func host(_ guest: UInt8) -> VectorRegister? {
    switch guest {
    case 10...17: VectorRegister(guest - 7)
    case 0, 1: VectorRegister(guest + 11)
    case 8, 9: VectorRegister(guest + 5)
    case 18: VectorRegister(15)
    default: nil
    }
  }
}

import Hart

/// Where generated code finds what it uses: rbp points into the middle of x0...x31, so that their displacements fit a
/// signed byte.
enum StateLayout {
  static let bias: Int32 = 128

  private static func displacement(_ path: PartialKeyPath<HartState>) -> Int32 {
    Int32(MemoryLayout<HartState>.offset(of: path)!) - bias
  }

  private static let x = displacement(\.x)
  private static let f = displacement(\.f)
  static let pc = HostAddress(.rbp, displacement(\.pc))
  static let mstatus = HostAddress(.rbp, displacement(\.mstatus))
  static let rounding = HostAddress(.rbp, displacement(\.floatingPointRounding))
  static let readEntries = HostAddress(.rbp, displacement(\.readEntries))
  static let writeEntries = HostAddress(.rbp, displacement(\.writeEntries))
  static let fetchEntries = HostAddress(.rbp, displacement(\.fetchEntries))
  static let remaining = HostAddress(.rbp, displacement(\.remaining))
  static let pageBase = HostAddress(.rbp, displacement(\.pageBase))
  static let hostStack = HostAddress(.rbp, displacement(\.hostStack))
  static let returnStackBase = HostAddress(.rbp, displacement(\.returnStackBase))
  static let returnStackLimit = HostAddress(.rbp, displacement(\.returnStackLimit))
  static let guestFloatControl = HostAddress(.rbp, displacement(\.guestFloatControl))
  static let hostFloatControl = HostAddress(.rbp, displacement(\.hostFloatControl))
  static let slowValue = HostAddress(.rbp, displacement(\.slowValue))

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
/// rax, rcx and rdx are scratch, rbp holds the state, rsp the guest's return addresses, r15 the instructions left.
enum PinnedRegisters {
  static let all: [(guest: UInt8, host: HostRegister)] = [
    (1, .r12), (2, .rbx), (8, .rsi), (9, .r13), (10, .rdi), (11, .r8), (12, .r9), (13, .r10), (14, .r11), (15, .r14),
  ]
  static let remaining = HostRegister.r15

  /// By guest register; nil: it lives in memory.
  @inline(__always)
  static func host(_ guest: UInt8) -> HostRegister? {
    switch guest {
    case 1: .r12
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

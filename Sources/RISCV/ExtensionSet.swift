/// A set of ISA extensions, unprivileged and supervisor-level ones. `Extension.all` gives their names and descriptions.
public struct ExtensionSet: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  private init(bit: UInt64) { rawValue = 1 << bit }

  public static let i = ExtensionSet(bit: 0)
  public static let m = ExtensionSet(bit: 1)
  public static let a = ExtensionSet(bit: 2)
  public static let f = ExtensionSet(bit: 3)
  public static let d = ExtensionSet(bit: 4)
  public static let c = ExtensionSet(bit: 5)
  public static let zicbom = ExtensionSet(bit: 6)
  public static let zicbop = ExtensionSet(bit: 7)
  public static let zicboz = ExtensionSet(bit: 8)
  public static let zicntr = ExtensionSet(bit: 9)
  public static let zicond = ExtensionSet(bit: 10)
  public static let zicsr = ExtensionSet(bit: 11)
  public static let zifencei = ExtensionSet(bit: 12)
  public static let zihintntl = ExtensionSet(bit: 13)
  public static let zihintpause = ExtensionSet(bit: 14)
  public static let zihpm = ExtensionSet(bit: 15)
  public static let zawrs = ExtensionSet(bit: 16)
  public static let zba = ExtensionSet(bit: 17)
  public static let zbb = ExtensionSet(bit: 18)
  public static let zbc = ExtensionSet(bit: 19)
  public static let zbs = ExtensionSet(bit: 20)
  public static let sscounterenw = ExtensionSet(bit: 21)
  public static let sstc = ExtensionSet(bit: 22)
  public static let sstvala = ExtensionSet(bit: 23)
  public static let sstvecd = ExtensionSet(bit: 24)
  public static let svade = ExtensionSet(bit: 25)
  public static let svinval = ExtensionSet(bit: 26)
  public static let svnapot = ExtensionSet(bit: 27)
  public static let svpbmt = ExtensionSet(bit: 28)
  public static let zbkb = ExtensionSet(bit: 29)
  public static let zbkc = ExtensionSet(bit: 30)
  public static let zbkx = ExtensionSet(bit: 31)
  public static let zknd = ExtensionSet(bit: 32)
  public static let zkne = ExtensionSet(bit: 33)
  public static let zknh = ExtensionSet(bit: 34)

  /// RV64GC: what every Linux distribution for riscv64 expects at least.
  public static let rv64gc: ExtensionSet = [.i, .m, .a, .f, .d, .c, .zicsr, .zifencei]

  /// Everything that Yadori's harts implement.
  public static let yadori: ExtensionSet = [
    .rv64gc, .zicbom, .zicbop, .zicboz, .zicntr, .zicond, .zihintntl, .zihintpause, .zihpm, .zawrs,
    .zba, .zbb, .zbc, .zbkb, .zbkc, .zbkx, .zbs, .zknd, .zkne, .zknh,
    .sscounterenw, .sstc, .sstvala, .sstvecd, .svade, .svinval, .svnapot, .svpbmt,
  ]
}

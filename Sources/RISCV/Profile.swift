/// A RISC-V profile: a name for extensions that software may count on together.
public struct Profile: Hashable, Sendable {
  /// As the RISC-V Profiles specification writes it.
  public let name: String
  /// Those of the profile's mandatory extensions that a set can name; the rest are properties of memory and of address
  /// translation (Ziccif, Ziccrse, Ziccamoa, Zicclsm, Za128rs, Ss1p11, Svbare, Sv39, Ssccptr), which every hart of
  /// Yadori has.
  public let mandatory: ExtensionSet

  /// Every profile whose extensions are all known here.
  public static let all: [Profile] = [
    Profile(name: "RVA20U64", mandatory: rva20u64),
    Profile(name: "RVA20S64", mandatory: rva20u64.union([.zifencei, .svade, .sstvecd, .sstvala])),
  ]

  private static let rva20u64: ExtensionSet = [.i, .m, .a, .f, .d, .c, .zicsr, .zicntr]
}

extension ExtensionSet {
  /// The profiles that a hart with these extensions implements.
  public var profiles: [Profile] { Profile.all.filter { isSuperset(of: $0.mandatory) } }
}

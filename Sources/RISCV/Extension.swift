/// What there is to say about one ISA extension.
public struct Extension: Hashable, Sendable {
  /// The set of this extension alone.
  public let set: ExtensionSet
  /// As the device tree and /proc/cpuinfo write it, in lower case.
  public let name: String
  /// The version that was ratified.
  public let version: String
  /// One line: what it is.
  public let summary: String

  init(_ set: ExtensionSet, _ name: String, _ version: String, _ summary: String) {
    self.set = set
    self.name = name
    self.version = version
    self.summary = summary
  }

  /// Every extension known here, in the canonical order of ISA strings (Unprivileged Architecture, chapter "ISA
  /// Extension Naming Conventions"): the single letters in their order; Z* by the letter that follows, in the order of the
  /// single letters, then by the alphabet; S* by the alphabet.
  public static let all: [Extension] = [
    Extension(.i, "i", "2.1", "Base integer instructions, 64-bit"),
    Extension(.m, "m", "2.0", "Integer multiplication and division"),
    Extension(.a, "a", "2.1", "Atomic memory operations, load-reserved and store-conditional"),
    Extension(.f, "f", "2.2", "Single-precision floating point"),
    Extension(.d, "d", "2.2", "Double-precision floating point"),
    Extension(.c, "c", "2.0", "Compressed (16-bit) encodings"),
    Extension(.zicbom, "zicbom", "1.0", "Cache block management: clean, flush, invalidate"),
    Extension(.zicbop, "zicbop", "1.0", "Cache block prefetch hints"),
    Extension(.zicboz, "zicboz", "1.0", "Cache block zeroing"),
    Extension(.zicntr, "zicntr", "2.0", "Counters cycle, time and instret"),
    Extension(.zicond, "zicond", "1.0", "Conditional operations on integers"),
    Extension(.zicsr, "zicsr", "2.0", "Control and status register access"),
    Extension(.zifencei, "zifencei", "2.0", "Instruction-fetch fence"),
    Extension(.zihintntl, "zihintntl", "1.0", "Non-temporal locality hints"),
    Extension(.zihintpause, "zihintpause", "2.0", "Pause hint"),
    Extension(.zihpm, "zihpm", "2.0", "Hardware performance counters"),
    Extension(.zawrs, "zawrs", "1.0", "Wait on a reservation set"),
    Extension(.zba, "zba", "1.0", "Bit manipulation: address generation"),
    Extension(.zbb, "zbb", "1.0", "Bit manipulation: basic operations"),
    Extension(.zbc, "zbc", "1.0", "Bit manipulation: carry-less multiplication"),
    Extension(.zbkb, "zbkb", "1.0", "Bit manipulation for cryptography: rotations, packing, reversing"),
    Extension(.zbkc, "zbkc", "1.0", "Carry-less multiplication for cryptography"),
    Extension(.zbkx, "zbkx", "1.0", "Crossbar permutations"),
    Extension(.zbs, "zbs", "1.0", "Bit manipulation: single bits"),
    Extension(.zknd, "zknd", "1.0", "AES decryption"),
    Extension(.zkne, "zkne", "1.0", "AES encryption"),
    Extension(.zknh, "zknh", "1.0", "SHA-2 hash functions"),
    Extension(.sscounterenw, "sscounterenw", "1.0", "scounteren has a writable bit for each counter"),
    Extension(.sstc, "sstc", "1.0", "Timer of the supervisor, stimecmp"),
    Extension(.sstvala, "sstvala", "1.0", "stval holds the faulting address or instruction"),
    Extension(.sstvecd, "sstvecd", "1.0", "stvec in direct mode takes any 4-byte aligned address"),
    Extension(.svade, "svade", "1.0", "Page faults when a page's accessed or dirty bit is clear"),
    Extension(.svinval, "svinval", "1.0", "Fine-grained invalidation of address translations"),
    Extension(.svnapot, "svnapot", "1.0", "Contiguous pages as one translation of 64 KiB"),
    Extension(.svpbmt, "svpbmt", "1.0", "Memory types in page tables"),
  ]
}

extension ExtensionSet {
  /// The members, in canonical order.
  public var extensions: [Extension] { Extension.all.filter { contains($0.set) } }

  /// For the device tree's `riscv,isa-base`.
  public static let base = "rv64i"

  /// For the device tree's `riscv,isa-extensions`.
  public var names: [String] { extensions.map(\.name) }

  /// For the device tree's `riscv,isa`: "rv64imafdc_zicbom_zicsr...".
  public var isaString: String {
    let letters = names.filter { $0.count == 1 }.joined()
    return (["rv64" + letters] + names.filter { $0.count > 1 }).joined(separator: "_")
  }
}

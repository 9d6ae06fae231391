import Hart
import HostSystem

/// What executes guest instructions.
public enum EngineChoice: Codable, Hashable, Sendable {
  /// The reference: slower, and on any host.
  case interpreter
  /// Host code made of what runs often: of places reached `threshold` times, 1...255.
  case translator(threshold: Int)

  /// Low, because translating took a twentieth of Debian's boot and interpreting more; not tuned further.
  public static let usualThreshold = 12

  /// Gives each of `harts` the engine; nil: the translator where the host can run one, else the interpreter. Before the
  /// harts run. Throws `HostError` where the host can't run the one asked for.
  public static func install(_ choice: EngineChoice?, on harts: [Hart]) throws {
    // The addresses that code may have are few: many harts share them.
    if harts.count > 1 { for hart in harts { hart.engineStretch = 8192 } }
    let codeSize = min(Translator.largestCodeSize, (512 << 20) / harts.count & ~0xFFFFF)
    switch choice {
    case .interpreter: return
    case .translator(let threshold):
      for hart in harts { hart.engine = try Translator(hart, threshold: threshold, codeSize: codeSize) }
    case nil:
      guard let engines = try? harts.map({ try Translator($0, threshold: usualThreshold, codeSize: codeSize) }) else {
        return
      }
      for (hart, engine) in zip(harts, engines) { hart.engine = engine }
    }
  }
}

import Hart
import HostSystem

/// What executes guest instructions.
public enum EngineChoice: Codable, Hashable, Sendable {
  /// The reference: slower, and on any host.
  case interpreter
  /// Host code made of what runs often: of places reached `threshold` times, 1...255.
  case translator(threshold: Int)
  /// Both, one after the other, for a machine with one hart: it stops at the first difference. See `AuditEngine`.
  case audit(threshold: Int)

  /// Low, because translating took a twentieth of Debian's boot and interpreting more; not tuned further.
  public static let usualThreshold = 8

  /// How much slower than the host's the guest's clock goes. An audited guest gets less done in a second than its own
  /// timeouts (systemd's 90 seconds for a device) expect.
  public var clockSlowdown: UInt64 {
    if case .audit = self { 8 } else { 1 }
  }

  /// Gives each of `harts` the engine; nil: the translator where the host can run one, else the interpreter. Before the
  /// harts and `loop`, which changes their memory, run. Throws `HostError` where the host can't run the one asked for.
  public static func install(_ choice: EngineChoice?, on harts: [Hart], beside loop: EventLoop? = nil) throws {
    // A hart that sends a fence waits for the end of the others' stretches.
    if harts.count > 1 { for hart in harts { hart.engineStretch = 8192 } }
    // The addresses that code may have are few: many harts share them.
    let codeSize = min(Translator.largestCodeSize, (512 << 20) / harts.count & ~0xFFFFF)
    switch choice {
    case .interpreter: return
    case .translator(let threshold):
      for hart in harts { hart.engine = try Translator(hart, threshold: threshold, codeSize: codeSize) }
    case .audit(let threshold):
      guard harts.count == 1 else {
        throw HostError(message: "an audit runs one hart, not \(harts.count); choose another engine")
      }
      let turns = TurnLock()
      let translator = try Translator(harts[0], threshold: threshold, codeSize: codeSize)
      harts[0].engine = AuditEngine(harts[0], auditing: translator, turns: turns)
      loop?.turns = turns
    case nil:
      guard let engines = try? harts.map({ try Translator($0, threshold: usualThreshold, codeSize: codeSize) }) else {
        return
      }
      for (hart, engine) in zip(harts, engines) { hart.engine = engine }
    }
  }
}

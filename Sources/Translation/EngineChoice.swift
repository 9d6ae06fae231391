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
  ///
  /// - Parameters:
  ///   - keptCode: files of code that `keepCode` wrote, of which translators begin with the first that fits.
  ///   - isCopied: whether nothing is believed of such a file that others could change, see `KeptCode`; not for an audit.
  public static func install(
    _ choice: EngineChoice?, on harts: [Hart], beside loop: EventLoop? = nil, keptCode: [String] = [],
    isCopied: Bool = false
  ) throws {
    // A hart that sends a fence waits for the end of the others' stretches.
    if harts.count > 1 { for hart in harts { hart.engineStretch = 8192 } }
    // The addresses that code may have are few: many harts share them.
    let codeSize = min(Translator.largestCodeSize, (1 << 30) / harts.count & ~0xFFFFF)
    func translator(_ hart: Hart, _ threshold: Int, _ kept: KeptCode?) throws -> Translator {
      try Translator(hart, threshold: threshold, codeSize: codeSize, beginningWith: kept)
    }
    switch choice {
    case .interpreter: return
    case .translator(let threshold):
      let kept = KeptCode.first(of: keptCode, areCopied: isCopied)
      defer { if isCopied { kept?.closeFile() } }
      for hart in harts { hart.engine = try translator(hart, threshold, kept) }
    case .audit(let threshold):
      guard harts.count == 1 else {
        throw HostError(message: "an audit runs one hart, not \(harts.count); choose another engine")
      }
      let turns = TurnLock()
      harts[0].engine = AuditEngine(
        harts[0], auditing: try translator(harts[0], threshold, KeptCode.first(of: keptCode)), turns: turns)
      loop?.turns = turns
    case nil:
      let kept = KeptCode.first(of: keptCode, areCopied: isCopied)
      defer { if isCopied { kept?.closeFile() } }
      guard let engines = try? harts.map({ try translator($0, usualThreshold, kept) }) else { return }
      for (hart, engine) in zip(harts, engines) { hart.engine = engine }
    }
  }
}

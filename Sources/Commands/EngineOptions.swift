import ArgumentParser
import Translation

/// What executes a machine's instructions, as flags.
struct EngineOptions: ParsableArguments {
  @Option(help: "What executes instructions: interpreter, translator (where the host allows it) or audit.")
  var engine: Engine?

  @Option(help: "How often code is reached before it is translated: 1 to 255.")
  var threshold: Int?

  enum Engine: String, ExpressibleByArgument, CaseIterable { case interpreter, translator, audit }

  /// Nil: the best that the host can run. Throws for a threshold that is out of range or that nothing would use.
  func choice() throws -> EngineChoice? {
    if let threshold {
      guard (1...255).contains(threshold) else {
        throw CommandFailure(.usage, "--threshold: \(threshold) is out of range; give 1 to 255")
      }
      guard engine != .interpreter else {
        throw CommandFailure(.usage, "--threshold is the translator's; leave it out, or --engine interpreter")
      }
    }
    let threshold = threshold ?? EngineChoice.usualThreshold
    switch engine {
    case .interpreter: return .interpreter
    case .translator: return .translator(threshold: threshold)
    case .audit: return .audit(threshold: threshold)
    case nil: return self.threshold == nil ? nil : .translator(threshold: threshold)
    }
  }
}

import Foundation

/// The signals that ask a process to end, as long as somebody listens to them. One that is ignored already stays so.
final class EndingSignals {
  private var sources: [any DispatchSourceSignal] = []

  /// - Parameter action: runs on any thread, once for each signal, with its number.
  init(action: @escaping @Sendable (Int32) -> Void) {
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var current = sigaction()
      sigaction(number, nil, &current)
      guard current.__sigaction_handler.sa_handler == nil else { continue }
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number)
      source.setEventHandler { action(number) }
      source.resume()
      sources.append(source)
    }
  }

  /// The signals do what they did before.
  func release() {
    for source in sources {
      source.cancel()
      signal(Int32(source.handle), SIG_DFL)
    }
    sources = []
  }
}

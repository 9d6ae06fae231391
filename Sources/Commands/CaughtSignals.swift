import Foundation

/// Signals to this process that somebody listens to in its stead. One that is ignored already stays so.
final class CaughtSignals {
  /// Those that ask a process to end.
  static let ending = [SIGINT, SIGTERM, SIGHUP]
  /// Those that a program in a guest gets as if it were here.
  static let passed = ending + [SIGQUIT, SIGUSR1, SIGUSR2]

  private var sources: [any DispatchSourceSignal] = []

  /// - Parameter action: runs on any thread, once for each signal, with its number.
  init(_ numbers: [Int32] = CaughtSignals.ending, action: @escaping @Sendable (Int32) -> Void) {
    for number in numbers {
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

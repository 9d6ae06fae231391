import Glibc

/// What happens to this process when it writes to a pipe or socket whose reader is gone.
public enum BrokenPipes {
  private static let handled: Void = {
    var current = sigaction()
    sigaction(SIGPIPE, nil, &current)
    let isDefault = current.__sigaction_handler.sa_handler == nil
    guard isDefault else { return }
    // A handler that does nothing rather than SIG_IGN, which the programs started from here would inherit.
    var quiet = sigaction()
    quiet.__sigaction_handler.sa_handler = { _ in }
    quiet.sa_flags = Int32(SA_RESTART)
    sigaction(SIGPIPE, &quiet, nil)
  }()

  /// Makes such writes fail with EPIPE instead of ending the process. A disposition that the program has chosen itself
  /// is left alone. Whatever writes to pipes or sockets calls this first; calling it again costs nothing.
  public static func becomeErrors() { _ = handled }
}

import CHost
import Foundation
import HostSystem

/// Signals to this process that somebody listens to in its stead. One that is ignored already stays so.
final class CaughtSignals {
  /// Those that ask a process to end.
  static let ending = [SIGINT, SIGTERM, SIGHUP]
  /// Those that a program in a guest gets as if it were here.
  static let passed = ending + [SIGQUIT, SIGUSR1, SIGUSR2]

  private var caught: [Int32] = []
  /// A pipe: each signal's number comes through it, and 0 at the end.
  private var (output, input): (Int32, Int32) = (-1, -1)
  private var listener: HostThread?

  /// - Parameter action: runs on a thread of its own, once for each signal, with its number.
  init(_ numbers: [Int32] = CaughtSignals.ending, action: @escaping @Sendable (Int32) -> Void) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { return }
    for end in ends { _ = chost_fcntl(end, F_SETFD, Int(FD_CLOEXEC)) }
    (output, input) = (ends[0], ends[1])
    listener = HostThread(name: "signals") { [output] in
      var number: UInt8 = 0
      while true {
        let count = read(output, &number, 1)
        if count < 0, errno == EINTR { continue }
        if count != 1 || number == 0 { return }
        action(Int32(number))
      }
    }
    for number in numbers where chost_catch_signal(number, input) != 0 { caught.append(number) }
  }

  /// The signals do what they did before. Not from `action`.
  func release() {
    for number in caught { signal(number, SIG_DFL) }
    caught = []
    guard let listener else { return }
    var end: UInt8 = 0
    _ = write(input, &end, 1)
    listener.join()
    self.listener = nil
    close(output)
    close(input)
  }
}

import Foundation

/// What a hart's thread has waited for a processor of the host, as that counts it (/proc/PID/schedstat). Of no use where it
/// doesn't count.
final class SchedulingDelay {
  static var isCounted: Bool { access("/proc/self/schedstat", R_OK) == 0 }

  /// Nanoseconds between two looks.
  private static let interval: UInt64 = 20_000_000

  private var file: Int32 = -1
  private var last: (time: UInt64, delay: UInt64?)?

  deinit { if file >= 0 { close(file) } }

  /// Nanoseconds of waiting since the last look; nil where that was a moment ago. On the hart's thread.
  func look(at now: UInt64) -> UInt64? {
    if let last, now &- last.time < Self.interval { return nil }
    if file < 0 { file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC) }
    var text = [UInt8](repeating: 0, count: 96)
    let count = pread(file, &text, text.count, 0)
    let words = count > 0 ? text[..<count].split(separator: UInt8(ascii: " ")) : []
    let before = last?.delay
    let delay = words.count > 1 ? UInt64(String(decoding: words[1], as: UTF8.self)) : nil
    last = (now, delay ?? before)
    guard let delay, let before else { return 0 }
    return delay &- before
  }
}

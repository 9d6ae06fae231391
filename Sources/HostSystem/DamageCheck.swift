import CHost
import Foundation

/// Notes at files that they were looked through and found whole since the host was started, so that not everybody who
/// uses one reads all of it. A note is void when the file is written to, when the host starts anew, and at a copy.
/// Damage that nobody writes isn't seen in it.
public enum DamageCheck {
  private static let name = "user.yadori.checked"

  /// A file as it is, in the host's run.
  public struct FileState: Equatable, Sendable {
    fileprivate let text: [UInt8]

    /// Nil where the host doesn't say.
    public init?(_ descriptor: Int32) {
      var status = stat()
      guard let run = DamageCheck.hostRun, fstat(descriptor, &status) == 0 else { return nil }
      // A copy, which may have the same times and the note, has another number.
      let file = "\(status.st_dev) \(status.st_ino) \(status.st_size)"
      text = run + Array(" \(file) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)".utf8)
    }
  }

  private static let hostRun: [UInt8]? = {
    var run = [UInt8](repeating: 0, count: 36)
    let source = chost_open("/proc/sys/kernel/random/boot_id", O_RDONLY, 0)
    defer { if source >= 0 { close(source) } }
    guard source >= 0, read(source, &run, run.count) == run.count else { return nil }
    return run
  }()

  /// Whether the open file has such a note.
  public static func isNoted(_ descriptor: Int32) -> Bool {
    guard let text = FileState(descriptor)?.text else { return false }
    var found = [UInt8](repeating: 0, count: text.count + 1)
    return fgetxattr(descriptor, name, &found, found.count) == text.count && found.dropLast() == text[...]
  }

  /// Makes the note, where the file system has a place for it, that the file was whole as it was then: before it was
  /// looked through, so that the note is void if somebody wrote to it meanwhile.
  public static func note(_ descriptor: Int32, asOf state: FileState?) {
    if let text = state?.text { _ = fsetxattr(descriptor, name, text, text.count, 0) }
  }
}

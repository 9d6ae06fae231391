import CHost
import Foundation

/// Notes at files that they were looked through and found whole since the host was started, so that not everybody who
/// uses one reads all of it. A note is void when the file is written to, and when the host starts anew. Damage that nobody
/// writes isn't seen in it.
public enum DamageCheck {
  private static let name = "user.yadori.checked"

  /// Of the host's run and of the file as it is.
  private static func text(_ descriptor: Int32) -> [UInt8]? {
    var status = stat()
    guard let run = hostRun, fstat(descriptor, &status) == 0 else { return nil }
    return run + Array(" \(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)".utf8)
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
    guard let text = text(descriptor) else { return false }
    var found = [UInt8](repeating: 0, count: text.count + 1)
    return fgetxattr(descriptor, name, &found, found.count) == text.count && found.dropLast() == text[...]
  }

  /// Makes the note, where the file system has a place for it. The file is whole, as far as is known.
  public static func note(_ descriptor: Int32) {
    if let text = text(descriptor) { _ = fsetxattr(descriptor, name, text, text.count, 0) }
  }
}

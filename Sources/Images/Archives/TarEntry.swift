/// One object of a tar archive.
package struct TarEntry: Equatable, Sendable {
  package enum Kind: Equatable, Sendable {
    case file
    /// Another name of a file that came before.
    case hardLink(String)
    case symbolicLink(String)
    case directory
    case characterDevice(major: UInt32, minor: UInt32)
    case blockDevice(major: UInt32, minor: UInt32)
    case namedPipe
  }

  /// Without a leading "./" or "/" and a trailing "/", without "." and ".." parts; empty for the root itself.
  package var path: String
  package var kind: Kind
  /// The twelve permission bits.
  package var mode: UInt32
  package var user: UInt32
  package var group: UInt32
  /// Seconds since 1970.
  package var modified: UInt64
  /// The count of content bytes; 0 for anything but a file.
  package var byteCount: UInt64

  package init(
    path: String, kind: Kind, mode: UInt32, user: UInt32 = 0, group: UInt32 = 0, modified: UInt64 = 0,
    byteCount: UInt64 = 0
  ) {
    self.path = path
    self.kind = kind
    self.mode = mode
    self.user = user
    self.group = group
    self.modified = modified
    self.byteCount = byteCount
  }

  /// The path as `TarEntry.path` has it, nil when it would leave the root.
  package static func normalized(_ path: String) -> String? {
    var parts: [Substring] = []
    for part in path.split(separator: "/") where part != "." {
      if part == ".." || part.utf8.contains(0) { return nil }
      parts.append(part)
    }
    return parts.joined(separator: "/")
  }
}

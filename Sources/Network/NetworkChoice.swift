/// What `--net` says: which network a machine's card leads to.
public enum NetworkChoice: Hashable, Sendable, CustomStringConvertible {
  /// User-mode network address translation; needs no rights.
  case user
  /// A TAP interface of the host, made beforehand for this user.
  case tap(name: String)
  /// No network card.
  case none

  /// Reads "user", "tap=NAME" or "none". Throws `NetworkError`.
  public init(parsing text: String) throws {
    switch text {
    case "user": self = .user
    case "none": self = .none
    default:
      guard text.hasPrefix("tap=") else {
        throw NetworkError(.invalidArgument, "network '\(text)' is unknown; choose user, tap=NAME or none")
      }
      let name = String(text.dropFirst(4))
      // Linux, net/core/dev.c, dev_valid_name.
      let isValid =
        !name.isEmpty && name.utf8.count <= TapNetwork.longestName && name != "." && name != ".."
        && name.unicodeScalars.allSatisfy { $0 != "/" && $0 != ":" && !$0.properties.isWhitespace }
      guard isValid else {
        throw NetworkError(
          .invalidArgument, "network '\(text)': '\(name)' is not an interface name; write tap=NAME, as in tap=tap0")
      }
      self = .tap(name: name)
    }
  }

  public var description: String {
    switch self {
    case .user: "user"
    case .tap(let name): "tap=\(name)"
    case .none: "none"
    }
  }
}

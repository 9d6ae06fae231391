/// Why a network can't be had as asked. The message is one line for a person.
public struct NetworkError: Error, CustomStringConvertible, Sendable {
  public enum Code: Sendable {
    /// A port forward or a network choice that doesn't read as one.
    case invalidArgument
    /// A host port that another program has.
    case portInUse
    /// The host refuses for lack of a right.
    case noPermission
    /// A host address or interface that isn't there.
    case unavailable
  }

  public let code: Code
  public let message: String
  /// The host's error number (errno), 0 where there is none.
  public let cause: Int32

  public init(_ code: Code, _ message: String, cause: Int32 = 0) {
    self.code = code
    self.message = message
    self.cause = cause
  }

  public var description: String { message }
}

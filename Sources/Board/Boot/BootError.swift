/// Why a machine can't be set up: one line that names the file or the field and says what to do.
public struct BootError: Error, CustomStringConvertible, Equatable, Sendable {
  /// What kind of mistake it is; command lines derive their exit code from it.
  public enum Code: Sendable {
    /// A file's content is unusable (damaged, for another machine, not what was asked for).
    case data
    /// Good files and values that don't go together or don't fit.
    case configuration
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}

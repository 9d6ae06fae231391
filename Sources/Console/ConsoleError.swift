/// Why a console can't be had as asked. The message is one line for a person.
public struct ConsoleError: Error, CustomStringConvertible, Sendable {
  public enum Code: Sendable {
    /// Another console or program has it.
    case inUse
    /// The host refuses, for the reason in the message.
    case unavailable
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}

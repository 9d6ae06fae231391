/// Why a machine can't be made, started, saved or restored, in one line that says what to do.
public struct MachineError: Error, CustomStringConvertible, Sendable {
  /// What kind of trouble it is, as the exit codes of sysexits(3) divide it.
  public enum Code: Int32, Sendable {
    /// A value that can't be (EX_USAGE).
    case usage = 64
    /// Input data that isn't what it should be (EX_DATAERR).
    case data = 65
    /// A file that is missing or can't be read (EX_NOINPUT).
    case noInput = 66
    /// Something needed isn't there or is in use (EX_UNAVAILABLE).
    case unavailable = 69
    /// A bug in Yadori (EX_SOFTWARE).
    case software = 70
    /// The host refused a resource (EX_OSERR).
    case host = 71
    /// An output file can't be made (EX_CANTCREAT).
    case cannotCreate = 73
    /// An error while reading or writing (EX_IOERR).
    case inputOutput = 74
    /// Permission is missing (EX_NOPERM).
    case permission = 77
    /// Something in the configuration (EX_CONFIG).
    case configuration = 78
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}

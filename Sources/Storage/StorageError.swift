/// Why a disk image can't be opened, made, read or written. The message is one line that names the file and says what
/// to do.
public struct StorageError: Error, CustomStringConvertible, Sendable {
  /// The kind of refusal, for callers that choose an exit status or a device status from it.
  public enum Code: Sendable, Hashable {
    /// There is no such file.
    case notFound
    /// The host doesn't let this user read or write the file.
    case notPermitted
    /// Another machine or tool holds the file's lock.
    case inUse
    /// A file of that name is there already.
    case exists
    /// The image contradicts itself or is cut short.
    case corrupt
    /// The image is sound, but uses something that this program doesn't know.
    case unsupported
    /// The caller asked for something impossible (a cluster size of 3, a disk of 0 bytes).
    case invalidArgument
    /// A range isn't in whole sectors, or goes beyond the end of the disk.
    case outOfRange
    /// A write to a disk that was opened read-only.
    case readOnly
    /// The host's disk is full.
    case noSpace
    /// Any other refusal of the host.
    case hostFailure
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}

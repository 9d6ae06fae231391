import Glibc

/// Why an image couldn't be fetched, built or found. The message is one line which names the file, flag or field and
/// says what to do.
public struct ImageError: Error, CustomStringConvertible, Sendable {
  public enum Code: String, Sendable {
    /// An option or a name that can't be right.
    case usage
    /// Something that should be there isn't (an image, a package, a file).
    case notFound
    /// A server that can't be reached or that refuses.
    case unavailable
    /// Data that isn't what its checksum, signature or format says.
    case corrupt
    /// The host refused to read or write.
    case inputOutput
    /// The guest that installs the image failed.
    case guest
    case cancelled
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  /// The error that errno holds now, after `action` failed. A full disk is said in words that help.
  package static func last(_ action: String) -> ImageError {
    failure(errno, action)
  }

  package static func failure(_ number: Int32, _ action: String) -> ImageError {
    if number == ENOSPC || number == EDQUOT {
      return ImageError(.inputOutput, "\(action): the disk is full; free some space or set YADORI_HOME to another disk")
    }
    return ImageError(.inputOutput, "\(action): \(String(cString: strerror(number)))")
  }

  /// The exit status that sysexits.h has for it.
  public var exitStatus: Int32 {
    switch code {
    case .usage: 64
    case .corrupt: 65
    case .notFound: 66
    case .unavailable: 69
    case .guest: 70
    case .inputOutput: 74
    case .cancelled: 75
    }
  }

  public var description: String { message }
}

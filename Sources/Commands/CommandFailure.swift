import Board
import Console
import HostSystem
import Images
import Network
import Storage
import Yadori

/// An error on its way out of the program: one line, and an exit code of sysexits(3).
struct CommandFailure: Error {
  let message: String
  let exitCode: Int32

  init(_ code: MachineError.Code, _ message: String) {
    self.message = message
    exitCode = code.rawValue
  }

  /// Nil for errors of the argument parser, which words its own.
  init?(_ error: any Error) {
    switch error {
    case let failure as CommandFailure: self = failure
    case let error as MachineError: self.init(error.code, error.message)
    case let error as ImageError: self.init(Self.code(of: error), error.message)
    case let error as HostError: self.init(.host, error.message)
    default: return nil
    }
  }

  private static func code(of error: ImageError) -> MachineError.Code {
    switch error.code {
    default: .unavailable
    }
  }
}

import Board
import Console
import Foundation
import HostSystem
import Images
import Network
import Storage
import Supervisor
import Yadori

/// An error on its way out of the program: one line, and an exit code of sysexits(3).
struct CommandFailure: Error {
  let message: String
  let exitCode: Int32

  init(_ code: MachineError.Code, _ message: String) {
    self.message = message
    exitCode = code.rawValue
  }

  private init(exitCode: Int32, message: String) {
    self.message = message
    self.exitCode = exitCode
  }

  /// The same with other words.
  func saying(_ message: String) -> Self { Self(exitCode: exitCode, message: message) }

  /// Nil for errors of the argument parser, which words its own.
  init?(_ error: any Error) {
    switch error {
    case let failure as CommandFailure: self = failure
    case let error as MachineError: self.init(error.code, error.message)
    case let error as BootError: self.init(error.code == .data ? .data : .configuration, error.message)
    case let error as StorageError: self.init(Self.code(of: error), error.message)
    case let error as NetworkError: self.init(Self.code(of: error), error.message)
    case let error as ConsoleError: self.init(.unavailable, error.message)
    case let error as HostError: self.init(.host, error.message)
    // As shells have it.
    case let error as GuestCommand.Refusal: self.init(exitCode: 127, message: error.message)
    case let error as ImageError: self.init(exitCode: error.exitStatus, message: error.message)
    // What Foundation says of files.
    case let error as CocoaError: self.init(.inputOutput, Self.words(for: error))
    default: return nil
    }
  }

  private static func words(for error: CocoaError) -> String {
    let path = error.filePath ?? error.url?.path
    // The reason is the host's, where it is known: a full disk, say.
    let reason = (error.underlying as? POSIXError).map { String(cString: strerror($0.code.rawValue)) }
    return [path.map { "can't use '\($0)'" }, reason ?? error.localizedDescription].compactMap(\.self).joined(
      separator: ": ")
  }

  private static func code(of error: StorageError) -> MachineError.Code {
    switch error.code {
    case .notFound: .noInput
    case .notPermitted, .readOnly: .permission
    case .inUse: .unavailable
    case .exists: .cannotCreate
    case .corrupt, .unsupported: .data
    case .invalidArgument, .outOfRange: .usage
    case .noSpace, .hostFailure: .inputOutput
    }
  }

  private static func code(of error: NetworkError) -> MachineError.Code {
    switch error.code {
    case .invalidArgument: .usage
    case .portInUse, .unavailable: .unavailable
    case .noPermission: .permission
    }
  }
}

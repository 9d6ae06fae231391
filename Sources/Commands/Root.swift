import ArgumentParser
import Foundation
import HostSystem

/// The command line: `yadori VERB ...`.
public struct Root: ParsableCommand {
  public static let configuration = CommandConfiguration(
    commandName: "yadori",
    abstract: "Gives guest machines a lodging on any host: 64-bit RISC-V machines, without root or /dev/kvm.",
    version: "yadori 0.1.0",
    subcommands: [
      RunCommand.self, StartCommand.self, ListCommand.self, InspectCommand.self, ConsoleCommand.self, ShellCommand.self,
      ExecCommand.self, CopyCommand.self, LogsCommand.self,
      StopCommand.self, KillCommand.self, PauseCommand.self, ResumeCommand.self, RestartCommand.self, WaitCommand.self,
      SaveCommand.self, RestoreCommand.self, CloneCommand.self,
      SnapshotCommand.self, StatsCommand.self, SetCommand.self, PublishCommand.self, UnpublishCommand.self,
      ShareCommand.self,
      UnshareCommand.self, RenameCommand.self, AutostartCommand.self,
      RemoveCommand.self, ImageCommand.self, ISACommand.self,
      DisassembleCommand.self,
    ])

  public init() {}

  /// Runs the command line of this process and exits. An error is one line on standard error and an exit code as
  /// sysexits(3) has them.
  public static func execute() -> Never {
    do {
      var command = try parseArguments()
      try command.run()
      exit(withError: nil)
    } catch {
      finish(error)
    }
  }

  /// The verb's own arguments first: that spares looking at all other verbs, which takes longer than some commands. Where
  /// that doesn't succeed, all are looked at for what is to be said.
  private static func parseArguments() throws -> any ParsableCommand {
    let arguments = CommandLine.arguments.dropFirst()
    if let verb = arguments.first,
      let command = configuration.subcommands.first(where: { $0.configuration.commandName == verb }),
      command.configuration.subcommands.isEmpty, let parsed = try? command.parseAsRoot(Array(arguments.dropFirst())),
      type(of: parsed) == command
    {
      return parsed
    }
    return try parseAsRoot()
  }

  private static func finish(_ error: any Error) -> Never {
    if let failure = CommandFailure(error) {
      FileHandle.standardError.write(Data("yadori: \(failure.message.withoutControls)\n".utf8))
      Foundation.exit(failure.exitCode)
    }
    let code = exitCode(for: error)
    // Help and the version are answers, not errors.
    if code == .success { exit(withError: error) }
    if let exitCode = error as? ExitCode { Foundation.exit(exitCode.rawValue) }
    FileHandle.standardError.write(Data("yadori: \(message(for: error)) (see 'yadori --help')\n".utf8))
    Foundation.exit(64)
  }
}

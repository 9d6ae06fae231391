import Foundation
import HostSystem
import Yadori

/// The systemd unit of a user that starts the machines that are marked for it, and switches them off in good order
/// (systemd.service(5)).
public struct HostStartUnit {
  public static let name = "yadori.service"
  public let path: String

  /// Below XDG_CONFIG_HOME or ~/.config, where the user's systemd looks.
  public init(environment: [String: String] = ProcessInfo.processInfo.environment) {
    let configuration =
      environment["XDG_CONFIG_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil }
      ?? (environment["HOME"] ?? NSHomeDirectory()) + "/.config"
    path = configuration + "/systemd/user/" + Self.name
  }

  /// Writes the unit, which calls `program` with the arguments `start` or `stop`. `home`: YADORI_HOME, where it is set.
  /// Throws `HostError`.
  public func write(program: String, start: [String], stop: [String], home: String?) throws {
    // Where the command fails some machines didn't start, and the journal has why. To systemd that is no failure ('-'), else
    // it would end those that did.
    let environment = home.map { "Environment=\(Self.quoted("YADORI_HOME=" + $0))\n" } ?? ""
    let text = """
      [Unit]
      Description=Machines of yadori

      [Service]
      Type=oneshot
      RemainAfterExit=yes
      \(environment)ExecStart=-\(([program] + start).map(Self.quoted).joined(separator: " "))
      ExecStop=\(([program] + stop).map(Self.quoted).joined(separator: " "))
      TimeoutStopSec=120

      [Install]
      WantedBy=default.target

      """
    let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
    do {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    } catch {
      throw MachineError(.cannotCreate, "can't make the folder '\(folder.path)'; check its permissions")
    }
    try AtomicFileWriter.write(text.utf8, to: path)
  }

  /// A word of a unit's command line (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers").
  static func quoted(_ word: String) -> String {
    var quoted = "\""
    for character in word {
      switch character {
      case "\\", "\"": quoted += "\\\(character)"
      case "%", "$": quoted += "\(character)\(character)"
      case "\n": quoted += "\\n"
      default: quoted.append(character)
      }
    }
    return quoted + "\""
  }
}

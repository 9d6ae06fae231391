import ArgumentParser
import Foundation
import Network
import Supervisor
import Yadori

struct PublishCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "publish", abstract: "Forwards ports of this host to a machine, which may be running.")

  @OptionGroup var machine: MachineName

  @Argument(help: "[ADDRESS:]PORT:GUESTPORT[/udp], as in 2222:22.")
  var forwards: [String]

  func run() throws {
    let (registry, record) = try machine.find()
    var before = try record.forwards()
    for forward in forwards {
      let wanted = try PortForward(parsing: forward)
      if let other = before.first(where: {
        $0 != forward && (try? PortForward(parsing: $0))?.sharesPort(with: wanted) == true
      }) {
        throw CommandFailure(
          .unavailable,
          "the machine '\(record.name)' publishes that port already, as '\(other)'; choose another one for '\(forward)'"
        )
      }
      before.append(forward)
    }
    for forward in forwards {
      if registry.folder(of: record).isInUse { try ControlClient(registry, record).publish(forward) }
      try registry.update(record.identifier) { record in
        guard case .user(let before)? = record.configuration.network?.attachment, !before.contains(forward) else {
          return
        }
        record.configuration.network?.attachment = .user(forwards: before + [forward])
      }
    }
  }
}

struct UnpublishCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unpublish", abstract: "Stops forwarding ports of this host to a machine, which may be running.",
    discussion: "Connections that stand go on.")

  @OptionGroup var machine: MachineName

  @Argument(help: "[ADDRESS:]PORT[/udp], as in 2222.")
  var ports: [String]

  func run() throws {
    let (registry, record) = try machine.find()
    let forwards = try record.forwards()
    let unwanted = try ports.map { port in
      // The guest's port is any.
      let slash = port.firstIndex(of: "/") ?? port.endIndex
      guard let wanted = try? PortForward(parsing: "\(port[..<slash]):1\(port[slash...])") else {
        throw CommandFailure(.usage, "'\(port)' is no port of this host; give for example 2222, or 53/udp")
      }
      guard let forward = forwards.first(where: { (try? PortForward(parsing: $0))?.sharesPort(with: wanted) == true })
      else {
        let known = forwards.isEmpty ? "none" : forwards.joined(separator: ", ")
        throw CommandFailure(.noInput, "the machine '\(record.name)' doesn't publish '\(port)'; it publishes: \(known)")
      }
      return forward
    }
    for forward in unwanted {
      if registry.folder(of: record).isInUse { try ControlClient(registry, record).unpublish(forward) }
      try registry.update(record.identifier) { record in
        guard case .user(let before)? = record.configuration.network?.attachment else { return }
        record.configuration.network?.attachment = .user(forwards: before.filter { $0 != forward })
      }
    }
  }
}

extension MachineRecord {
  /// What it publishes. Throws where it has no network for that.
  fileprivate func forwards() throws -> [String] {
    guard case .user(let forwards)? = configuration.network?.attachment else {
      throw CommandFailure(.unavailable, "the machine '\(name)' isn't on a user network, which has the forwards")
    }
    return forwards
  }
}

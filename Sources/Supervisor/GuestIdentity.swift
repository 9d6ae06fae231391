import Foundation
import HostSystem
import Images
import Yadori

/// What tells a clone from the machine that it was made of.
public enum GuestIdentity {
  /// Gives a running machine a host name (its own), machine id, entropy, SSH host keys and the address of its network
  /// card. Throws `MachineError` where its guest has no agent, or it fails there.
  public static func renew(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    func random(_ count: Int) -> String {
      (0..<count).map { _ in String(format: "%02x", UInt8.random(in: .min ... .max)) }.joined()
    }
    let hostName = record.name.replacing("_", with: "-").replacing(".", with: "-")
    var request = GuestCommand.Request([])
    request.identity = [
      "name": hostName, "entropy": random(64), "machine": random(16),
      "card": record.configuration.network?.address.description ?? "",
    ]
    if let key = SSHHostKey(comment: "root@\(hostName)") {
      request.identity?["key"] = key.privateFile
      request.identity?["public"] = key.publicFile
    }
    let failure = "the clone '\(record.name)' runs, but hasn't got an identity of its own"
    do {
      let command = try GuestCommand(registry, record, request)
      guard try command.wait({ _ in }) == .exit(code: 0) else { throw MachineError(.software, failure) }
    } catch let refusal as GuestCommand.Refusal {
      throw MachineError(.software, "\(failure): \(refusal.message)")
    }
  }
}

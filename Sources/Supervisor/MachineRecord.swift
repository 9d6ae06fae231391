import Foundation
import GRDB
import Yadori

/// A machine of this host, as the registry keeps it.
public struct MachineRecord: Codable, Sendable, FetchableRecord, PersistableRecord {
  public static let databaseTableName = "machine"

  /// Names the machine's folder, and never changes.
  public var identifier: String
  public var name: String
  /// The image that it was made of; nil: of none.
  public var image: String?
  public var configuration: VirtualMachineConfiguration
  public var created: Date
  /// It goes, with its folder, when it ends.
  public var isTemporary: Bool
  /// Whether it is started when the host is, see `HostStartUnit`.
  public var startsWithHost = false
  /// How its last run ended: the exit code that a command gets, and in words; nil while it runs, or when its process was
  /// killed. The machine's folder says so, see `MachineEnding`.
  public var exitCode: Int32?
  public var ending: String?

  public init(
    identifier: String, name: String, image: String?, configuration: VirtualMachineConfiguration,
    created: Date = Date(), isTemporary: Bool = false
  ) {
    self.identifier = identifier
    self.name = name
    self.image = image
    self.configuration = configuration
    self.created = created
    self.isTemporary = isTemporary
  }

  /// A new machine's identifier: 12 hexadecimal digits, that socket paths stay short.
  public static func newIdentifier() -> String {
    String(UInt64.random(in: 1 << 44..<1 << 48), radix: 16)
  }

  /// Whether a name has the form of an identifier.
  static func isIdentifier(_ name: String) -> Bool {
    name.utf8.count == 12 && name.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
  }
}

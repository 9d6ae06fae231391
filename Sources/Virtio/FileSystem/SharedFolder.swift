import CHost
import Glibc
import HostSystem

/// A folder of the host that a guest sees, under its name in the root of the machine's file system device.
public struct SharedFolder: Codable, Hashable, Sendable {
  /// At most 64 letters, digits, '.', '_' and '-', of which the first is a letter, a digit or '_'.
  public var name: String
  /// The folder on the host.
  public var path: String
  public var isReadOnly: Bool
  /// Where an agent in the guest mounts it, for whoever talks with that; nil: nowhere.
  public var target: String?

  public init(name: String, path: String, isReadOnly: Bool = false, target: String? = nil) {
    self.name = name
    self.path = path
    self.isReadOnly = isReadOnly
    self.target = target
  }

  /// Whether it can stand in the root of the device.
  public static func isValidName(_ name: String) -> Bool {
    guard let first = name.unicodeScalars.first, first != ".", first != "-", name.utf8.count <= 64 else { return false }
    return name.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
      default: false
      }
    }
  }
}

/// A shared folder that is being served.
final class ServedFolder {
  let folder: SharedFolder
  /// O_PATH; -1: it isn't served any more.
  private(set) var descriptor: Int32
  let device: UInt64
  let inode: UInt64

  /// Throws `HostError` where there is no such folder.
  init(_ folder: SharedFolder, at place: String? = nil) throws {
    self.folder = folder
    descriptor = open(place ?? folder.path, ConfinedFolder.pathOnly | O_DIRECTORY | O_CLOEXEC)
    var status = stat()
    guard descriptor >= 0, fstat(descriptor, &status) == 0 else {
      throw HostError.last("can't share the folder '\(folder.path)'")
    }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
  }

  func end() {
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
  }

  deinit { end() }
}

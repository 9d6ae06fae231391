import ArgumentParser
import Foundation
import HostSystem
import Network
import Supervisor
import Yadori

/// A folder of this host that a machine shares: FOLDER:TARGET[:ro].
struct ShareArgument: ExpressibleByArgument {
  let path: String
  let target: String
  let isReadOnly: Bool

  init?(argument: String) {
    var parts = argument.split(separator: ":", omittingEmptySubsequences: false)[...]
    isReadOnly = parts.count > 2 && parts.last == "ro"
    if parts.count > 2, ["ro", "rw"].contains(parts.last) { parts.removeLast() }
    // A name on the host may have colons in it.
    guard parts.count >= 2, let target = parts.last, target.hasPrefix("/"), target.count > 1 else { return nil }
    path = parts.dropLast().joined(separator: ":")
    self.target = Self.place(target)
    if path.isEmpty { return nil }
  }

  /// It is named after the place where the guest has it. Throws `CommandFailure` where there is no such folder.
  func folder() throws -> SharedFolder {
    let absolute = URL(fileURLWithPath: path).path
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: absolute, isDirectory: &isFolder), isFolder.boolValue else {
      throw CommandFailure(.noInput, "there is no folder '\(path)' to share; check the name")
    }
    return SharedFolder(name: try Self.name(of: target), path: absolute, isReadOnly: isReadOnly, target: target)
  }

  /// A path as the guest's kernel says it: "/src/" is "/src".
  static func place(_ target: some StringProtocol) -> String {
    "/" + target.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
  }

  /// "/home/me/src" is shared as "home-me-src".
  static func name(of target: String) throws -> String {
    let name = target.split(separator: "/").joined(separator: "-")
    guard SharedFolder.isValidName(name), !target.split(separator: "/").contains("..") else {
      throw CommandFailure(
        .usage, "'\(target)' can't be a shared folder's place in the guest; use letters, digits, '.', '_' and '-'")
    }
    return name
  }
}

struct ShareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "share", abstract: "Has a machine, which may be running, see folders of this host.",
    discussion: """
      The guest reads and writes there as this user would, and reaches nothing outside of the folder. What belongs to \
      this user is root's in the guest.
      """)

  @OptionGroup var machine: MachineName

  @Argument(help: ArgumentHelp("FOLDER:TARGET[:ro], as in ./src:/src. TARGET is in the guest.", valueName: "folder"))
  var shares: [ShareArgument]

  func run() throws {
    let folders = try shares.map { try $0.folder() }
    let (registry, record) = try machine.find()
    guard record.image != nil, record.configuration.sharedFolders != nil else {
      throw CommandFailure(
        .unavailable, "the machine '\(record.name)' has no device for shared folders; new machines of images have one")
    }
    for folder in folders {
      if let other = record.configuration.sharedFolders?.first(where: { $0.name == folder.name })?.target,
        other != folder.target
      {
        throw CommandFailure(
          .usage,
          "'\(folder.target ?? "")' and '\(other)', which is shared already, are too much alike; choose another place")
      }
      if registry.folder(of: record).isInUse {
        try ControlClient(registry, record).share(folder)
        try GuestShares.mount(registry, record, [folder])
      }
      try registry.update(record.identifier) { record in
        record.configuration.sharedFolders?.removeAll { $0.name == folder.name }
        record.configuration.sharedFolders?.append(folder)
      }
    }
  }
}

struct UnshareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unshare", abstract: "Takes shared folders from a machine, which may be running.")

  @OptionGroup var machine: MachineName

  @Argument(help: ArgumentHelp("Where the guest has it: /src.", valueName: "target"))
  var targets: [String]

  func run() throws {
    let (registry, record) = try machine.find()
    for target in targets.map(ShareArgument.place) {
      let name = try ShareArgument.name(of: target)
      guard (record.configuration.sharedFolders ?? []).contains(where: { $0.name == name }) else {
        throw CommandFailure(.noInput, "the machine '\(record.name)' has no shared folder at '\(target)'")
      }
      var unmounted: Result<Void, any Error> = .success(())
      if registry.folder(of: record).isInUse {
        // It is taken from the guest, whatever that thinks of it.
        unmounted = Result { try GuestShares.unmount(registry, record, [target]) }
        do {
          try ControlClient(registry, record).stopSharing(name)
        } catch let error as MachineError where error.code == .noInput {
          // It was taken already.
        }
      }
      try registry.update(record.identifier) { $0.configuration.sharedFolders?.removeAll { $0.name == name } }
      try unmounted.get()
    }
  }
}

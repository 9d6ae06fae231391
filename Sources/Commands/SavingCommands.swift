import ArgumentParser
import Foundation
import HostSystem
import Images
import Supervisor
import Yadori

struct SaveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "save", abstract: "Saves a running machine, with its disks, in a folder; the machine goes on.")

  @OptionGroup var machine: MachineName

  @Argument(help: "The folder to be made. A saved machine of this name is replaced.")
  var folder: String

  func run() throws {
    let (registry, record) = try machine.find()
    try ControlClient(registry, record).save(to: URL(fileURLWithPath: folder).path)
  }
}

struct RestoreCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", abstract: "Makes a machine of a saved one, and has it go on in the background.")

  @Argument(help: "The saved machine's folder.")
  var folder: String

  @Option(help: "The new machine's name (the folder's).")
  var name: String?

  @Flag(help: "Start without looking for damage first, which reads all of the saved machine.")
  var unchecked = false

  func run() throws {
    let saved = try SavedMachine(path: URL(fileURLWithPath: folder).path)
    if !unchecked { try saved.check() }
    let registry = try MachineStarting.registry()
    let wanted = name ?? URL(fileURLWithPath: folder).deletingPathExtension().lastPathComponent.lowercased()
    let image = try MachineStarting.image(of: saved)
    for record in try SavedMachines.prepare(registry, saved, named: [wanted], image: image) {
      try MachineStarting.startNew(registry, record)
    }
    print(wanted)
  }
}

struct CloneCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "clone",
    abstract: "Makes copies of a running machine, which run too and have identities of their own.",
    discussion: "web-1..50 stands for web-1, web-2 and so on to web-50.")

  @OptionGroup var machine: MachineName

  @Argument(help: "The copies' names.")
  var names: [String]

  @Flag(help: "Leave host name, machine id and keys as they are in the original.")
  var sameIdentity = false

  func run() throws {
    let (registry, record) = try machine.find()
    let wanted = try names.flatMap(Self.expand)
    for name in wanted {
      try MachineRegistry.checkName(name)
      if try registry.record(named: name) != nil { throw MachineRegistry.taken(name) }
    }
    let place = registry.folder.appendingPathComponent("machines/.clone-\(MachineRecord.newIdentifier())").path
    // It is gone before this command is.
    let client = ControlClient(registry, record)
    try client.save(to: place, isDurable: false)
    // They needn't translate what it has translated; without that they have more to do.
    try? client.keepCode(at: registry.folder(of: record).keptCode)
    defer { try? SavedMachines.discard(place) }
    let saved = try SavedMachine(path: place)
    let clones = try SavedMachines.prepare(registry, saved, named: wanted, image: record.image) { configuration in
      // Two can't listen on the same port of the host.
      if case .user? = configuration.network?.attachment {
        configuration.network = .init(.user(forwards: []))
      }
    }
    _ = try clones.mapConcurrently { clone in
      try SavedMachines.passKeptCode(from: registry.folder(of: record), to: registry.folder(of: clone).keptCode)
      try MachineStarting.startNew(registry, clone)
    }
    // Guests without an image have no agent that could change them.
    if !sameIdentity, record.image != nil {
      _ = try clones.mapConcurrently { try GuestIdentity.renew(registry, $0) }
    }
    for name in wanted { print(name) }
  }

  /// "web-1..50": a name that ends with a range of numbers.
  static func expand(_ text: String) throws -> [String] {
    guard let dots = text.range(of: ".."), let last = Int(text[dots.upperBound...]) else { return [text] }
    let digits = text[..<dots.lowerBound].reversed().prefix { $0.isASCII && $0.isNumber }.reversed()
    let stem = text[..<dots.lowerBound].dropLast(digits.count)
    guard let first = Int(String(digits)), first <= last, last - first < 1000 else {
      throw CommandFailure(.usage, "'\(text)' is no range of names; give for example web-1..50")
    }
    return (first...last).map { "\(stem)\($0)" }
  }
}

struct SnapshotCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot", abstract: "Keeps states of a machine, to go back to.",
    subcommands: [Create.self, List.self, Revert.self, Delete.self])

  /// Where a machine's snapshots are.
  private static func path(_ registry: MachineRegistry, _ record: MachineRecord, _ name: String) throws -> String {
    guard ImageStore.isValidName(name) else {
      throw CommandFailure(
        .usage, "'\(name)' can't name a snapshot; use lower-case letters, digits, '.', '_' and '-', at most 64")
    }
    return registry.folder(of: record).snapshots.appendingPathComponent(name).path
  }

  private static func names(_ registry: MachineRegistry, _ record: MachineRecord) -> [String] {
    let folder = registry.folder(of: record).snapshots.path
    return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter(ImageStore.isValidName)
      .sorted()
  }

  private static func find(
    _ registry: MachineRegistry, _ record: MachineRecord, _ name: String
  ) throws -> String {
    let path = try path(registry, record, name)
    guard FileManager.default.fileExists(atPath: path) else {
      let hint = nearestName(to: name, among: names(registry, record)).map { "; did you mean '\($0)'?" } ?? ""
      throw CommandFailure(.noInput, "the machine '\(record.name)' has no snapshot '\(name)'\(hint)")
    }
    return path
  }

  struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Keeps the present state of a running machine.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var name: String

    func run() throws {
      let (registry, record) = try machine.find()
      let path = try SnapshotCommand.path(registry, record, name)
      guard !FileManager.default.fileExists(atPath: path) else {
        throw CommandFailure(
          .cannotCreate,
          "the machine '\(record.name)' has a snapshot '\(name)' already; delete it, or choose another name")
      }
      try registry.prepareSnapshots(of: record)
      try ControlClient(registry, record).save(to: path)
    }
  }

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Lists a machine's snapshots.")
    @OptionGroup var machine: MachineName
    @Flag(help: "Write JSON.") var json = false

    private struct Row: Codable {
      var name: String
      var created: Date
      var bytes: UInt64
    }

    func run() throws {
      let (registry, record) = try machine.find()
      let rows = try SnapshotCommand.names(registry, record).map { name in
        let folder = registry.folder(of: record).snapshots.appendingPathComponent(name)
        var bytes: UInt64 = 0
        var status = stat()
        for file in try FileManager.default.contentsOfDirectory(atPath: folder.path)
        where stat(folder.appendingPathComponent(file).path, &status) == 0 {
          bytes += UInt64(status.st_blocks) * 512
        }
        stat(folder.appendingPathComponent("machine").path, &status)
        return Row(name: name, created: Date(timeIntervalSince1970: Double(status.st_mtim.tv_sec)), bytes: bytes)
      }
      if json { return try Output.writeJSON(rows) }
      if rows.isEmpty { return print("no snapshots of '\(record.name)'") }
      Output.writeTable(
        ["NAME", "CREATED", "SIZE"], rows.map { [$0.name, $0.created.formatted(.iso8601), "\($0.bytes >> 20)M"] })
    }
  }

  struct Revert: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Has a machine go on as it was, in the background. What it has become since is lost.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var name: String

    func run() throws {
      let (registry, record) = try machine.find()
      let saved = try SavedMachine(path: try SnapshotCommand.find(registry, record, name))
      try saved.check()
      if registry.folder(of: record).isInUse { try ControlClient(registry, record).kill() }
      try SavedMachines.revert(registry, record, to: saved)
      guard let reverted = try registry.record(identifier: record.identifier) else { return }
      try MachineStarting.start(registry, reverted)
    }
  }

  struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Deletes a snapshot of a machine.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var name: String

    func run() throws {
      let (registry, record) = try machine.find()
      try SavedMachines.discard(try SnapshotCommand.find(registry, record, name))
    }
  }
}

import ArgumentParser
import Foundation
import HostSystem
import Images
import Network
import Supervisor
import Synchronization
import Yadori

struct SaveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "save", abstract: "Saves a machine, with its disks, in a folder; one that runs goes on.")

  @OptionGroup var machine: MachineName

  @Argument(help: "The folder to be made. A saved machine of this name is replaced.")
  var folder: String

  func run() throws {
    let (registry, record) = try machine.find()
    try Self.save(registry, record, to: URL(fileURLWithPath: folder).path)
  }

  /// As it is: running, or off.
  /// - Parameter target: the folder of `path`, where it is open already.
  static func save(
    _ registry: MachineRegistry, _ record: MachineRecord, to path: String, in target: DistrustedFolder? = nil
  ) throws {
    let folder = registry.folder(of: record)
    if !FileManager.default.fileExists(atPath: folder.resumption), let lock = try folder.takeLock() {
      try withExtendedLifetime(lock) { try SavedMachines.saveStopped(registry, record, to: path) }
    } else {
      try ControlClient(registry, record).save(to: path, in: target)
    }
  }
}

struct RestoreCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Makes a machine of a saved one, and has it go on in the background.",
    discussion: "One that was off when it was saved stays off. Shared folders that are gone are left out.")

  @Argument(help: "The saved machine's folder.")
  var folder: String

  @Option(help: "The new machine's name (the folder's).")
  var name: String?

  @Flag(help: "Start without looking for damage first, which reads all of the saved machine.")
  var unchecked = false

  @Option(
    name: [.customShort("p"), .long], help: "Forward a port of the host, as in run; none of the saved ones then.")
  var publish: [String] = []

  @Flag(help: "Forward none of the ports that the saved machine had forwarded.")
  var noPublish = false

  @Flag(help: "Give it a host name, machine id, keys and network address of its own, as a clone has.")
  var newIdentity = false

  func run() throws {
    for forward in publish { _ = try PortForward(parsing: forward) }
    let saved = try MachineStarting.savedMachine(URL(fileURLWithPath: folder).path)
    if !unchecked { try saved.check() }
    let registry = try MachineStarting.registry()
    let wanted = name ?? URL(fileURLWithPath: folder).deletingPathExtension().lastPathComponent.lowercased()
    let image = try MachineStarting.image(of: saved)
    if newIdentity, saved.isOff || image == nil {
      throw CommandFailure(
        .unavailable,
        "--new-identity: only a system of an image that was saved while it ran can be given one; leave it out")
    }
    if !publish.isEmpty,
      saved.configuration.network.map({ if case .tap = $0.attachment { true } else { false } }) ?? true
    {
      throw CommandFailure(.unavailable, "-p: the saved machine isn't on a user network, which has ports to forward")
    }
    let records = try SavedMachines.prepare(registry, saved, named: [wanted], image: image, adjust: adjust)
    for record in records where !saved.isOff {
      try MachineStarting.startNew(registry, record)
      if newIdentity { try GuestIdentity.renew(registry, record) }
    }
    print(wanted)
  }

  private func adjust(_ configuration: inout VirtualMachineConfiguration) {
    if case .user(let forwards)? = configuration.network?.attachment {
      configuration.network?.attachment = .user(forwards: noPublish || !publish.isEmpty ? publish : forwards)
    }
    if newIdentity, let attachment = configuration.network?.attachment { configuration.network = .init(attachment) }
    configuration.sharedFolders?.removeAll { folder in
      var isFolder: ObjCBool = false
      if FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), isFolder.boolValue {
        return false
      }
      report("the shared folder '\(folder.path)' is gone; the machine goes on without it")
      return true
    }
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
    if case .tap(let interface)? = record.configuration.network?.attachment {
      throw CommandFailure(
        .unavailable,
        "the machine '\(record.name)' is on the interface '\(interface)', which serves one machine; clone one on the "
          + "user network")
    }
    let place = registry.folder.appendingPathComponent("machines/.clone-\(MachineRecord.newIdentifier())").path
    let client = ControlClient(registry, record)
    try client.save(to: place, isDurable: false)
    // They needn't translate what it has translated; without that they have more to do.
    try? client.keepCode(at: registry.folder(of: record).keptCode)
    // Where this is killed before, the next command that looks at the list deletes it after a while.
    defer { try? SavedMachines.discard(place) }
    let saved = try SavedMachine(path: place)
    @Sendable func adjust(_ configuration: inout VirtualMachineConfiguration) {
      // Two can't listen on the same port of the host.
      if case .user? = configuration.network?.attachment {
        configuration.network = .init(.user(forwards: []))
      }
    }
    @Sendable func passKeptCode(to path: String) throws {
      try SavedMachines.passKeptCode(from: registry.folder(of: record), to: path, isShared: true)
    }
    let mould = Mutex<MachineLauncher.Mould?>(nil)
    let making = HostThread(name: "mould") {
      try? passKeptCode(to: MachineFolder(URL(fileURLWithPath: place)).keptCode)
      var common = record
      common.configuration = saved.configuration
      SavedMachines.dropOwnCode(&common.configuration, of: registry)
      adjust(&common.configuration)
      mould.withLock { $0 = MachineLauncher.mould(registry, common, savedAt: place) }
    }
    let clones: [MachineRecord]
    do {
      defer { making.join() }
      clones = try SavedMachines.prepare(registry, saved, named: wanted, image: record.image, adjust: adjust)
    }
    let started = try clones.mapConcurrently { clone in
      Result {
        try passKeptCode(to: registry.folder(of: clone).keptCode)
        try MachineStarting.startNew(registry, clone, with: mould.withLock { $0 })
      }
    }
    mould.withLock { $0 = nil }
    // Those that run are whole, whatever becomes of the others.
    var failures = started.compactMap(\.failure)
    let running = zip(clones, started).filter { $0.1.failure == nil }.map(\.0)
    // Guests without an image have no agent that could change them.
    if !sameIdentity, record.image != nil {
      failures += try running.mapConcurrently { clone in Result { try GuestIdentity.renew(registry, clone) } }
        .compactMap(\.failure)
    }
    for clone in running { print(clone.name) }
    guard let first = failures.first else { return }
    if failures.count == 1 { throw first }
    let reason = CommandFailure(first) ?? CommandFailure(.software, "\(first)")
    throw reason.saying("\(failures.count) of \(clones.count) clones failed; the first: \(reason.message)")
  }

  /// "web-1..50": a name that ends with a range of numbers; "web-01..50" has numbers of two digits.
  static func expand(_ text: String) throws -> [String] {
    guard let dots = text.range(of: ".."), let last = Int(text[dots.upperBound...]) else { return [text] }
    let digits = text[..<dots.lowerBound].reversed().prefix { $0.isASCII && $0.isNumber }.reversed()
    let stem = text[..<dots.lowerBound].dropLast(digits.count)
    guard let first = Int(String(digits)), first <= last, last - first < 1000 else {
      throw CommandFailure(.usage, "'\(text)' is no range of names; give for example web-1..50")
    }
    let width = digits.first == "0" ? digits.count : 0
    return (first...last).map { number -> String in
      let text = String(number)
      return "\(stem)\(String(repeating: "0", count: max(0, width - text.count)))\(text)"
    }
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
    guard let folder = registry.snapshots(of: record) else { return [] }
    return folder.names().filter { ImageStore.isValidName($0) && folder.isFolder($0) }
  }

  /// The folder in which the snapshot of this name is.
  private static func find(
    _ registry: MachineRegistry, _ record: MachineRecord, _ name: String
  ) throws -> DistrustedFolder {
    _ = try path(registry, record, name)
    guard let folder = registry.snapshots(of: record), folder.isFolder(name) else {
      let hint = nearestName(to: name, among: names(registry, record)).map { "; did you mean '\($0)'?" } ?? ""
      throw CommandFailure(.noInput, "the machine '\(record.name)' has no snapshot '\(name)'\(hint)")
    }
    return folder
  }

  struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Keeps the present state of a machine.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name (date and time, which are printed).") var name: String?

    func run() throws {
      let (registry, record) = try machine.find()
      let name = self.name ?? Self.present(besides: SnapshotCommand.names(registry, record))
      let path = try SnapshotCommand.path(registry, record, name)
      let folder = try registry.prepareSnapshots(of: record)
      guard folder.status(name) == nil else {
        throw CommandFailure(
          .cannotCreate,
          "the machine '\(record.name)' has a snapshot '\(name)' already; delete it, or choose another name")
      }
      try SaveCommand.save(registry, record, to: path, in: folder)
      if self.name == nil { print(name) }
    }

    /// "2026-11-29-124053", in UTC, and what follows where there is that already.
    private static func present(besides names: [String]) -> String {
      let time: String = Date().formatted(.iso8601)
      let digits: String = time.filter { (character: Character) in character != ":" && character != "Z" }
      let stem = digits.replacingOccurrences(of: "T", with: "-")
      var (name, number) = (stem, 1)
      while names.contains(name) {
        number += 1
        name = "\(stem)-\(number)"
      }
      return name
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
      let snapshots = registry.snapshots(of: record)
      let rows = SnapshotCommand.names(registry, record).compactMap { name -> Row? in
        guard let folder = try? snapshots?.folder(name) else { return nil }
        let blocks = folder.names().compactMap { folder.status($0)?.st_blocks }.reduce(0, &+)
        let seconds = folder.status("machine")?.st_mtim.tv_sec ?? 0
        // The machine's process can set it to what no calendar has.
        let created = Date(timeIntervalSince1970: Double(min(max(seconds, 0), time(nil))))
        return Row(name: name, created: created, bytes: UInt64(max(0, blocks)) &* 512)
      }
      if json { return try Output.writeJSON(rows) }
      if rows.isEmpty { return print("no snapshots of '\(record.name)'") }
      Output.writeTable(
        ["NAME", "CREATED", "SIZE"], rows.map { [$0.name, $0.created.formatted(.iso8601), "\($0.bytes >> 20)M"] })
    }
  }

  struct Revert: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Has a machine go on as it was, in the background. What it has become since is lost.",
      discussion: "One that was off is off again.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var name: String

    func run() throws {
      let (registry, record) = try machine.find()
      // It was written by the machine's process, and has been where that can change it.
      let saved = try SavedMachines.adopt(
        try SavedMachine(try SnapshotCommand.find(registry, record, name).folder(name)), registry, record)
      try saved.check()
      if record.isTemporary, saved.isOff {
        throw CommandFailure(
          .unavailable, "the machine '\(record.name)' is temporary: off, as it was in the snapshot, it would be gone")
      }
      try registry.whileKept(record) {
        if registry.folder(of: record).isInUse { try ControlClient(registry, record).kill() }
        try SavedMachines.revert(registry, record, to: saved)
        guard !saved.isOff, var reverted = try registry.record(identifier: record.identifier) else { return }
        reverted.isTemporary = record.isTemporary
        try MachineStarting.start(registry, reverted)
      }
    }
  }

  struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Deletes a snapshot of a machine.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var name: String

    func run() throws {
      let (registry, record) = try machine.find()
      try SnapshotCommand.find(registry, record, name).discard(name)
    }
  }
}

extension Result {
  fileprivate var failure: Failure? {
    if case .failure(let error) = self { return error }
    return nil
  }
}

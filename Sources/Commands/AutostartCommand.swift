import ArgumentParser
import Foundation
import Supervisor
import Yadori

struct AutostartCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "autostart", abstract: "Marks machines that start with this host, or lists them.",
    discussion: """
      The host's systemd starts them, and switches them off in good order, once it has a unit for that: \
      'yadori autostart --write-unit' writes one for this user, and says how it is enabled.
      """)

  @Flag(help: "Take the mark away.")
  var off = false

  @Flag(help: "Write the systemd unit of this user.")
  var writeUnit = false

  @Flag(help: .hidden)
  var startAll = false

  @Flag(help: .hidden)
  var stopAll = false

  @Argument(help: ArgumentHelp("The machines' names.", valueName: "machine"))
  var names: [String] = []

  func validate() throws {
    if [writeUnit, startAll, stopAll, !names.isEmpty].filter({ $0 }).count > 1 {
      throw ValidationError("give either names or --write-unit")
    }
    if off, names.isEmpty { throw ValidationError("--off: say which machines") }
  }

  func run() throws {
    let registry = try MachineStarting.registry()
    let marked = { try registry.all().filter(\.startsWithHost) }
    if writeUnit { return try write() }
    if startAll { return try MachineNames.forEach(of: marked().map(\.name)) { try Self.startUnlessRunning($0, $1) } }
    if stopAll { return try stop(registry, try marked()) }
    if names.isEmpty {
      for record in try marked() { print(record.name) }
      return
    }
    try MachineNames.forEach(of: names) { registry, record in
      guard off || !record.isTemporary else {
        throw CommandFailure(.usage, "the machine '\(record.name)' is temporary: it is gone when the host ends")
      }
      try registry.update(record.identifier) { $0.startsWithHost = !off }
    }
  }

  private static func startUnlessRunning(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    if registry.folder(of: record).isInUse { return }
    try MachineStarting.start(registry, record)
  }

  /// All are asked before the first is waited for.
  private func stop(_ registry: MachineRegistry, _ marked: [MachineRecord]) throws {
    let running = marked.filter { registry.folder(of: $0).isInUse }
    for record in running { try? ControlClient(registry, record).pressPowerButton() }
    try MachineNames.forEach(of: running.map(\.name)) { registry, record in
      guard try ControlClient(registry, record).waitForEnd(seconds: 90) else {
        throw CommandFailure(.unavailable, "the machine '\(record.name)' hasn't switched itself off")
      }
    }
  }

  private func write() throws {
    let unit = HostStartUnit()
    try unit.write(
      program: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"),
      start: ["autostart", "--start-all"], stop: ["autostart", "--stop-all"],
      home: ProcessInfo.processInfo.environment["YADORI_HOME"])
    print(unit.path)
    report(
      "enable it with 'systemctl --user enable --now \(HostStartUnit.name)'; 'loginctl enable-linger' has it start")
    report("with the host, else it starts with your first login")
  }
}

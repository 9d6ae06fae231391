import ArgumentParser
import Foundation
import HostSystem
import Images
import Supervisor
import Synchronization
import Yadori

/// Where machines are kept, and how one is started in the background.
enum MachineStarting {
  static func registry() throws -> MachineRegistry {
    try MachineRegistry(folder: ImageStore.standardFolder().deletingLastPathComponent())
  }

  static func start(
    _ registry: MachineRegistry, _ record: MachineRecord, endsWithThis: Bool = false,
    with mould: MachineLauncher.Mould? = nil
  ) throws {
    var record = record
    record.configuration.adaptAndReport(record.name)
    try MachineLauncher.start(registry, record, endsWithThis: endsWithThis, with: mould)
  }
}

extension MachineStarting {
  /// Starts a machine that was just made; it goes where that fails.
  static func startNew(
    _ registry: MachineRegistry, _ record: MachineRecord, endsWithThis: Bool = false,
    with mould: MachineLauncher.Mould? = nil
  ) throws {
    do {
      try start(registry, record, endsWithThis: endsWithThis, with: mould)
    } catch {
      try? registry.remove(record)
      throw error
    }
  }

  /// What a user names as a saved machine. Where machines' processes can write, nothing is believed as it stands there.
  static func savedMachine(_ path: String) throws -> SavedMachine {
    // The registry isn't opened for that: it has threads made.
    let machines = ImageStore.standardFolder().deletingLastPathComponent().appendingPathComponent("machines").path
    func real(_ path: String) -> String? {
      guard let real = realpath(path, nil) else { return nil }
      defer { free(real) }
      return String(cString: real)
    }
    if let machines = real(machines), real(path)?.hasPrefix(machines + "/") == true {
      throw CommandFailure(
        .usage,
        "'\(path)' is in a machine's own folder; 'yadori snapshot revert' goes back to it, and what 'yadori save' makes can "
          + "be restored")
    }
    return try SavedMachine(path: path)
  }

  /// The image that a saved machine's kernel is of; nil: of none that is here.
  static func image(of saved: SavedMachine) throws -> String? {
    guard let kernel = saved.configuration.boot.kernel else { return nil }
    return ImageStore().list().first { $0.kernel.path == kernel }?.manifest.name
  }
}

extension VirtualMachineConfiguration {
  /// Has a machine of another host run on this one; what is different is said.
  mutating func adaptAndReport(_ name: String) {
    for words in adaptToHost() { report("warning: the machine '\(name)': \(words)") }
  }
}

/// The machines that a command is about.
struct MachineNames: ParsableArguments {
  @Argument(help: ArgumentHelp("The machines' names.", valueName: "machine"))
  var names: [String]

  /// Does something to each, whatever becomes of the others; the first error is thrown at the end, the others are said.
  func forEach(_ body: (MachineRegistry, MachineRecord) throws -> Void) throws {
    try Self.forEach(of: names, body)
  }

  static func forEach(of names: [String], _ body: (MachineRegistry, MachineRecord) throws -> Void) throws {
    let registry = try MachineStarting.registry()
    var first: (any Error)?
    for name in names {
      do {
        try body(registry, try registry.find(name))
      } catch {
        if first == nil { first = error } else if let failure = CommandFailure(error) { report(failure.message) }
      }
    }
    if let first { throw first }
  }
}

/// The machine that a command is about.
struct MachineName: ParsableArguments {
  @Argument(help: ArgumentHelp("The machine's name.", valueName: "machine"))
  var name: String

  func find() throws -> (registry: MachineRegistry, record: MachineRecord) {
    let registry = try MachineStarting.registry()
    return (registry, try registry.find(name))
  }
}

/// The process of a machine in the background, which `MachineLauncher` makes of this one.
public enum BackgroundMachine {
  /// Gets ready for that where the command line says that it will be done. Before there is a second thread. In the process
  /// of a machine it runs that, and ends the process with it.
  public static func prepare() {
    guard let isLikely = startsMachines(CommandLine.arguments.dropFirst()) else { return }
    if MachineLauncher.prepare(isLikely: isLikely) { run() }
  }

  /// Whether a command line starts machines in the background: for certain (true) or perhaps; nil: it doesn't.
  static func startsMachines(_ all: ArraySlice<String>) -> Bool? {
    let arguments = all.prefix { $0 != "--" }
    func has(_ flag: String) -> Bool { arguments.contains { $0 == flag || $0.hasPrefix(flag + "=") } }
    switch (arguments.first, arguments.dropFirst().first) {
    case ("start", _), ("restart", _), ("restore", _), ("clone", _), ("snapshot", "revert"): return true
    case ("image", "warm"): return has("--from") ? nil : true
    case ("autostart", _): return has("--start-all") ? true : nil
    case ("run", _):
      // Short flags may stand together.
      if has("--detach") || arguments.contains(where: { $0.hasPrefix("-") && !$0.hasPrefix("--") && $0.contains("d") })
      {
        return true
      }
      // A machine for a command.
      return arguments.count < all.count ? true : nil
    default: return nil
    }
  }

  private static func nextOrder() throws -> MachineLauncher.Started {
    guard let order = MachineLauncher.order() else {
      throw CommandFailure(.software, "the command that was to say which machine to run has ended")
    }
    return order
  }

  private static func run() -> Never {
    BrokenPipes.becomeErrors()
    do {
      var order = try nextOrder()
      var mould: MachineMould?
      if let saved = order.saved {
        mould = try MachineProcess.mould(order.record, savedAt: saved)
        try MachineLauncher.serveAsMould(keepingNetwork: order.record.configuration.network != nil)
        order = try nextOrder()
      }
      Confinement.isolate(keepingNetwork: order.record.configuration.network != nil)
      let process = try MachineProcess(
        order.registry, order.record, startTime: order.time, confinement: .isolated, mould: mould)
      let signals = CaughtSignals { _ in process.machine.stop() }
      if order.endsWithStarter { MachineLauncher.whenStarterIsGone { process.machine.stop() } }
      // On a thread of this process: the one there is is a copy's, of which locks know the original.
      let result = Mutex<Result<VirtualMachine.Outcome, any Error>?>(nil)
      HostThread(name: "machine") {
        let outcome = Result { try process.run { MachineLauncher.report(nil) } }
        result.withLock { $0 = outcome }
      }.join()
      let outcome = try result.withLock { try $0!.get() }
      signals.release()
      print("\(Date().formatted(.iso8601)) ended: \(outcome)")
      exit(0)
    } catch {
      let failure = CommandFailure(error) ?? CommandFailure(.software, "\(error)")
      MachineLauncher.report((failure.exitCode, failure.message))
      FileHandle.standardError.write(Data("yadori: \(failure.message)\n".utf8))
      exit(failure.exitCode)
    }
  }
}

struct StartCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "start", abstract: "Starts machines in the background, as they ran last.")

  @OptionGroup var machines: MachineNames

  func run() throws { try machines.forEach { try MachineStarting.start($0, $1) } }
}

/// How long to wait for a guest that is to switch itself off.
struct StopOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "Seconds to wait for each to switch itself off.")
  var timeout = 90

  func stop(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    guard (0...86_400).contains(timeout) else {
      throw CommandFailure(.usage, "--timeout: \(timeout) seconds; give 0 to 86400")
    }
    let client = ControlClient(registry, record)
    try client.pressPowerButton()
    var rest = timeout
    while true {
      let part = min(rest, 5)
      if try client.waitForEnd(seconds: part) { return }
      rest -= part
      if rest <= 0 { break }
      // A guest that was on its way up took no notice.
      try? client.pressPowerButton()
    }
    throw CommandFailure(
      .unavailable,
      "the machine '\(record.name)' hasn't switched itself off within \(timeout) s; 'yadori kill \(record.name)' "
        + "pulls the plug")
  }
}

struct StopCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Asks guests to switch themselves off, and waits for it.")

  @OptionGroup var machines: MachineNames
  @OptionGroup var options: StopOptions

  func run() throws { try machines.forEach { try options.stop($0, $1) } }
}

struct KillCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kill", abstract: "Ends machines at once, as pulling the plug would.")

  @OptionGroup var machines: MachineNames

  func run() throws { try machines.forEach { try ControlClient($0, $1).kill() } }
}

struct PauseCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Has machines stand still until 'yadori resume'.")

  @OptionGroup var machines: MachineNames

  func run() throws { try machines.forEach { try ControlClient($0, $1).pause() } }
}

struct ResumeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "resume", abstract: "Has paused machines go on.")

  @OptionGroup var machines: MachineNames

  func run() throws { try machines.forEach { try ControlClient($0, $1).resume() } }
}

struct RestartCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restart", abstract: "Stops machines that run, and starts them again in the background.")

  @OptionGroup var machines: MachineNames
  @OptionGroup var options: StopOptions

  func run() throws {
    try machines.forEach { registry, record in
      guard registry.folder(of: record).isInUse else { return try MachineStarting.start(registry, record) }
      try registry.whileKept(record) {
        try options.stop(registry, record)
        // As it is by then.
        guard var present = try registry.record(identifier: record.identifier) else { return }
        present.isTemporary = record.isTemporary
        try MachineStarting.start(registry, present)
      }
    }
  }
}

struct WaitCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait", abstract: "Waits for a machine's end, and exits with its exit code.")

  @OptionGroup var machine: MachineName

  func run() throws {
    let (registry, record) = try machine.find()
    // It may have ended between two looks: then the registry knows.
    let code = try ControlClient(registry, record).wait() ?? registry.record(identifier: record.identifier)?.exitCode
    guard let code else {
      throw CommandFailure(.unavailable, "nobody knows how the machine '\(record.name)' ended; its process was killed")
    }
    if code != 0 { throw ExitCode(code) }
  }
}

struct RenameCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "rename", abstract: "Gives a machine another name.")

  @Argument(help: "The machine's name.")
  var machine: String

  @Argument(help: "Its new name.")
  var newName: String

  func run() throws { try MachineStarting.registry().rename(machine, to: newName) }
}

struct RemoveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove", abstract: "Removes machines, with what they changed on their disks.")

  @OptionGroup var machines: MachineNames

  @Flag(name: [.short, .long], help: "Kill those that run.")
  var force = false

  func run() throws {
    try machines.forEach { registry, record in
      if force, registry.folder(of: record).isInUse {
        try ControlClient(registry, record).kill()
        // Another command may have removed a temporary one by now.
        if try registry.record(identifier: record.identifier) == nil { return }
      }
      try registry.remove(record)
    }
  }
}

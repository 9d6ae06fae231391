import ArgumentParser
import Foundation
import HostSystem
import Network
import Supervisor
import Yadori

/// A number of processors, or "max" for no limit (0).
struct ProcessorCount: ExpressibleByArgument {
  let processors: Double

  init?(argument: String) {
    if argument == "max" {
      processors = 0
    } else {
      guard let number = Double(argument), (0.01...1024).contains(number) else { return nil }
      processors = number
    }
  }

  /// As configurations have it.
  var limit: Double? { processors == 0 ? nil : processors }
}

/// The host's processors that a machine may run on, or "all".
struct ProcessorList: ExpressibleByArgument {
  /// Empty: all.
  let numbers: [Int]

  init?(argument: String) {
    guard let numbers = argument == "all" ? [] : HostResources.processors(in: argument) else { return nil }
    self.numbers = numbers
  }
}

/// What a machine gets of the host's processors.
struct ShareOptions: ParsableArguments {
  @Option(help: "How many of the host's processors it may use: 0.25, 2, or max for all that others leave.")
  var cpus: ProcessorCount?

  @Option(help: "Its weight against other machines where processors are scarce, 1 to 10000 (100).")
  var weight: Int?

  @Option(help: "The host's processors that it may run on: 0,2-3, or all.")
  var pin: ProcessorList?

  var isUsed: Bool { cpus != nil || weight != nil || pin != nil }

  func apply(to configuration: inout VirtualMachineConfiguration) {
    if let cpus { configuration.processorLimit = cpus.limit }
    if let weight { configuration.processorWeight = weight }
    if let pin { configuration.pinnedProcessors = pin.numbers.isEmpty ? nil : pin.numbers }
  }
}

struct SetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Changes a machine, which may be running.",
    discussion: """
      Its share of the processors changes at once. A running machine can do with less RAM and fewer harts than it was \
      started with, and get them back, and more up to what run's --max-memory and --max-harts said; more than that it \
      gets when it is started again.
      """)

  @OptionGroup var machine: MachineName
  @OptionGroup var share: ShareOptions

  @Option(name: [.customShort("c"), .customLong("harts")], help: "Number of harts.")
  var harts: Int?

  @Option(name: [.short, .long], help: "RAM: 512M, 2G ...")
  var memory: ByteCount?

  func run() throws {
    guard share.isUsed || harts != nil || memory != nil else {
      throw CommandFailure(.usage, "say what to change: --cpus, --weight, --pin, --harts or --memory")
    }
    let (registry, record) = try machine.find()
    func change(_ configuration: inout VirtualMachineConfiguration) {
      share.apply(to: &configuration)
      if let harts { configuration.hartCount = harts }
      if let memory { configuration.memorySize = memory.bytes }
      configuration.dropOutgrownMaximums()
    }
    var wanted = record.configuration
    // What another host gave it isn't what is asked for.
    _ = wanted.adaptToHost()
    change(&wanted)
    try wanted.check()
    let folder = registry.folder(of: record)
    let runs = folder.isInUse
    if !runs { try folder.checkResumption(wanted, as: record) }
    if share.isUsed {
      if runs {
        try ControlClient(registry, record).set(
          processors: share.cpus?.processors, weight: share.weight, pin: share.pin?.numbers)
      }
      // What is done is kept, whatever becomes of the rest.
      try registry.update(record.identifier) { share.apply(to: &$0.configuration) }
    }
    if runs { try changeRunning(registry, record) }
    try registry.update(record.identifier) { change(&$0.configuration) }
  }

  /// A running machine has no more harts and RAM than its board was made with, but may do with less.
  private func changeRunning(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    let client = ControlClient(registry, record)
    if harts == nil, memory == nil { return }
    let status = try client.status()
    var later: [String] = []
    if let memory, let most = status.mostMemory {
      if memory.bytes > most { later.append("RAM beyond \(most >> 20)M") }
      if status.hasBalloon == true {
        try client.set(memory: min(memory.bytes, most))
        // What is done is kept, here, too.
        try registry.update(record.identifier) { record in
          record.configuration.memorySize = memory.bytes
          record.configuration.dropOutgrownMaximums()
        }
      } else if memory.bytes < most {
        later.append("RAM")
      }
    }
    if let harts, let most = status.mostHarts {
      if harts > most { later.append("harts beyond \(most)") }
      if record.image == nil {
        if harts <= most, harts != record.configuration.hartCount { later.append("harts") }
      } else {
        try GuestHarts.use(min(harts, most), registry, record)
        try client.set(harts: min(harts, most))
      }
    }
    if !later.isEmpty {
      report("the machine '\(record.name)' gets its new \(later.joined(separator: " and ")) when it is started again")
    }
  }
}

struct StatsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Shows what running machines use of this host.")

  @Argument(help: ArgumentHelp("The machines (all that run).", valueName: "machine"))
  var names: [String] = []

  @Flag(name: [.customShort("w"), .customLong("watch")], help: "Go on showing it, until Ctrl-C.")
  var watch = false

  @Flag(help: "Write JSON: a list for each look.")
  var json = false

  @Option(help: "Seconds that processors are watched for.")
  var interval = 1.0

  /// What one machine uses.
  private struct Usage: Codable {
    var name: String
    var state: MachineStatus.State
    /// Of the host's processors, as many as were used on average; and the most that it may.
    var processors: Double
    var processorLimit: Double?
    var instructionsPerSecond: Double
    var residentBytes: UInt64
    var privateBytes: UInt64?
    var sharedBytes: UInt64?
    var seconds: Double
  }

  func run() throws {
    BrokenPipes.becomeErrors()
    guard (0.05...3600).contains(interval) else {
      throw CommandFailure(.usage, "--interval: \(interval) seconds; give 0.05 to 3600")
    }
    let registry = try MachineStarting.registry()
    for name in names {
      guard registry.folder(of: try registry.find(name)).isInUse else {
        throw CommandFailure(.unavailable, "the machine '\(name)' doesn't run; 'yadori start \(name)' starts it")
      }
    }
    var before = try look(registry)
    repeat {
      let time = MonotonicClock.nanoseconds()
      usleep(UInt32(interval * 1e6))
      let now = try look(registry)
      let seconds = Double(MonotonicClock.nanoseconds() - time) / 1e9
      try show(
        now.compactMap { record, status in
          guard let earlier = before.first(where: { $0.0.identifier == record.identifier })?.1 else { return nil }
          return Usage(
            name: record.name, state: status.state,
            processors: (status.processorSeconds - earlier.processorSeconds) / seconds,
            processorLimit: record.configuration.processorLimit,
            instructionsPerSecond: Double(status.instructions &- earlier.instructions) / seconds,
            residentBytes: status.residentBytes, privateBytes: status.privateBytes,
            sharedBytes: status.sharedBytes,
            seconds: Date().timeIntervalSince(status.started))
        })
      before = now
    } while watch
  }

  private func look(_ registry: MachineRegistry) throws -> [(MachineRecord, MachineStatus)] {
    try registry.all().compactMap { record in
      guard names.isEmpty || names.contains(record.name), registry.folder(of: record).isInUse,
        let status = try? ControlClient(registry, record).status()
      else { return nil }
      return (record, status)
    }
  }

  private func show(_ usages: [Usage]) throws {
    if json { return try Output.writeJSON(usages) }
    if usages.isEmpty, !watch { return print("no machine runs") }
    // Over what was shown before.
    if watch, isatty(STDOUT_FILENO) == 1 { print("\u{1B}[H\u{1B}[J", terminator: "") }
    Output.writeTable(
      ["NAME", "STATE", "CPUS", "LIMIT", "MIPS", "MEMORY", "PRIVATE", "SHARED", "UP"],
      usages.map { usage in
        [
          usage.name, usage.state.rawValue, usage.processors.formatted(2), usage.processorLimit?.formatted(2) ?? "-",
          (usage.instructionsPerSecond / 1e6).formatted(0), "\(usage.residentBytes >> 20)M",
          usage.privateBytes.map { "\($0 >> 20)M" } ?? "-", usage.sharedBytes.map { "\($0 >> 20)M" } ?? "-",
          "\(usage.seconds.formatted(0))s",
        ]
      })
    fflush(nil)
  }
}

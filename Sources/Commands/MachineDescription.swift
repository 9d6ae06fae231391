import Foundation
import HostSystem
import Supervisor
import Translation
import Yadori

/// What is said of a machine, for people and for programs.
struct MachineDescription: Codable {
  var name: String
  /// "running", "paused" or "stopped".
  var state: String
  var identifier: String
  var image: String?
  var created: Date
  var isTemporary: Bool
  var startsWithHost: Bool
  var folder: String
  var configuration: VirtualMachineConfiguration
  /// While it runs.
  var status: MachineStatus?
  /// Of its last run.
  var exitCode: Int32?
  var ending: String?

  init(_ registry: MachineRegistry, _ record: MachineRecord) {
    name = record.name
    identifier = record.identifier
    image = record.image
    created = record.created
    isTemporary = record.isTemporary
    startsWithHost = record.startsWithHost
    folder = registry.folder(of: record).url.path
    configuration = record.configuration
    exitCode = record.exitCode
    ending = record.ending
    let isInUse = registry.folder(of: record).isInUse
    status = isInUse ? try? ControlClient(registry, record).status() : nil
    state = status?.state.rawValue ?? (isInUse ? "running" : "stopped")
  }
}

extension MachineDescription {
  /// For people: what is said, and what of it. What is as with most machines isn't said.
  var fields: [(String, String)] {
    var fields: [(String, String)] = []
    func add(_ key: String, _ value: String?) { if let value { fields.append((key, value)) } }
    add("Name", name)
    add("State", stateInWords)
    add("Ended", ending.map { "\($0), exit code \(exitCode ?? 0)" })
    add("Image", image)
    add("Created", created.formatted(.iso8601))
    add("Identifier", identifier)
    add("Folder", folder)
    add("Temporary", isTemporary ? "yes: it goes when it ends" : nil)
    add("Autostart", startsWithHost ? "yes: it starts with the host" : nil)
    let configuration = configuration
    add(
      "Harts",
      "\(configuration.hartCount)"
        + most(status?.mostHarts ?? configuration.maximumHartCount, configuration.hartCount) { "\($0)" })
    add("Memory", memoryInWords)
    add("Processors", processorsInWords)
    add("Engine", configuration.engine?.inWords)
    addBoot(configuration.boot, add)
    for disk in configuration.disks {
      add("Disk", disk.path + (disk.format.map { ", \($0)" } ?? "") + (disk.isReadOnly ? ", read-only" : ""))
    }
    switch configuration.network?.attachment {
    case nil: add("Network", "none")
    case .user(let forwards)?:
      add("Network", "user, \(configuration.network?.address.description ?? "")")
      for forward in forwards { add("Publishes", forward) }
    case .tap(let tap)?: add("Network", "TAP \(tap), \(configuration.network?.address.description ?? "")")
    }
    for shared in configuration.sharedFolders ?? [] {
      add("Shares", "\(shared.path) at \(shared.target ?? "-")\(shared.isReadOnly ? ", read-only" : "")")
    }
    addUse(add)
    return fields
  }

  private var stateInWords: String {
    guard let status else { return state }
    return "\(state) since \(status.started.formatted(.iso8601)), process \(status.process)"
  }

  /// What it has is in part there from its next start on, where it was started with less.
  private func most<Value: Comparable>(_ most: Value?, _ now: Value, _ words: (Value) -> String) -> String {
    guard let most, most != now else { return "" }
    return most < now ? " (started with \(words(most)))" : " (up to \(words(most)) while it runs)"
  }

  private var memoryInWords: String {
    let megabytes = { (bytes: UInt64) in "\(bytes >> 20)M" }
    var words = megabytes(configuration.memorySize)
    words += most(status?.mostMemory ?? configuration.maximumMemorySize, configuration.memorySize, megabytes)
    if let used = status?.memoryBytes, used != configuration.memorySize {
      words += ", the guest has \(megabytes(used))"
    }
    return words
  }

  private var processorsInWords: String? {
    let parts = [
      configuration.processorLimit.map { "at most \($0.formatted(2))" },
      configuration.processorWeight.map { "weight \($0)" },
      configuration.pinnedProcessors.map { "only " + $0.map(String.init).joined(separator: ",") },
    ]
    let words = parts.compactMap { $0 }.joined(separator: ", ")
    return words.isEmpty ? nil : words
  }

  private func addBoot(_ boot: VirtualMachineConfiguration.Boot, _ add: (String, String?) -> Void) {
    switch boot.firmware {
    case .builtIn: break
    case .none: add("Firmware", "none")
    case .file(let path): add("Firmware", path)
    }
    add("Kernel", boot.kernel)
    add("Initrd", boot.initialRAMDisk)
    add("Parameters", boot.commandLine)
    add("Device tree", boot.deviceTree)
  }

  private func addUse(_ add: (String, String?) -> Void) {
    guard let status else { return }
    let memory = [
      ("in use", status.residentBytes as UInt64?), ("its own", status.privateBytes),
      ("others have, too", status.sharedBytes),
    ]
    add("Used", "\(status.processorSeconds.formatted(1)) s of processors, \(status.instructions) instructions")
    add(
      "On the host", memory.compactMap { name, bytes in bytes.map { "\($0 >> 20)M \(name)" } }.joined(separator: ", "))
    add("Started in", status.startDuration.map { "\(($0 * 1000).formatted(1)) ms" })
    add("Gave up", status.confinement.map { $0.isEmpty ? "nothing" : $0.map(\.rawValue).joined(separator: ", ") })
    if let missing = status.missingConfinement, !missing.isEmpty {
      add("Couldn't give up", missing.map(\.rawValue).joined(separator: ", "))
    }
  }
}

extension EngineChoice {
  fileprivate var inWords: String {
    switch self {
    case .interpreter: "interpreter"
    case .translator(let threshold): "translator, threshold \(threshold)"
    case .audit(let threshold): "audit, threshold \(threshold)"
    }
  }
}

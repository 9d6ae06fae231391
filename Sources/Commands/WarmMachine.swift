import Foundation
import HostSystem
import Images
import Supervisor
import Yadori

/// An image's system that is up, kept as a saved machine: machines for single commands go on from there.
struct WarmMachine {
  private let registry: MachineRegistry
  private let image: ImageStore.Image
  private let configuration: VirtualMachineConfiguration
  private let path: String

  /// The shared folder that such a machine has mounted already; what it is, is said when one is made.
  static let shareName = "src"
  static let shareTarget = "/src"

  /// - Parameter configuration: what such machines are made of, without a disk.
  init(_ registry: MachineRegistry, image: ImageStore.Image, _ configuration: VirtualMachineConfiguration) {
    self.registry = registry
    self.image = image
    self.configuration = configuration
    // Its name says what it depends on: another image of the same name, or other options, have another one.
    let parts: [String] = [
      image.manifest.created, image.manifest.disk?.file.sha256 ?? "", "\(configuration.hartCount)",
      "\(configuration.boardHartCount)", "\(configuration.memorySize)", "\(configuration.boardMemorySize)",
      "\(configuration.transport)", "\(configuration.virtualAddressBits)",
      configuration.boot.commandLine ?? "", configuration.network == nil ? "" : "network", "shared folder",
    ]
    var checksum = Checksum(.sha256)
    Array(parts.joined(separator: "\n").utf8).withUnsafeBytes { checksum.update($0) }
    path = image.folder.appendingPathComponent("warm-\(checksum.finish().prefix(16))").path
  }

  /// The one that is kept; nil: there is none, or it is in another version's format, or its code is another version's or
  /// gone.
  func find() -> SavedMachine? {
    hasCode || isWithoutCode ? try? SavedMachine(path: path) : nil
  }

  private var hasCode: Bool { VirtualMachine.canBegin(withCode: image.keptCode.path) }

  /// An empty file says that code couldn't be kept: that isn't tried each time.
  private var isWithoutCode: Bool {
    (try? FileManager.default.attributesOfItem(atPath: image.keptCode.path))?[.size] as? Int == 0
  }

  /// Uses the one that is kept, or makes one first: of commands that have none at the same time, one makes it for all.
  func use<Result>(_ body: (SavedMachine) throws -> Result) throws -> Result {
    if let result = try useKept(body) { return result }
    return try whileNobodyElseMakesIt {
      if let result = try useKept(body) { return result }
      return try body(try bringUp(training: []))
    }
  }

  /// Nil: there is none that can be used. What else is wrong (a port that is taken) another one wouldn't mend.
  private func useKept<Result>(_ body: (SavedMachine) throws -> Result) throws -> Result? {
    guard let kept = find() else { return nil }
    do {
      return try body(kept)
    } catch let error as MachineError where error.code == .data {
      return nil
    }
  }

  /// Brings the system up, and keeps it, and the code that was made of its programs, in place of what is kept.
  /// - Parameter command: what it does besides, for the code's sake.
  func renew(training command: [String]) throws {
    try whileNobodyElseMakesIt { _ = try bringUp(training: command) }
  }

  private func whileNobodyElseMakesIt<Result>(_ body: () throws -> Result) throws -> Result {
    let lock = path + ".lock"
    let descriptor = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw HostError.last("can't write '\(lock)'") }
    // It goes with this process, however that ends.
    defer { close(descriptor) }
    guard HostFileLock.waitAndLock(descriptor) else { throw HostError.last("can't lock '\(lock)'") }
    return try body()
  }

  private func bringUp(training command: [String]) throws -> SavedMachine {
    report("bringing the image '\(image.manifest.name)' up for the first command; later ones start from there")
    var record = MachineRecord(
      identifier: MachineRecord.newIdentifier(), name: "warm-\(MachineRecord.newIdentifier())",
      image: image.manifest.name, configuration: configuration, isTemporary: true)
    let folder = registry.folder(of: record)
    // Nothing is in it.
    let empty = folder.url.appendingPathComponent("empty")
    do {
      record.configuration.network = configuration.network.map { .init(.user(forwards: []), address: $0.address) }
      try record.configuration.use(
        image: image.manifest.name, in: folder, diskSize: nil, append: nil, mirror: nil)
      record.configuration.boot.commandLine = configuration.boot.commandLine
      record.configuration.transport = configuration.transport
      try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
      record.configuration.sharedFolders = [.init(name: Self.shareName, path: empty.path)]
      try registry.add(record)
    } catch {
      try? FileManager.default.removeItem(at: folder.url)
      throw error
    }
    // Nobody would want it without this process.
    try MachineStarting.startNew(registry, record, endsWithThis: true)
    let client = ControlClient(registry, record)
    defer { try? client.kill() }
    let shown = SharedFolder(name: Self.shareName, path: empty.path, target: Self.shareTarget)
    try GuestShares.mount(registry, record, [shown], patience: 300)
    // "degraded" is an answer, too: the system is up. What the guest knows of the folder's attributes is to be old by then.
    let up = try GuestCommand(registry, record, .init(["sh", "-c", "systemctl is-system-running --wait; sleep 1.2"]))
    up.endInput()
    _ = try up.wait { _ in }
    try waitUntilIdle(client)
    if FileManager.default.fileExists(atPath: path) { try SavedMachines.discard(path) }
    try client.save(to: path)
    if !command.isEmpty {
      let training = try GuestCommand(registry, record, .init(command))
      training.endInput()
      let ending = try training.wait { _ in }
      if ending != .exit(code: 0) { report("the command '\(command.joined(separator: " "))' failed: \(ending)") }
    }
    // What clones do first.
    try? GuestIdentity.renew(registry, record)
    // A cache: without it, machines have more to do.
    try? client.keepCode(at: image.keptCode.path)
    if !hasCode { try? AtomicFileWriter.write([], to: image.keptCode.path, permissions: 0o600) }
    return try SavedMachine(path: path)
  }

  /// A system that is up has things to do still (caches, timers of its start), which each machine that goes on from there
  /// would do anew. Not for ever: some never rest.
  private func waitUntilIdle(_ client: ControlClient) throws {
    let end = MonotonicClock.nanoseconds() &+ 20_000_000_000
    var before = try client.status().processorSeconds
    while MonotonicClock.nanoseconds() < end {
      usleep(1_000_000)
      let now = try client.status().processorSeconds
      if now - before < 0.05 { return }
      before = now
    }
  }
}

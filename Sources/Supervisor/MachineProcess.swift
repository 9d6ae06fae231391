import CHost
import Console
import Foundation
import HostSystem
import Images
import Synchronization
import Yadori

/// A machine of the registry that runs in this process: it holds the machine's lock, answers on its control socket, and
/// leaves in its folder how it ended. It changes nothing outside of that.
public final class MachineProcess: @unchecked Sendable {
  private let registry: MachineRegistry
  private let record: MachineRecord
  private let lock: MachineFolder.Lock
  private let recorder: RecordedConsole?
  private let started = Date()
  private let startTime: UInt64?
  /// Seconds from its process's start to its first instruction.
  private let startDuration = Mutex<Double?>(nil)
  private let confinement = Mutex<[Confinement]>([])
  private let awaitsSharedFolders = Mutex(false)
  /// How many requests are saving it.
  private let saves = Mutex(0)
  public let machine: VirtualMachine
  private var hasRun = false

  /// Takes the machine, and makes it from its configuration. Throws `MachineError` where it runs already, and what
  /// making it throws.
  ///
  /// - Parameters:
  ///   - console: the terminal it runs on; nil: none, what it prints goes to the folder's `consoleLog`.
  ///   - startTime: when the process was started that runs it, see `MachineLauncher.order`.
  ///   - confinement: what the process leaves before it opens the machine's files.
  ///   - mould: what the machine is made with; nil: of its configuration alone.
  public init(
    _ registry: MachineRegistry, _ record: MachineRecord, console: TerminalConsole? = nil, startTime: UInt64? = nil,
    confinement: FilesLeft = .later, mould: MachineMould? = nil
  ) throws {
    self.startTime = startTime
    self.registry = registry
    self.record = record
    let folder = registry.folder(of: record)
    try folder.create()
    guard let lock = try folder.takeLock() else {
      throw MachineError(
        .unavailable, "the machine '\(record.name)' runs already; 'yadori console \(record.name)' shows it")
    }
    self.lock = lock
    Self.removeLeftovers(folder)
    let configuration = Self.configuration(of: record, in: folder)
    // It is all machines'.
    let weights = chost_open(registry.folder.appendingPathComponent("weights").path, O_RDWR | O_CREAT, 0o600)
    var places: [String: String] = [:]
    // What the machine's own files say (a disk's backing file, a link) was written by a process that a guest may have
    // owned: they are opened where there is nothing else.
    switch confinement {
    case .isolated:
      // What it asks the host.
      try configuration.check()
      _ = HostResources.hasLargePages
      places = ConfinedMachine(configuration, folder).enter(keepingNetwork: configuration.network != nil)
    case .restricted(let files):
      Self.restrict(configuration, folder, keeping: files)
      // Not before: that has threads made.
      registry.close()
    case .later: break
    }
    if let mould {
      let (machine, console) = try mould.become(configuration, consoleLog: folder.consoleLog)
      self.machine = machine
      recorder = console
    } else {
      recorder = console == nil ? RecordedConsole(path: folder.consoleLog) : nil
      machine = try Self.make(configuration, folder, console: console ?? recorder!, places)
    }
    machine.weightsFile = weights >= 0 ? weights : nil
    if !record.isTemporary { machine.codeFile = folder.keptCode }
  }

  /// What a machine of the registry is made of in its process.
  private static func configuration(of record: MachineRecord, in folder: MachineFolder) -> VirtualMachineConfiguration {
    var configuration = record.configuration
    // Where somebody in the guest may listen.
    if record.image != nil { configuration.guestSocket = folder.guestSocket }
    configuration.keptCode = [folder.keptCode] + (configuration.keptCode ?? [])
    return configuration
  }

  /// What machines are made with that go on from one saved one. Throws `MachineError`.
  /// - Parameters:
  ///   - record: what they have in common, in the place of theirs.
  ///   - path: the saved machine's folder, in which there may be kept code, too.
  public static func mould(_ record: MachineRecord, savedAt path: String) throws -> MachineMould {
    var configuration = record.configuration
    // Each has another one.
    if record.image != nil { configuration.guestSocket = "" }
    return try MachineMould(try SavedMachine(path: path), configuration)
  }

  /// A temporary machine on a terminal goes, too, where something came between this and its run.
  deinit {
    if !hasRun, record.isTemporary, recorder == nil { try? registry.forget(record) }
  }

  /// What a process that runs a machine leaves of the host's files.
  public enum FilesLeft {
    /// It is the machine's alone, see `Confinement.isolate`.
    case isolated
    /// It has more to do: it keeps what says what the host is, and these.
    case restricted([Confinement.Kept])
    /// What the caller says, by `restrict`.
    case later
  }

  /// Leaves this process the machine's own files, those that say what the host is, and `files`. Before it has threads.
  public func restrict(keeping files: [Confinement.Kept]) {
    Self.restrict(machine.configuration, registry.folder(of: record), keeping: files)
    registry.close()
  }

  /// The same for a machine that isn't of the registry.
  public static func restrict(
    _ configuration: VirtualMachineConfiguration, _ folder: MachineFolder? = nil, keeping files: [Confinement.Kept]
  ) {
    let confined = ConfinedMachine(configuration, folder)
    Confinement.restrict(to: confined.withHost + files, keepingNetwork: configuration.network != nil)
  }

  /// What a run that was killed has left: how the one before it ended, and what it was to save.
  private static func removeLeftovers(_ folder: MachineFolder) {
    folder.forgetEnding()
    if !FileManager.default.fileExists(atPath: folder.resumption) { folder.removeMemory() }
    guard let place = try? DistrustedFolder(path: folder.url.path) else { return }
    for name in place.names() where name.hasPrefix(MachineFolder.savingPrefix) { try? place.remove(name) }
  }

  private static func make(
    _ configuration: VirtualMachineConfiguration, _ folder: MachineFolder, console: any ConsoleBackend,
    _ places: [String: String]
  ) throws -> VirtualMachine {
    guard FileManager.default.fileExists(atPath: folder.resumption) else {
      return try VirtualMachine(configuration, console: console, folderPlaces: places)
    }
    let saved = try SavedMachine(path: folder.resumption)
    return try VirtualMachine(restoring: saved, console: console, folderPlaces: places) { $0 = configuration }
  }

  /// Runs the machine to its end. Throws what `VirtualMachine.run` throws.
  ///
  /// - Parameter isReady: called when it can be talked to, before the first instruction.
  public func run(
    until savePoint: VirtualMachine.SavePoint? = nil, isReady: () -> Void = {}
  ) throws -> VirtualMachine.Outcome {
    hasRun = true
    let server = try ControlServer(registry.folder(of: record), handlers)
    do {
      let outcome = try machine.run(until: savePoint) {
        // Once: from the next instruction on its disks are others.
        let resumption = registry.folder(of: record).resumption
        if FileManager.default.fileExists(atPath: resumption), (try? SavedMachines.discard(resumption)) == nil {
          machine.stop()
        }
        let isOnNetwork = machine.configuration.network != nil
        confinement.withLock { $0 = Confinement.apply(keepingNetwork: isOnNetwork, holding: lock.descriptor) }
        showSharedFolders()
        isReady()
        if let startTime {
          startDuration.withLock { $0 = Double(MonotonicClock.nanoseconds() &- startTime) / 1e9 }
        }
      }
      finish(server, Self.exitCode(of: outcome), Self.words(for: outcome))
      return outcome
    } catch {
      finish(server, MachineError.Code.host.rawValue, "\(error)")
      throw error
    }
  }

  /// Has the guest mount what it is to see, as soon as its agent is up.
  private func showSharedFolders() {
    guard record.image != nil, let folders = record.configuration.sharedFolders,
      folders.contains(where: { $0.target != nil })
    else { return }
    awaitsSharedFolders.withLock { $0 = true }
    Thread.detachNewThread { [registry, record] in
      defer { self.awaitsSharedFolders.withLock { $0 = false } }
      do {
        try GuestShares.mount(registry, record, folders, patience: 600)
      } catch {
        // One that has ended has nothing to mount.
        guard registry.folder(of: record).isInUse else { return }
        FileHandle.standardError.write(Data("yadori: \("\(error)".withoutControls)\r\n".utf8))
      }
    }
  }

  private func finish(_ server: ControlServer, _ exitCode: Int32, _ words: String) {
    let folder = registry.folder(of: record)
    try? folder.write(MachineEnding(exitCode: exitCode, words: words), isDurable: !record.isTemporary)
    if record.isTemporary, !folder.isKept { folder.empty() }
    server.end(exitCode: exitCode)
  }

  /// What a command's exit code is that ran the machine.
  public static func exitCode(of outcome: VirtualMachine.Outcome) -> Int32 {
    switch outcome {
    case .shutdown(0), .saved: 0
    // A code whose low byte is 0 isn't success.
    case .shutdown(let code): Int32(code & 0xFF == 0 ? 1 : code & 0xFF)
    case .stopped: 137
    case .failed: MachineError.Code.software.rawValue
    }
  }

  private static func words(for outcome: VirtualMachine.Outcome) -> String {
    switch outcome {
    case .shutdown(0): "switched off"
    case .shutdown(let code): "switched off with code \(code)"
    case .stopped: "killed"
    case .saved: "saved"
    case .failed(let reason): "couldn't go on: \(reason)"
    }
  }

  private var handlers: ControlServer.Handlers {
    let (machine, recorder, started) = (machine, recorder, started)
    var attach: (@Sendable (Int32) -> Void)?
    if let recorder { attach = { recorder.attach($0) } }
    return ControlServer.Handlers(
      status: { [weak self] in
        var status = Self.status(of: machine, started)
        status.startDuration = self?.startDuration.withLock { $0 }
        status.awaitsSharedFolders = self?.awaitsSharedFolders.withLock { $0 }
        status.isBeingSaved = self?.saves.withLock { $0 > 0 }
        let applied = self?.confinement.withLock { $0 } ?? []
        status.confinement = applied
        let isOnNetwork = machine.configuration.network != nil
        status.missingConfinement = Confinement.allCases.filter {
          !applied.contains($0) && !($0 == .noNetwork && isOnNetwork)
            && !($0 == .fileRules && applied.contains(.ownFiles))
        }
        return status
      },
      pause: {
        machine.wait(while: [.ready])
        machine.pause()
        machine.wait(while: [.running])
      },
      resume: {
        machine.resume()
        machine.wait(while: [.paused])
      },
      pressPowerButton: {
        if machine.state == .paused { return MachineError(.unavailable, "it is paused; resume it first") }
        return machine.pressPowerButton() ? nil : MachineError(.unavailable, "it has no power button")
      },
      kill: { machine.stop() },
      save: { [weak self] path, isDurable, asChanges in
        machine.wait(while: [.ready])
        self?.saves.withLock { $0 += 1 }
        defer { self?.saves.withLock { $0 -= 1 } }
        return Self.reason { try machine.save(to: path, isDurable: isDurable, asChanges: asChanges) }
      },
      keepCode: { [weak self] path in
        machine.wait(while: [.ready])
        self?.saves.withLock { $0 += 1 }
        defer { self?.saves.withLock { $0 -= 1 } }
        return Self.reason { try machine.keepCode(at: path) }
      },
      set: { processors, weight, pin, harts, memory in
        if let processors { machine.setProcessorLimit(processors) }
        if let weight { machine.noteProcessorWeight(weight) }
        if let pin { machine.notePin(to: pin) }
        if let harts { machine.noteHartCount(harts) }
        return Self.reason { if let memory { try machine.setMemoryTarget(memory) } }
      },
      publish: { forward in
        machine.wait(while: [.ready])
        return Self.reason { try machine.publish(forward) }
      },
      unpublish: { forward in
        machine.wait(while: [.ready])
        return Self.reason {
          guard try machine.stopPublishing(forward) else {
            throw MachineError(.noInput, "it doesn't listen for '\(forward)'")
          }
        }
      },
      share: { folder, place in
        if Confinement.isHeldByFileRules {
          return MachineError(
            .unavailable,
            "it has no mounts of its own, so it can't be let into another folder while it runs; stop it first, share the "
              + "folder, and start it again")
        }
        machine.wait(while: [.ready])
        return Self.reason { try machine.share(folder, at: place) }
      },
      unshare: { name in
        machine.wait(while: [.ready])
        return machine.stopSharing(name) ? nil : MachineError(.noInput, "it shares no folder '\(name)'")
      },
      attachConsole: attach,
      resizeConsole: { columns, rows in recorder?.resize(columns: columns, rows: rows) })
  }

  /// Why something can't be done; nil: it was.
  private static func reason(_ body: () throws -> Void) -> MachineError? {
    do {
      try body()
      return nil
    } catch let error as MachineError {
      return error
    } catch let error as HostError {
      return MachineError(.host, error.message)
    } catch {
      return MachineError(.unavailable, "\(error)")
    }
  }

  private static func status(of machine: VirtualMachine, _ started: Date) -> MachineStatus {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    // Size and resident set in pages, proc(5).
    let statm = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    let pages = statm.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0
    let memory = HostResources.memoryUse
    return MachineStatus(
      state: machine.state == .paused ? .paused : .running, process: getpid(), started: started,
      instructions: machine.retiredInstructions, processorSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
      residentBytes: pages * UInt64(sysconf(Int32(_SC_PAGESIZE))), memoryBytes: machine.memoryInUse,
      mostMemory: machine.configuration.boardMemorySize, mostHarts: machine.configuration.boardHartCount,
      hasBalloon: machine.hasBalloon,
      privateBytes: memory?.alone, sharedBytes: memory?.shared)
  }
}

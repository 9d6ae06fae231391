import Console
import Foundation
import HostSystem
import Images
import Synchronization
import Yadori

/// A machine of the registry that runs in this process: it holds the machine's lock, answers on its control socket, and
/// writes down how it ended.
public final class MachineProcess: @unchecked Sendable {
  private let registry: MachineRegistry
  private let record: MachineRecord
  private let lock: MachineFolder.Lock
  private let recorder: RecordedConsole?
  private let started = Date()
  private let startTime: UInt64?
  /// Seconds from its process's start to its first instruction.
  private let startDuration = Mutex<Double?>(nil)
  private var hasRun = false
  private let confinement = Mutex<[Confinement]>([])
  private let awaitsSharedFolders = Mutex(false)
  /// How many requests are saving it.
  private let saves = Mutex(0)
  public let machine: VirtualMachine

  /// Takes the machine, and makes it from its configuration. Throws `MachineError` where it runs already, and what
  /// making it throws.
  ///
  /// - Parameters:
  ///   - console: the terminal it runs on; nil: none, what it prints goes to the folder's `consoleLog`.
  ///   - startTime: when the process was started that runs it, see `MachineLauncher.order`.
  ///   - isIsolated: whether the process is the machine's alone, and leaves the host's files.
  public init(
    _ registry: MachineRegistry, _ record: MachineRecord, console: TerminalConsole? = nil, startTime: UInt64? = nil,
    isIsolated: Bool = false
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
    recorder = console == nil ? RecordedConsole(path: folder.consoleLog) : nil
    var configuration = record.configuration
    // Where somebody in the guest may listen.
    if record.image != nil { configuration.guestSocket = folder.guestSocket }
    configuration.keptCode = [folder.keptCode] + (configuration.keptCode ?? [])
    machine = try Self.make(configuration, folder, console: console ?? recorder!)
    if isIsolated { leaveFiles() }
    machine.weightsFile = registry.folder.appendingPathComponent("machines/weights").path
    if !record.isTemporary { machine.codeFile = folder.keptCode }
  }

  /// All else is open by now: disks, shared folders, what is booted.
  private func leaveFiles() {
    var kept = [Confinement.Kept.folder(registry.folder.path, isReadOnly: false)]
    kept.append(.folder(ImageStore.standardFolder().path, isReadOnly: true))
    switch record.configuration.network?.attachment {
    case .user?: kept += Confinement.Kept.file("/etc/resolv.conf")
    case .tap?: kept.append(.device("/dev/net/tun"))
    case nil: break
    }
    Confinement.leaveFiles(keeping: kept)
  }

  private static func make(
    _ configuration: VirtualMachineConfiguration, _ folder: MachineFolder, console: any ConsoleBackend
  ) throws -> VirtualMachine {
    guard FileManager.default.fileExists(atPath: folder.resumption) else {
      return try VirtualMachine(configuration, console: console)
    }
    return try VirtualMachine(restoring: folder.resumption, console: console) { $0 = configuration }
  }

  /// A temporary machine goes, too, where something came between this and its run.
  deinit {
    if !hasRun, record.isTemporary { try? registry.forget(record) }
  }

  /// Runs the machine to its end. Throws what `VirtualMachine.run` throws.
  ///
  /// - Parameter isReady: called when it can be talked to, before the first instruction.
  public func run(
    until savePoint: VirtualMachine.SavePoint? = nil, isReady: () -> Void = {}
  ) throws -> VirtualMachine.Outcome {
    if record.exitCode != nil || record.ending != nil {
      try registry.update(record.identifier) {
        $0.exitCode = nil
        $0.ending = nil
      }
    }
    let server = try ControlServer(registry.folder(of: record), handlers)
    hasRun = true
    do {
      let outcome = try machine.run(until: savePoint) {
        // Once: from the next instruction on its disks are others.
        let resumption = registry.folder(of: record).resumption
        if FileManager.default.fileExists(atPath: resumption), (try? SavedMachines.discard(resumption)) == nil {
          machine.stop()
        }
        // A terminal's process has more to do.
        if recorder != nil { confinement.withLock { $0 = Confinement.apply() } }
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
        FileHandle.standardError.write(Data("yadori: \(error)\r\n".utf8))
      }
    }
  }

  private func finish(_ server: ControlServer, _ exitCode: Int32, _ words: String) {
    // That may have changed meanwhile: one that is started again goes at its last end.
    if (try? registry.record(identifier: record.identifier))?.isTemporary ?? record.isTemporary {
      try? registry.forget(record)
    } else {
      try? registry.update(record.identifier) {
        $0.exitCode = exitCode
        $0.ending = words
      }
    }
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
      save: { [weak self] path, isDurable in
        machine.wait(while: [.ready])
        self?.saves.withLock { $0 += 1 }
        defer { self?.saves.withLock { $0 -= 1 } }
        return Self.reason { try machine.save(to: path, isDurable: isDurable) }
      },
      keepCode: { [weak self] path in
        machine.wait(while: [.ready])
        self?.saves.withLock { $0 += 1 }
        defer { self?.saves.withLock { $0 -= 1 } }
        return Self.reason { try machine.keepCode(at: path) }
      },
      set: { processors, weight, pin, memory in
        Self.reason {
          // What may be refused comes first, that nothing else is done then.
          if let weight { try machine.setProcessorWeight(weight) }
          if let pin { try machine.pin(to: pin) }
          if let memory { try machine.setMemoryTarget(memory) }
          if let processors { machine.setProcessorLimit(processors) }
        }
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
      memoryAtStart: machine.configuration.memorySize, hartsAtStart: machine.configuration.hartCount,
      hasBalloon: machine.configuration.hasBalloon,
      privateBytes: memory?.alone, sharedBytes: memory?.shared)
  }
}

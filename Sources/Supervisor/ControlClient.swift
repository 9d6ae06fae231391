import CHost
import Foundation
import HostSystem
import Yadori

/// Talks to the process of a running machine.
///
/// What answers there may be a guest that owned that process: it isn't waited for but where that is asked for, and what it
/// says of itself stays within what can be.
public struct ControlClient: Sendable {
  private let folder: MachineFolder
  private let name: String
  /// The machine as it is known; nil where that isn't asked for.
  private let known: (registry: MachineRegistry, record: MachineRecord)?

  /// Seconds that a machine may take to answer.
  private let patience: Int

  /// For a machine of the registry. Nothing is asked yet.
  public init(_ registry: MachineRegistry, _ record: MachineRecord) {
    self.init(registry.folder(of: record), name: record.name, known: (registry, record))
  }

  package init(
    _ folder: MachineFolder, name: String, patience: Int = 10,
    known: (registry: MachineRegistry, record: MachineRecord)? = nil
  ) {
    self.folder = folder
    self.name = name
    self.patience = patience
    self.known = known
  }

  private var deadline: UInt64 { MonotonicClock.nanoseconds() &+ UInt64(patience) * 1_000_000_000 }

  /// A connection at which it takes so many seconds at most to connect, and to send something.
  private func connect() throws -> Int32 {
    BrokenPipes.becomeErrors()
    let descriptor = UnixSocket.make()
    guard descriptor >= 0 else { throw HostError.last("can't make a socket") }
    UnixSocket.limitSending(descriptor, seconds: patience)
    guard UnixSocket.connect(descriptor, to: folder.controlSocket) == 0 else {
      close(descriptor)
      if folder.isInUse {
        throw MachineError(
          .unavailable, "the machine '\(name)' doesn't answer (it may just have been started); try again")
      }
      throw MachineError(.unavailable, "the machine '\(name)' doesn't run; 'yadori start \(name)' starts it")
    }
    guard let peer = UnixSocket.peer(descriptor), peer.user == geteuid() || geteuid() == 0 else {
      close(descriptor)
      throw MachineError(.permission, "the machine '\(name)' is another user's")
    }
    return descriptor
  }

  /// - Parameter isPatient: whether it may take as long as it will.
  private func ask(
    _ request: ControlRequest, passing passed: Int32? = nil, isPatient: Bool = false
  ) throws -> (ControlReply, Int32) {
    let descriptor = try connect()
    guard ControlLine.write(request, to: descriptor, passing: passed),
      isPatient || isAnswered(request, on: descriptor),
      // Who has begun to answer has all of it.
      let reply = ControlLine.read(ControlReply.self, from: descriptor, until: isPatient ? nil : deadline)
    else {
      close(descriptor)
      throw MachineError(
        .unavailable,
        folder.isInUse
          ? "the machine '\(name)' doesn't answer; 'yadori kill \(name)' ends its process"
          : "the machine '\(name)' has just ended")
    }
    if let refusal = reply.refusal {
      close(descriptor)
      // One of an earlier version says no code.
      let code = reply.code.flatMap(MachineError.Code.init(rawValue:)) ?? .unavailable
      throw MachineError(code, "the machine '\(name)' refuses: \(refusal)")
    }
    UnixSocket.limitSending(descriptor, seconds: 0)
    return (reply, descriptor)
  }

  /// Whether there is an answer in time. While the machine is saved, most requests wait for that.
  private func isAnswered(_ request: ControlRequest, on descriptor: Int32) -> Bool {
    var deadline = self.deadline
    while true {
      let now = MonotonicClock.nanoseconds()
      var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      if poll(&change, 1, now < deadline ? Int32((deadline - now) / 1_000_000) + 1 : 0) > 0 { return true }
      if now < deadline { continue }
      guard request.verb != .status, request.verb != .kill, (try? status())?.isBeingSaved == true else { return false }
      deadline = self.deadline
    }
  }

  private func command(_ verb: ControlRequest.Verb) throws -> ControlReply {
    let (reply, descriptor) = try ask(ControlRequest(verb: verb))
    close(descriptor)
    return reply
  }

  /// The same with a folder that the machine's process may have no way to, and no way out of.
  private func ask(
    _ request: ControlRequest, passingFolder path: String, isReadOnly: Bool = false, isPatient: Bool
  ) throws {
    let folder = chost_folder_alone(path, isReadOnly ? 1 : 0)
    guard folder >= 0 else {
      throw MachineError(.noInput, "can't use the folder '\(path)': \(String(cString: strerror(errno)))")
    }
    defer { close(folder) }
    let (_, descriptor) = try ask(request, passing: folder, isPatient: isPatient)
    close(descriptor)
  }

  /// Has the machine's process make something in a folder in which there is nothing else: it isn't let into `target`, where
  /// it is to be as `path` says. `request` says where to make it, as "made"; `place` is called with the folder that it is in.
  private func make(
    _ path: String, in target: DistrustedFolder, _ request: (String) -> ControlRequest,
    place: (DistrustedFolder) throws -> Void
  ) throws {
    let own = try DistrustedFolder(path: folder.url.path)
    // Its own folder will do where the result can be moved from there; and must, where it can't be let into another.
    let isNear = own.status(".")?.st_dev == target.status(".")?.st_dev
    let isHeld = try !isNear && status().confinement?.contains(.fileRules) == true
    let home = isNear || isHeld ? own : target
    let fresh = "\(MachineFolder.savingPrefix)\(UInt64.random(in: 0 ... .max))"
    do {
      try home.makeFolder(fresh)
    } catch let error as HostError {
      throw MachineError(.cannotCreate, "can't write '\(path)': \(String(cString: strerror(error.code)))")
    }
    defer { try? home.remove(fresh) }
    let freshPath = "\(home.path)/\(fresh)"
    func inItsWords(_ error: MachineError) -> MachineError {
      let message = error.message.replacing(freshPath + "/made", with: path).replacing(freshPath, with: target.path)
      return MachineError(error.code, message)
    }
    do {
      if isNear || isHeld {
        let (_, descriptor) = try ask(request(freshPath + "/made"), isPatient: true)
        close(descriptor)
      } else {
        try ask(request(freshPath + "/made"), passingFolder: freshPath, isPatient: true)
      }
      try place(try home.folder(fresh))
    } catch let error as MachineError {
      throw inItsWords(error)
    } catch let error as HostError {
      throw inItsWords(MachineError(.inputOutput, "can't write '\(path)': \(error.message)"))
    }
  }

  /// Uses what its process has made. What can't be it is refused in words of its own.
  private func using<Result>(_ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch let error as HostError where [EINVAL, ELOOP, ENOTDIR, ENOENT, EISDIR].contains(error.code) {
      throw madeSomethingElse
    }
  }

  /// The folder that something is to be made in.
  private static func target(_ path: String) throws -> DistrustedFolder {
    do {
      return try DistrustedFolder(path: parent(path))
    } catch let error as HostError {
      throw MachineError(
        .noInput, "can't use the folder '\(parent(path))': \(String(cString: strerror(error.code)))")
    }
  }

  private static func parent(_ path: String) -> String { URL(fileURLWithPath: path).deletingLastPathComponent().path }

  /// What it says of itself. Throws `MachineError` where it doesn't run.
  public func status() throws -> MachineStatus {
    let (reply, descriptor) = try ask(ControlRequest(verb: .status))
    defer { close(descriptor) }
    guard var status = reply.status else {
      throw MachineError(.software, "the machine '\(name)' runs under another version of yadori; restart it")
    }
    // Its own number for itself is another one where it has a namespace.
    guard let peer = UnixSocket.peer(descriptor), peer.process > 0 else {
      throw MachineError(.host, "this host doesn't say which process runs the machine '\(name)'")
    }
    status.process = peer.process
    status.stayWithinReason()
    return status
  }

  /// Returns when all harts stand still.
  public func pause() throws { _ = try command(.pause) }
  public func resume() throws { _ = try command(.resume) }

  /// Saves it, with the disks that it writes to, in a new folder, and has it go on. What is saved is, in what concerns the
  /// host, as the registry has it, see `SavedMachines.adopt`.
  /// - Parameters:
  ///   - isDurable: whether its RAM is to outlive a failure of the host, which takes most of the time; disks do.
  ///   - folder: that of `path`, where it is open already.
  public func save(to path: String, isDurable: Bool = true, in folder: DistrustedFolder? = nil) throws {
    let target = try folder ?? Self.target(path)
    _ = try replaces(path, in: target)
    SavedMachine.removeAbandoned(URL(fileURLWithPath: path).lastPathComponent, in: target)
    do {
      try save(to: path, in: target, isDurable: isDurable, over: isDurable ? nil : self.folder.memory)
    } catch is OtherBase {
      try save(to: path, in: target, isDurable: isDurable, over: nil)
    }
  }

  /// Whether what is to be saved at a path replaces what was. Throws `MachineError` where that isn't a saved machine.
  private func replaces(_ path: String, in target: DistrustedFolder) throws -> Bool {
    let name = URL(fileURLWithPath: path).lastPathComponent
    if target.status(name) == nil { return false }
    guard SavedMachine.isSavedMachine(name, in: target) else {
      throw MachineError(.cannotCreate, "'\(path)' is there already, and isn't a saved machine; choose another name")
    }
    return true
  }

  /// - Parameter memory: what its RAM was restored from, where it needs to save only what is otherwise by now.
  private func save(
    to path: String, in target: DistrustedFolder, isDurable: Bool, over memory: DistrustedFolder?
  ) throws {
    guard let known else { preconditionFailure("only a machine of the registry is saved") }
    let name = URL(fileURLWithPath: path).lastPathComponent
    try make(path, in: target) {
      ControlRequest(verb: .save, path: $0, isDurable: isDurable, asChanges: memory != nil)
    } place: { fresh in
      // As it is by now: the guest may have been shared a folder meanwhile.
      let record = try known.registry.record(identifier: known.record.identifier) ?? known.record
      let made = try SavedMachine(try using { try fresh.folder("made") })
      let adopted = try SavedMachines.adopt(made, known.registry, record)
      // Nobody asked for that.
      guard memory != nil || !made.hasBase else { throw madeSomethingElse }
      // Into a folder that its process never had.
      let partial = SavedMachine.partialName(name)
      try target.makeFolder(partial)
      defer { try? target.remove(partial) }
      let place = try target.folder(partial)
      let files = made.contentFiles
      for (file, known) in files.base {
        guard let memory, (try? memory.link(file, to: place, as: file, mayCopy: false)) != nil,
          place.status(file).map(SavedMachine.MemoryFile.init) == known
        else { throw OtherBase() }
      }
      for file in files.written {
        try using { try made.folder.take(file, to: place, as: file, isDurable: isDurable) }
      }
      try place.write(try adopted.text, to: "machine", isDurable: isDurable)
      if isDurable { try place.synchronize() }
      // What it replaces goes with the partial one.
      try target.move(partial, to: target, as: name, isExchange: try replaces(path, in: target))
      if isDurable { try target.synchronize() }
    }
  }

  /// What a machine's RAM was restored from isn't what was kept.
  private struct OtherBase: Error {}

  private var madeSomethingElse: MachineError {
    MachineError(.data, "the machine '\(name)' has made something else than it was to; don't trust it")
  }

  /// Keeps the code that its translators have made so far in a file, for machines that begin with it.
  public func keepCode(at path: String) throws {
    if Self.parent(path) == folder.url.path {
      let (_, descriptor) = try ask(ControlRequest(verb: .keepCode, path: path), isPatient: true)
      close(descriptor)
      return
    }
    let target = try Self.target(path)
    let name = URL(fileURLWithPath: path).lastPathComponent
    try make(path, in: target) {
      ControlRequest(verb: .keepCode, path: $0)
    } place: { fresh in
      // It may have nothing to keep.
      if fresh.status("made") == nil { return }
      let partial = SavedMachine.partialName(name)
      defer { try? target.remove(partial) }
      try using { try fresh.take("made", to: target, as: partial, isDurable: false) }
      try target.move(partial, to: target, as: name)
    }
  }

  /// Changes its share of the host's processors: how many it may use at most (0: no limit), and its weight against
  /// others; which of them (none: all); and how many bytes of RAM its guest is to make do with. `harts` is how many harts
  /// that uses by now, see `GuestHarts`.
  public func set(
    processors: Double? = nil, weight: Int? = nil, pin: [Int]? = nil, harts: Int? = nil, memory: UInt64? = nil
  ) throws {
    if weight != nil || pin != nil {
      // The machine's process isn't let set what could be another's. What is refused is so before anything is changed.
      let process = try status().process
      if let weight, !VirtualMachine.keepsWeights { try VirtualMachine.setProcessorWeight(weight, of: process) }
      if let pin { try VirtualMachine.pin(process, to: pin.isEmpty ? nil : pin) }
    }
    let (_, descriptor) = try ask(
      ControlRequest(verb: .set, processors: processors, weight: weight, pin: pin, harts: harts, memory: memory))
    close(descriptor)
  }

  /// Forwards a port of the host to it from now on.
  public func publish(_ forward: String) throws {
    let (_, descriptor) = try ask(ControlRequest(verb: .publish, forward: forward))
    close(descriptor)
  }

  /// And no longer.
  public func unpublish(_ forward: String) throws {
    let (_, descriptor) = try ask(ControlRequest(verb: .unpublish, forward: forward))
    close(descriptor)
  }

  /// Has its guest see a folder of the host from now on, in place of another one of that name; and no more.
  public func share(_ folder: SharedFolder) throws {
    try ask(
      ControlRequest(verb: .share, folder: folder), passingFolder: folder.path, isReadOnly: folder.isReadOnly,
      isPatient: false)
  }
  public func stopSharing(_ name: String) throws {
    let (_, descriptor) = try ask(ControlRequest(verb: .unshare, name: name))
    close(descriptor)
  }

  /// Asks the guest's system to switch itself off.
  public func pressPowerButton() throws { _ = try command(.powerButton) }

  /// To one that doesn't listen yet, too, or doesn't any more and is on its way out; nil: it has ended.
  private func connectPatiently() throws -> Int32? {
    let deadline = self.deadline
    var hasRun = false
    while true {
      do {
        return try connect()
      } catch {
        guard folder.isInUse else {
          if hasRun { return nil }
          throw error
        }
        guard MonotonicClock.nanoseconds() < deadline else { throw error }
        hasRun = true
        usleep(10_000)
      }
    }
  }

  /// As pulling the plug. A process that doesn't answer, or doesn't end, is killed. Returns when the machine has ended.
  public func kill() throws {
    var listens = true
    do {
      guard let descriptor = try connectPatiently() else { return }
      close(descriptor)
    } catch {
      // It may have begun to run, or not listen at all.
      guard folder.isInUse else { throw error }
      listens = false
    }
    if listens, (try? command(.kill)) != nil, try waitForEnd(seconds: patience) { return }
    // Whoever listens at the socket: the process that has the machine's lock.
    for process in folder.processes { _ = Glibc.kill(process, SIGKILL) }
    // The lock goes with it.
    guard waitWhileInUse(until: deadline) else {
      throw MachineError(.host, "can't end the process of the machine '\(name)'")
    }
  }

  /// False: it is in use still.
  private func waitWhileInUse(until deadline: UInt64) -> Bool {
    while folder.isInUse {
      if MonotonicClock.nanoseconds() > deadline { return false }
      usleep(1000)
    }
    return true
  }

  /// Waits for its end; nil: it didn't run any more when asked.
  public func wait() throws -> Int32? {
    var deadline: UInt64?
    while folder.isInUse {
      do {
        let (reply, descriptor) = try ask(ControlRequest(verb: .wait), isPatient: true)
        close(descriptor)
        // It says so when that is written down, a moment before its lock goes.
        _ = waitWhileInUse(until: self.deadline)
        return reply.exitCode
      } catch {
        // It doesn't listen yet, or doesn't any more and is on its way out.
        let end = deadline ?? self.deadline
        deadline = end
        guard MonotonicClock.nanoseconds() < end else { throw error }
        usleep(10_000)
      }
    }
    return nil
  }

  /// False: it still runs after so many seconds.
  public func waitForEnd(seconds: Int) throws -> Bool {
    guard folder.isInUse else { return true }
    let descriptor: Int32
    do { descriptor = try connect() } catch { return !folder.isInUse }
    defer { close(descriptor) }
    guard ControlLine.write(ControlRequest(verb: .wait), to: descriptor) else { return !folder.isInUse }
    var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    let deadline = MonotonicClock.nanoseconds() &+ UInt64(seconds) * 1_000_000_000
    while true {
      let now = MonotonicClock.nanoseconds()
      if now >= deadline { return false }
      if poll(&change, 1, Int32((deadline - now) / 1_000_000) + 1) > 0 { break }
    }
    // It says how it ended when that is written down, a moment before its lock goes.
    return waitWhileInUse(until: deadline)
  }

  /// A connection to its console, both ways. The descriptor is the caller's.
  public func attachConsole() throws -> Int32 {
    try ask(ControlRequest(verb: .console)).1
  }

  public func resizeConsole(columns: Int, rows: Int) throws {
    let (_, descriptor) = try ask(ControlRequest(verb: .resize, columns: columns, rows: rows))
    close(descriptor)
  }
}

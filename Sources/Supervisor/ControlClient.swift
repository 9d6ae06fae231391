import CHost
import Foundation
import HostSystem
import Yadori

/// Talks to the process of a running machine.
public struct ControlClient: Sendable {
  private let folder: MachineFolder
  private let name: String

  /// Seconds that a machine may take to answer.
  private let patience: Int

  /// For a machine of the registry. Nothing is asked yet.
  public init(_ registry: MachineRegistry, _ record: MachineRecord) {
    self.init(registry.folder(of: record), name: record.name)
  }

  package init(_ folder: MachineFolder, name: String, patience: Int = 10) {
    self.folder = folder
    self.name = name
    self.patience = patience
  }

  private func connect() throws -> Int32 {
    BrokenPipes.becomeErrors()
    let descriptor = UnixSocket.make()
    guard descriptor >= 0 else { throw HostError.last("can't make a socket") }
    let failure = UnixSocket.withShortPath(folder.controlSocket) { UnixSocket.use($0, descriptor, Glibc.connect) }
    guard failure == 0 else {
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
      let reply = ControlLine.read(ControlReply.self, from: descriptor)
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
    return (reply, descriptor)
  }

  /// Whether there is an answer in time. While the machine is saved, most requests wait for that.
  private func isAnswered(_ request: ControlRequest, on descriptor: Int32) -> Bool {
    let time = UInt64(patience) * 1_000_000_000
    var deadline = MonotonicClock.nanoseconds() &+ time
    while true {
      let now = MonotonicClock.nanoseconds()
      var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      if poll(&change, 1, now < deadline ? Int32((deadline - now) / 1_000_000) + 1 : 0) > 0 { return true }
      if now < deadline { continue }
      guard request.verb != .status, (try? status())?.isBeingSaved == true else { return false }
      deadline = MonotonicClock.nanoseconds() &+ time
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

  /// Has the machine's process make what is to be at `path`, in a folder in which there is nothing else: it isn't let into
  /// the one that `path` is in. `request` says where to make it; `place` is called with where it is, if there is something.
  private func make(_ path: String, _ request: (String) -> ControlRequest, place: (String) throws -> Void) throws {
    let (parent, own) = (Self.parent(path), folder.url.path)
    var (target, home) = (stat(), stat())
    guard stat(parent, &target) == 0, target.st_mode & S_IFMT == S_IFDIR else {
      let reason = errno == 0 ? ENOTDIR : errno
      throw MachineError(.noInput, "can't use the folder '\(parent)': \(String(cString: strerror(reason)))")
    }
    func makeFolder(in folder: String) throws -> String {
      let fresh = "\(folder)/\(MachineFolder.savingPrefix)\(UInt64.random(in: 0 ... .max))"
      if mkdir(fresh, 0o700) == 0 { return fresh }
      throw MachineError(.cannotCreate, "can't write '\(path)': \(String(cString: strerror(errno)))")
    }
    // Its own folder will do where the result can be moved from there; and must, where it can't be let into another.
    let isNear = stat(own, &home) == 0 && home.st_dev == target.st_dev
    let isHeld = try !isNear && status().confinement?.contains(.fileRules) == true
    var fresh = try makeFolder(in: isNear || isHeld ? own : parent)
    defer { try? FileManager.default.removeItem(atPath: fresh) }
    do {
      if isNear || isHeld {
        let (_, descriptor) = try ask(request(fresh + "/made"), isPatient: true)
        close(descriptor)
      } else {
        try ask(request(fresh + "/made"), passingFolder: fresh, isPatient: true)
      }
    } catch let error as MachineError {
      let message = error.message.replacing(fresh + "/made", with: path).replacing(fresh, with: parent)
      throw MachineError(error.code, message)
    }
    guard let kind = Self.kind(fresh + "/made") else { return }
    guard kind == S_IFDIR || kind == S_IFREG else {
      throw MachineError(.data, "the machine '\(name)' has made something else than it was to; don't trust it")
    }
    if isHeld {
      let source = fresh
      fresh = try makeFolder(in: parent)
      defer { try? FileManager.default.removeItem(atPath: source) }
      try Self.copy(source + "/made", to: fresh + "/made")
    }
    try place(fresh + "/made")
  }

  /// What there is under a name, which isn't followed where it is a link.
  private static func kind(_ path: String) -> mode_t? {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
  }

  /// A file, or a folder with files in it.
  private static func copy(_ source: String, to target: String) throws {
    if kind(source) == S_IFDIR {
      let names = try FileManager.default.contentsOfDirectory(atPath: source)
      guard mkdir(target, 0o700) == 0 else { throw HostError.last("can't write '\(target)'") }
      return try names.forEach { try copy("\(source)/\($0)", to: "\(target)/\($0)") }
    }
    let from = chost_open(source, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
    let to = chost_open(target, O_RDWR | O_CREAT | O_EXCL, 0o600)
    defer { for descriptor in [from, to] where descriptor >= 0 { close(descriptor) } }
    guard from >= 0, to >= 0 else { throw HostError.last("can't copy '\(source)' to '\(target)'") }
    _ = try SparseCopy.copy(from, to: to)
    guard fsync(to) == 0 else { throw HostError.last("can't write '\(target)'") }
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
    if let peer = UnixSocket.peer(descriptor), peer.process > 0 { status.process = peer.process }
    return status
  }

  /// Returns when all harts stand still.
  public func pause() throws { _ = try command(.pause) }
  public func resume() throws { _ = try command(.resume) }

  /// Saves it, with the disks that it writes to, in a new folder, and has it go on.
  /// - Parameter isDurable: whether its RAM is to outlive a failure of the host, which takes most of the time; disks do.
  public func save(to path: String, isDurable: Bool = true) throws {
    func check() throws {
      guard !FileManager.default.fileExists(atPath: path) || SavedMachine.isSavedMachine(path) else {
        throw MachineError(
          .cannotCreate, "'\(path)' is there already, and isn't a saved machine; choose another name")
      }
    }
    try check()
    try make(path) {
      ControlRequest(verb: .save, path: $0, isDurable: isDurable)
    } place: { made in
      try check()
      // What it replaces goes with the folder that this is in.
      let isReplaced = FileManager.default.fileExists(atPath: path)
      guard (isReplaced ? chost_exchange(made, path) : rename(made, path)) == 0 else {
        throw HostError.last("can't write the saved machine '\(path)'")
      }
      if isDurable { try AtomicFileWriter.synchronizeFolder(of: path) }
    }
  }

  /// Keeps the code that its translators have made so far in a file, for machines that begin with it.
  public func keepCode(at path: String) throws {
    if Self.parent(path) == folder.url.path {
      let (_, descriptor) = try ask(ControlRequest(verb: .keepCode, path: path), isPatient: true)
      close(descriptor)
      return
    }
    try make(path) {
      ControlRequest(verb: .keepCode, path: $0)
    } place: { made in
      guard rename(made, path) == 0 else { throw HostError.last("can't write '\(path)'") }
    }
  }

  /// Changes its share of the host's processors: how many it may use at most (0: no limit), and its weight against
  /// others; which of them (none: all); and how many bytes of RAM its guest is to make do with.
  public func set(processors: Double? = nil, weight: Int? = nil, pin: [Int]? = nil, memory: UInt64? = nil) throws {
    if weight != nil || pin != nil {
      // The machine's process isn't let set what could be another's. What is refused is so before anything is changed.
      let process = try status().process
      if let weight, !VirtualMachine.keepsWeights { try VirtualMachine.setProcessorWeight(weight, of: process) }
      if let pin { try VirtualMachine.pin(process, to: pin.isEmpty ? nil : pin) }
    }
    let (_, descriptor) = try ask(
      ControlRequest(verb: .set, processors: processors, weight: weight, pin: pin, memory: memory))
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
    let deadline = MonotonicClock.nanoseconds() &+ UInt64(patience) * 1_000_000_000
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

  /// As pulling the plug. A process that doesn't answer is killed. Returns when the machine has ended.
  public func kill() throws {
    guard let descriptor = try connectPatiently() else { return }
    defer { close(descriptor) }
    let peer = UnixSocket.peer(descriptor)
    do {
      _ = try command(.kill)
      if try waitForEnd(seconds: patience) { return }
    } catch {
      guard folder.isInUse else { return }
    }
    guard let peer, Glibc.kill(peer.process, SIGKILL) == 0 else {
      throw MachineError(.host, "can't end the process of the machine '\(name)'")
    }
    // Its lock goes with it.
    while folder.isInUse { usleep(10_000) }
  }

  /// Waits for its end; nil: it didn't run any more when asked.
  public func wait() throws -> Int32? {
    let deadline = MonotonicClock.nanoseconds() &+ UInt64(patience) * 1_000_000_000
    while folder.isInUse {
      do {
        let (reply, descriptor) = try ask(ControlRequest(verb: .wait), isPatient: true)
        close(descriptor)
        return reply.exitCode
      } catch {
        // It doesn't listen yet, or doesn't any more and is on its way out.
        guard MonotonicClock.nanoseconds() < deadline else { throw error }
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
    while folder.isInUse { usleep(1000) }
    return true
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

import Board
import Bus
import Console
import Foundation
import Hart
import HostSystem
import Network
import RISCV
import Storage
import Synchronization
import Translation
import Virtio

/// A machine: made from a configuration, run to its end, paused and saved on the way.
///
/// `run` does the work on the calling thread and returns when the machine has ended; the other methods may be called
/// from any thread meanwhile.
public final class VirtualMachine: @unchecked Sendable {
  /// How a run ended.
  public enum Outcome: Equatable, Sendable {
    /// The guest switched the machine off; 0 stands for success, other codes are the guest's.
    case shutdown(code: Int)
    /// `stop` was called.
    case stopped
    /// The state was saved as `saveState` in `run` asked.
    case saved
    /// The machine can't go on, for this reason.
    case failed(String)
  }

  /// Where a machine is in its life.
  public enum State: Sendable {
    /// `run` hasn't been called.
    case ready
    case running, paused
    /// `run` returns, or has returned.
    case ended
  }

  private enum Event {
    case power(PowerEvent)
    case stop
    case pause
    case resume
    case togglePause
    case limit
    case perform(Request)
  }

  /// What is done while no hart runs; somebody waits for it.
  private final class Request: @unchecked Sendable {
    let body: () throws -> Void
    private let done = DispatchSemaphore(value: 0)
    private var result: Result<Void, any Error>?

    init(_ body: @escaping () throws -> Void) { self.body = body }

    func finish(_ result: Result<Void, any Error>) {
      self.result = result
      done.signal()
    }

    func wait() throws {
      done.wait()
      try result!.get()
    }
  }

  /// What it was made of.
  public internal(set) var configuration: VirtualMachineConfiguration
  let changed: Mutex<VirtualMachineConfiguration>

  /// What it is made of by now: `configuration`, with all that was changed since. Any thread.
  public var currentConfiguration: VirtualMachineConfiguration {
    var current = changed.withLock { $0 }
    if let fileSystem { current.sharedFolders = fileSystem.sharedFolders }
    return current
  }
  let board: Board
  var disks: [any BlockStorage]
  /// By index: the disks that the machine writes to; their paths may lead nowhere by then.
  var savedDisks: [Int: SavedMachine.Parts.Disk]
  let drives: [VirtioBlock]
  let card: VirtioNet?
  let socket: VirtioSocket?
  private let stopBackends: () -> Void
  /// What its RAM was restored from.
  private var restoredMemory: SavedMachine.Base?
  private var threads: HartThreads?
  /// The guest's clock when it was paused; nil: it runs. The thread's that runs the machine.
  private var pausedAt: UInt64?
  private var profiler: Profiler?
  private var perfMap: PerfMap?
  private let condition = NSCondition()
  private var events: [Event] = []
  private var currentState = State.ready
  private var watchers: [AsyncStream<State>.Continuation] = []
  private let powerButton: VirtioInput?
  let share: ProcessorShare
  private let network: UserNetwork?
  private let fileSystem: VirtioFileSystem?
  private let balloon: VirtioBalloon?

  /// Builds a machine that will boot. Throws `MachineError`, or the error of the room that refuses (each is one line
  /// that says what to do).
  public convenience init(_ configuration: VirtualMachineConfiguration, console: any ConsoleBackend) throws {
    try self.init(configuration, console: console, folderPlaces: [:])
  }

  /// - Parameter folderPlaces: other paths by which this process reaches shared folders, by their names.
  package convenience init(
    _ configuration: VirtualMachineConfiguration, console: any ConsoleBackend, folderPlaces: [String: String]
  ) throws {
    self.init(assembling: try Self.assemble(configuration, console, folderPlaces))
    savedDisks = try Self.savedDisks(self.configuration, disks)
    board.boot()
  }

  static func assemble(
    _ configuration: VirtualMachineConfiguration, _ console: any ConsoleBackend, _ places: [String: String]
  ) throws -> BoardAssembly {
    var configuration = configuration
    configuration.noteFormats()
    return try BoardAssembly(configuration, console: console, folderPlaces: places)
  }

  /// It boots, or goes on as a saved one; its `savedDisks` aren't known yet.
  init(assembling assembly: BoardAssembly) {
    configuration = assembly.configuration
    changed = Mutex(assembly.configuration)
    board = assembly.board
    disks = assembly.disks
    savedDisks = [:]
    drives = assembly.drives
    card = assembly.card
    socket = assembly.socket
    powerButton = assembly.powerButton
    network = assembly.userNetwork
    fileSystem = assembly.fileSystem
    balloon = assembly.balloon
    share = ProcessorShare(limit: configuration.processorLimit)
    for hart in board.harts { share.apply(to: hart) }
    stopBackends = assembly.stopBackends
    board.onPowerEvent = { [weak self] event in self?.post(.power(event)) }
  }

  /// How the disks are saved that it writes to, by index.
  static func savedDisks(
    _ configuration: VirtualMachineConfiguration, _ disks: [any BlockStorage]
  ) throws -> [Int: SavedMachine.Parts.Disk] {
    var saved: [Int: SavedMachine.Parts.Disk] = [:]
    for (index, disk) in configuration.disks.enumerated() where !disk.isReadOnly {
      let backing = try DiskImage.information(path: disk.path, format: disk.knownFormat).backingPath
      if let base = disk.base {
        saved[index] = .chain(disks[index], downTo: base)
      } else if let backing, !backing.hasPrefix("/") {
        // Elsewhere that name would lead elsewhere.
        saved[index] = .chain(disks[index], downTo: disk.path)
      } else {
        saved[index] = .file(open(disk.path, O_RDONLY | O_CLOEXEC))
      }
    }
    return saved
  }

  /// Saves a machine that is off, with the disks that it writes to, in a folder (see `SavedMachine`). Nobody uses the disks
  /// meanwhile. Throws `MachineError`, and `StorageError` where a disk can't be read.
  public static func saveStopped(_ configuration: VirtualMachineConfiguration, to path: String) throws {
    var configuration = configuration
    configuration.noteFormats()
    let disks = try configuration.disks.map { try $0.open(readOnly: true) }
    defer { for disk in disks { try? disk.close() } }
    let savedDisks = try savedDisks(configuration, disks)
    defer { for case .file(let descriptor) in savedDisks.values where descriptor >= 0 { close(descriptor) } }
    try SavedMachine.write(
      SavedMachine.Parts(
        configuration: configuration, clock: 0, instructionSet: [], components: [], disks: savedDisks, isDurable: true),
      memory: nil, to: path)
  }

  deinit {
    for case .file(let descriptor) in savedDisks.values where descriptor >= 0 { close(descriptor) }
  }

  /// Builds a machine that goes on where the saved one in the folder stood. Disks that weren't saved with it must be as
  /// they were then.
  /// - Parameter adjust: changes the saved configuration first (moved files, other port forwards).
  public convenience init(
    restoring path: String, console: any ConsoleBackend,
    adjust: (inout VirtualMachineConfiguration) -> Void = { _ in }
  ) throws {
    try self.init(restoring: try SavedMachine(path: path), console: console, adjust: adjust)
  }

  public convenience init(
    restoring saved: SavedMachine, console: any ConsoleBackend,
    adjust: (inout VirtualMachineConfiguration) -> Void = { _ in }
  ) throws {
    try self.init(restoring: saved, console: console, folderPlaces: [:], adjust: adjust)
  }

  /// - Parameter folderPlaces: other paths by which this process reaches shared folders, by their names.
  package convenience init(
    restoring saved: SavedMachine, console: any ConsoleBackend, folderPlaces: [String: String],
    adjust: (inout VirtualMachineConfiguration) -> Void
  ) throws {
    var configuration = saved.configuration
    adjust(&configuration)
    self.init(assembling: try Self.assemble(configuration, console, folderPlaces))
    savedDisks = try Self.savedDisks(self.configuration, disks)
    if saved.isOff {
      board.boot()
      return
    }
    try restore(saved)
    begin(at: saved.manifest.clock)
  }

  /// Has RAM, harts and devices be as they were saved. Throws `MachineError`.
  func restore(_ saved: SavedMachine) throws {
    try saved.check(instructionSet: board.configuration.describedInstructionSet.extensions)
    do {
      restoredMemory = try saved.restoreMemory(board.memory)
      let states = Dictionary(saved.manifest.components.map { ($0.identifier, $0) }) { first, _ in first }
      for keeper in board.stateKeepers {
        guard let state = states[keeper.stateIdentifier] else {
          throw StateError("it has no state for '\(keeper.stateIdentifier)'")
        }
        try keeper.restoreEncodedState(state)
      }
    } catch let error as StateError {
      throw MachineError(.data, "the saved machine '\(saved.path)' doesn't fit: \(error.message)")
    }
  }

  /// What a restored machine has of its own: the guest's clock, in ticks, goes on from now, and the guest sees that it is
  /// another one.
  func begin(at clock: UInt64) {
    board.clock.set(clock)
    board.generationIdentifier.renew()
  }

  /// Makes what all machines of a process share, which else the first would make. It makes no threads.
  package static func makeCommonThings() {
    let boot = BootDescription(firmware: .none, kernel: BootFile(name: "", contents: Data([0x6F, 0, 0, 0])))
    var devices: [any VirtioDevice] = [
      VirtioBlock(storage: AbsentDisk(byteCount: 512, isReadOnly: true), serial: ""), VirtioSocket(path: "none"),
      VirtioNet(
        backend: UserNetwork(UserNetworkConfiguration(portForwards: [])), mac: .init(bytes: [2, 0, 0, 0, 0, 1])!),
      VirtioConsole(ports: [.init(backend: BufferConsole(), isConsole: true)]), VirtioEntropy(), VirtioInput(),
      VirtioBalloon(),
    ]
    if let fileSystem = try? VirtioFileSystem([]) { devices.append(fileSystem) }
    guard
      let board = try? Board(
        BoardConfiguration(memorySize: 2 << 20, boot: boot, devices: devices, transport: .pci))
    else { return }
    board.boot()
    try? VirtualMachineConfiguration.example.check()
    _ = Operation.add.effects
    _ = board.loop.after(nanoseconds: 0) {}
    // What is saved is read, too.
    let states = board.stateKeepers.compactMap { try? $0.encodedState() }
    let manifest = SavedMachine.Manifest(
      configuration: .example, instructionSet: ["i"], clock: 0, components: states,
      memory: [SavedMachine.Content(file: "memory-0", byteCount: 0, checksums: [0])], disks: [],
      neighbours: [SavedMachine.Neighbour(path: "/")].compactMap(\.self))
    if let json = try? JSONEncoder().encode(manifest) {
      _ = try? JSONDecoder().decode(SavedMachine.Manifest.self, from: json)
    }
    // Of queues that a driver has set up.
    if let json = try? JSONEncoder().encode(Virtqueue.Position()) {
      _ = try? JSONDecoder().decode(Virtqueue.Position.self, from: json)
    }
    for (keeper, state) in zip(board.stateKeepers, states) { try? keeper.restoreEncodedState(state) }
  }

  /// The memory between the program's symbols begin_signature and end_signature, one 32-bit hexadecimal word a line.
  public func signature() throws -> String { try board.signature() }

  /// Instructions retired by all harts since the machine was new. Exact while it doesn't run.
  public var retiredInstructions: UInt64 { board.harts.reduce(0) { $0 &+ $1.retiredInstructions } }

  /// Where a run is to be cut: when hart 0 has retired this many instructions since the machine was new, the state is
  /// written to the folder (without disks) and the run ends.
  public struct SavePoint: Sendable {
    public let instructions: UInt64
    public let path: String

    public init(instructions: UInt64, path: String) {
      self.instructions = instructions
      self.path = path
    }
  }

  /// Runs the machine until it ends. Once only. Throws the error of a backend that can't start.
  /// - Parameter isReady: called when everything on the host is set up, before the first instruction.
  public func run(until savePoint: SavePoint? = nil, isReady: () -> Void = {}) throws -> Outcome {
    precondition(threads == nil, "a machine is run once")
    defer { enter(.ended) }
    defer { for disk in disks { try? disk.close() } }
    do {
      try board.start()
    } catch {
      board.stop()
      throw error
    }
    defer {
      stopBackends()
      board.stop()
    }
    if let weightsFile {
      share.weights = ProcessorWeights(
        file: weightsFile, weight: configuration.processorWeight ?? 100, pinned: configuration.pinnedProcessors)
    }
    if share.weights == nil, let weight = configuration.processorWeight, weight != 100 {
      try ProcessorShare.setWeight(weight)
    }
    if let processors = configuration.pinnedProcessors { try HostResources.pin(to: processors) }
    isReady()
    let threads = HartThreads(
      board.harts, limit: savePoint?.instructions, samplers: profiler?.samplers ?? []
    ) { [weak self] in self?.post(.limit) }
    self.threads = threads
    defer {
      profiler?.stop()
      threads.end()
      perfMap?.flush()
    }
    profiler?.start()
    fileSystem?.setStandsStill(false)
    // A machine that was saved after its end, or stopped before its start, has nothing to run.
    threads.resume()
    enter(.running)
    while true {
      switch nextEvent() {
      case .power(.shutdown(let code)):
        if let path = codeFile {
          threads.pause()
          // Without it, the next run has more to do.
          _ = try? writeCode(to: path)
        }
        return .shutdown(code: code)
      case .power(.failed(let reason)): return .failed(reason)
      case .power(.reboot):
        threads.pause()
        board.reset()
        if pausedAt == nil { threads.resume() }
      case .stop: return .stopped
      case .limit:
        threads.pause()
        if let savePoint { try write(to: savePoint.path, includesDisks: false, isDurable: true) }
        return .saved
      case .perform(let request):
        threads.pause()
        request.finish(Result { try request.body() })
        if pausedAt == nil { threads.resume() }
      case .pause:
        guard pausedAt == nil else { continue }
        threads.pause()
        pausedAt = board.clock.ticks()
        fileSystem?.setStandsStill(true)
        enter(.paused)
      case .resume:
        guard let ticks = pausedAt else { continue }
        pausedAt = nil
        // The guest doesn't see the pause.
        board.clock.set(ticks)
        fileSystem?.setStandsStill(false)
        threads.resume()
        enter(.running)
      case .togglePause: post(pausedAt == nil ? .pause : .resume)
      }
    }
  }

  // MARK: what is measured

  /// What the harts' translators have done so far and the memory that they hold; nil where the interpreter runs the
  /// harts. While the machine doesn't run.
  public var translationMetrics: TranslationMetrics? {
    let all = board.harts.compactMap { ($0.engine as? Translator)?.metrics }
    return all.isEmpty ? nil : all.reduce(TranslationMetrics(), +)
  }

  /// Where the code that the translators have made is kept when the guest switches the machine off, for
  /// `VirtualMachineConfiguration.keptCode` of later runs; nil: nowhere. Before `run`.
  public var codeFile: String?

  /// A file, open to be read and written, through which machines keep to their weights against each other, all that have
  /// the same one; the machine closes it. Nil: weights are niceness, which counts against other programs, too, but where the host groups sessions, and
  /// only root may raise. Before `run`.
  public var weightsFile: Int32?

  /// Whether a file is of code that this build of the program, on this host, kept. Damage isn't looked for.
  public static func canBegin(withCode path: String) -> Bool { KeptCode.fits(path) }

  /// Looks for damage in such a file, where nobody has since the host was started, and notes at it that there is none: a
  /// machine's process, which may only read it, would look each time.
  /// - Returns: whether there is one without damage, for this program.
  @discardableResult
  package static func checkCode(at path: String) -> Bool { KeptCode(path: path)?.waitUntilChecked() ?? false }

  /// Keeps the code that the translators have made so far in a file, as `codeFile` says. Throws `MachineError`, and
  /// `HostError` where it can't be written. Any thread but the machine's own, while it runs.
  public func keepCode(at path: String) throws {
    try performWhileStill { [unowned self] in try writeCode(to: path) }
  }

  /// That of the hart that has most, for the harts' memories differ; where it isn't much more than there was.
  private func writeCode(to path: String) throws {
    let translators = board.harts.compactMap { $0.engine as? Translator }
    guard let translator = translators.max(by: { $0.metrics.codeBytes < $1.metrics.codeBytes }) else { return }
    let size = translator.metrics.codeBytes
    // Of what was begun with, or was written here already.
    let before = lastKept?.path == path ? lastKept!.size : size - translator.newCodeBytes
    guard size - before > max(Self.leastNewCode, size / 4),
      let free = HostResources.freeSpace(forFile: path), free / 20 > UInt64(size)
    else { return }
    try translator.keepCode(at: path)
    lastKept = (path, size)
  }

  private var lastKept: (path: String, size: Int)?

  /// Bytes of code that aren't worth a file of their own. A disk that is nearly full has better uses, too.
  private static let leastNewCode = 1 << 20

  /// Has `run` take samples of where guest code is, about a thousand a second of each hart. Before it. Throws `HostError`
  /// where the host can't.
  public func takeProfile() throws {
    precondition(threads == nil, "a profile is asked for before the machine runs")
    profiler = try Profiler(board.harts)
  }

  /// The samples taken so far; nil without `takeProfile`. Any thread.
  public var profile: Profile? { profiler?.profile }

  /// Has the translators name their code for perf(1) in /tmp/perf-PID.map, with the guest's symbols. Before `run`. Throws
  /// `MachineError` where there is no translator, and `HostError` where the file can't be made.
  public func writePerfMap(symbols: SymbolTable) throws {
    precondition(threads == nil, "a map is asked for before the machine runs")
    let translators = board.harts.compactMap { $0.engine as? Translator }
    guard !translators.isEmpty else {
      throw MachineError(.usage, "only the translator makes code that perf can't name by itself; leave the map out")
    }
    let map = try PerfMap()
    for translator in translators { map.follow(translator) { symbols.name(of: $0) } }
    perfMap = map
  }

  /// While no hart runs. Devices stand still meanwhile, too.
  private func write(to path: String, includesDisks: Bool, isDurable: Bool, asChanges: Bool = false) throws {
    let disks = self.disks
    let board = self.board
    let (configuration, savedDisks, pausedAt) = (currentConfiguration, self.savedDisks, self.pausedAt)
    let restoredMemory = self.restoredMemory
    try board.loop.performAndWait {
      Result {
        do {
          for disk in disks where !disk.isReadOnly { try disk.flush() }
        } catch {
          throw MachineError(.inputOutput, "can't write what the machine's disks have yet to write: \(error)")
        }
        let parts = SavedMachine.Parts(
          configuration: configuration, clock: pausedAt ?? board.clock.ticks(),
          instructionSet: board.configuration.describedInstructionSet.extensions,
          components: try board.stateKeepers.map { try $0.encodedState() },
          codePages: isDurable ? nil : board.harts.map { $0.codePagesUsed(most: MachineMould.mostCodePages) },
          disks: includesDisks ? savedDisks : [:],
          isDurable: isDurable, base: asChanges ? restoredMemory : nil)
        try SavedMachine.write(parts, memory: board.memory, to: path)
      }
    }.get()
  }

  private func post(_ event: Event) {
    condition.lock()
    events.append(event)
    condition.broadcast()
    condition.unlock()
  }

  private func nextEvent() -> Event {
    condition.lock()
    defer { condition.unlock() }
    while events.isEmpty { condition.wait() }
    return events.removeFirst()
  }

  private func enter(_ state: State) {
    condition.lock()
    if state != currentState { for watcher in watchers { watcher.yield(state) } }
    currentState = state
    if state == .ended {
      for watcher in watchers { watcher.finish() }
      watchers = []
      for case .perform(let request) in events {
        request.finish(.failure(MachineError(.unavailable, "the machine has ended")))
      }
      events = []
    }
    condition.broadcast()
    condition.unlock()
  }

  /// Where the machine is now. Any thread.
  public var state: State {
    condition.lock()
    defer { condition.unlock() }
    return currentState
  }

  /// Where the machine is now, and then each state that it comes to; ends when the machine has. Each who asks has a
  /// sequence of their own, that loses nothing. Any thread.
  public var states: AsyncStream<State> {
    let (stream, continuation) = AsyncStream<State>.makeStream()
    condition.lock()
    defer { condition.unlock() }
    continuation.yield(currentState)
    if currentState == .ended { continuation.finish() } else { watchers.append(continuation) }
    return stream
  }

  /// Waits until the machine has left these states. Any thread but its own.
  public func wait(while states: Set<State>) {
    condition.lock()
    defer { condition.unlock() }
    while states.contains(currentState) { condition.wait() }
  }

  /// Presses the power button: a guest's system that listens to it switches itself off in good order. False: the
  /// machine has none. Any thread.
  public func pressPowerButton() -> Bool {
    guard let powerButton else { return false }
    board.loop.perform { powerButton.pressPowerButton() }
    return true
  }

  /// Ends the run at once, as pulling the plug would. Any thread.
  public func stop() { post(.stop) }

  /// Stops all harts between two instructions, until `resume`. Any thread.
  public func pause() { post(.pause) }
  public func resume() { post(.resume) }

  /// Saves the machine, with the disks that it writes to, in a folder (see `SavedMachine`), and has it go on. It stands
  /// still meanwhile. Throws `MachineError`. Any thread but its own, while it runs.
  ///
  /// - Parameter isDurable: whether its RAM is to outlive a failure of the host, and damage to be found, which take most
  ///   of the time; disks do.
  public func save(to path: String, isDurable: Bool = true) throws {
    try save(to: path, isDurable: isDurable, asChanges: false)
  }

  /// - Parameter asChanges: whether who asks has the RAM that the machine was restored from, and may be given only what is
  ///   otherwise in its own.
  package func save(to path: String, isDurable: Bool, asChanges: Bool) throws {
    try performWhileStill { [unowned self] in
      try write(to: path, includesDisks: true, isDurable: isDurable, asChanges: asChanges)
    }
  }

  private func performWhileStill(_ body: @escaping () throws -> Void) throws {
    let request = Request(body)
    condition.lock()
    let runs = currentState == .running || currentState == .paused
    if runs {
      events.append(.perform(request))
      condition.broadcast()
    }
    condition.unlock()
    guard runs else { throw MachineError(.unavailable, "the machine doesn't run") }
    try request.wait()
  }

  /// Pauses a running machine, resumes a paused one. Any thread.
  public func togglePause() { post(.togglePause) }

  /// Changes how many of the host's processors it may use; nil: all that others leave. Any thread.
  public func setProcessorLimit(_ processors: Double?) {
    share.setLimit(processors)
    changed.withLock { $0.processorLimit = processors }
  }

  /// Changes its weight against other machines (100 is usual). Throws `MachineError` where the host doesn't let it. Any
  /// thread.
  public func setProcessorWeight(_ weight: Int) throws {
    if share.weights == nil { try ProcessorShare.setWeight(weight) }
    noteProcessorWeight(weight)
  }

  /// Whether machines can keep to their weights by themselves, see `weightsFile`.
  package static var keepsWeights: Bool { SchedulingDelay.isCounted }

  /// It has this weight now: who isn't let set it itself is told.
  package func noteProcessorWeight(_ weight: Int) {
    share.weights?.setWeight(weight)
    changed.withLock { $0.processorWeight = weight }
  }

  /// Has all of this process run on these of the host's processors from now on; nil: on all. Throws `MachineError` where
  /// the host doesn't let it. Any thread.
  public func pin(to processors: [Int]?) throws {
    try Self.pin(nil, to: processors)
    notePin(to: processors)
  }

  /// It runs on these now: who isn't let choose them itself is told.
  package func notePin(to processors: [Int]?) {
    share.weights?.setPinned(processors)
    changed.withLock { $0.pinnedProcessors = processors }
  }

  /// The same for another process, whose machine isn't let do it itself.
  package static func setProcessorWeight(_ weight: Int, of process: Int32) throws {
    try ProcessorShare.setWeight(weight, process: process)
  }

  package static func pin(_ process: Int32?, to processors: [Int]?) throws {
    do {
      try HostResources.pin(to: processors, process: process)
    } catch let error as HostError {
      throw MachineError(error.code == ESRCH ? .unavailable : .permission, error.message)
    }
  }

  /// Forwards a port of the host to the guest from now on, as "2222:22". Throws `NetworkError`, and `MachineError` where
  /// the machine isn't on the user network. Any thread, while it runs.
  public func publish(_ forward: String) throws {
    let parsed = try PortForward(parsing: forward)
    guard let network else {
      throw MachineError(.unavailable, "it isn't on a user network, which is what has ports to forward")
    }
    try board.loop.performAndWait { Result { try network.add(parsed) } }.get()
    changeForwards { $0.append(forward) }
  }

  private func changeForwards(_ body: (inout [String]) -> Void) {
    changed.withLock { changed in
      guard case .user(var forwards)? = changed.network?.attachment else { return }
      body(&forwards)
      changed.network?.attachment = .user(forwards: forwards)
    }
  }

  /// Stops forwarding the host's port of this forward; connections that stand go on. False: it isn't forwarded. Throws
  /// `NetworkError`. Any thread, while it runs.
  public func stopPublishing(_ forward: String) throws -> Bool {
    let parsed = try PortForward(parsing: forward)
    guard let network, board.loop.performAndWait({ network.remove(parsed) }) else { return false }
    changeForwards { forwards in
      forwards.removeAll { (try? PortForward(parsing: $0))?.sharesPort(with: parsed) == true }
    }
    return true
  }

  /// Shares a folder of the host with the guest from now on, in place of another one of that name. Throws `MachineError`
  /// where there is no such folder, or the machine has no file system device. Any thread.
  /// - Parameter place: another path by which this process reaches the folder.
  public func share(_ folder: SharedFolder, at place: String? = nil) throws {
    guard SharedFolder.isValidName(folder.name) else {
      throw MachineError(.usage, "'\(folder.name)' can't name a shared folder")
    }
    guard let fileSystem else {
      throw MachineError(.unavailable, "it has no device for shared folders; start it anew")
    }
    do {
      try fileSystem.share(folder, at: place)
    } catch let error as HostError {
      throw MachineError(.noInput, error.message)
    }
  }

  /// Takes a shared folder from the guest: files that it has open there lead nowhere then. False: none of this name is
  /// shared. Any thread.
  public func stopSharing(_ name: String) -> Bool { fileSystem?.stopSharing(name) ?? false }

  /// The folders that are shared now. Any thread.
  public var sharedFolders: [SharedFolder] { fileSystem?.sharedFolders ?? [] }

  /// Has the guest make do with so many bytes of RAM, as far as it can; all that it was made with at most. It needs a
  /// while, and a driver. Throws `MachineError` where that is more, or the machine has no balloon. Any thread.
  public func setMemoryTarget(_ bytes: UInt64) throws {
    guard let balloon else { throw MachineError(.unavailable, "it has no balloon; start it anew in the background") }
    let most = configuration.boardMemorySize
    guard bytes <= most else {
      throw MachineError(.unavailable, "it was started with \(most >> 20)M of RAM, and gets more at its next start")
    }
    balloon.setTarget(most - bytes)
    // What is saved has RAM of the same size: without a maximum, that is what it was made with.
    if configuration.maximumMemorySize != nil { changed.withLock { $0.memorySize = bytes } }
  }

  /// Whether its RAM can be made less, and what the guest frees goes back to the host.
  public var hasBalloon: Bool { balloon != nil }

  /// The guest uses so many of its harts now: who has it do that tells, so that what is saved says so.
  package func noteHartCount(_ count: Int) {
    guard configuration.maximumHartCount != nil, (1...configuration.boardHartCount).contains(count) else { return }
    changed.withLock { $0.hartCount = count }
  }

  /// Bytes of RAM that the guest has now. Any thread.
  public var memoryInUse: UInt64 {
    configuration.boardMemorySize - min(configuration.boardMemorySize, balloon?.actual ?? 0)
  }

  /// Sends a break on the serial line. Any thread.
  public func sendBreak() {
    let board = self.board
    board.loop.perform { board.uart.receiveBreak() }
  }
}

import Bus
import HostSystem
import RISCV
import Synchronization

/// One hardware thread: its architectural state and the loop that runs it. A hart runs on one host thread; what other
/// threads may call is said beside each method.
public final class Hart: @unchecked Sendable {
  /// mhartid.
  public let identifier: Int
  public let addressSpace: AddressSpace
  public let clock: GuestClock
  public let configuration: HartConfiguration
  public weak var environment: (any HartEnvironment)?

  /// Why `run` came back.
  public enum Exit: Equatable, Sendable {
    /// `requestPause` was called. The hart stands between two instructions.
    case paused
    /// The instruction limit given to `run` was reached.
    case instructionLimit
  }

  /// SBI hart state (SBI 2.0, chapter 9). A hart is created stopped.
  public enum Lifecycle: Int, Codable, Sendable {
    case started = 0
    case stopped = 1
    case suspended = 4
  }

  /// The range of physical addresses whose stores are reported to `environment` (HTIF's tohost and fromhost): it must
  /// lie in one page. Set before the hart runs.
  public var watchedRange: Range<UInt64>?

  /// What runs guest code in place of the interpreter; set before the hart runs.
  package var engine: (any ExecutionEngine)?
  /// Called on the hart's thread after each stretch, between two instructions; set before the hart runs.
  package var afterStretch: (() -> Void)?
  /// What stands for the entry points of a page that the engine hasn't looked at.
  package var absentEntryPoints: UnsafeMutablePointer<UInt32>?

  package let memory: GuestMemory
  package let state: UnsafeMutablePointer<HartState>
  /// Where RAM is for the guest, how large it is, and where it is here: `memory`'s, at hand.
  let ramBase: UInt64
  let ramSize: UInt64
  let ramHost: UnsafeMutableRawPointer
  /// x0...x31 of `state`, and the place that takes writes to x0.
  package let x: UnsafeMutablePointer<UInt64>
  package let decoder: Decoder
  let highestTranslationMode: UInt64
  // Looked into at each miss: the checks of exclusive access cost more than the look. Only the hart's thread does.
  @exclusivity(unchecked) var translations: TranslationCache
  var dataContext: UnsafeMutablePointer<TranslationCache.Context> {
    get { state.pointee.dataContext.assumingMemoryBound(to: TranslationCache.Context.self) }
    set { state.pointee.dataContext = UnsafeMutableRawPointer(newValue) }
  }
  var fetchContext: UnsafeMutablePointer<TranslationCache.Context>
  @exclusivity(unchecked) var codePages: CodePages
  @exclusivity(unchecked) var decodedPages: DecodedPages
  /// What is kept about pages with code, by the hart and by its engine.
  package let codeArena: MemoryArena
  /// Counts how often all code had to be compared with memory before its next use.
  @exclusivity(unchecked) var codeEpoch: UInt64 = 1
  /// No other hart stores to this memory, so that `codeChanges` knows of all stores.
  let isAlone: Bool
  @exclusivity(unchecked) var codeChanges: CodeChanges
  /// A page of one instruction, for one that lies across a page border or in a page of mixed protection.
  let straddlingSlots: UnsafeMutablePointer<Slot>
  /// The last fetch was from a page whose bytes don't all have one protection: only the instruction at pc, which stands
  /// in `straddlingSlots`, may be executed without another look.
  package var isFetchConfined = false
  /// Whether any PMP entry is on.
  var hasMemoryProtection = false
  /// Whether the first PMP entry that is on gives everything to everybody: what firmware sets up for a kernel.
  var isMemoryOpen = false
  /// An SBI call has set pc anew instead of returning.
  var isBegunAnew = false
  /// How many traps were taken.
  package var trapCount: UInt64 = 0
  /// What is executed on trial; see `rehearse`. Unmanaged: slow paths look at it, and count no references.
  var rehearsal: Unmanaged<Rehearsal>?

  /// Interrupt lines from outside and timers, as bits of mip.
  let lines: UnsafeMutablePointer<Atomic<UInt64>>
  /// mtimecmp.
  private let timeCompare = Atomic<UInt64>(~0)
  /// Bits of `Attention`: what the run loop should see to before the next instructions.
  package let attention = Atomic<UInt32>(0)
  private let lifecycleState = Atomic<Int>(Lifecycle.stopped.rawValue)
  /// Whether guest code may be executing, as opposed to sleeping or not running at all; see `fence`.
  private let isExecuting = Atomic<Bool>(false)
  /// Counts reasons to wake up; the hart sleeps on it.
  private let wakeWord: UnsafeMutablePointer<UInt32>
  private let requests = Mutex(Requests())

  private enum Attention {
    static let pause: UInt32 = 1
    static let request: UInt32 = 2
    static let lifecycle: UInt32 = 4
  }

  private struct Requests {
    var fences: [Fence] = []
    var completed: UInt64 = 0
    var issued: UInt64 = 0
    var start: Start?

    mutating func takeStart() -> Start? {
      defer { start = nil }
      return start
    }
  }

  private struct Start {
    let address: UInt64
    let privilege: Privilege
    let argument: UInt64
  }

  /// A hart in its reset state (Privileged Architecture, 3.4), stopped.
  public init(identifier: Int, addressSpace: AddressSpace, clock: GuestClock, configuration: HartConfiguration) {
    self.identifier = identifier
    self.addressSpace = addressSpace
    self.clock = clock
    self.configuration = configuration
    memory = addressSpace.memory
    ramBase = memory.base.rawValue
    ramSize = memory.size
    ramHost = memory.host
    decoder = Decoder(extensions: configuration.extensions)
    highestTranslationMode = UInt64((configuration.virtualAddressBits - 39) / 9 + 8)
    codeArena = MemoryArena()
    translations = TranslationCache(codeArena)
    let bare = translations.context(for: TranslationKey(satp: 0, mode: 3))
    fetchContext = bare
    codePages = CodePages()
    decodedPages = DecodedPages()
    isAlone = configuration.isAlone
    codeChanges = CodeChanges(ramBase: memory.base.rawValue, ramSize: memory.size)
    state = .allocate(capacity: 1)
    state.initialize(
      to: HartState(
        readEntries: bare.pointee.read, writeEntries: bare.pointee.write, fetchEntries: bare.pointee.fetch,
        dataContext: UnsafeMutableRawPointer(bare)))
    x = UnsafeMutableRawPointer(state).advanced(by: MemoryLayout<HartState>.offset(of: \.x)!)
      .assumingMemoryBound(to: UInt64.self)
    lines = UnsafeMutableRawPointer(state).advanced(by: MemoryLayout<HartState>.offset(of: \.lines)!)
      .assumingMemoryBound(to: Atomic<UInt64>.self)
    straddlingSlots = .allocate(capacity: 3)
    straddlingSlots.initialize(repeating: CodePages.undecoded, count: 3)
    straddlingSlots[1].auxiliary = SlotKind.pageEnd
    straddlingSlots[2].auxiliary = SlotKind.pageEnd
    wakeWord = .allocate(capacity: 1)
    wakeWord.initialize(to: 0)
    useTableSizes()
  }

  deinit {
    translations.deallocate()
    codePages.deallocate()
    decodedPages.deallocate()
    codeChanges.deallocate()
    state.deallocate()
    straddlingSlots.deallocate()
    wakeWord.deallocate()
  }

  /// Puts the hart back into its reset state, stopped; lines from devices stay. Only while it doesn't run.
  public func reset() {
    state.pointee = HartState(
      readEntries: state.pointee.readEntries, writeEntries: state.pointee.writeEntries,
      fetchEntries: state.pointee.fetchEntries, dataContext: state.pointee.dataContext)
    useTableSizes()
    translations.clearAll()
    suspectAllCode()
    hasMemoryProtection = false
    isMemoryOpen = false
    isBegunAnew = false
    timeCompare.store(~0, ordering: .relaxed)
    lines.pointee.store(0, ordering: .relaxed)
    requests.withLock { $0.start = nil }
    lifecycleState.store(Lifecycle.stopped.rawValue, ordering: .releasing)
    selectContexts()
  }

  // MARK: the hart's own thread, or while it doesn't run

  /// An integer register; writes to x0 are ignored.
  public subscript(x register: Int) -> UInt64 {
    get { x[register & 31] }
    set { if register & 31 != 0 { x[register & 31] = newValue } }
  }

  /// A floating-point register's bits.
  public subscript(f register: Int) -> UInt64 {
    get { state.pointee.f[register & 31] }
    set { state.pointee.f[register & 31] = newValue }
  }

  public var pc: UInt64 {
    get { state.pointee.pc }
    set { state.pointee.pc = newValue }
  }

  public var privilege: Privilege {
    get { state.pointee.privilege }
    set {
      state.pointee.privilege = newValue
      selectContexts()
    }
  }

  /// Number of instructions retired since the machine was new.
  public var retiredInstructions: UInt64 { state.pointee.retired }

  /// stimecmp (Sstc), in clock ticks; what SBI set_timer sets. Writing it clears or sets the pending timer interrupt
  /// as the time demands.
  public var supervisorTimeCompare: UInt64 {
    get { state.pointee.stimecmp }
    set {
      state.pointee.stimecmp = newValue
      updateTimers()
    }
  }

  /// Where the guest's virtual address lies, as a load in the hart's present mode would see it; nil where it faults.
  public func physicalAddress(ofVirtual address: UInt64) -> PhysicalAddress? {
    physicalAddress(address, size: 1, .load).map { PhysicalAddress($0.physical) }
  }

  // MARK: any thread

  /// Drives interrupt-pending bits of mip from outside (CLINT, PLIC, SBI) and wakes the hart from WFI.
  public func setInterrupt(_ bits: InterruptSet, _ level: Bool) {
    setLine(bits.rawValue, level)
    if level { wake() }
  }

  func setLine(_ bits: UInt64, _ level: Bool) {
    if level {
      if lines.pointee.load(ordering: .relaxed) & bits != bits {
        lines.pointee.bitwiseOr(bits, ordering: .sequentiallyConsistent)
      }
    } else if lines.pointee.load(ordering: .relaxed) & bits != 0 {
      lines.pointee.bitwiseAnd(~bits, ordering: .sequentiallyConsistent)
    }
  }

  /// mtimecmp of the CLINT, in clock ticks: machineTimer is pending while the clock stands at or above it.
  public var machineTimeCompare: UInt64 {
    get { timeCompare.load(ordering: .acquiring) }
    set {
      timeCompare.store(newValue, ordering: .releasing)
      setLine(1 << 7, clock.ticks() >= newValue)
      wake()
    }
  }

  public var lifecycle: Lifecycle { Lifecycle(rawValue: lifecycleState.load(ordering: .acquiring)) ?? .stopped }

  /// Whether guest code may be executing now, as opposed to sleeping or not running at all.
  package var isAwake: Bool { isExecuting.load(ordering: .relaxed) }

  /// Starts a stopped hart at `address` in `privilege` with a0 = its identifier and a1 = `argument`, translation off and
  /// supervisor interrupts disabled (SBI 2.0, 9.1). False when it isn't stopped.
  public func start(at address: UInt64, privilege: Privilege, argument: UInt64) -> Bool {
    requests.withLock { requests in
      guard lifecycle == .stopped, requests.start == nil else { return false }
      requests.start = Start(address: address, privilege: privilege, argument: argument)
      lifecycleState.store(Lifecycle.started.rawValue, ordering: .releasing)
      ask(Attention.lifecycle)
      return true
    }
  }

  /// What a remote fence asks for (SBI 2.0, chapter 8).
  public enum Fence: Sendable {
    case instruction
    /// Translations of `[start, start + size)`; `size` 0 or all ones: the whole address space. `asid` nil: of all.
    case addresses(start: UInt64, size: UInt64, asid: UInt64?)
  }

  /// Has `targets` execute a fence before their next instruction, and returns when it is certain that they will. Called
  /// on the thread of `self`, which may be among the targets.
  public func fence(_ kind: Fence, on targets: [Hart]) {
    var waiting: [(hart: Hart, ticket: UInt64)] = []
    for target in targets {
      if target === self {
        perform(kind)
        continue
      }
      let ticket = target.requests.withLock { requests in
        requests.fences.append(kind)
        requests.issued += 1
        return requests.issued
      }
      target.attention.bitwiseOr(Attention.request, ordering: .sequentiallyConsistent)
      // A hart that sleeps or is paused looks at its requests before it executes anything.
      if target.isExecuting.load(ordering: .sequentiallyConsistent) { waiting.append((target, ticket)) }
    }
    for (target, ticket) in waiting {
      while target.isExecuting.load(ordering: .sequentiallyConsistent),
        target.requests.withLock({ $0.completed }) < ticket
      {
        // Two harts may fence each other.
        performRequests()
        HostThread.yield()
      }
    }
  }

  private func perform(_ fence: Fence) {
    switch fence {
    case .instruction: fenceInstructions()
    case .addresses(let start, let size, let asid):
      let pages = size / 4096
      if size == 0 || pages > 64 || start &+ size < start {
        fenceTranslations(address: nil, asid: asid)
      } else {
        for page in 0...pages { fenceTranslations(address: start &+ page * 4096, asid: asid) }
      }
    }
  }

  private func performRequests() {
    guard attention.load(ordering: .acquiring) & Attention.request != 0 else { return }
    attention.bitwiseAnd(~Attention.request, ordering: .sequentiallyConsistent)
    let (fences, issued) = requests.withLock { requests in
      defer { requests.fences.removeAll(keepingCapacity: true) }
      return (requests.fences, requests.issued)
    }
    for fence in fences { perform(fence) }
    requests.withLock { $0.completed = max($0.completed, issued) }
  }

  // MARK: lifecycle, on the hart's own thread (from SBI calls)

  /// SBI hart_stop: the hart stands still until `start`.
  public func stop() {
    lifecycleState.store(Lifecycle.stopped.rawValue, ordering: .releasing)
    isBegunAnew = true
    ask(Attention.lifecycle)
  }

  /// SBI hart_suspend: waits until an enabled interrupt is pending, then goes on after the call (retentive), or begins
  /// anew as `start` would (non-retentive, `resume` given).
  public func suspend(resume: (address: UInt64, argument: UInt64)?) {
    state.pointee.isWaiting = true
    if let resume {
      isBegunAnew = true
      begin(Start(address: resume.address, privilege: .supervisor, argument: resume.argument))
    }
    lifecycleState.store(Lifecycle.suspended.rawValue, ordering: .releasing)
  }

  private func begin(_ start: Start) {
    state.pointee.pc = start.address
    state.pointee.privilege = start.privilege
    state.pointee.satp = 0
    state.pointee.mstatus &= ~MachineStatus.sie
    state.pointee.reservedAddress = ~0
    x[10] = UInt64(identifier)
    x[11] = start.argument
    selectContexts()
  }

  // MARK: saved state

  /// Lets a start that was asked for, and not yet seen by the run loop, take effect.
  func applyPendingStart() {
    if let start = requests.withLock({ $0.takeStart() }) { begin(start) }
  }

  var interruptLines: UInt64 { lines.pointee.load(ordering: .acquiring) }

  func restoreWires(lines: UInt64, timeCompare: UInt64, lifecycle: Lifecycle) {
    self.lines.pointee.store(lines, ordering: .releasing)
    self.timeCompare.store(timeCompare, ordering: .releasing)
    lifecycleState.store(lifecycle.rawValue, ordering: .releasing)
  }

  // MARK: running

  /// How many instructions run between two looks at timers, interrupts and requests.
  private static let stretch = 4096
  /// The same for an engine, which gets through one more quickly. Others wait for this hart's fences that long.
  package var engineStretch = 32768

  /// Runs guest code on the calling thread until a pause is requested or `limit` more instructions have retired. A
  /// hart that is stopped or waits for an interrupt sleeps in here.
  public func run(limit: UInt64? = nil) -> Exit {
    // The engine is looked at once: in the loop, references would be counted at each turn.
    guard let engine else { return run(limit: limit, stretch: Self.stretch) { interpret($0) } }
    return run(limit: limit, stretch: engineStretch) { engine.execute($0, exactly: limit != nil) }
  }

  private func run(limit: UInt64?, stretch: Int, _ execute: (Int) -> Void) -> Exit {
    let end = limit.map { state.pointee.retired &+ $0 }
    let afterStretch = self.afterStretch
    isExecuting.store(true, ordering: .sequentiallyConsistent)
    defer { isExecuting.store(false, ordering: .sequentiallyConsistent) }
    while true {
      if attention.load(ordering: .acquiring) != 0 {
        performRequests()
        if attention.load(ordering: .acquiring) & Attention.pause != 0 { return .paused }
        attention.bitwiseAnd(~Attention.lifecycle, ordering: .sequentiallyConsistent)
      }
      if lifecycle == .stopped {
        sleep(until: nil)
        continue
      }
      applyPendingStart()
      var budget = stretch
      if let end {
        let left = end &- state.pointee.retired
        if left == 0 || left > UInt64(Int64.max) { return .instructionLimit }
        budget = Int(min(UInt64(budget), left))
      }
      updateTimers()
      if state.pointee.isWaiting {
        if pendingInterrupts & state.pointee.mie == 0 {
          sleep(until: nextTimer())
          continue
        }
        state.pointee.isWaiting = false
        if lifecycle == .suspended { lifecycleState.store(Lifecycle.started.rawValue, ordering: .releasing) }
      }
      takeInterrupt()
      execute(budget)
      if let afterStretch { afterStretch() }
    }
  }

  /// The clock's tick at which the next timer interrupt becomes pending; all ones when none will.
  private func nextTimer() -> UInt64 {
    var next = ~UInt64(0)
    if state.pointee.mie & 1 << 7 != 0 { next = min(next, machineTimeCompare) }
    if hasSupervisorTimer, state.pointee.mie & 1 << 5 != 0 { next = min(next, state.pointee.stimecmp) }
    return next
  }

  /// Sleeps until something happens: an interrupt, a request, or the clock reaching `tick`.
  private func sleep(until tick: UInt64?) {
    isExecuting.store(false, ordering: .sequentiallyConsistent)
    defer { isExecuting.store(true, ordering: .sequentiallyConsistent) }
    let seen = HostThread.load(wakeWord)
    if attention.load(ordering: .sequentiallyConsistent) != 0 { return }
    if lifecycle != .stopped, pendingInterrupts & state.pointee.mie != 0 { return }
    guard let tick, tick != ~0 else { return HostThread.sleep(on: wakeWord, while: seen, nanoseconds: nil) }
    let now = clock.ticks()
    if tick <= now { return }
    let wait = min(tick - now, 10 * GuestClock.frequency) * GuestClock.nanosecondsPerTick * clock.slowdown
    HostThread.sleep(on: wakeWord, while: seen, nanoseconds: wait)
  }

  /// Stands still for so long at most, until somebody asks something of the hart. On its own thread, after a stretch.
  /// False: it was asked, or is about to be.
  package func rest(nanoseconds: UInt64) -> Bool {
    isExecuting.store(false, ordering: .sequentiallyConsistent)
    defer { isExecuting.store(true, ordering: .sequentiallyConsistent) }
    let seen = HostThread.load(wakeWord)
    if attention.load(ordering: .sequentiallyConsistent) != 0 { return false }
    HostThread.sleep(on: wakeWord, while: seen, nanoseconds: nanoseconds)
    return attention.load(ordering: .sequentiallyConsistent) == 0
  }

  private func wake() { HostThread.wake(wakeWord, isAsleep: !isExecuting.load(ordering: .sequentiallyConsistent)) }

  private func ask(_ bit: UInt32) {
    attention.bitwiseOr(bit, ordering: .sequentiallyConsistent)
    wake()
  }

  /// Makes `run` return `.paused` soon; a later `run` returns at once until `clearPause`. Any thread.
  public func requestPause() { ask(Attention.pause) }
  public func clearPause() { attention.bitwiseAnd(~Attention.pause, ordering: .sequentiallyConsistent) }
}

/// What the hart implements and which of it is switched on; see `RISCV` for names.
public struct HartConfiguration: Hashable, Sendable {
  /// The highest translation mode: 39, 48 or 57.
  public var virtualAddressBits: Int
  /// The instruction set extensions that decode.
  public var extensions: ExtensionSet
  /// No other hart stores to the hart's memory; others tell the memory what they write. A FENCE.I costs less then.
  public var isAlone = false

  public init(virtualAddressBits: Int = 57, extensions: ExtensionSet = .yadori) {
    self.virtualAddressBits = virtualAddressBits
    self.extensions = extensions
  }
}

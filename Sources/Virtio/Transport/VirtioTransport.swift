import Bus
import HostSystem
import Synchronization

/// How a transport tells the driver something. Called on the I/O thread, with no lock held.
protocol VirtioInterrupts: AnyObject {
  func usedBuffers(queue: Int)
  func configurationChanged()
  /// The device was reset: nothing is pending any more.
  func reset()
}

/// What MMIO and PCI have in common: feature negotiation, the device status, the queues' registers and the way from a
/// hart's register access to the device's work on the I/O thread (virtio 1.2, chapter 2 and 3).
///
/// Threads and locks. Registers are accessed on hart threads, several at once; queues and the device work on the I/O
/// thread. The rule that keeps them from waiting for each other in a circle:
/// 1. the register lock is a leaf: while it is held, nothing is called but `EventLoop.perform`, which only queues;
/// 2. interrupts (`InterruptLine.set`, messages) and the device are called with no lock held;
/// 3. a hart waits for the I/O thread (`performAndWait`: device reset, queue reset) with no lock held, and so must
///    whoever calls in here (a host bridge holds no lock while it calls a function's registers);
/// 4. the I/O thread never waits for a hart.
public final class VirtioTransport: @unchecked Sendable {
  public static let maximumQueueCount = 64

  struct QueueRegisters: Codable, Equatable {
    var layout: Virtqueue.Layout
    var isEnabled = false

    init(maximumSize: UInt16) {
      layout = .init(size: maximumSize, descriptors: .init(0), available: .init(0), used: .init(0))
    }
  }

  struct Registers: Codable, Equatable {
    var deviceFeatureSelect: UInt32 = 0
    var driverFeatureSelect: UInt32 = 0
    var driverFeatures: UInt64 = 0
    var status: VirtioStatus = []
    var queueSelect: UInt32 = 0
    var queues: [QueueRegisters]
  }

  private struct Guarded {
    var registers: Registers
    /// A hart waits for the I/O thread to let go of the device; until then registers don't change.
    var isResetting = false
  }

  public let device: any VirtioDevice
  public let loop: EventLoop
  let memory: GuestMemory
  let offeredFeatures: UInt64
  let queueMaximumSizes: [UInt16]
  private let interrupts: any VirtioInterrupts
  private let guarded: Mutex<Guarded>
  /// Queues to look at, one bit each. Work is posted to the I/O thread only when this was empty before.
  private let notified = Atomic<UInt64>(0)
  /// PCI's bus master bit: without it the device doesn't touch RAM.
  private let mayAccessMemory = Atomic<Bool>(true)

  // The I/O thread's.
  private var queues: [Virtqueue?]
  private(set) var isActive = false
  private var backendIsStarted = false
  /// Whether a saved state is only held, till `releaseState`: with it the device is connected to the host. Before the
  /// machine starts.
  public var holdsState = false
  private var held: (state: VirtioTransportState, identifier: String, restoreDevice: () throws -> Void)?
  /// Why the device asked for a reset last.
  public private(set) var failure: String?

  init(device: any VirtioDevice, memory: GuestMemory, loop: EventLoop, interrupts: any VirtioInterrupts) {
    let sizes = device.queueMaximumSizes
    precondition(sizes.count <= Self.maximumQueueCount && sizes.allSatisfy { $0 > 0 && $0 & ($0 - 1) == 0 })
    self.device = device
    self.memory = memory
    self.loop = loop
    self.interrupts = interrupts
    queueMaximumSizes = sizes
    offeredFeatures = device.deviceFeatures | VirtioFeature.ofTransport
    queues = Array(repeating: nil, count: sizes.count)
    guarded = Mutex(Guarded(registers: Self.initialRegisters(sizes)))
    device.attach(to: self)
  }

  private static func initialRegisters(_ sizes: [UInt16]) -> Registers {
    Registers(queues: sizes.map { QueueRegisters(maximumSize: $0) })
  }

  /// Starts the device's backend; the driver's first use does it otherwise. Throws what the backend throws.
  func start() throws {
    try loop.performAndWait { Result { try self.startBackendOnce() } }.get()
  }

  private func startBackendOnce() throws {
    guard !backendIsStarted else { return }
    try device.startBackend()
    backendIsStarted = true
  }

  // MARK: Registers. Hart threads.

  func withRegisters<Result>(_ body: (inout Registers) -> Result) -> Result {
    guarded.withLock { guarded in
      if guarded.isResetting {
        var unchanged = guarded.registers
        return body(&unchanged)
      }
      return body(&guarded.registers)
    }
  }

  /// Changes the selected queue's registers, which is possible only while it isn't enabled.
  func withSelectedQueue(_ body: (inout QueueRegisters) -> Void) {
    withRegisters { registers in
      let selected = Int(registers.queueSelect)
      guard selected < registers.queues.count, !registers.queues[selected].isEnabled else { return }
      body(&registers.queues[selected])
    }
  }

  var selectedQueue: QueueRegisters? {
    withRegisters { registers in
      let selected = Int(registers.queueSelect)
      return selected < registers.queues.count ? registers.queues[selected] : nil
    }
  }

  func offeredFeatureWord(_ select: UInt32) -> UInt32 {
    select < 2 ? UInt32(truncatingIfNeeded: offeredFeatures >> (32 * UInt64(select))) : 0
  }

  func driverFeatureWord(_ select: UInt32) -> UInt32 {
    select < 2 ? UInt32(truncatingIfNeeded: withRegisters { $0.driverFeatures } >> (32 * UInt64(select))) : 0
  }

  func setDriverFeatureWord(_ value: UInt32) {
    withRegisters { registers in
      guard registers.driverFeatureSelect < 2, !registers.status.contains(.featuresOK) else { return }
      let shift = 32 * UInt64(registers.driverFeatureSelect)
      registers.driverFeatures &= ~(0xffff_ffff << shift)
      registers.driverFeatures |= UInt64(value) << shift
    }
  }

  var status: VirtioStatus { withRegisters { $0.status } }

  /// Writes the device status: bits are added; zero resets, and returns when the device has let go of the guest's
  /// memory (2.4.1).
  func writeStatus(_ value: UInt8) {
    guard value != 0 else { return reset() }
    withRegisters { registers in
      let before = registers.status
      var status = before.union(VirtioStatus(rawValue: value).intersection(.ofDriver))
      if !before.contains(.featuresOK), !accepts(registers.driverFeatures) { status.remove(.featuresOK) }
      if !status.contains(.featuresOK) { status.remove(.driverOK) }
      registers.status = status
      if status.contains(.driverOK), !before.contains(.driverOK) { loop.perform { self.activate() } }
    }
  }

  /// A driver that leaves VIRTIO_F_VERSION_1 out is served all the same, as a modern one (2.2.3 allows it): xv6 never
  /// looks at the upper half of the features.
  private func accepts(_ features: UInt64) -> Bool { features & ~offeredFeatures == 0 }

  private func reset() {
    let isFirst = guarded.withLock { guarded in
      defer { guarded.isResetting = true }
      return !guarded.isResetting
    }
    guard isFirst else { return }
    loop.performAndWait { self.deactivate() }
    interrupts.reset()
    guarded.withLock { $0 = Guarded(registers: Self.initialRegisters(queueMaximumSizes)) }
  }

  /// Lets the driver use the selected queue, from now on or from DRIVER_OK on.
  func enableSelectedQueue() {
    withRegisters { registers in
      let selected = Int(registers.queueSelect)
      guard selected < registers.queues.count, !registers.queues[selected].isEnabled else { return }
      registers.queues[selected].isEnabled = true
      if registers.status.contains(.driverOK) { loop.perform { self.activateQueue(selected) } }
    }
  }

  /// Takes the selected queue back into its initial state, and returns when the device doesn't use it any more (2.6.1).
  func resetSelectedQueue() {
    let selected = withRegisters { Int($0.queueSelect) }
    guard selected < queueMaximumSizes.count else { return }
    loop.performAndWait { self.queues[selected] = nil }
    withRegisters { $0.queues[selected] = QueueRegisters(maximumSize: queueMaximumSizes[selected]) }
  }

  /// The driver notified a queue. Any thread; queues that don't exist are ignored.
  func notify(queue index: UInt64) {
    guard index < UInt64(queueMaximumSizes.count) else { return }
    post(1 << index)
  }

  func setMayAccessMemory(_ allowed: Bool) {
    mayAccessMemory.store(allowed, ordering: .sequentiallyConsistent)
    if allowed { post(allQueues) }
  }

  private var allQueues: UInt64 {
    queueMaximumSizes.count == 64 ? .max : (1 << UInt64(queueMaximumSizes.count)) - 1
  }

  private func post(_ mask: UInt64) {
    guard mask != 0 else { return }
    if notified.bitwiseOr(mask, ordering: .acquiringAndReleasing).oldValue == 0 {
      loop.perform { self.handleNotifications() }
    }
  }

  // MARK: The device's work. I/O thread.

  private func handleNotifications() {
    var mask = notified.exchange(0, ordering: .acquiringAndReleasing)
    while mask != 0 {
      let index = mask.trailingZeroBitCount
      mask &= mask - 1
      if queue(index) != nil { device.queueNotified(index) }
    }
  }

  private func activate() {
    guard !isActive else { return }
    let registers = guarded.withLock { $0.isResetting ? nil : $0.registers }
    guard let registers, registers.status.contains(.driverOK) else { return }
    do {
      try startBackendOnce()
      for (index, queue) in registers.queues.enumerated() where queue.isEnabled {
        queues[index] = try makeQueue(index, queue.layout, features: registers.driverFeatures)
      }
    } catch {
      return fail("\(error)")
    }
    isActive = true
    device.activate(features: registers.driverFeatures)
  }

  private func activateQueue(_ index: Int) {
    guard isActive, queues[index] == nil else { return }
    let registers = guarded.withLock { $0.isResetting ? nil : $0.registers }
    guard let registers, registers.queues[index].isEnabled else { return }
    do {
      queues[index] = try makeQueue(index, registers.queues[index].layout, features: registers.driverFeatures)
    } catch {
      return fail("\(error)")
    }
    post(1 << UInt64(index))
  }

  private func makeQueue(
    _ index: Int, _ layout: Virtqueue.Layout, features: UInt64, position: Virtqueue.Position = .init()
  ) throws -> Virtqueue {
    try Virtqueue(
      index: index, layout: layout, maximumSize: queueMaximumSizes[index], features: features, memory: memory,
      position: position)
  }

  private func deactivate() {
    for index in queues.indices { queues[index] = nil }
    isActive = false
    device.reset()
  }

  /// The queue, while the driver has it ready and the device may use it.
  public func queue(_ index: Int) -> Virtqueue? {
    guard isActive, index < queues.count, mayAccessMemory.load(ordering: .acquiring) else { return nil }
    return queues[index]
  }

  /// What `serve` returns of a chain that the device keeps, to give it back when its answer is there.
  public static let kept = UInt32.max

  /// Serves the chains that wait in a queue. `serve` returns how many bytes it wrote into the chain, `kept`, or nil to
  /// leave it in the queue and stop for now; what it throws stops the device.
  ///
  /// `notesWrites`: whether memory is told of what the device writes, see `GuestMemory.noteWrite`.
  ///
  /// A driver that never ceases to add chains doesn't keep the I/O thread from its other work: after `budget` chains
  /// the rest is left for the loop's next turn.
  public func process(
    _ index: Int, budget: Int = 64, notesWrites: Bool = true, _ serve: (DescriptorChain) throws -> UInt32?
  ) {
    guard let queue = queue(index) else { return }
    var chain = DescriptorChain()
    var left = budget
    queue.suppressNotifications()
    do {
      repeat {
        while try queue.pop(into: &chain) {
          guard let written = try serve(chain) else {
            queue.putBack(1)
            _ = queue.resumeNotifications()
            return interruptIfWanted(queue)
          }
          guard queues[index] === queue else { return }
          if written != Self.kept { queue.push(head: chain.head, written: written, notesWrites: notesWrites) }
          left -= 1
          if left == 0 {
            processLater(index)
            return interruptIfWanted(queue)
          }
        }
      } while queue.resumeNotifications() != 0
    } catch {
      return fail("\(error)")
    }
    interruptIfWanted(queue)
  }

  /// Has the device look at a queue again, after other work of the I/O thread.
  public func processLater(_ index: Int) { post(1 << UInt64(index)) }

  /// Interrupts the driver if it wants that for what was given back since the last call.
  public func interruptIfWanted(_ queue: Virtqueue) {
    if queue.takeInterruptRequest() { interrupts.usedBuffers(queue: queue.index) }
  }

  /// Tells the driver that the configuration space changed.
  public func configurationChanged() {
    if isActive { interrupts.configurationChanged() }
  }

  /// Stops the device until the driver resets it: the driver did what it mustn't, or the host can't go on (2.1.2).
  public func fail(_ reason: String) {
    failure = reason
    for index in queues.indices { queues[index] = nil }
    isActive = false
    let tellsDriver = guarded.withLock { guarded in
      guard !guarded.isResetting else { return false }
      guarded.registers.status.insert(.needsReset)
      return guarded.registers.status.contains(.driverOK)
    }
    if tellsDriver { interrupts.configurationChanged() }
  }
}

// MARK: - Saved state

/// A transport's state and, within, its device's.
public struct VirtioTransportState: Codable {
  var registers: VirtioTransport.Registers
  /// Where the device stands in each queue; nil: not in use.
  var positions: [Virtqueue.Position?]
  var mayAccessMemory: Bool
  var device: EncodedState
}

extension VirtioTransport {
  func saveState() throws -> VirtioTransportState {
    try loop.performAndWait {
      Result {
        VirtioTransportState(
          registers: self.guarded.withLock { $0.registers }, positions: self.queues.map { $0?.position },
          mayAccessMemory: self.mayAccessMemory.load(ordering: .acquiring), device: try self.device.encodedState())
      }
    }.get()
  }

  /// Takes a saved state back. RAM and the interrupt controllers have theirs already, since the device goes on at once
  /// (or when the event loop starts).
  func restoreState(_ state: VirtioTransportState, identifier: String) throws {
    let restoreDevice = try device.decodedRestore(state.device)
    if holdsState {
      held = (state, identifier, restoreDevice)
    } else {
      try loop.performAndWait { Result { try self.restore(state, identifier, restoreDevice) } }.get()
    }
  }

  /// Takes the state back that was held. Throws what that throws.
  public func releaseState() throws {
    holdsState = false
    guard let (state, identifier, restoreDevice) = held else { return }
    held = nil
    try loop.performAndWait { Result { try self.restore(state, identifier, restoreDevice) } }.get()
  }

  private func restore(
    _ state: VirtioTransportState, _ identifier: String, _ restoreDevice: () throws -> Void
  ) throws {
    let registers = state.registers
    guard registers.queues.count == queues.count, state.positions.count == queues.count,
      registers.driverFeatures & ~offeredFeatures == 0 || !registers.status.contains(.featuresOK)
    else {
      throw StateError("the saved state of '\(identifier)' is of a device with other queues or features")
    }
    deactivate()
    let goesOn = registers.status.contains(.driverOK) && !registers.status.contains(.needsReset)
    var restored: [Virtqueue?] = Array(repeating: nil, count: queues.count)
    if goesOn {
      do {
        // A queue without a position was enabled, but the device hadn't come to look at it.
        for (index, queue) in registers.queues.enumerated() where queue.isEnabled {
          restored[index] = try makeQueue(
            index, queue.layout, features: registers.driverFeatures,
            position: state.positions[index] ?? Virtqueue.Position())
        }
      } catch {
        throw StateError("the saved state of '\(identifier)' is damaged: \(error)")
      }
      // Before the device's state, so that what is different on this host counts as a change, which the driver is told.
      try startBackendOnce()
    }
    try restoreDevice()
    guarded.withLock { $0 = Guarded(registers: registers) }
    mayAccessMemory.store(state.mayAccessMemory, ordering: .sequentiallyConsistent)
    guard goesOn else { return }
    queues = restored
    isActive = true
    device.activate(features: registers.driverFeatures)
    post(allQueues)
  }
}

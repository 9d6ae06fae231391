import Bus
import Console
import Foundation
import Hart
import HostSystem
import Translation
import Synchronization
import Virtio

/// The virtual board, compatible with QEMU's `virt` machine: harts, RAM and devices at their addresses, ready to boot.
///
/// In order: make it; `boot()`, or restore RAM and `stateKeepers` in its place; `start()` for the I/O; then run each
/// of `harts` on a thread. When the guest ends or restarts itself, the harts are asked to pause and `onPowerEvent` is
/// called.
public final class Board: @unchecked Sendable {
  public let configuration: BoardConfiguration
  public let memory: GuestMemory
  public let addressSpace: AddressSpace
  public let clock: GuestClock
  public let harts: [Hart]
  /// The I/O thread.
  public let loop: EventLoop
  public let uart: UART16550
  public let plic: PLIC
  public let clint: CLINT
  public let realTimeClock: GoldfishRTC
  public let generationIdentifier: GenerationIdentifier
  public let pciHostBridge: PCIHostBridge
  public let flash: [CFIFlash]
  /// Called once for each way the guest ends or restarts its machine, on the thread where that happened (a hart's,
  /// mostly). Set before harts run.
  public var onPowerEvent: ((PowerEvent) -> Void)?

  let plan: BootPlan
  private var virtio: [VirtioAttachment] = []
  private let pendingPowerEvent = Mutex<PowerEvent?>(nil)
  private var firmwareInterface: SupervisorBinaryInterface?
  private var semihosting: Semihosting?
  private var hostTarget: HostTargetInterface?

  /// Builds the board and checks that everything to boot is there and fits. Throws `BootError`, or `HostError` where the
  /// host has no memory.
  public init(_ configuration: BoardConfiguration) throws {
    try configuration.check()
    self.configuration = configuration
    let mmioSlots = configuration.transport == .mmio ? Array(configuration.devices.indices) : []
    let tree = BoardDeviceTree(
      hartCount: configuration.hartCount, memorySize: configuration.memorySize,
      virtualAddressBits: configuration.hart.virtualAddressBits,
      instructionSet: configuration.describedInstructionSet,
      virtioSlots: mmioSlots
    ).tree()
    plan = try BootPlan(
      configuration.boot, generatedTree: tree, memorySize: configuration.memorySize,
      hasFlash: configuration.flash.0 != nil)
    memory = try GuestMemory(base: PhysicalAddress(MemoryMap.ramBase), size: configuration.memorySize)
    let addressSpace = AddressSpace(memory: memory)
    let clock = GuestClock(slowdown: configuration.engine?.clockSlowdown ?? 1)
    let loop = try EventLoop()
    var hartConfiguration = configuration.hart
    hartConfiguration.isAlone = configuration.hartCount == 1
    let harts = (0..<configuration.hartCount).map { identifier in
      Hart(identifier: identifier, addressSpace: addressSpace, clock: clock, configuration: hartConfiguration)
    }
    try EngineChoice.install(
      configuration.engine, on: harts, beside: loop, keptCode: configuration.keptCode,
      isCopied: configuration.copiesKeptCode)
    self.addressSpace = addressSpace
    self.clock = clock
    self.loop = loop
    self.harts = harts
    clint = CLINT(targets: harts.map(CLINT.Target.init), clock: clock)
    plic = PLIC(
      outputs: harts.flatMap { hart in
        [
          InterruptLine { hart.setInterrupt(.machineExternal, $0) },
          InterruptLine { hart.setInterrupt(.supervisorExternal, $0) },
        ]
      })
    let uart = UART16550(backend: configuration.console, loop: loop)
    uart.interrupt = plic.line(MemoryMap.Source.uart, claimed: { [weak uart] in uart?.interruptWasClaimed() })
    self.uart = uart
    realTimeClock = GoldfishRTC(
      wallClock: configuration.wallClock, loop: loop, interrupt: plic.line(MemoryMap.Source.realTimeClock))
    generationIdentifier = GenerationIdentifier(interrupt: plic.line(MemoryMap.Source.generationIdentifier))
    let images = [configuration.flash.0, configuration.flash.1]
    flash = try images.enumerated().map { index, image in
      try CFIFlash(
        identifier: "flash\(index)", contents: image?.contents ?? Data(), isReadOnly: image?.isReadOnly ?? false,
        store: image?.store)
    }
    pciHostBridge = PCIHostBridge(
      windows: [MemoryMap.pciMemory32, MemoryMap.pciMemory64(ramSize: configuration.memorySize)],
      interrupts: (0..<4).map { [plic] in plic.line(MemoryMap.Source.pciBase + $0) })
    attachWindows()
    virtio = makeVirtioAttachments()
    connectInterfaces()
  }

  // Devices lead to harts (interrupt wires), and harts to devices (the address space): neither would ever go.
  deinit {
    addressSpace.detachAll()
    for hart in harts { hart.engine = nil }
  }

  /// The busiest windows first: they are looked for in this order.
  private func attachWindows() {
    func attach(_ device: any BusDevice, _ region: MemoryMap.Region) {
      addressSpace.attach(device, at: region.base, size: region.size)
    }
    attach(plic, MemoryMap.plic)
    attach(uart, MemoryMap.uart)
    attach(clint, MemoryMap.clint)
    let memory64 = MemoryMap.pciMemory64(ramSize: configuration.memorySize)
    attach(PCIMemoryWindow(pciHostBridge, base: memory64.base), memory64)
    attach(PCIMemoryWindow(pciHostBridge, base: MemoryMap.pciMemory32.base), MemoryMap.pciMemory32)
    attach(PCIConfigurationWindow(pciHostBridge), MemoryMap.pciConfiguration)
    attach(OpenBus(), MemoryMap.pciPorts)
    attach(realTimeClock, MemoryMap.realTimeClock)
    attach(generationIdentifier, MemoryMap.generationIdentifier)
    attach(flash[0], MemoryMap.flash0)
    attach(flash[1], MemoryMap.flash1)
    attach(TestFinisher { [weak self] in self?.power($0) }, MemoryMap.testFinisher)
    if case .machine(let entry, let next) = plan.start {
      let bytes = ResetVector.bytes(entry: entry, deviceTree: plan.deviceTreeAddress, next: next)
      attach(ReadOnlyMemory(bytes), MemoryMap.resetROM)
    }
  }

  private func connectInterfaces() {
    let power: @Sendable (PowerEvent) -> Void = { [weak self] in self?.power($0) }
    let isBare: Bool
    if case .none = configuration.boot.firmware { isBare = true } else { isBare = false }
    if case .supervisor = plan.start {
      firmwareInterface = SupervisorBinaryInterface(harts: harts, memory: memory, console: uart, power: power)
    } else if isBare {
      // A program without firmware may still end by a call from S-mode; it serves all others itself.
      firmwareInterface = SupervisorBinaryInterface(
        harts: harts, memory: memory, console: uart, power: power, servesResetOnly: true)
    }
    if configuration.allowsSemihosting ?? isBare {
      semihosting = Semihosting(
        memory: memory, console: uart, clock: clock, wallClock: configuration.wallClock, power: power)
    }
    if isBare, let program = plan.program {
      let uart = uart
      hostTarget = HostTargetInterface(program: program, memory: memory, output: { uart.transmit($0) }, power: power)
    }
    for hart in harts {
      hart.environment = self
      hart.watchedRange = hostTarget?.watchedRange
    }
  }

  // MARK: lifecycle

  /// Loads the boot images and starts the first hart or harts. Only while no hart runs.
  public func boot() {
    plan.load(into: memory, seed: configuration.entropy(BootPlan.seedLength))
    switch plan.start {
    case .supervisor(let entry):
      for hart in harts { hart.prepareForSupervisor() }
      _ = harts[0].start(at: entry, privilege: .supervisor, argument: plan.deviceTreeAddress)
    case .machine:
      for hart in harts {
        _ = hart.start(at: MemoryMap.resetROM.base.rawValue, privilege: .machine, argument: 0)
      }
    }
  }

  /// Starts the I/O thread and connects the backends. Throws what they throw.
  public func start() throws {
    loop.start()
    let uart = uart
    try loop.performAndWait { Result { try uart.start() } }.get()
    for attachment in virtio { try attachment.start() }
  }

  /// Gives the console back and ends the I/O thread. Only after the harts' threads have ended.
  public func stop() {
    let uart = uart
    loop.performAndWait { uart.stop() }
    loop.stop()
  }

  /// Restarts the machine, as the reset button would: devices and harts as at power-on, then `boot()`. Only while no
  /// hart runs. Harts that were asked to pause by a power event may run again.
  public func reset() {
    for hart in harts { hart.reset() }
    for attachment in virtio { attachment.reset() }
    pciHostBridge.reset()
    uart.reset()
    realTimeClock.reset()
    for bank in flash { bank.reset() }
    plic.reset()
    clint.reset()
    pendingPowerEvent.withLock { $0 = nil }
    for hart in harts { hart.clearPause() }
    boot()
  }

  /// Harts and devices in the order in which they are restored.
  public var stateKeepers: [any StateKeeper] {
    var keepers: [any StateKeeper] = harts
    keepers += [clint, plic, uart, realTimeClock] + flash + [pciHostBridge] as [any StateKeeper]
    return keepers + virtio.map(\.stateKeeper)
  }

  /// Has the virtio devices hold what is restored, or take it: with it they are connected to the host. Before `start`.
  /// Throws what restoring them throws.
  public func holdDeviceStates() { for attachment in virtio { attachment.transport.holdsState = true } }
  public func releaseDeviceStates() throws { for attachment in virtio { try attachment.transport.releaseState() } }

  // MARK: power

  /// What the guest asked for last, until `reset`.
  public var powerEvent: PowerEvent? { pendingPowerEvent.withLock { $0 } }

  /// The guest's own exit code, once it has ended: 0 for success.
  public var exitStatus: Int? {
    if case .shutdown(let code) = powerEvent { return code }
    return nil
  }

  /// Takes the first event and has the harts pause; later ones are too late.
  func power(_ event: PowerEvent) {
    let isFirst = pendingPowerEvent.withLock { pending in
      guard pending == nil else { return false }
      pending = event
      return true
    }
    guard isFirst else { return }
    for hart in harts { hart.requestPause() }
    onPowerEvent?(event)
  }

  // MARK: what the program left

  /// The memory between the program's symbols begin_signature and end_signature, one 32-bit hexadecimal word a line, as
  /// architecture test suites compare it. Throws `BootError` where the program has no such symbols.
  public func signature() throws -> String {
    let name = configuration.boot.kernel?.name ?? "the program"
    guard let begin = plan.program?.symbol("begin_signature"), let end = plan.program?.symbol("end_signature") else {
      throw BootError(.data, "\(name): has no symbols begin_signature and end_signature; link it without stripping")
    }
    guard begin <= end, let bytes = memory.bytes(at: PhysicalAddress(begin), count: end - begin) else {
      throw BootError(.data, "\(name): its signature lies outside RAM")
    }
    var text = ""
    for offset in stride(from: 0, to: bytes.count - bytes.count % 4, by: 4) {
      let word = String(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)), radix: 16)
      text += String(repeating: "0", count: 8 - word.count) + word + "\n"
    }
    return text
  }
}

extension Board: HartEnvironment {
  public func supervisorCall(_ hart: Hart) -> Bool {
    firmwareInterface?.call(hart) ?? false
  }

  /// Programs in U-mode can't: they would end the machine under their kernel.
  public func semihostingCall(_ hart: Hart) -> Bool {
    guard let semihosting, hart.privilege != .user else { return false }
    semihosting.call(hart)
    return true
  }

  public func engineFailed(_ hart: Hart, _ reason: String) { power(.failed(reason)) }

  public func watchedStore(_ hart: Hart, at address: PhysicalAddress, width: Int, value: UInt64) {
    hostTarget?.stored(at: address, width: width)
  }
}

extension CLINT.Target {
  fileprivate init(_ hart: Hart) {
    self.init(
      softwareInterrupt: InterruptLine { hart.setInterrupt(.machineSoftware, $0) },
      timeCompare: { hart.machineTimeCompare }, setTimeCompare: { hart.machineTimeCompare = $0 })
  }
}

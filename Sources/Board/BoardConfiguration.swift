import Bus
import Console
import Foundation
import Hart
import HostSystem
import Translation
import Virtio

/// What a board is made of. Backends are given open; the board starts and stops them.
public struct BoardConfiguration {
  /// What virtio devices are attached to.
  public enum Transport: Sendable {
    case mmio, pci
  }

  /// What a flash bank holds.
  public struct FlashImage: Sendable {
    public var contents: Data
    public var isReadOnly: Bool
    /// Where changes go; nil forgets them with the machine.
    public var store: CFIFlash.Store?

    public init(contents: Data, isReadOnly: Bool = true, store: CFIFlash.Store? = nil) {
      self.contents = contents
      self.isReadOnly = isReadOnly
      self.store = store
    }
  }

  /// Number of harts; their identifiers are 0 to `hartCount` - 1.
  public var hartCount: Int
  /// RAM in bytes, a multiple of 4096.
  public var memorySize: UInt64
  public var hart: HartConfiguration
  /// What executes the harts' instructions; nil: the quickest that this host can run.
  public var engine: EngineChoice?
  /// Files of code that translators kept in earlier runs; they begin with the first that fits.
  public var keptCode: [String] = []
  /// Whether nothing is believed of these that others could change meanwhile; see `EngineChoice.install`.
  public var copiesKeptCode = false
  /// What the device tree says of the harts; nil: what `hart` implements.
  public var instructionSet: InstructionSetDescription?
  /// The same, where nothing else is said: what the harts have.
  public var describedInstructionSet: InstructionSetDescription {
    instructionSet ?? InstructionSetDescription(hart.extensions)
  }
  public var boot: BootDescription
  /// The other end of the UART; nil: output is lost and there is no input.
  public var console: (any ConsoleBackend)?
  /// In the order of slots: the first is virtio-mmio slot 0, or PCI slot 1.
  public var devices: [any VirtioDevice]
  public var transport: Transport
  /// The flash banks at 0x20000000 and 0x22000000; nil: erased.
  public var flash: (FlashImage?, FlashImage?)
  /// Whether M- and S-mode may make semihosting calls; nil: programs without firmware may.
  public var allowsSemihosting: Bool?
  /// Nanoseconds since 1970: how the date enters the machine.
  public var wallClock: @Sendable () -> UInt64
  /// Random bytes for the guest's kernel: how entropy enters the machine.
  public var entropy: @Sendable (_ count: Int) -> [UInt8]

  public init(
    hartCount: Int = 1, memorySize: UInt64 = 1 << 30, hart: HartConfiguration = HartConfiguration(),
    engine: EngineChoice? = nil, instructionSet: InstructionSetDescription? = nil, boot: BootDescription,
    console: (any ConsoleBackend)? = nil,
    devices: [any VirtioDevice] = [], transport: Transport = .mmio,
    flash: (FlashImage?, FlashImage?) = (nil, nil), allowsSemihosting: Bool? = nil,
    wallClock: @escaping @Sendable () -> UInt64 = { MonotonicClock.wallNanoseconds() },
    entropy: @escaping @Sendable (Int) -> [UInt8] = BoardConfiguration.hostEntropy
  ) {
    self.hartCount = hartCount
    self.memorySize = memorySize
    self.hart = hart
    self.engine = engine
    self.instructionSet = instructionSet
    self.boot = boot
    self.console = console
    self.devices = devices
    self.transport = transport
    self.flash = flash
    self.allowsSemihosting = allowsSemihosting
    self.wallClock = wallClock
    self.entropy = entropy
  }

  /// Bytes from the host's random number generator.
  public static let hostEntropy: @Sendable (Int) -> [UInt8] = { count in
    var generator = SystemRandomNumberGenerator()
    return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
  }

  /// Throws `BootError` for values that no board can have.
  func check() throws {
    guard (1...PLIC.maximumContextCount / 2).contains(hartCount) else {
      throw BootError(.configuration, "\(hartCount) harts: a board has 1 to \(PLIC.maximumContextCount / 2)")
    }
    guard memorySize >= 1 << 20, memorySize <= 1 << 40, memorySize % 4096 == 0 else {
      throw BootError(.configuration, "\(memorySize) bytes of RAM: a board has 1 MiB to 1 TiB, in multiples of 4096")
    }
    guard [39, 48, 57].contains(hart.virtualAddressBits) else {
      throw BootError(.configuration, "\(hart.virtualAddressBits)-bit virtual addresses: a hart has 39, 48 or 57")
    }
    let slots = transport == .mmio ? MemoryMap.virtioSlotCount : PCIHostBridge.slotCount - 1
    guard devices.count <= slots else {
      throw BootError(.configuration, "\(devices.count) virtio devices: this transport has room for \(slots)")
    }
  }
}

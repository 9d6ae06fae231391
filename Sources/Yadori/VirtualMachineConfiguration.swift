import HostSystem
import Network
import Storage
import Translation
import Virtio

@_exported import class Console.BufferConsole
@_exported import class Console.FileConsole
@_exported import class Console.TerminalConsole
@_exported import protocol Console.ConsoleBackend
@_exported import struct Virtio.SharedFolder

/// What a machine is made of: plain data, the same in the library, on the command line and in saved machines.
public struct VirtualMachineConfiguration: Codable, Hashable, Sendable {
  /// Number of harts, at least 1.
  public var hartCount: Int
  /// RAM in bytes, a multiple of 4096.
  public var memorySize: UInt64
  /// How many harts a Linux guest can be given while it runs: it is told of so many, and to leave those beyond `hartCount`
  /// alone at first (its parameter `maxcpus`). At least `hartCount`; nil: no more.
  public var maximumHartCount: Int?
  /// How many bytes of RAM the guest can be given while it runs: it is made with so many, and a balloon takes what is beyond
  /// `memorySize` as soon as the guest's driver is up. At least `memorySize`; nil: no more.
  public var maximumMemorySize: UInt64?
  public var boot: Boot
  public var disks: [Disk]
  /// Nil: no network card.
  public var network: Network?
  public var transport: Transport
  /// The highest translation mode offered to the guest: 39, 48 (as on most hardware; OpenJDK 21 refuses 57) or 57.
  public var virtualAddressBits: Int
  /// What executes guest instructions; nil: the quickest that this host can run.
  public var engine: EngineChoice?
  /// Files of translated code that `VirtualMachine.keepCode` wrote in earlier runs: the machine begins with the first that
  /// fits, and needn't translate what it finds there. Nil: none.
  public var keptCode: [String]?
  /// Whether there is a power button, a virtio input device; nil: no.
  public var hasPowerButton: Bool?
  /// The Unix socket that leads to the guest's sockets (virtio-vsock), see `VirtioSocket`; nil: none.
  public var guestSocket: String?
  /// Folders of the host that the guest may see: a file system that it mounts by the tag `yadori` (virtio-fs), in the root
  /// of which each has its name. Folders can be added while the machine runs. Nil: there is no such device.
  public var sharedFolders: [SharedFolder]?
  /// Whether memory that the guest doesn't use goes back to the host (a virtio balloon); nil: no.
  public var hasBalloon: Bool?
  /// How many of the host's processors the machine may use together, hundredths count (0.25); nil: all that others leave.
  public var processorLimit: Double?
  /// Its weight against other machines where processors are scarce, 1...10000; nil: 100.
  public var processorWeight: Int?

  /// The numbers of the host's processors that it may run on; nil: all.
  public var pinnedProcessors: [Int]?

  /// How a machine begins. Paths of files on the host.
  public struct Boot: Codable, Hashable, Sendable {
    /// Who serves the SBI.
    public enum Firmware: Codable, Hashable, Sendable {
      /// The monitor; the kernel starts in S-mode.
      case builtIn
      /// Nobody; the kernel or bare program starts in M-mode.
      case none
      /// This firmware, in M-mode.
      case file(path: String)
    }

    public var firmware: Firmware
    public var kernel: String?
    public var initialRAMDisk: String?
    /// The kernel's parameters; nil leaves those of the device tree.
    public var commandLine: String?
    /// A flattened device tree in place of the generated one.
    public var deviceTree: String?

    public init(
      firmware: Firmware = .builtIn, kernel: String? = nil, initialRAMDisk: String? = nil, commandLine: String? = nil,
      deviceTree: String? = nil
    ) {
      self.firmware = firmware
      self.kernel = kernel
      self.initialRAMDisk = initialRAMDisk
      self.commandLine = commandLine
      self.deviceTree = deviceTree
    }
  }

  /// A disk of the machine, seen by the guest as a virtio block device.
  public struct Disk: Codable, Hashable, Sendable {
    public var path: String
    /// "raw" or "qcow2"; nil: found out from the file.
    public var format: String?
    /// Whether `format` was found out from the file, at its first use: a guest can't write the beginning of another
    /// format into it. Nil: no, it was said.
    public var wasProbed: Bool?
    public var isReadOnly: Bool
    /// At most 20 bytes, what the guest reads as the disk's serial number.
    public var serial: String
    /// The path of a file among those behind it, down to which all belongs to the disk and is saved with it; nil: only
    /// its own file does.
    public var base: String?
    /// The paths of all files behind it that aren't saved with it, as they were when the machine was made; nil: what it says
    /// itself. A confined process can read no others.
    public var behind: [String]?

    public init(path: String, format: String? = nil, isReadOnly: Bool = false, serial: String = "") {
      self.path = path
      self.format = format
      self.isReadOnly = isReadOnly
      self.serial = serial
    }

    package var knownFormat: DiskFormat? { format.flatMap(DiskFormat.init(rawValue:)) }

    /// What its file says by now of what is behind it: paths, the nearest first.
    package var backingFiles: [String] { DiskImage.backingFiles(of: path, format: knownFormat) }

    package func open(readOnly: Bool) throws -> any BlockStorage {
      try DiskImage.open(path: path, readOnly: readOnly, format: knownFormat, wasProbed: wasProbed == true)
    }
  }

  /// Finds out the formats of disks of which nobody said them, and keeps to that: later a guest may have written what
  /// would be found. A file that can't be read is left to whoever opens it.
  package mutating func noteFormats() {
    for index in disks.indices where disks[index].knownFormat == nil {
      guard let found = try? DiskImage.probe(path: disks[index].path) else { continue }
      disks[index].format = found.rawValue
      disks[index].wasProbed = true
    }
  }

  /// A network card and what it's plugged into.
  public struct Network: Codable, Hashable, Sendable {
    public enum Attachment: Codable, Hashable, Sendable {
      /// User-mode networking (no privileges needed), with forwards such as "127.0.0.1:2222:22/tcp".
      case user(forwards: [String])
      /// The host's TAP interface of this name.
      case tap(name: String)
    }

    public var attachment: Attachment
    public var address: MACAddress

    public init(_ attachment: Attachment, address: MACAddress? = nil) {
      self.attachment = attachment
      self.address = address ?? Self.newAddress()
    }

    /// A random address of QEMU's block, which isn't used by hardware.
    private static func newAddress() -> MACAddress {
      MACAddress(bytes: [0x52, 0x54, 0x00] + (0..<3).map { _ in UInt8.random(in: .min ... .max) })!
    }
  }

  /// What virtio devices are attached to.
  public enum Transport: String, Codable, Hashable, Sendable, CaseIterable {
    case mmio, pci
  }

  public init(
    hartCount: Int = 1, memorySize: UInt64 = 1 << 30, boot: Boot, disks: [Disk] = [], network: Network? = nil,
    transport: Transport = .mmio, virtualAddressBits: Int = 48, engine: EngineChoice? = nil
  ) {
    self.hartCount = hartCount
    self.memorySize = memorySize
    self.boot = boot
    self.disks = disks
    self.network = network
    self.transport = transport
    self.virtualAddressBits = virtualAddressBits
    self.engine = engine
  }

  /// What the board is made with.
  package var boardHartCount: Int { maximumHartCount ?? hartCount }
  package var boardMemorySize: UInt64 { maximumMemorySize ?? memorySize }
  package var boardHasBalloon: Bool { hasBalloon == true || maximumMemorySize != nil }

  /// Whether a machine that was saved as the other can go on as this one.
  package func hasSameBoard(as other: Self) -> Bool {
    boardHartCount == other.boardHartCount && boardMemorySize == other.boardMemorySize && transport == other.transport
      && virtualAddressBits == other.virtualAddressBits && disks.count == other.disks.count
      && (network == nil) == (other.network == nil) && hasPowerButton == other.hasPowerButton
      && (guestSocket == nil) == (other.guestSocket == nil)
      && (sharedFolders == nil) == (other.sharedFolders == nil)
      && boardHasBalloon == other.boardHasBalloon
  }

  /// Takes maximums away that what the machine has by now is beyond.
  package mutating func dropOutgrownMaximums() {
    if boardHartCount < hartCount { maximumHartCount = nil }
    if boardMemorySize < memorySize { maximumMemorySize = nil }
  }

  /// One with something in each place: what is needed to read it is made with it.
  package static let example: Self = {
    var example = Self(
      boot: .init(firmware: .file(path: "f"), kernel: "k", initialRAMDisk: "i", commandLine: "c", deviceTree: "d"),
      disks: [.init(path: "p", format: "raw", serial: "s")], network: .init(.user(forwards: ["22:22"])),
      transport: .pci, engine: .interpreter)
    example.keptCode = ["k"]
    example.disks[0].wasProbed = true
    example.hasPowerButton = true
    example.guestSocket = "s"
    example.sharedFolders = [.init(name: "n", path: "p", target: "t")]
    example.hasBalloon = true
    example.processorLimit = 1
    example.processorWeight = 100
    example.pinnedProcessors = [0]
    example.maximumHartCount = 1
    example.maximumMemorySize = 1 << 30
    return example
  }()

  /// Takes from it what only another host could give, where it was made there: a cap of more processors than this one has,
  /// and a pin to processors that aren't there. Returns what is to be said of it, a part of a sentence for each.
  public mutating func adaptToHost() -> [String] {
    let there = HostResources.processors
    var words: [String] = []
    if let limit = processorLimit, limit > Double(there.count) {
      words.append("it may use \(limit) processors, but this host has \(there.count): it may use all")
      processorLimit = nil
    }
    if let wanted = pinnedProcessors, !wanted.allSatisfy(there.contains) {
      let left = wanted.filter(there.contains)
      let list = { (numbers: [Int]) in numbers.map(String.init).joined(separator: ",") }
      words.append(
        "it is pinned to the processors \(list(wanted)), but this host has \(list(there)): it runs on "
          + (left.isEmpty ? "all" : list(left)))
      pinnedProcessors = left.isEmpty ? nil : left
    }
    return words
  }

  /// Throws `MachineError` where this host, or any, can't run such a machine. Its files aren't looked at.
  public func check() throws {
    for (option, size) in [("-m", memorySize), ("--max-memory", boardMemorySize)] {
      guard size >= 1 << 20, size % 4096 == 0 else {
        throw MachineError(.usage, "\(option): \(size) bytes of RAM; give at least 1M, in multiples of 4K (512M, 2G)")
      }
      if let limit = HostResources.memoryLimit, size > limit {
        throw MachineError(
          .usage, "\(option): \(size >> 20)M of RAM, but this host has \(limit >> 20)M; give less")
      }
    }
    if let limit = processorLimit, !(0.01...1024).contains(limit) {
      throw MachineError(.usage, "--cpus: \(limit) processors; give 0.01 to 1024")
    }
    if let limit = processorLimit {
      let count = HostResources.processors.count
      guard limit <= Double(count) else {
        throw MachineError(
          .usage, "--cpus: \(limit) processors, but this host has \(count); give that many at most, or max for no limit"
        )
      }
    }
    if let weight = processorWeight, !(1...10_000).contains(weight) {
      throw MachineError(.usage, "--weight: \(weight); give 1 to 10000, of which 100 is usual")
    }
    if let processors = pinnedProcessors {
      let there = HostResources.processors
      guard !processors.isEmpty, processors.allSatisfy(there.contains) else {
        throw MachineError(
          .usage,
          "--pin: \(processors.map(String.init).joined(separator: ",")); this host's processors are "
            + there.map(String.init).joined(separator: ","))
      }
    }
    for folder in sharedFolders ?? [] where !SharedFolder.isValidName(folder.name) {
      throw MachineError(
        .usage, "'\(folder.name)' can't name a shared folder; use letters, digits, '.', '_' and '-', at most 64")
    }
    if let folders = sharedFolders, Set(folders.map(\.name)).count < folders.count {
      throw MachineError(.usage, "two shared folders have the same name; give each its own")
    }
    guard (1...64).contains(hartCount) else {
      throw MachineError(.usage, "-c: \(hartCount) harts; give 1 to 64")
    }
    guard (hartCount...64).contains(boardHartCount) else {
      throw MachineError(.usage, "--max-harts: \(boardHartCount) harts; give \(hartCount), which it has, to 64")
    }
    guard boardMemorySize >= memorySize else {
      throw MachineError(
        .usage, "--max-memory: \(boardMemorySize >> 20)M of RAM; give at least the \(memorySize >> 20)M that it has")
    }
    if boardHartCount > hartCount, boot.deviceTree != nil || boot.kernel == nil {
      throw MachineError(
        .usage, "--max-harts: it is said to a Linux kernel by parameter; give --kernel without --dtb, or leave it out")
    }
    if case .audit = engine, boardHartCount > 1 {
      throw MachineError(
        .usage, "-c, --max-harts: \(boardHartCount) harts; --engine audit runs one: give 1, or leave them out")
    }
  }
}

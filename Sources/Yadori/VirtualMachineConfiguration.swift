/// What a machine is made of: plain data, the same in the library, on the command line and in saved machines.
public struct VirtualMachineConfiguration: Codable, Hashable, Sendable {
  /// Number of harts, 1 to 64.
  public var hartCount: Int
  /// RAM in bytes, a multiple of 1 MiB.
  public var memorySize: UInt64
  public var boot: Boot
  public var disks: [Disk]
  public var network: Network?
  public var transport: Transport
  /// The highest translation mode offered to the guest.
  public var virtualAddressBits: Int

  /// How a machine begins.
  public enum Boot: Codable, Hashable, Sendable {
    /// A kernel in S-mode, with the SBI built into the monitor. `initialRAMDisk` and `commandLine` reach it by the
    /// device tree.
    case kernel(path: String, initialRAMDisk: String?, commandLine: String)
    /// Firmware in M-mode, with an optional payload that it starts.
    case firmware(path: String, kernel: String?, initialRAMDisk: String?, commandLine: String)
    /// A program in M-mode without firmware (`--firmware none`, bare ELF files).
    case program(path: String)
  }

  /// A disk of the machine, seen by the guest as a virtio block device.
  public struct Disk: Codable, Hashable, Sendable {
    public var path: String
    /// "raw" or "qcow2"; nil: found out from the file.
    public var format: String?
    public var isReadOnly: Bool
    /// At most 20 bytes, what the guest reads as the disk's serial number.
    public var serial: String

    public init(path: String, format: String? = nil, isReadOnly: Bool = false, serial: String = "") {
      self.path = path
      self.format = format
      self.isReadOnly = isReadOnly
      self.serial = serial
    }
  }

  /// A network card and what it's plugged into.
  public enum Network: Codable, Hashable, Sendable {
    /// User-mode networking (no privileges needed), with forwards such as "127.0.0.1:2222:22/tcp".
    case user(forwards: [String], hostName: String?)
    /// The host's TAP interface of this name.
    case tap(name: String)
  }

  /// What virtio devices are attached to.
  public enum Transport: String, Codable, Hashable, Sendable, CaseIterable {
    case mmio, pci
  }

  public init(
    hartCount: Int = 1, memorySize: UInt64 = 1 << 30, boot: Boot, disks: [Disk] = [], network: Network? = nil,
    transport: Transport = .mmio, virtualAddressBits: Int = 57
  ) {
    self.hartCount = hartCount
    self.memorySize = memorySize
    self.boot = boot
    self.disks = disks
    self.network = network
    self.transport = transport
    self.virtualAddressBits = virtualAddressBits
  }
}

/// Feature bits that belong to the ring and the transport rather than to a device (virtio 1.2, chapter 6).
public enum VirtioFeature {
  /// Descriptors may refer to tables of descriptors (2.7.5.3).
  public static let ringIndirectDescriptors: UInt64 = 1 << 28
  /// Both sides say at which index they want to be told (2.7.7, 2.7.10).
  public static let ringEventIndex: UInt64 = 1 << 29
  /// The device is a modern one; a driver that doesn't accept this can't use it.
  public static let version1: UInt64 = 1 << 32
  /// Single queues may be reset while the device goes on (2.6.1).
  public static let ringReset: UInt64 = 1 << 40

  /// What both transports offer on top of the device's own features.
  static let ofTransport = ringIndirectDescriptors | ringEventIndex | version1 | ringReset
}

/// Bits of the device status field (virtio 1.2, 2.1).
public struct VirtioStatus: OptionSet, Codable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let acknowledge = VirtioStatus(rawValue: 1)
  public static let driver = VirtioStatus(rawValue: 2)
  public static let driverOK = VirtioStatus(rawValue: 4)
  public static let featuresOK = VirtioStatus(rawValue: 8)
  public static let needsReset = VirtioStatus(rawValue: 64)
  public static let failed = VirtioStatus(rawValue: 128)

  /// The bits that a driver sets; `needsReset` is the device's.
  static let ofDriver: VirtioStatus = [.acknowledge, .driver, .driverOK, .featuresOK, .failed]
}

/// Device types (virtio 1.2, chapter 5).
public enum VirtioDeviceType {
  public static let net: UInt32 = 1
  public static let block: UInt32 = 2
  public static let console: UInt32 = 3
  public static let entropy: UInt32 = 4
  public static let balloon: UInt32 = 5
  public static let input: UInt32 = 18
  public static let socket: UInt32 = 19
  public static let fileSystem: UInt32 = 26
}

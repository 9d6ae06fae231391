import Bus
import HostSystem
import Network
import Synchronization

/// An Ethernet address.
public struct MACAddress: Hashable, Codable, Sendable, CustomStringConvertible {
  /// Six bytes, in the order of transmission.
  public let bytes: [UInt8]

  /// Nil unless there are six.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 6 else { return nil }
    self.bytes = bytes
  }

  /// Reads "52:54:00:12:34:56"; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { $0.count == 2 ? UInt8($0, radix: 16) : nil }
    guard parts.count == 6, bytes.count == 6 else { return nil }
    self.bytes = bytes
  }

  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let address = MACAddress(text) else {
      throw DecodingError.dataCorrupted(
        .init(codingPath: decoder.codingPath, debugDescription: "'\(text)' is no Ethernet address"))
    }
    self = address
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }

  public var isMulticast: Bool { bytes[0] & 1 != 0 }

  public var description: String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
  }
}

/// A network card (virtio 1.2, 5.1) over any `NetworkBackend`, which stays the caller's to stop.
///
/// The card completes checksums and cuts segments that the guest left to it, so that a backend sees finished frames.
public final class VirtioNet: VirtioDevice {
  enum Feature {
    static let checksum: UInt64 = 1 << 0
    static let guestChecksum: UInt64 = 1 << 1
    static let mtu: UInt64 = 1 << 3
    static let mac: UInt64 = 1 << 5
    static let hostTSO4: UInt64 = 1 << 11
    static let hostTSO6: UInt64 = 1 << 12
    static let hostECN: UInt64 = 1 << 13
    static let mergeableReceiveBuffers: UInt64 = 1 << 15
    static let status: UInt64 = 1 << 16
    static let controlQueue: UInt64 = 1 << 17
    static let controlReceive: UInt64 = 1 << 18
    static let multiqueue: UInt64 = 1 << 22
    static let controlMAC: UInt64 = 1 << 23
  }

  /// Offsets in the configuration space (5.1.4).
  enum Field {
    static let mac = 0
    static let status = 6
    static let queuePairs = 8
    static let mtu = 10
    static let count = 12
  }

  public let deviceType = VirtioDeviceType.net
  public let pciClassCode: UInt32 = 0x02_00_00
  public let deviceFeatures: UInt64
  public let queueMaximumSizes: [UInt16]
  public let configuration = ConfigurationSpace(count: Field.count)
  public let stateIdentifier = "net"

  let backend: any NetworkBackend
  /// The card's own. Changed before the guest runs: it counts from the next reset on.
  public var hardwareAddress: MACAddress
  let queuePairs: Int
  let mtu: Int
  let counters = Mutex(NetMetrics())
  weak var transport: VirtioTransport?

  // The I/O thread's, from here on.
  var features: UInt64 = 0
  var filter: ReceiveFilter
  var activePairs = 1
  /// A frame was refused for want of receive buffers, and the backend waits to be told.
  var backendWaits = false
  /// A frame on its way out, whole: taken out of guest memory before it is looked at.
  let transmitFrame = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536 + 256, alignment: 16)
  let segmentFrame = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536 + 256, alignment: 16)
  /// The chains that one received frame fills, kept for their storage.
  var receiveChains = [DescriptorChain()]

  /// - Parameters:
  ///   - mac: the card's own address; a unicast one.
  ///   - queuePairs: receive and transmit queues that the driver may use, 1 to 31.
  ///   - mtu: the largest IP packet of the link in bytes, 1280 to 65535.
  public init(
    backend: any NetworkBackend, mac: MACAddress, queuePairs: Int = 1, queueSize: UInt16 = 256, mtu: Int = 1500
  ) {
    precondition((1...31).contains(queuePairs) && (1280...65535).contains(mtu) && !mac.isMulticast)
    self.backend = backend
    self.queuePairs = queuePairs
    self.mtu = mtu
    hardwareAddress = mac
    filter = ReceiveFilter(address: mac)
    queueMaximumSizes = Array(repeating: queueSize, count: 2 * queuePairs) + [64]
    var features =
      Feature.checksum | Feature.guestChecksum | Feature.mtu | Feature.mac | Feature.hostTSO4 | Feature.hostTSO6
      | Feature.hostECN | Feature.mergeableReceiveBuffers | Feature.status | Feature.controlQueue
      | Feature.controlReceive | Feature.controlMAC
    if queuePairs > 1 { features |= Feature.multiqueue }
    deviceFeatures = features
    configuration.set(UInt16(1), at: Field.status)
    configuration.set(UInt16(queuePairs), at: Field.queuePairs)
    configuration.set(UInt16(mtu), at: Field.mtu)
    showAddress()
  }

  deinit {
    transmitFrame.deallocate()
    segmentFrame.deallocate()
  }

  public func attach(to transport: VirtioTransport) { self.transport = transport }

  public func startBackend() throws {
    guard let transport else { return }
    try backend.start(on: transport.loop) { [weak self] frame in self?.receive(frame) ?? true }
    linkChanged()
  }

  public func activate(features: UInt64) {
    self.features = features
    linkChanged()
  }

  public func reset() {
    features = 0
    activePairs = 1
    filter = ReceiveFilter(address: hardwareAddress)
    showAddress()
    // Frames that a backend kept for a driver which is gone aren't the next one's.
    if backendWaits {
      backendWaits = false
      backend.guestHasRoom()
    }
  }

  /// Looks at the backend's link again, and tells the driver when it changed. I/O thread.
  public func linkChanged() {
    if configuration.set(UInt16(backend.isLinkUp ? 1 : 0), at: Field.status) { transport?.configurationChanged() }
  }

  func showAddress() {
    let address = filter.address.bytes
    configuration.update { $0.replaceSubrange(Field.mac..<Field.mac + 6, with: address) }
  }

  /// Where the control queue is depends on whether the driver knows of several pairs (5.1.2).
  var controlQueueIndex: Int { features & Feature.multiqueue != 0 ? 2 * queuePairs : 2 }
}

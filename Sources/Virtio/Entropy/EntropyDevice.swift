import Glibc
import Synchronization

/// Where a machine's random bytes come from: fills the buffer. A seam, so that a run can be recorded and replayed.
public typealias EntropySource = (UnsafeMutableRawBufferPointer) -> Void

/// A source of random numbers (virtio 1.2, 5.4).
public final class VirtioEntropy: VirtioDevice {
  public let deviceType = VirtioDeviceType.entropy
  public let pciClassCode: UInt32 = 0xff_00_00
  public let deviceFeatures: UInt64 = 0
  public let queueMaximumSizes: [UInt16] = [64]
  public let configuration = ConfigurationSpace(count: 0)
  public let stateIdentifier = "entropy"

  let source: EntropySource
  let counters = Mutex(EntropyMetrics())
  weak var transport: VirtioTransport?

  /// The host's own random numbers by default.
  public init(source: @escaping EntropySource = VirtioEntropy.hostSource) { self.source = source }

  /// The kernel's random numbers.
  public static let hostSource: EntropySource = { buffer in
    var done = 0
    while done < buffer.count {
      // At most 256 bytes at a time, which then can't fail once the host has booted.
      let count = min(256, buffer.count - done)
      if getentropy(buffer.baseAddress! + done, count) == 0 { done += count }
    }
  }

  public func attach(to transport: VirtioTransport) { self.transport = transport }
  public func activate(features: UInt64) {}
  public func reset() {}
}

import Bus
import Storage
import Synchronization

/// A disk (virtio 1.2, 5.2) over any `BlockStorage`, which stays the caller's to close.
public final class VirtioBlock: VirtioDevice {
  enum Feature {
    static let segmentsMaximum: UInt64 = 1 << 2
    static let readOnly: UInt64 = 1 << 5
    static let blockSize: UInt64 = 1 << 6
    static let flush: UInt64 = 1 << 9
    static let topology: UInt64 = 1 << 10
    static let configurableCache: UInt64 = 1 << 11
    static let multipleQueues: UInt64 = 1 << 12
    static let discard: UInt64 = 1 << 13
    static let writeZeroes: UInt64 = 1 << 14
  }

  /// Offsets in the configuration space (5.2.4).
  enum Field {
    static let capacity = 0
    static let segmentsMaximum = 12
    static let blockSize = 20
    static let physicalBlockExponent = 24
    static let minimumIOSize = 26
    static let writeBack = 32
    static let queueCount = 34
    static let maximumDiscardSectors = 36
    static let maximumDiscardSegments = 40
    static let discardSectorAlignment = 44
    static let maximumZeroSectors = 48
    static let maximumZeroSegments = 52
    static let zeroMayUnmap = 56
    static let count = 60
  }

  enum Limit {
    static let discardSectors: UInt32 = 1 << 21
    static let zeroSectors: UInt32 = 1 << 16
    static let rangeSegments = 32
  }

  public let deviceType = VirtioDeviceType.block
  public let pciClassCode: UInt32 = 0x01_00_00
  public let deviceFeatures: UInt64
  public let queueMaximumSizes: [UInt16]
  public let configuration = ConfigurationSpace(count: Field.count)
  public let stateIdentifier = "block"

  private(set) var storage: any BlockStorage
  let serial: [UInt8]
  let isReadOnly: Bool
  let report: (String) -> Void
  let counters = Mutex(BlockMetrics())
  weak var transport: VirtioTransport?
  var features: UInt64 = 0
  /// The driver's choice of a write-back cache (5.2.6.2). Set by the configuration space on hart threads.
  let writeBack = Atomic<Bool>(true)

  /// - Parameters:
  ///   - serial: at most 20 bytes of ASCII, which the guest reads as the disk's serial number.
  ///   - queueCount: request queues, 1 to 64.
  ///   - queueSize: the largest size of each, a power of two.
  ///   - report: told in a line what the host couldn't do (a full disk, say), on the I/O thread.
  public init(
    storage: any BlockStorage, serial: String = "", queueCount: Int = 1, queueSize: UInt16 = 256,
    report: @escaping (String) -> Void = { _ in }
  ) {
    precondition((1...VirtioTransport.maximumQueueCount).contains(queueCount) && queueSize >= 4)
    self.storage = storage
    self.serial = Array(serial.utf8.prefix(20))
    self.report = report
    isReadOnly = storage.isReadOnly
    queueMaximumSizes = Array(repeating: queueSize, count: queueCount)
    var features =
      Feature.segmentsMaximum | Feature.blockSize | Feature.flush | Feature.topology | Feature.configurableCache
    if queueCount > 1 { features |= Feature.multipleQueues }
    features |= isReadOnly ? Feature.readOnly : Feature.discard | Feature.writeZeroes
    deviceFeatures = features
    configuration.set(storage.byteCount / 512, at: Field.capacity)
    // A header and a status go with the data of each request.
    configuration.set(UInt32(queueSize) - 2, at: Field.segmentsMaximum)
    configuration.set(UInt32(512), at: Field.blockSize)
    // 4 KiB is what host file systems and image formats like best.
    configuration.set(UInt8(3), at: Field.physicalBlockExponent)
    configuration.set(UInt16(8), at: Field.minimumIOSize)
    configuration.set(UInt8(1), at: Field.writeBack)
    configuration.set(UInt16(queueCount), at: Field.queueCount)
    if !isReadOnly {
      configuration.set(Limit.discardSectors, at: Field.maximumDiscardSectors)
      configuration.set(UInt32(Limit.rangeSegments), at: Field.maximumDiscardSegments)
      configuration.set(UInt32(8), at: Field.discardSectorAlignment)
      configuration.set(Limit.zeroSectors, at: Field.maximumZeroSectors)
      configuration.set(UInt32(Limit.rangeSegments), at: Field.maximumZeroSegments)
      configuration.set(UInt8(1), at: Field.zeroMayUnmap)
    }
  }

  /// Has it be the same disk in another place. Before the guest runs. False: it can't be the same, and stays what it was.
  public func replaceStorage(_ storage: any BlockStorage) -> Bool {
    guard storage.byteCount == self.storage.byteCount, storage.isReadOnly == isReadOnly else { return false }
    self.storage = storage
    return true
  }

  public func attach(to transport: VirtioTransport) { self.transport = transport }

  public func activate(features: UInt64) { self.features = features }

  public func reset() {
    features = 0
    setWriteBack(true)
  }

  public func configurationWritten(offset: UInt64, width: Int, value: UInt64) {
    guard offset == UInt64(Field.writeBack), width == 1 else { return }
    setWriteBack(value & 1 != 0)
  }

  func setWriteBack(_ enabled: Bool) {
    writeBack.store(enabled, ordering: .relaxed)
    configuration.set(UInt8(enabled ? 1 : 0), at: Field.writeBack)
  }

  /// Whether a write is answered only when it is safe: the driver can't flush, or doesn't want to (5.2.6.2).
  var writesThrough: Bool {
    features & Feature.flush == 0
      || features & Feature.configurableCache != 0 && !writeBack.load(ordering: .relaxed)
  }
}

import Bus
import Synchronization

/// Gives memory of the guest back to the host (virtio 1.2, 5.5): what the guest reports to be free, and what the host asks
/// it to do without. Such pages read as anything when the guest takes them back.
public final class VirtioBalloon: VirtioDevice {
  enum Feature {
    static let deflatesWhenShort: UInt64 = 1 << 2
    static let reportsFreePages: UInt64 = 1 << 5
  }

  /// Offsets in the configuration space (5.5.4).
  enum Field {
    static let wantedPages = 0
    static let actualPages = 4
    static let count = 16
  }

  static let inflateQueue = 0
  static let deflateQueue = 1
  /// Pages are always counted in this size (5.5.6).
  static let pageSize: UInt64 = 4096

  public let deviceType = VirtioDeviceType.balloon
  public let pciClassCode: UInt32 = 0x05_00_00
  public let deviceFeatures: UInt64
  /// Free pages are reported on the fifth queue by the specification; Linux leaves out queues that it doesn't use, and
  /// has them on the third.
  public let queueMaximumSizes: [UInt16] = [128, 128, 64, 64, 64]
  public let configuration = ConfigurationSpace(count: Field.count)
  public let stateIdentifier = "balloon"

  private let counters = Mutex(BalloonMetrics())
  private let pages = Atomic<UInt32>(0)
  weak var transport: VirtioTransport?

  /// - Parameters:
  ///   - target: bytes that the guest is to do without from its driver's start on.
  ///   - deflatesWhenShort: whether it may take pages back by itself where it needs them badly. Linux counts only what it
  ///     can't take back as memory that it doesn't have.
  public init(target: UInt64 = 0, deflatesWhenShort: Bool = true) {
    deviceFeatures = Feature.reportsFreePages | (deflatesWhenShort ? Feature.deflatesWhenShort : 0)
    configuration.set(Self.pages(target), at: Field.wantedPages)
  }

  private static func pages(_ bytes: UInt64) -> UInt32 { UInt32(clamping: bytes / pageSize) }

  public func attach(to transport: VirtioTransport) { self.transport = transport }
  public func activate(features: UInt64) {}
  public func reset() { setActual(0) }

  /// Has the guest do without so many bytes of its memory, rounded down to pages. It may take a while, and a guest that
  /// needs the memory badly keeps it. Any thread.
  public func setTarget(_ bytes: UInt64) {
    guard configuration.set(Self.pages(bytes), at: Field.wantedPages), let transport else { return }
    transport.loop.perform { transport.configurationChanged() }
  }

  /// Bytes that the guest does without now. Any thread.
  public var actual: UInt64 { UInt64(pages.load(ordering: .relaxed)) * Self.pageSize }

  public var metrics: BalloonMetrics { counters.withLock { $0 } }

  private func setActual(_ count: UInt32) {
    pages.store(count, ordering: .relaxed)
    configuration.set(count, at: Field.actualPages)
  }

  public func configurationWritten(offset: UInt64, width: Int, value: UInt64) {
    guard offset == UInt64(Field.actualPages), width == 4 else { return }
    setActual(UInt32(truncatingIfNeeded: value))
  }

  public func queueNotified(_ index: Int) {
    guard let transport else { return }
    counters.withLock { $0.notifications += 1 }
    // The guest writes such a page before it means anything, and that is noted as any other write.
    transport.process(index, notesWrites: false) { chain in
      switch index {
      case Self.inflateQueue: self.inflate(chain)
      case Self.deflateQueue: break
      default:
        for buffer in chain.writable { self.release(buffer) }
      }
      return 0
    }
  }

  /// An array of page numbers, 32 bits each.
  private func inflate(_ chain: DescriptorChain) {
    guard let memory = transport?.memory else { return }
    var reader = chain.reader
    // Neighbours go together. Linux gives them from the last one on.
    var (first, last): (UInt64, UInt64) = (1, 0)
    func flush() {
      guard first <= last else { return }
      let address = PhysicalAddress(first * Self.pageSize)
      if let bytes = memory.bytes(at: address, count: (last - first + 1) * Self.pageSize) { release(bytes) }
    }
    while let page = reader.read(UInt32.self).map(UInt64.init) {
      if first <= last, page + 1 == first {
        first = page
      } else if first <= last, page == last + 1 {
        last = page
      } else {
        flush()
        (first, last) = (page, page)
      }
    }
    flush()
  }

  private func release(_ bytes: UnsafeMutableRawBufferPointer) {
    guard let memory = transport?.memory, !bytes.isEmpty else { return }
    memory.release(bytes)
    counters.withLock { $0.releasedBytes += UInt64(bytes.count) }
  }
}

/// What a balloon did since its machine was made.
public struct BalloonMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  /// Bytes that were given back to the host, again and again where the guest took them again.
  public var releasedBytes: UInt64 = 0
  public init() {}
}

extension VirtioBalloon {
  public struct State: Codable {
    var wantedPages: UInt32
    var actualPages: UInt32
  }
  public static let stateVersion = 1

  public func saveState() -> State {
    State(
      wantedPages: UInt32(configuration.read(offset: UInt64(Field.wantedPages), width: 4)),
      actualPages: pages.load(ordering: .relaxed))
  }

  public func restoreState(_ state: State) {
    configuration.set(state.wantedPages, at: Field.wantedPages)
    setActual(state.actualPages)
  }
}

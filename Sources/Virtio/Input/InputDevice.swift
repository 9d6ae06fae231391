import Synchronization

/// An input device (virtio 1.2, 5.8) with one key, the power button: a guest whose system listens to it (systemd-logind
/// does) switches itself off in good order.
public final class VirtioInput: VirtioDevice {
  public let deviceType = VirtioDeviceType.input
  public let pciClassCode: UInt32 = 0x09_80_00
  public let deviceFeatures: UInt64 = 0
  public let queueMaximumSizes: [UInt16] = [64, 64]
  /// select, subsel and size, a byte each; from 8 on what is selected (5.8.4).
  public let configuration = ConfigurationSpace(count: VirtioInput.configurationSize)
  public let stateIdentifier = "input"

  private static let configurationSize = 136
  static let eventQueue = 0
  static let statusQueue = 1

  /// An event as Linux has it in <linux/input.h>.
  struct Event: Codable, Equatable {
    var type: UInt16
    var code: UInt16
    var value: UInt32
  }

  private static let keyEvents: UInt16 = 1
  private static let powerKey: UInt16 = 116

  let counters = Mutex(InputMetrics())
  weak var transport: VirtioTransport?
  // The I/O thread's: what the guest hasn't taken yet.
  var pending: [Event] = []
  /// A guest that takes nothing finds no more than this later.
  private static let mostPending = 64

  public init() {}

  public func attach(to transport: VirtioTransport) { self.transport = transport }
  public func activate(features: UInt64) {}

  public func reset() {
    pending = []
    select(0, 0)
  }

  // MARK: the configuration space (5.8.5)

  public func configurationWritten(offset: UInt64, width: Int, value: UInt64) {
    var selection = UInt8(truncatingIfNeeded: configuration.read(offset: 0, width: 1))
    var subselection = UInt8(truncatingIfNeeded: configuration.read(offset: 1, width: 1))
    for index in 0..<UInt64(width) {
      let byte = UInt8(truncatingIfNeeded: value >> (8 * index))
      if offset &+ index == 0 { selection = byte }
      if offset &+ index == 1 { subselection = byte }
    }
    select(selection, subselection)
  }

  private func select(_ selection: UInt8, _ subselection: UInt8) {
    let content: [UInt8]
    switch (selection, subselection) {
    case (0x01, 0): content = Array("Yadori power button".utf8)
    // Bus type virtual, then vendor, product and version.
    case (0x03, 0): content = [6, 0, 0, 0, 0, 0, 1, 0]
    case (0x11, UInt8(Self.keyEvents)):
      var keys = [UInt8](repeating: 0, count: Int(Self.powerKey) / 8 + 1)
      keys[Int(Self.powerKey) / 8] = 1 << (Self.powerKey % 8)
      content = keys
    default: content = []
    }
    configuration.update { bytes in
      bytes = [UInt8](repeating: 0, count: Self.configurationSize)
      bytes[0] = selection
      bytes[1] = subselection
      bytes[2] = UInt8(content.count)
      bytes.replaceSubrange(8..<8 + content.count, with: content)
    }
  }

  // MARK: events

  /// Presses the power button and lets it go. On the I/O thread.
  public func pressPowerButton() {
    guard pending.count + 4 <= Self.mostPending else { return }
    counters.withLock { $0.presses += 1 }
    for value in [UInt32(1), 0] {
      pending.append(Event(type: Self.keyEvents, code: Self.powerKey, value: value))
      // What was said so far belongs together (EV_SYN).
      pending.append(Event(type: 0, code: 0, value: 0))
    }
    deliver()
  }

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    // What a guest says of lamps is of no interest here.
    if index == Self.eventQueue { deliver() } else { transport?.process(index) { _ in 0 } }
  }

  private func deliver() {
    transport?.process(Self.eventQueue) { chain in
      guard let event = self.pending.first else { return nil }
      self.pending.removeFirst()
      var writer = chain.writer
      let words = UInt64(event.type) | UInt64(event.code) << 16 | UInt64(event.value) << 32
      let written = withUnsafeBytes(of: words.littleEndian) { writer.write($0) }
      return UInt32(written)
    }
  }
}

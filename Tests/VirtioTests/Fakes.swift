import Console
import HostSystem
import Network
import Storage
import Synchronization
import Virtio

struct FakeFailure: Error {}

/// A disk in memory.
final class MemoryStorage: BlockStorage {
  var bytes: [UInt8]
  let isReadOnly: Bool
  var fails = false
  private(set) var flushes = 0
  private(set) var reads = 0
  private(set) var discarded: [Range<UInt64>] = []
  private(set) var zeroed: [(range: Range<UInt64>, mayUnmap: Bool)] = []

  init(sectors: Int, isReadOnly: Bool = false) {
    bytes = (0..<sectors * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 &+ $0) }
    self.isReadOnly = isReadOnly
  }

  var byteCount: UInt64 { UInt64(bytes.count) }

  private func check(_ offset: UInt64, _ count: Int) throws {
    precondition(offset % 512 == 0 && count % 512 == 0, "the device broke the storage's contract")
    if fails || offset + UInt64(count) > byteCount { throw FakeFailure() }
  }

  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
    try check(offset, buffer.count)
    reads += 1
    bytes.withUnsafeBytes { buffer.copyMemory(from: .init(rebasing: $0[Int(offset)..<Int(offset) + buffer.count])) }
  }

  func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws {
    try check(offset, buffer.count)
    precondition(!isReadOnly)
    bytes.replaceSubrange(Int(offset)..<Int(offset) + buffer.count, with: buffer)
  }

  func flush() throws {
    if fails { throw FakeFailure() }
    flushes += 1
  }

  func discard(at offset: UInt64, count: UInt64) throws {
    try check(offset, Int(count))
    discarded.append(offset..<offset + count)
  }

  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws {
    try check(offset, Int(count))
    zeroed.append((offset..<offset + count, mayUnmap))
    for index in Int(offset)..<Int(offset + count) { bytes[index] = 0 }
  }

  func close() throws {}
}

/// A network that keeps what the guest sent, and into which a test puts frames.
final class FakeNetwork: NetworkBackend {
  private(set) var sent: [[UInt8]] = []
  private(set) var roomOffers = 0
  var isLinkUp = true
  var startFails = false
  /// Frames that were refused, offered again when there is room.
  private(set) var waiting: [[UInt8]] = []
  private var receive: ((UnsafeRawBufferPointer) -> Bool)?

  func start(on loop: EventLoop, receive: @escaping (UnsafeRawBufferPointer) -> Bool) throws {
    if startFails { throw FakeFailure() }
    self.receive = receive
  }

  func send(_ frame: UnsafeRawBufferPointer) { sent.append(Array(frame)) }

  func guestHasRoom() {
    roomOffers += 1
    while let frame = waiting.first, offer(frame) { waiting.removeFirst() }
  }

  func stop() {}

  private func offer(_ frame: [UInt8]) -> Bool { frame.withUnsafeBytes { receive?($0) ?? false } }

  /// Delivers a frame to the guest, or keeps it.
  @discardableResult
  func deliver(_ frame: [UInt8]) -> Bool {
    if waiting.isEmpty, offer(frame) { return true }
    waiting.append(frame)
    return false
  }

  func takeSent() -> [[UInt8]] {
    defer { sent = [] }
    return sent
  }
}

/// A terminal that keeps output, and into which a test types.
final class FakeConsole: ConsoleBackend {
  private let written = Mutex<[UInt8]>([])
  private(set) var roomOffers = 0
  private(set) var waiting: [UInt8] = []
  private var input: ((UnsafeRawBufferPointer) -> Int)?
  private(set) var resize: ((Int, Int) -> Void)?
  private let initialSize: (Int, Int)?

  init(size: (Int, Int)? = nil) { initialSize = size }

  func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int, resize: @escaping (Int, Int) -> Void
  ) throws {
    self.input = input
    self.resize = resize
    if let (columns, rows) = initialSize { resize(columns, rows) }
  }

  func write(_ bytes: UnsafeRawBufferPointer) { written.withLock { $0 += bytes } }

  func guestHasRoom() {
    roomOffers += 1
    offer()
  }

  func stop() {}

  func type(_ text: String) {
    waiting += Array(text.utf8)
    offer()
  }

  private func offer() {
    guard !waiting.isEmpty, let input else { return }
    waiting.removeFirst(waiting.withUnsafeBytes { input($0) })
  }

  func takeOutput() -> String {
    written.withLock { written in
      defer { written = [] }
      return String(decoding: written, as: UTF8.self)
    }
  }
}

/// One device of each kind, over fakes.
enum DeviceKind: CaseIterable {
  case block, net, console, entropy

  func make() -> any VirtioDevice {
    switch self {
    case .block: VirtioBlock(storage: MemoryStorage(sectors: 64), queueCount: 2)
    case .net: VirtioNet(backend: FakeNetwork(), mac: MACAddress("52:54:00:12:34:56")!)
    case .console: VirtioConsole(ports: [.init(backend: FakeConsole()), .init(backend: FakeConsole(), name: "agent")])
    case .entropy: VirtioEntropy { $0.initializeMemory(as: UInt8.self, repeating: 0x5a) }
    }
  }
}

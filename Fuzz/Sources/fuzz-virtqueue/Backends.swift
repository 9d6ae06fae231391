import Console
import HostSystem
import Network
import Storage

/// A small disk that holds its callers to the contract.
final class MemoryDisk: BlockStorage {
  private var bytes = [UInt8](repeating: 0x33, count: 64 * 512)
  let isReadOnly = false
  var byteCount: UInt64 { UInt64(bytes.count) }

  private func range(_ offset: UInt64, _ count: Int) -> Range<Int> {
    precondition(offset % 512 == 0 && count % 512 == 0 && offset + UInt64(count) <= byteCount)
    return Int(offset)..<Int(offset) + count
  }

  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) {
    let range = range(offset, buffer.count)
    bytes.withUnsafeBytes { buffer.copyMemory(from: .init(rebasing: $0[range])) }
  }

  func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) {
    bytes.replaceSubrange(range(offset, buffer.count), with: buffer)
  }

  func flush() {}
  func discard(at offset: UInt64, count: UInt64) { _ = range(offset, Int(count)) }
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) { _ = range(offset, Int(count)) }
  func close() {}
}

/// A network that takes frames, which are no larger than the link carries, and keeps one that the guest has no room for.
final class MemoryNetwork: NetworkBackend {
  let isLinkUp = true
  private var receive: ((UnsafeRawBufferPointer) -> Bool)?
  private var waiting: [UInt8]?
  private var sum = 0

  func start(on loop: EventLoop, receive: @escaping (UnsafeRawBufferPointer) -> Bool) { self.receive = receive }

  func send(_ frame: UnsafeRawBufferPointer) {
    precondition((14...1522).contains(frame.count))
    for byte in frame { sum &+= Int(byte) }
  }

  func guestHasRoom() { if let frame = waiting, offer(frame) { waiting = nil } }
  func stop() {}

  private func offer(_ frame: [UInt8]) -> Bool { frame.withUnsafeBytes { receive?($0) ?? true } }

  func deliver(_ frame: [UInt8]) { if waiting == nil, !offer(frame) { waiting = frame } }
}

/// A terminal that reads what is printed, and keeps what is typed until the guest takes it.
final class MemoryTerminal: ConsoleBackend {
  private var input: ((UnsafeRawBufferPointer) -> Int)?
  private var waiting: [UInt8] = []
  private var sum = 0

  func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int, resize: @escaping (Int, Int) -> Void
  ) {
    self.input = input
    resize(80, 25)
  }

  func write(_ bytes: UnsafeRawBufferPointer) { for byte in bytes { sum &+= Int(byte) } }
  func guestHasRoom() { offer() }
  func stop() {}

  private func offer() {
    guard !waiting.isEmpty, let input else { return }
    let taken = waiting.withUnsafeBytes(input)
    precondition((0...waiting.count).contains(taken))
    waiting.removeFirst(taken)
  }

  func type(_ bytes: [UInt8]) {
    waiting += bytes.prefix(max(0, 4096 - waiting.count))
    offer()
  }
}

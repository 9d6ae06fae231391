import Board
import Bus
import Console
import Foundation
import HostSystem
import Synchronization

/// An interrupt wire that remembers its level and how often it rose.
final class RecordedLine: @unchecked Sendable {
  private let state = Mutex((level: false, rises: 0))

  var line: InterruptLine {
    InterruptLine { [self] level in
      state.withLock { state in
        if level, !state.level { state.rises += 1 }
        state.level = level
      }
    }
  }

  var level: Bool { state.withLock { $0.level } }
  var rises: Int { state.withLock { $0.rises } }
}

/// A console in memory: the test types with `type` and reads `output`.
final class MemoryConsole: ConsoleBackend, @unchecked Sendable {
  private let state = Mutex((output: [UInt8](), waiting: [UInt8]()))
  private var input: ((UnsafeRawBufferPointer) -> Int)?

  var output: String { String(decoding: state.withLock { $0.output }, as: UTF8.self) }
  var waitingCount: Int { state.withLock { $0.waiting.count } }

  func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int, resize: @escaping (Int, Int) -> Void
  ) throws { self.input = input }

  func write(_ bytes: UnsafeRawBufferPointer) { state.withLock { $0.output.append(contentsOf: bytes) } }

  func type(_ text: String) {
    state.withLock { $0.waiting.append(contentsOf: Array(text.utf8)) }
    guestHasRoom()
  }

  func guestHasRoom() {
    let waiting = state.withLock { $0.waiting }
    guard !waiting.isEmpty else { return }
    let taken = waiting.withUnsafeBytes { input?($0) ?? 0 }
    state.withLock { $0.waiting.removeFirst(taken) }
  }

  func stop() { input = nil }
}

extension BusDevice {
  func read32(_ offset: UInt64) -> UInt32 { UInt32(read(offset: offset, width: 4)) }
  func write32(_ offset: UInt64, _ value: UInt32) { write(offset: offset, width: 4, value: UInt64(value)) }
  func read8(_ offset: UInt64) -> UInt8 { UInt8(read(offset: offset, width: 1)) }
  func write8(_ offset: UInt64, _ value: UInt8) { write(offset: offset, width: 1, value: UInt64(value)) }
}

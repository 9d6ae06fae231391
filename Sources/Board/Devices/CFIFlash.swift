import Bus
import Foundation
import Synchronization

/// A bank of NOR flash with the Intel command set (Common Flash Interface; Intel StrataFlash): 32 MiB made of two
/// 16-bit chips side by side, in erase blocks of 256 KiB, as QEMU's `virt` has it. Programming clears bits, erasing a
/// block sets them. What a block holds exists only once something was written to it.
public final class CFIFlash: BusDevice, StateKeeper, @unchecked Sendable {
  public static let byteCount = 32 << 20
  public static let blockSize = 256 << 10
  static let blockCount = byteCount / blockSize
  /// Bus words that one buffered program takes: 2 KiB for each chip.
  static let bufferWords = 1024

  /// Writes changed bytes through to a file; false when that failed, which the guest sees as a programming error.
  public typealias Store = @Sendable (_ offset: UInt64, _ bytes: [UInt8]) -> Bool

  enum Mode: Int, Codable {
    case array
    case status
    case identifier
    case query
    /// The next write is a word to program.
    case program
    /// The next write confirms an erase.
    case erase
    /// The next write says how to lock a block.
    case lock
    /// The next write is the number of words less one.
    case bufferCount
    case bufferFill
    case bufferConfirm
  }

  struct BufferedWrite: Codable {
    let offset: UInt64
    let width: Int
    let value: UInt64
  }

  public struct State: Codable {
    var mode = Mode.array
    var status = Status.ready
    var buffer: [BufferedWrite] = []
    var bufferRemaining = 0
    /// Blocks that aren't erased, by number.
    var blocks: [Int: Data] = [:]
  }

  enum Status {
    static let ready: UInt8 = 0x80
    static let eraseError: UInt8 = 0x20
    static let programError: UInt8 = 0x10
  }

  public static let stateVersion = 1
  public let stateIdentifier: String
  let isReadOnly: Bool
  private let store: Store?
  private let state: Mutex<State>

  /// `contents`: what the bank holds at first, from its start; the rest is erased. `store`: where changes go, nil to
  /// forget them with the machine. Throws `BootError` when the contents are larger than the bank.
  public init(identifier: String, contents: Data = Data(), isReadOnly: Bool = false, store: Store? = nil) throws {
    guard contents.count <= CFIFlash.byteCount else {
      throw BootError(
        .configuration, "\(identifier): the image has \(contents.count) bytes; a flash bank holds \(CFIFlash.byteCount)"
      )
    }
    stateIdentifier = identifier
    self.isReadOnly = isReadOnly
    self.store = store
    var initial = State()
    for start in stride(from: 0, to: contents.count, by: CFIFlash.blockSize) {
      let first = contents.startIndex + start
      var block = Data(contents[first..<min(contents.endIndex, first + CFIFlash.blockSize)])
      block.append(Data(repeating: 0xFF, count: CFIFlash.blockSize - block.count))
      initial.blocks[start / CFIFlash.blockSize] = block
    }
    state = Mutex(initial)
  }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    state.withLock { state in
      switch state.mode {
      case .array:
        let (block, start) = Int(offset).quotientAndRemainder(dividingBy: CFIFlash.blockSize)
        guard let bytes = state.blocks[block] else { return .max >> UInt64(64 - 8 * width) }
        var value: UInt64 = 0
        for index in 0..<min(width, CFIFlash.blockSize - start) {
          value |= UInt64(bytes[bytes.startIndex + start + index]) << UInt64(8 * index)
        }
        return value
      case .identifier: return CFIFlash.replicate(CFIFlash.identifier(Int(offset >> 2) & 0x3F), offset, width)
      case .query: return CFIFlash.replicate(CFIFlash.queryTable(Int(offset >> 2) & 0xFF), offset, width)
      default: return CFIFlash.replicate(state.status, offset, width)
      }
    }
  }

  /// Both chips answer the same in their low byte.
  private static func replicate(_ value: UInt8, _ offset: UInt64, _ width: Int) -> UInt64 {
    let lanes = UInt64(value) * 0x0001_0001_0001_0001
    return lanes >> (8 * (offset & 1)) & (.max >> UInt64(64 - 8 * width))
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    let change: (offset: UInt64, bytes: [UInt8])? = state.withLock { state in
      switch state.mode {
      case .array, .status, .identifier, .query:
        command(&state, UInt8(truncatingIfNeeded: value))
        return nil
      case .program:
        state.mode = .status
        return program(&state, [BufferedWrite(offset: offset, width: width, value: value)])
      case .erase:
        state.mode = .status
        guard UInt8(truncatingIfNeeded: value) == 0xD0 else {
          state.status |= Status.eraseError | Status.programError
          return nil
        }
        return erase(&state, Int(offset) / CFIFlash.blockSize)
      case .lock:
        // Blocks are always unlocked; locking is acknowledged.
        state.mode = .status
        return nil
      case .bufferCount:
        let words = Int(value & 0xFFFF) + 1
        guard words <= CFIFlash.bufferWords else {
          state.status |= Status.eraseError | Status.programError
          state.mode = .status
          return nil
        }
        state.bufferRemaining = words
        state.buffer = []
        state.mode = .bufferFill
        return nil
      case .bufferFill:
        state.buffer.append(BufferedWrite(offset: offset, width: width, value: value))
        state.bufferRemaining -= 1
        if state.bufferRemaining <= 0 { state.mode = .bufferConfirm }
        return nil
      case .bufferConfirm:
        let writes = state.buffer
        state.buffer = []
        state.mode = .status
        guard UInt8(truncatingIfNeeded: value) == 0xD0 else {
          state.status |= Status.eraseError | Status.programError
          return nil
        }
        return program(&state, writes)
      }
    }
    guard let change, let store, !store(change.offset, change.bytes) else { return }
    state.withLock { $0.status |= Status.programError }
  }

  private func command(_ state: inout State, _ command: UInt8) {
    switch command {
    case 0x10, 0x40: state.mode = .program
    case 0x20: state.mode = .erase
    case 0x50: state.status = Status.ready
    case 0x60: state.mode = .lock
    case 0x70: state.mode = .status
    case 0x90: state.mode = .identifier
    case 0x98: state.mode = .query
    case 0xE8: state.mode = .bufferCount
    default: state.mode = .array
    }
  }

  /// Programs all `writes`, which must lie in one block; returns the changed range.
  private func program(_ state: inout State, _ writes: [BufferedWrite]) -> (offset: UInt64, bytes: [UInt8])? {
    let blockSize = UInt64(CFIFlash.blockSize)
    guard !isReadOnly, let first = writes.map(\.offset).min(),
      let end = writes.map({ $0.offset + UInt64($0.width) }).max(),
      first / blockSize == (end - 1) / blockSize
    else {
      state.status |= Status.programError
      return nil
    }
    let number = Int(first / blockSize)
    var block = state.blocks[number] ?? Data(repeating: 0xFF, count: CFIFlash.blockSize)
    state.blocks[number] = nil
    for write in writes {
      let start = Int(write.offset % blockSize)
      for index in 0..<write.width {
        block[start + index] &= UInt8(truncatingIfNeeded: write.value >> UInt64(8 * index))
      }
    }
    state.blocks[number] = block
    return (first, Array(block[Int(first % blockSize)...Int((end - 1) % blockSize)]))
  }

  private func erase(_ state: inout State, _ block: Int) -> (offset: UInt64, bytes: [UInt8])? {
    guard !isReadOnly else {
      state.status |= Status.eraseError
      return nil
    }
    guard state.blocks.removeValue(forKey: block) != nil else { return nil }
    return (UInt64(block * CFIFlash.blockSize), [UInt8](repeating: 0xFF, count: CFIFlash.blockSize))
  }

  /// Back to reading the array; what is stored stays.
  public func reset() {
    state.withLock { state in
      let blocks = state.blocks
      state = State()
      state.blocks = blocks
    }
  }

  public func saveState() -> State { state.withLock { $0 } }

  public func restoreState(_ saved: State) throws {
    guard
      saved.blocks.allSatisfy({ (0..<CFIFlash.blockCount).contains($0.key) && $0.value.count == CFIFlash.blockSize }),
      saved.buffer.allSatisfy({
        [1, 2, 4, 8].contains($0.width) && $0.offset <= UInt64(CFIFlash.byteCount - $0.width)
      })
    else { throw StateError("the saved state of '\(stateIdentifier)' is of another flash") }
    state.withLock { $0 = saved }
  }
}

import Synchronization

/// A device's configuration fields (virtio 1.2, 2.5), little-endian, and their generation. Any thread.
///
/// Its lock is a leaf: nothing is called while it is held, except the closures given to `update`, which only touch the
/// bytes they are given.
public final class ConfigurationSpace: @unchecked Sendable {
  private struct Contents {
    var bytes: [UInt8]
    var generation: UInt32 = 0
  }
  private let contents: Mutex<Contents>

  /// Bytes of configuration.
  public let count: Int

  public init(count: Int) {
    self.count = count
    contents = Mutex(Contents(bytes: [UInt8](repeating: 0, count: count)))
  }

  /// Reads `width` bytes (1 to 8); bytes beyond the end read as zero.
  public func read(offset: UInt64, width: Int) -> UInt64 {
    contents.withLock { contents in
      var value: UInt64 = 0
      for index in 0..<width {
        let position = offset &+ UInt64(index)
        guard position < UInt64(contents.bytes.count) else { break }
        value |= UInt64(contents.bytes[Int(position)]) &<< UInt64(8 * index)
      }
      return value
    }
  }

  /// Changes at each change of the fields, so that a driver notices a read torn between two of them.
  public var generation: UInt32 { contents.withLock { $0.generation } }

  /// Sets the field at `offset`. True when that changed it.
  @discardableResult
  public func set<Value: FixedWidthInteger>(_ value: Value, at offset: Int) -> Bool {
    update { bytes in
      for index in 0..<MemoryLayout<Value>.size where offset + index < bytes.count {
        bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
      }
    }
  }

  /// Changes several fields as one change. True when anything is different afterwards.
  @discardableResult
  public func update(_ body: (inout [UInt8]) -> Void) -> Bool {
    contents.withLock { contents in
      let before = contents.bytes
      body(&contents.bytes)
      guard contents.bytes != before else { return false }
      contents.generation &+= 1
      return true
    }
  }
}

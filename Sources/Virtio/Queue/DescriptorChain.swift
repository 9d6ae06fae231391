/// The buffers of one request: first those the device reads, then those it writes. All lie within guest RAM; the guest
/// may change their bytes at any moment.
public struct DescriptorChain {
  /// The index of the first descriptor, by which the chain is given back.
  public internal(set) var head: UInt16 = 0
  public internal(set) var readable: [UnsafeRawBufferPointer] = []
  public internal(set) var writable: [UnsafeMutableRawBufferPointer] = []
  /// Bytes that the device may read, over all buffers.
  public internal(set) var readableCount = 0
  /// Bytes that the device may write, over all buffers.
  public internal(set) var writableCount = 0

  public init() {}

  /// A cursor at the first byte the device may read.
  public var reader: SegmentReader { SegmentReader(segments: readable, remaining: readableCount) }

  /// A cursor at the first byte the device may write.
  public var writer: SegmentWriter { SegmentWriter(segments: writable, remaining: writableCount) }

  mutating func removeAll() {
    readable.removeAll(keepingCapacity: true)
    writable.removeAll(keepingCapacity: true)
    readableCount = 0
    writableCount = 0
  }
}

/// Reads through scattered buffers in order. Where a driver splits its request among descriptors doesn't matter
/// (virtio 1.2, 2.7.4).
public struct SegmentReader {
  private let segments: [UnsafeRawBufferPointer]
  private var index = 0
  private var offset = 0
  public private(set) var remaining: Int

  init(segments: [UnsafeRawBufferPointer], remaining: Int) {
    self.segments = segments
    self.remaining = remaining
  }

  /// The next bytes that lie together, `limit` at most; nil at the end.
  public mutating func next(limit: Int = .max) -> UnsafeRawBufferPointer? {
    guard remaining > 0, limit > 0 else { return nil }
    let segment = segments[index]
    let count = min(segment.count - offset, limit)
    let piece = UnsafeRawBufferPointer(rebasing: segment[offset..<offset + count])
    offset += count
    remaining -= count
    if offset == segment.count {
      index += 1
      offset = 0
    }
    return piece
  }

  /// Copies as much as `target` holds; false, and nothing consumed, when there is less.
  public mutating func read(into target: UnsafeMutableRawBufferPointer) -> Bool {
    guard target.count <= remaining else { return false }
    var done = 0
    while done < target.count, let piece = next(limit: target.count - done) {
      UnsafeMutableRawBufferPointer(rebasing: target[done...]).copyMemory(from: piece)
      done += piece.count
    }
    return true
  }

  /// Reads a little-endian integer; nil, and nothing consumed, when fewer bytes remain.
  public mutating func read<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) -> Value? {
    var value = Value.zero
    guard withUnsafeMutableBytes(of: &value, { read(into: $0) }) else { return nil }
    return Value(littleEndian: value)
  }

  /// Passes over `count` bytes, or all that remain when they are fewer.
  public mutating func skip(_ count: Int) {
    var left = count
    while left > 0, let piece = next(limit: left) { left -= piece.count }
  }
}

/// Writes through scattered buffers in order.
public struct SegmentWriter {
  private let segments: [UnsafeMutableRawBufferPointer]
  private var index = 0
  private var offset = 0
  public private(set) var remaining: Int

  init(segments: [UnsafeMutableRawBufferPointer], remaining: Int) {
    self.segments = segments
    self.remaining = remaining
  }

  /// The next bytes that lie together, `limit` at most; nil at the end.
  public mutating func next(limit: Int = .max) -> UnsafeMutableRawBufferPointer? {
    guard remaining > 0, limit > 0 else { return nil }
    let segment = segments[index]
    let count = min(segment.count - offset, limit)
    let piece = UnsafeMutableRawBufferPointer(rebasing: segment[offset..<offset + count])
    offset += count
    remaining -= count
    if offset == segment.count {
      index += 1
      offset = 0
    }
    return piece
  }

  /// Copies as much of `source` as there is room for; how much that was.
  @discardableResult
  public mutating func write(_ source: UnsafeRawBufferPointer) -> Int {
    var done = 0
    while done < source.count, let piece = next(limit: source.count - done) {
      piece.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[done..<done + piece.count]))
      done += piece.count
    }
    return done
  }

  /// Writes a little-endian integer, cut short where the room ends.
  public mutating func write<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value) {
    withUnsafeBytes(of: value.littleEndian) { _ = write($0) }
  }

  /// Passes over `count` bytes, or all that remain when they are fewer.
  public mutating func skip(_ count: Int) {
    var left = count
    while left > 0, let piece = next(limit: left) { left -= piece.count }
  }
}

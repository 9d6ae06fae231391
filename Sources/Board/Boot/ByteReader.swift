import Foundation

/// Bounded reads of little- and big-endian integers from a file's bytes; nil beyond the end, whatever the offset.
struct ByteReader {
  private let data: Data
  let count: Int

  init(_ data: Data) {
    self.data = data
    count = data.count
  }

  func little<Value: FixedWidthInteger>(_ offset: UInt64, as type: Value.Type) -> Value? {
    load(offset, type).map(Value.init(littleEndian:))
  }

  func big<Value: FixedWidthInteger>(_ offset: UInt64, as type: Value.Type) -> Value? {
    load(offset, type).map(Value.init(bigEndian:))
  }

  private func load<Value: FixedWidthInteger>(_ offset: UInt64, _ type: Value.Type) -> Value? {
    let size = MemoryLayout<Value>.size
    guard offset <= UInt64(count), UInt64(size) <= UInt64(count) - offset else { return nil }
    var value: Value = 0
    let start = data.startIndex + Int(offset)
    withUnsafeMutableBytes(of: &value) { _ = data.copyBytes(to: $0, from: start..<start + size) }
    return value
  }

  /// The bytes `[offset, offset + count)`, nil when they aren't all there.
  func slice(_ offset: UInt64, _ length: UInt64) -> Data? {
    guard offset <= UInt64(count), length <= UInt64(count) - offset else { return nil }
    let start = data.startIndex + Int(offset)
    return data[start..<start + Int(length)]
  }

  /// The zero-terminated string at `offset`, without its end; nil when it isn't terminated within `limit` bytes.
  func string(_ offset: UInt64, limit: Int) -> String? {
    guard offset < UInt64(count) else { return nil }
    let start = data.startIndex + Int(offset)
    let window = data[start..<min(data.endIndex, start + limit)]
    guard let end = window.firstIndex(of: 0) else { return nil }
    return String(decoding: data[start..<end], as: UTF8.self)
  }
}

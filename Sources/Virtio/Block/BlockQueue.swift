import Bus
import Storage

/// Serving the request queues (virtio 1.2, 5.2.6). A request is a header of 16 bytes, its data and one status byte;
/// how the driver splits these among descriptors doesn't matter.
extension VirtioBlock {
  private enum RequestType {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let identify: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeroes: UInt32 = 13
  }

  private enum Status: UInt8 {
    case ok = 0
    case ioError = 1
    case unsupported = 2
  }

  /// Bytes of the serial number (5.2.6.2).
  private static let serialSize = 20

  /// Data that lies in guest memory in pieces which aren't whole sectors goes through a buffer of this size.
  private static let bounceSize = 65536

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    transport?.process(index) { try self.serve($0) }
  }

  private func serve(_ chain: DescriptorChain) throws -> UInt32 {
    guard chain.writableCount >= 1 else {
      throw VirtqueueError.requestMalformed("a block request without room for its status")
    }
    var reader = chain.reader
    guard let type = reader.read(UInt32.self), reader.read(UInt32.self) != nil,
      let sector = reader.read(UInt64.self)
    else {
      throw VirtqueueError.requestMalformed("a block request shorter than its header")
    }
    let room = chain.writableCount - 1
    let status: Status
    // Bytes of the room that a successful request fills, from the first one on.
    var filled = 0
    switch type {
    case RequestType.read:
      status = read(sector: sector, into: chain.writer, count: room)
      filled = room
    case RequestType.write: status = write(sector: sector, from: reader)
    case RequestType.flush: status = flush()
    case RequestType.identify:
      status = identify(chain.writer, room: room)
      filled = min(Self.serialSize, room)
    case RequestType.discard: status = discard(reader)
    case RequestType.writeZeroes: status = writeZeroes(reader)
    default: status = .unsupported
    }
    if status != .ok { counters.withLock { $0.errors += 1 } }
    var end = chain.writer
    end.skip(room)
    end.write(status.rawValue)
    // The used length promises bytes from the first one on (2.7.8.2), and the status is the last one.
    if status != .ok { filled = 0 }
    return UInt32(filled == room ? chain.writableCount : filled)
  }

  /// The byte range of a transfer; nil when it isn't whole sectors or leaves the disk.
  private func offset(ofSector sector: UInt64, count: Int) -> UInt64? {
    let capacity = storage.byteCount
    guard count % 512 == 0, sector <= capacity / 512, UInt64(count) <= capacity - sector * 512 else { return nil }
    return sector * 512
  }

  private func read(sector: UInt64, into destination: SegmentWriter, count: Int) -> Status {
    guard let start = offset(ofSector: sector, count: count) else { return .ioError }
    var writer = destination
    var pieces: [UnsafeMutableRawBufferPointer] = []
    var left = count
    while left > 0, let piece = writer.next(limit: left) {
      left -= piece.count
      // Neighbours in memory become one host call.
      if let last = pieces.last, last.baseAddress! + last.count == piece.baseAddress! {
        pieces[pieces.count - 1] = .init(start: last.baseAddress, count: last.count + piece.count)
      } else {
        pieces.append(piece)
      }
    }
    let done = attempt("read") {
      if pieces.allSatisfy({ $0.count % 512 == 0 }) {
        try storage.read(at: start, into: pieces)
      } else {
        try readBounced(at: start, into: destination, count: count)
      }
    }
    guard done else { return .ioError }
    counters.withLock {
      $0.reads += 1
      $0.bytesRead += UInt64(count)
    }
    return .ok
  }

  private func readBounced(at start: UInt64, into destination: SegmentWriter, count: Int) throws {
    let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bounceSize, alignment: 512)
    defer { bounce.deallocate() }
    var writer = destination
    var done = 0
    while done < count {
      let part = UnsafeMutableRawBufferPointer(rebasing: bounce[..<min(bounce.count, count - done)])
      try storage.read(at: start + UInt64(done), into: part)
      writer.write(UnsafeRawBufferPointer(part))
      done += part.count
    }
  }

  private func write(sector: UInt64, from source: SegmentReader) -> Status {
    let count = source.remaining
    guard !isReadOnly, let start = offset(ofSector: sector, count: count) else { return .ioError }
    var reader = source
    var pieces: [UnsafeRawBufferPointer] = []
    while let piece = reader.next() {
      if let last = pieces.last, last.baseAddress! + last.count == piece.baseAddress! {
        pieces[pieces.count - 1] = .init(start: last.baseAddress, count: last.count + piece.count)
      } else {
        pieces.append(piece)
      }
    }
    let done = attempt("write") {
      if pieces.allSatisfy({ $0.count % 512 == 0 }) {
        try storage.write(at: start, from: pieces)
      } else {
        try writeBounced(at: start, from: source)
      }
      if writesThrough { try storage.flush() }
    }
    guard done else { return .ioError }
    counters.withLock {
      $0.writes += 1
      $0.bytesWritten += UInt64(count)
    }
    return .ok
  }

  private func writeBounced(at start: UInt64, from source: SegmentReader) throws {
    let bounce = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bounceSize, alignment: 512)
    defer { bounce.deallocate() }
    var reader = source
    var position = start
    while reader.remaining > 0 {
      let part = UnsafeMutableRawBufferPointer(rebasing: bounce[..<min(bounce.count, reader.remaining)])
      _ = reader.read(into: part)
      try storage.write(at: position, from: UnsafeRawBufferPointer(part))
      position += UInt64(part.count)
    }
  }

  private func flush() -> Status {
    guard attempt("flush", { try storage.flush() }) else { return .ioError }
    counters.withLock { $0.flushes += 1 }
    return .ok
  }

  private func identify(_ destination: SegmentWriter, room: Int) -> Status {
    var writer = destination
    let padded = serial + [UInt8](repeating: 0, count: Self.serialSize - serial.count)
    padded.withUnsafeBytes { _ = writer.write(UnsafeRawBufferPointer(rebasing: $0[..<min($0.count, room)])) }
    return .ok
  }

  // MARK: Discard and write zeroes

  private struct Range {
    let offset: UInt64
    let count: UInt64
    let flags: UInt32
  }

  /// Reads the segments of a discard or write zeroes request, all checked before any is carried out.
  private func ranges(_ source: SegmentReader, maximumSectors: UInt32) -> [Range]? {
    guard !isReadOnly, source.remaining > 0, source.remaining % 16 == 0,
      source.remaining / 16 <= Limit.rangeSegments
    else { return nil }
    var reader = source
    var ranges: [Range] = []
    while let sector = reader.read(UInt64.self), let count = reader.read(UInt32.self),
      let flags = reader.read(UInt32.self)
    {
      guard count <= maximumSectors, let start = offset(ofSector: sector, count: Int(count) * 512) else { return nil }
      ranges.append(Range(offset: start, count: UInt64(count) * 512, flags: flags))
    }
    return ranges
  }

  private func discard(_ source: SegmentReader) -> Status {
    guard features & Feature.discard != 0 else { return .unsupported }
    guard let ranges = ranges(source, maximumSectors: Limit.discardSectors) else { return .ioError }
    // Unmap means something for write zeroes only (5.2.6.2).
    guard ranges.allSatisfy({ $0.flags == 0 }) else { return .unsupported }
    let done = attempt("discard") {
      for range in ranges where range.count > 0 { try storage.discard(at: range.offset, count: range.count) }
    }
    guard done else { return .ioError }
    counters.withLock { $0.discards += UInt64(ranges.count) }
    return .ok
  }

  private func writeZeroes(_ source: SegmentReader) -> Status {
    guard features & Feature.writeZeroes != 0 else { return .unsupported }
    guard let ranges = ranges(source, maximumSectors: Limit.zeroSectors) else { return .ioError }
    guard ranges.allSatisfy({ $0.flags & ~1 == 0 }) else { return .unsupported }
    let done = attempt("write zeroes to") {
      for range in ranges where range.count > 0 {
        try storage.writeZeroes(at: range.offset, count: range.count, mayUnmap: range.flags & 1 != 0)
      }
      if writesThrough { try storage.flush() }
    }
    guard done else { return .ioError }
    counters.withLock { $0.zeroedRanges += UInt64(ranges.count) }
    return .ok
  }

  private func attempt(_ action: String, _ body: () throws -> Void) -> Bool {
    do {
      try body()
      return true
    } catch {
      report("can't \(action) the disk: \(error)")
      return false
    }
  }
}

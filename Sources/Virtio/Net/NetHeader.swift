/// What precedes each frame in its buffers (virtio 1.2, 5.1.6), 12 bytes.
struct NetHeader {
  static let count = 12
  static let needsChecksum: UInt8 = 1
  static let dataValid: UInt8 = 2

  enum Segmentation {
    static let none: UInt8 = 0
    static let tcp4: UInt8 = 1
    static let tcp6: UInt8 = 4
    /// The packet's TCP flags carry congestion notification.
    static let ecn: UInt8 = 0x80
  }

  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0
  var bufferCount: UInt16 = 0

  init() {}

  /// Nil when fewer than 12 bytes remain.
  init?(_ reader: inout SegmentReader) {
    guard let flags = reader.read(UInt8.self), let segmentation = reader.read(UInt8.self),
      let headerLength = reader.read(UInt16.self), let segmentSize = reader.read(UInt16.self),
      let checksumStart = reader.read(UInt16.self), let checksumOffset = reader.read(UInt16.self),
      let bufferCount = reader.read(UInt16.self)
    else { return nil }
    self.flags = flags
    self.segmentation = segmentation
    self.headerLength = headerLength
    self.segmentSize = segmentSize
    self.checksumStart = checksumStart
    self.checksumOffset = checksumOffset
    self.bufferCount = bufferCount
  }

  func write(to writer: inout SegmentWriter) {
    writer.write(flags)
    writer.write(segmentation)
    writer.write(headerLength)
    writer.write(segmentSize)
    writer.write(checksumStart)
    writer.write(checksumOffset)
    writer.write(bufferCount)
  }
}

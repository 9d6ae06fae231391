/// What precedes each packet's bytes in both directions (virtio 1.2, 5.10.6), 44 bytes.
struct SocketPacket: Equatable {
  static let headerCount = 44
  /// The only kind of socket served: a stream.
  static let stream: UInt16 = 1

  /// What a packet is for; others are answered with a reset.
  enum Operation: UInt16 {
    case request = 1
    case response, reset, shutdown, data, creditUpdate, creditRequest
  }

  /// Of `shutdown`: whoever sends it receives no more, or sends no more.
  static let receivesNoMore: UInt32 = 1
  static let sendsNoMore: UInt32 = 2

  var sourceContext: UInt64 = 0
  var destinationContext: UInt64 = 0
  var sourcePort: UInt32 = 0
  var destinationPort: UInt32 = 0
  /// Bytes behind the header.
  var count: UInt32 = 0
  var type = SocketPacket.stream
  var operation: UInt16 = 0
  var flags: UInt32 = 0
  /// Bytes that the sender's buffer for this connection holds, and how many have left it so far.
  var allocation: UInt32 = 0
  var forwarded: UInt32 = 0

  init() {}

  /// Nil when fewer than 44 bytes remain.
  init?(_ reader: inout SegmentReader) {
    guard let sourceContext = reader.read(UInt64.self), let destinationContext = reader.read(UInt64.self),
      let sourcePort = reader.read(UInt32.self), let destinationPort = reader.read(UInt32.self),
      let count = reader.read(UInt32.self), let type = reader.read(UInt16.self),
      let operation = reader.read(UInt16.self), let flags = reader.read(UInt32.self),
      let allocation = reader.read(UInt32.self), let forwarded = reader.read(UInt32.self)
    else { return nil }
    self.sourceContext = sourceContext
    self.destinationContext = destinationContext
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.count = count
    self.type = type
    self.operation = operation
    self.flags = flags
    self.allocation = allocation
    self.forwarded = forwarded
  }

  func write(to writer: inout SegmentWriter) {
    writer.write(sourceContext)
    writer.write(destinationContext)
    writer.write(sourcePort)
    writer.write(destinationPort)
    writer.write(count)
    writer.write(type)
    writer.write(operation)
    writer.write(flags)
    writer.write(allocation)
    writer.write(forwarded)
  }
}

/// Frames, and the arithmetic on them, written plainly and apart from the device's.
struct Packet {
  enum Version { case four, six }

  var version = Version.four
  /// 802.1Q tags between the Ethernet header and the rest.
  var tags = 0
  /// Bytes of an IPv6 hop-by-hop header, a multiple of 8.
  var extensionBytes = 0
  /// Bytes of options after the TCP header, a multiple of 4.
  var options = 0
  var sequence: UInt32 = 0xffff_fc00
  var identification: UInt16 = 0xfffe
  var flags: UInt8 = 0x10
  var payload: [UInt8] = []

  static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xff)] }
  static func big(_ value: UInt32) -> [UInt8] { big(UInt16(value >> 16)) + big(UInt16(value & 0xffff)) }

  var network: Int { 14 + 4 * tags }
  var transport: Int { network + (version == .four ? 20 : 40 + extensionBytes) }
  var payloadOffset: Int { transport + 20 + options }

  /// The whole frame. The TCP checksum holds the pseudo header's sum, as a driver leaves it.
  var bytes: [UInt8] {
    var frame: [UInt8] = [0x52, 0x54, 0, 1, 2, 3, 0x52, 0x54, 0, 4, 5, 6]
    for tag in 0..<tags { frame += [0x81, 0, 0, UInt8(tag)] }
    frame += version == .four ? [0x08, 0x00] : [0x86, 0xdd]
    let segment = 20 + options + payload.count
    switch version {
    case .four:
      frame += [0x45, 0] + Self.big(UInt16(truncatingIfNeeded: 20 + segment)) + Self.big(identification)
      frame += [0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]
    case .six:
      frame += [0x60, 0, 0, 0] + Self.big(UInt16(truncatingIfNeeded: extensionBytes + segment))
      frame += [extensionBytes > 0 ? 0 : 6, 64]
      frame += (1...16).map { UInt8($0) } + (1...16).map { UInt8($0 * 3) }
      if extensionBytes > 0 {
        frame += [6, UInt8(extensionBytes / 8 - 1)] + [UInt8](repeating: 0, count: extensionBytes - 2)
      }
    }
    frame += Self.big(UInt16(40000)) + Self.big(UInt16(80)) + Self.big(sequence) + Self.big(UInt32(7))
    frame += [UInt8((20 + options) / 4) << 4, flags] + Self.big(UInt16(1000))
    frame += Self.big(Self.sum(pseudoHeader(frame, segment: segment, protocol: 6))) + [0, 0]
    frame += [UInt8](repeating: 1, count: options)
    return frame + payload
  }

  private func pseudoHeader(_ frame: [UInt8], segment: Int, protocol number: UInt8) -> [UInt8] {
    let addresses = version == .four ? frame[network + 12..<network + 20] : frame[network + 8..<network + 40]
    return addresses + [0, number] + Self.big(UInt16(truncatingIfNeeded: segment))
  }

  /// The ones' complement sum (RFC 1071), not complemented.
  static func sum(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt32 = 0
    for index in stride(from: 0, to: bytes.count, by: 2) {
      sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return UInt16(sum)
  }

  /// Whether the checksums of `frame`, whose headers are like this packet's, are right.
  func checksumsAreRight(_ frame: [UInt8]) -> Bool {
    if version == .four, Self.sum(Array(frame[network..<transport])) != 0xffff { return false }
    let segment = Array(frame[transport...])
    return Self.sum(pseudoHeader(frame, segment: segment.count, protocol: 6) + segment) == 0xffff
  }
}

/// The header before each frame (virtio 1.2, 5.1.6).
struct FrameHeader: Sendable {
  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0
  var bufferCount: UInt16 = 0

  var bytes: [UInt8] {
    func little(_ value: UInt16) -> [UInt8] { [UInt8(value & 0xff), UInt8(value >> 8)] }
    return [flags, segmentation] + little(headerLength) + little(segmentSize) + little(checksumStart)
      + little(checksumOffset) + little(bufferCount)
  }
}

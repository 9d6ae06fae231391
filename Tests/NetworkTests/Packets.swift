import Network

/// Bytes in network order, written and read by hand.
extension [UInt8] {
  static func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
  static func big(_ value: UInt32) -> [UInt8] { big(UInt16(value >> 16)) + big(UInt16(value & 0xFFFF)) }

  func word(_ offset: Int) -> UInt16 {
    offset + 2 <= count ? UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) : 0
  }
  func long(_ offset: Int) -> UInt32 { UInt32(word(offset)) << 16 | UInt32(word(offset + 2)) }
  func slice(_ offset: Int, _ length: Int) -> [UInt8] {
    offset <= count ? Array(self[offset..<Swift.min(count, offset + length)]) : []
  }
  func from(_ offset: Int) -> [UInt8] { slice(offset, count) }
}

/// The Internet checksum (RFC 1071).
func internetChecksum(_ bytes: [UInt8]) -> UInt16 {
  var sum: UInt32 = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
  }
  while sum > 0xFFFF { sum = (sum & 0xFFFF) + (sum >> 16) }
  return ~UInt16(sum)
}

let ethernetBroadcast = [UInt8](repeating: 0xFF, count: 6)

func ethernet(to destination: [UInt8], from source: [UInt8], type: UInt16, _ payload: [UInt8]) -> [UInt8] {
  destination + source + .big(type) + payload
}

/// RFC 826: a request when `isRequest`, else an answer.
func arp(isRequest: Bool, sender: ([UInt8], IPAddress), target: ([UInt8], IPAddress)) -> [UInt8] {
  .big(UInt16(1)) + .big(UInt16(0x0800)) + [6, 4] + .big(UInt16(isRequest ? 1 : 2)) + sender.0 + sender.1.bytes
    + target.0 + target.1.bytes
}

/// An IPv4 or IPv6 packet, by the addresses' kind.
func ip(from source: IPAddress, to destination: IPAddress, next: UInt8, hopLimit: UInt8 = 64, _ payload: [UInt8])
  -> [UInt8]
{
  if source.isIPv6 {
    return [0x60, 0, 0, 0] + .big(UInt16(payload.count)) + [next, hopLimit] + source.bytes + destination.bytes + payload
  }
  var header: [UInt8] = [0x45, 0] + .big(UInt16(20 + payload.count)) + [0, 1, 0, 0, hopLimit, next, 0, 0]
  header += source.bytes + destination.bytes
  header.replaceSubrange(10..<12, with: [UInt8].big(internetChecksum(header)))
  return header + payload
}

/// Puts the checksum with its pseudo header (RFC 768, RFC 8200 8.1) at `offset` of a transport packet.
func withChecksum(_ packet: [UInt8], at offset: Int, next: UInt8, from source: IPAddress, to destination: IPAddress)
  -> [UInt8]
{
  let pseudo = source.bytes + destination.bytes + [UInt8].big(UInt32(packet.count)) + [0, 0, 0, next]
  var packet = packet
  packet.replaceSubrange(offset..<offset + 2, with: [UInt8].big(internetChecksum(pseudo + packet)))
  return packet
}

struct TCPFlags: OptionSet {
  let rawValue: UInt8
  static let fin = TCPFlags(rawValue: 1)
  static let syn = TCPFlags(rawValue: 2)
  static let rst = TCPFlags(rawValue: 4)
  static let ack = TCPFlags(rawValue: 16)
}

/// What a frame carries, as far as the tests look at it.
struct ReceivedPacket {
  let frame: [UInt8]

  var isARP: Bool { frame.word(12) == 0x0806 }
  var isIPv6: Bool { frame.word(12) == 0x86DD }
  private var headerCount: Int { isIPv6 ? 40 : Int(frame[14] & 15) * 4 }
  var next: UInt8 { frame.count < 34 || isARP ? 0 : isIPv6 ? frame[20] : frame[23] }
  var source: [UInt8] { isIPv6 ? frame.slice(22, 16) : frame.slice(26, 4) }
  var destination: [UInt8] { isIPv6 ? frame.slice(38, 16) : frame.slice(30, 4) }
  /// The transport packet, without Ethernet padding.
  var transport: [UInt8] {
    let length = isIPv6 ? Int(frame.word(18)) : Int(frame.word(16)) - headerCount
    return frame.slice(14 + headerCount, length)
  }
  var sourcePort: UInt16 { transport.word(0) }
  var destinationPort: UInt16 { transport.word(2) }
  var udpPayload: [UInt8] { transport.from(8) }
  var tcpFlags: TCPFlags { TCPFlags(rawValue: transport[13]) }
  var tcpSequence: UInt32 { transport.long(4) }
  var tcpPayload: [UInt8] { transport.from(Int(transport[12] >> 4) * 4) }
}

/// The same numbers in every run (xorshift64).
struct RepeatableRandom: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}

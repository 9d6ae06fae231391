import Glibc

/// An IPv4 or IPv6 address.
public struct IPAddress: Hashable, Sendable, CustomStringConvertible {
  /// 4 or 16 bytes in network order.
  public let bytes: [UInt8]

  public var isIPv6: Bool { bytes.count == 16 }

  public static let loopback = IPAddress(127, 0, 0, 1)

  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) { bytes = [a, b, c, d] }

  /// Reads "127.0.0.1" or "::1"; nil for anything else (names aren't looked up).
  public init?(_ text: some StringProtocol) {
    var buffer = [UInt8](repeating: 0, count: 16)
    let text = String(text)
    if inet_pton(AF_INET, text, &buffer) == 1 {
      bytes = Array(buffer[..<4])
    } else if inet_pton(AF_INET6, text, &buffer) == 1 {
      bytes = buffer
    } else {
      return nil
    }
  }

  public var description: String {
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    inet_ntop(isIPv6 ? AF_INET6 : AF_INET, bytes, &text, socklen_t(text.count))
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The C library's form, for IPv4.
  var in4: in_addr { bytes.withUnsafeBytes { $0.loadUnaligned(as: in_addr.self) } }

  /// The C library's form, for IPv6.
  var in6: in6_addr { bytes.withUnsafeBytes { $0.loadUnaligned(as: in6_addr.self) } }

  /// The address with a port, as sockets take it.
  func withSocketAddress<Result>(port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    func pass<Address>(_ address: Address) -> Result {
      withUnsafeBytes(of: address) { raw in
        body(raw.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(raw.count))
      }
    }
    if isIPv6 {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = port.bigEndian
      address.sin6_addr = in6
      return pass(address)
    }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr = in4
    return pass(address)
  }
}

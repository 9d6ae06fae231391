/// A port of the host that leads to a port of the guest.
public struct PortForward: Hashable, Sendable, CustomStringConvertible {
  public enum Transport: String, Sendable { case tcp, udp }

  public var transport: Transport
  /// Where the host listens; 127.0.0.1 unless said otherwise, so that only this host reaches the guest.
  public var hostAddress: IPAddress
  public var hostPort: UInt16
  /// Nil: the address that the guest got (IPv4: the first that DHCP gives out, 10.0.2.15; IPv6: the one it formed).
  public var guestAddress: IPAddress?
  public var guestPort: UInt16

  public init(
    transport: Transport = .tcp, hostAddress: IPAddress = .loopback, hostPort: UInt16, guestAddress: IPAddress? = nil,
    guestPort: UInt16
  ) {
    self.transport = transport
    self.hostAddress = hostAddress
    self.hostPort = hostPort
    self.guestAddress = guestAddress
    self.guestPort = guestPort
  }

  /// Reads `[HOST:]HOSTPORT:[GUEST:]GUESTPORT[/tcp|/udp]`: "2222:22", "127.0.0.1:8080:80/tcp", "53:53/udp",
  /// "[::1]:2222:22". IPv6 addresses stand in brackets. Throws `NetworkError`.
  public init(parsing text: String) throws {
    func refuse(_ why: String) -> NetworkError {
      NetworkError(.invalidArgument, "port forward '\(text)': \(why); write HOSTPORT:GUESTPORT, as in 2222:22")
    }
    guard !text.isEmpty else { throw refuse("the host's port is missing") }
    var body = Substring(text)
    transport = .tcp
    if let slash = body.lastIndex(of: "/") {
      let name = body[body.index(after: slash)...]
      guard let named = Transport(rawValue: name.lowercased()) else { throw refuse("'\(name)' is neither tcp nor udp") }
      transport = named
      body = body[..<slash]
    }
    guard var fields = PortForward.fields(of: body) else { throw refuse("a bracket doesn't match") }

    func takePort(_ role: String) throws -> UInt16 {
      guard let field = fields.first else { throw refuse("the \(role) port is missing") }
      guard field.allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(field), port > 0 else {
        throw refuse("'\(field)' is not a port from 1 to 65535")
      }
      fields.removeFirst()
      return port
    }
    func takeAddress() throws -> IPAddress? {
      guard let field = fields.first, field.contains(where: { !$0.isNumber }) else { return nil }
      guard let address = IPAddress(field) else { throw refuse("'\(field)' is not an IP address") }
      fields.removeFirst()
      return address
    }
    hostAddress = try takeAddress() ?? .loopback
    hostPort = try takePort("host's")
    guestAddress = try takeAddress()
    guestPort = try takePort("guest's")
    guard fields.isEmpty else { throw refuse("there is more after the guest's port") }
    if let guestAddress, guestAddress.isIPv6 != hostAddress.isIPv6 {
      throw refuse("the two addresses must both be IPv4 or both IPv6")
    }
  }

  /// Whether both listen at the same place of the host.
  public func sharesPort(with other: PortForward) -> Bool {
    (transport, hostAddress, hostPort) == (other.transport, other.hostAddress, other.hostPort)
  }

  /// Splits at colons outside brackets and takes the brackets off; nil when they don't match.
  private static func fields(of text: Substring) -> [Substring]? {
    var fields: [Substring] = []
    var rest = text
    while true {
      if rest.first == "[" {
        guard let end = rest.firstIndex(of: "]") else { return nil }
        fields.append(rest[rest.index(after: rest.startIndex)..<end])
        rest = rest[rest.index(after: end)...]
        guard rest.isEmpty || rest.first == ":" else { return nil }
      } else {
        let end = rest.firstIndex(of: ":") ?? rest.endIndex
        guard !rest[..<end].contains("]"), !rest[..<end].contains("[") else { return nil }
        fields.append(rest[..<end])
        rest = rest[end...]
      }
      if rest.isEmpty { return fields }
      rest.removeFirst()
    }
  }

  public var description: String {
    func text(_ address: IPAddress) -> String { address.isIPv6 ? "[\(address)]" : "\(address)" }
    let guest = guestAddress.map { text($0) + ":" } ?? ""
    return "\(text(hostAddress)):\(hostPort):\(guest)\(guestPort)/\(transport.rawValue)"
  }
}

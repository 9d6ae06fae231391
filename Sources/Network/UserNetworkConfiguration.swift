/// How a user-mode network behaves. The network plan is QEMU's: the guest is in 10.0.2.0/24 and gets 10.0.2.15 by DHCP,
/// the host answers at 10.0.2.2 and the name server at 10.0.2.3; in IPv6 these are fec0::/64, fec0::2 and fec0::3.
public struct UserNetworkConfiguration: Sendable {
  public static let hostAddress = IPAddress(10, 0, 2, 2)
  public static let nameServerAddress = IPAddress(10, 0, 2, 3)
  public static let firstGuestAddress = IPAddress(10, 0, 2, 15)

  /// Ports of the host that lead to the guest.
  public var portForwards: [PortForward]
  /// Whether 10.0.2.2 (fec0::2) leads to services that listen on the host's own loopback addresses. On by default, as
  /// QEMU has it. **A guest that isn't trusted reaches every such service of the host's users this way**: switch it
  /// off for one.
  public var isHostLoopbackAllowed: Bool
  /// Whether the guest is cut off from everything outside; only `portForwards` lead in.
  public var isRestricted: Bool
  /// Whether the guest is offered IPv6.
  public var isIPv6Enabled: Bool
  /// The host name that DHCP gives the guest; nil: none.
  public var hostname: String?

  public init(
    portForwards: [PortForward] = [], isHostLoopbackAllowed: Bool = true, isRestricted: Bool = false,
    isIPv6Enabled: Bool = true, hostname: String? = nil
  ) {
    self.portForwards = portForwards
    self.isHostLoopbackAllowed = isHostLoopbackAllowed
    self.isRestricted = isRestricted
    self.isIPv6Enabled = isIPv6Enabled
    self.hostname = hostname
  }
}

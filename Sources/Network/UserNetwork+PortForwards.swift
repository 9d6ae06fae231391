import CSlirp
import Glibc

extension UserNetwork {
  /// Begins to listen for one more. On the event loop's thread, after `start`. Throws `NetworkError`.
  public func add(_ forward: PortForward) throws {
    guard let slirp else { throw NetworkError(.unavailable, "the network has been stopped") }
    try add(forward, to: slirp)
  }

  /// Begins to listen for `forward`. Throws `NetworkError`.
  func add(_ forward: PortForward, to slirp: OpaquePointer) throws {
    // The library lets UDP sockets share a port (SO_REUSEADDR), and two machines would steal each other's datagrams.
    if forward.transport == .udp, let code = UserNetwork.bindRefusal(forward) {
      throw UserNetwork.refusal(of: forward, code)
    }
    var flags = forward.transport == .udp ? SLIRP_HOSTFWD_UDP : 0
    if forward.hostAddress.isIPv6 { flags |= SLIRP_HOSTFWD_V6ONLY }
    // The unspecified address: the library puts in the one that the guest has.
    let guest = forward.guestAddress ?? IPAddress(forward.hostAddress.isIPv6 ? "::" : "0.0.0.0")!
    let code = forward.hostAddress.withSocketAddress(port: forward.hostPort) { host, hostSize in
      guest.withSocketAddress(port: forward.guestPort) { guest, guestSize in
        errno = 0
        return slirp_add_hostxfwd(slirp, host, hostSize, guest, guestSize, Int32(flags)) == 0 ? 0 : errno
      }
    }
    if code != 0 { throw UserNetwork.refusal(of: forward, code) }
  }

  /// Stops listening where `forward` does; connections that stand go on. False: nobody listens there. On the event
  /// loop's thread.
  public func remove(_ forward: PortForward) -> Bool {
    guard let slirp else { return false }
    let flags = forward.transport == .udp ? SLIRP_HOSTFWD_UDP : 0
    return forward.hostAddress.withSocketAddress(port: forward.hostPort) { host, hostSize in
      slirp_remove_hostxfwd(slirp, host, hostSize, Int32(flags)) == 0
    }
  }

  /// Why a datagram socket that shares nothing can't have the port; nil when it can.
  private static func bindRefusal(_ forward: PortForward) -> Int32? {
    let family = forward.hostAddress.isIPv6 ? AF_INET6 : AF_INET
    let probe = socket(family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard probe >= 0 else { return errno }
    defer { close(probe) }
    return forward.hostAddress.withSocketAddress(port: forward.hostPort) { bind(probe, $0, $1) == 0 ? nil : errno }
  }

  private static func refusal(of forward: PortForward, _ code: Int32) -> NetworkError {
    let port = "port \(forward.hostPort) of \(forward.hostAddress)"
    switch code {
    case EADDRINUSE: return NetworkError(.portInUse, "\(port) is in use; choose another with -p", cause: code)
    case EACCES, EPERM:
      return NetworkError(
        .noPermission, "\(port) is for privileged programs; choose one above 1023 with -p", cause: code)
    case EADDRNOTAVAIL, EAFNOSUPPORT:
      return NetworkError(
        .unavailable, "\(forward.hostAddress) is not an address of this host; choose another with -p", cause: code)
    default:
      return NetworkError(
        .unavailable, "can't listen on \(port): \(String(cString: strerror(code)))", cause: code)
    }
  }
}

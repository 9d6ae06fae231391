import Foundation
import HostSystem

/// A socket on this host's loopback address, for the guest to talk to.
final class LoopbackSocket {
  let descriptor: Int32
  let port: UInt16

  /// `isIPv6`: on ::1, else on 127.0.0.1; nil where the host has no such address. TCP sockets listen.
  init?(datagram: Bool = false, isIPv6: Bool = false, listens: Bool = true) {
    let kind = datagram ? Int32(SOCK_DGRAM.rawValue) : Int32(SOCK_STREAM.rawValue)
    let made = socket(isIPv6 ? AF_INET6 : AF_INET, kind, 0)
    guard made >= 0 else { return nil }
    // Nothing here may wait for ever.
    var limit = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    guard LoopbackSocket.call(bind, made, isIPv6, 0) == 0, datagram || !listens || listen(made, 4) == 0
    else {
      close(made)
      return nil
    }
    var address = sockaddr_in6()
    var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
    withUnsafeMutablePointer(to: &address) {
      _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(made, $0, &size) }
    }
    // The port is at the same place in both kinds of address.
    descriptor = made
    port = UInt16(bigEndian: address.sin6_port)
  }

  deinit { close(descriptor) }

  /// Calls `bind` or `connect` with the loopback address and `port`.
  static func call(
    _ function: (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32, _ descriptor: Int32, _ isIPv6: Bool,
    _ port: UInt16
  ) -> Int32 {
    var address4 = sockaddr_in()
    address4.sin_family = sa_family_t(AF_INET)
    address4.sin_port = port.bigEndian
    address4.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var address6 = sockaddr_in6()
    address6.sin6_family = sa_family_t(AF_INET6)
    address6.sin6_port = port.bigEndian
    withUnsafeMutableBytes(of: &address6.sin6_addr) { $0[15] = 1 }
    func pass<Address>(_ address: inout Address) -> Int32 {
      withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          function(descriptor, $0, socklen_t(MemoryLayout<Address>.size))
        }
      }
    }
    return isIPv6 ? pass(&address6) : pass(&address4)
  }

  /// A port that nobody has at the moment.
  static func freePort(datagram: Bool = false, isIPv6: Bool = false) -> UInt16? {
    LoopbackSocket(datagram: datagram, isIPv6: isIPv6, listens: false)?.port
  }

  /// Serves one TCP client on a thread of its own: reads until the client has finished, then answers with `prefix` and
  /// what was read.
  func answerOneClient(prefix: String) -> HostThread {
    let listener = descriptor
    return HostThread(name: "server") {
      let client = accept(listener, nil, nil)
      guard client >= 0 else { return }
      var text = Array(prefix.utf8)
      var buffer = [UInt8](repeating: 0, count: 4096)
      while case let count = read(client, &buffer, buffer.count), count > 0 { text += buffer[..<count] }
      _ = write(client, text, text.count)
      close(client)
    }
  }

  func send(_ bytes: [UInt8]) { _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  /// What has arrived by now; nil: nothing, empty: the other side has finished.
  func receiveNow() -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
    return count < 0 ? nil : Array(buffer[..<count])
  }
}

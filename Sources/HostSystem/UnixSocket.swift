import CHost
import Glibc

/// Unix stream sockets: what takes a pointer to an address of its own kind in C.
public enum UnixSocket {
  /// Bytes of a path at most.
  public static let longestPath = MemoryLayout<sockaddr_un>.size - MemoryLayout<sa_family_t>.size - 1

  /// A new one that programs started from here don't inherit; below zero: errno says why not.
  public static func make(isBlocking: Bool = true) -> Int32 {
    let flags = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | (isBlocking ? 0 : SOCK_NONBLOCK.rawValue)
    return socket(AF_UNIX, Int32(flags), 0)
  }

  /// `call` is bind or connect. Returns 0, or the error's number.
  public static func use(
    _ path: String, _ descriptor: Int32, _ call: (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32
  ) -> Int32 {
    guard path.utf8.count <= longestPath else { return ENAMETOOLONG }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        call(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return result == 0 ? 0 : errno
  }

  /// Who is at the other side; nil where the host doesn't say.
  public static func peer(_ descriptor: Int32) -> (process: Int32, user: UInt32)? {
    var (process, user): (Int32, UInt32) = (0, 0)
    return chost_peer(descriptor, &process, &user) == 0 ? (process, user) : nil
  }
}

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

  /// Connects with the socket at `path` itself: where that is a link, or anything else, it isn't connected with. Returns 0,
  /// or the error's number.
  public static func connect(_ descriptor: Int32, to path: String) -> Int32 {
    let place = chost_open(path, ConfinedFolder.pathOnly | O_NOFOLLOW | O_CLOEXEC, 0)
    guard place >= 0 else { return errno }
    defer { close(place) }
    var status = stat()
    guard fstat(place, &status) == 0 else { return errno }
    guard status.st_mode & S_IFMT == S_IFSOCK else { return ENOTSOCK }
    // What was looked at, whatever the path leads to by now; this one fits an address, too.
    return use("/proc/self/fd/\(place)", descriptor, Glibc.connect)
  }

  /// Has connecting and sending end with an error after so many seconds in which the other side takes nothing; 0: never.
  public static func limitSending(_ descriptor: Int32, seconds: Int) {
    var time = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  }

  /// Who is at the other side; nil where the host doesn't say.
  public static func peer(_ descriptor: Int32) -> (process: Int32, user: UInt32)? {
    var (process, user): (Int32, UInt32) = (0, 0)
    return chost_peer(descriptor, &process, &user) == 0 ? (process, user) : nil
  }

  /// Runs `body` with a path that fits an address, which is another one where `path` doesn't: by way of the folder.
  public static func withShortPath<Result>(_ path: String, _ body: (String) throws -> Result) rethrows -> Result {
    guard path.utf8.count > longestPath, let slash = path.lastIndex(of: "/") else { return try body(path) }
    let folder = chost_open(String(path[..<slash]), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    guard folder >= 0 else { return try body(path) }
    defer { close(folder) }
    return try body("/proc/self/fd/\(folder)\(path[slash...])")
  }

  /// Makes a socket at `path` that listens, for this user only; a dead one that was left there is replaced. Throws
  /// `HostError`, with EADDRINUSE where another program listens there.
  public static func listen(_ path: String, backlog: Int32 = 64, isBlocking: Bool = false) throws -> Int32 {
    try withShortPath(path) { short in
      let made = make(isBlocking: isBlocking)
      guard made >= 0 else { throw HostError.last("can't make a socket") }
      var failure = use(short, made, bind)
      if failure == EADDRINUSE {
        let probe = make(isBlocking: false)
        let answer = use(short, probe, Glibc.connect)
        close(probe)
        // A full backlog (EAGAIN) has somebody behind it too.
        if answer == ECONNREFUSED { failure = unlink(short) == 0 ? use(short, made, bind) : errno }
      }
      // Nobody can connect before listen: the permissions are in place by then.
      guard failure == 0, chmod(short, 0o600) == 0, Glibc.listen(made, backlog) == 0 else {
        let code = failure != 0 ? failure : errno
        close(made)
        throw HostError(code: code, message: "can't listen on the socket '\(path)': \(String(cString: strerror(code)))")
      }
      return made
    }
  }

  /// Takes a connection, which programs started from here don't inherit; below zero: there is none.
  public static func accept(_ listener: Int32, isBlocking: Bool) -> Int32 {
    let connection = Glibc.accept(listener, nil, nil)
    if connection >= 0 {
      _ = chost_fcntl(connection, F_SETFD, Int(FD_CLOEXEC))
      if !isBlocking { _ = chost_fcntl(connection, F_SETFL, Int(O_NONBLOCK)) }
    }
    return connection
  }

  /// Sends all of it, waiting for room, and with it a descriptor that the other side gets a copy of. False: the other side
  /// is gone.
  public static func sendAll(
    _ bytes: UnsafeRawBufferPointer, to descriptor: Int32, passing passed: Int32? = nil
  ) -> Bool {
    var rest = bytes
    if let passed {
      let count = chost_send_descriptor(descriptor, rest.baseAddress, rest.count, passed)
      if count <= 0 { return false }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
    while !rest.isEmpty {
      let count = send(descriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return false }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
    return true
  }

  /// Reads a line, which comes without its end, and nothing beyond it: other bytes may follow. Nil: the connection has
  /// ended, or the line is longer than that.
  ///
  /// - Parameter deadline: when all of it must be there, on the monotonic clock in nanoseconds; nil: whenever.
  public static func readLine(from descriptor: Int32, longest: Int, until deadline: UInt64? = nil) -> [UInt8]? {
    var passed: Int32?
    defer { if let passed { close(passed) } }
    return readLine(from: descriptor, longest: longest, until: deadline, passed: &passed)
  }

  /// False: nothing has come by then.
  private static func waitForInput(_ descriptor: Int32, until deadline: UInt64) -> Bool {
    var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while true {
      let now = MonotonicClock.nanoseconds()
      let rest = now < deadline ? Int32(clamping: (deadline - now) / 1_000_000 + 1) : 0
      let count = poll(&change, 1, rest)
      if count > 0 { return true }
      if count == 0 || errno != EINTR { return false }
    }
  }

  /// The same with a descriptor that comes with it.
  ///
  /// - Parameter passed: the first such, for the caller to close; nil: there was none.
  public static func readLine(
    from descriptor: Int32, longest: Int, until deadline: UInt64? = nil, passed: inout Int32?
  ) -> [UInt8]? {
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while line.count < longest {
      if let deadline, !waitForInput(descriptor, until: deadline) { return nil }
      var received: Int32 = -1
      let count = chost_receive_descriptor(descriptor, &byte, 1, &received)
      if received >= 0, passed != nil { close(received) } else if received >= 0 { passed = received }
      if count != 1 { return nil }
      if byte == UInt8(ascii: "\n") { return line }
      line.append(byte)
    }
    return nil
  }
}

import Foundation
import Synchronization

/// An HTTP server on this host's loopback address, at a port that the host chooses. It answers GET, one request a
/// connection, and remembers what it was asked.
package final class HTTPTestServer: Sendable {
  /// What there is at a path.
  package struct Page: Sendable {
    package var content: [UInt8]
    package var status = 200
    /// The first answers end after so many bytes of the body.
    package var cuts: [Int] = []
    /// Whether it can begin in the middle.
    package var takesRanges = true
    /// Where a redirection leads.
    package var location: String?
    /// When given, the first answer waits for it after half of the body.
    package var gate: DispatchSemaphore?

    package init(_ content: [UInt8]) { self.content = content }
    package init(_ text: String) { content = Array(text.utf8) }
    package init(redirectingTo location: String) {
      content = []
      status = 302
      self.location = location
    }
  }

  package struct Request: Equatable, Sendable, CustomStringConvertible {
    package var path: String
    /// Where the client wants to begin; nil: it didn't say.
    package var firstByte: Int?

    package init(_ path: String, from firstByte: Int? = nil) {
      self.path = path
      self.firstByte = firstByte
    }

    package var description: String { path + (firstByte.map { " from \($0)" } ?? "") }
  }

  private struct State {
    var pages: [String: Page] = [:]
    var requests: [Request] = []
  }

  package let port: UInt16
  private let listener: Int32
  private let state = Mutex(State())

  package init(_ pages: [String: Page] = [:]) throws {
    HTTPTestServer.leaveLoopbackToUs
    (listener, port) = try HTTPTestServer.listen()
    state.withLock { $0.pages = pages }
    let listener = listener
    Thread.detachNewThread { [weak self] in
      while true {
        let client = accept(listener, nil, nil)
        if client < 0 {
          if errno == EINTR { continue }
          break
        }
        self?.answer(client)
        close(client)
      }
      close(listener)
    }
  }

  /// Ends the thread, which then closes the socket.
  deinit { shutdown(listener, Int32(SHUT_RDWR)) }

  /// A proxy that this host is set up for can't reach us.
  private static let leaveLoopbackToUs: Void = {
    setenv("no_proxy", "127.0.0.1", 1)
    setenv("NO_PROXY", "127.0.0.1", 1)
  }()

  package var address: String { "http://127.0.0.1:\(port)" }

  package var requests: [Request] { state.withLock { $0.requests } }
  package func forgetRequests() { state.withLock { $0.requests = [] } }

  package subscript(path: String) -> Page? {
    get { state.withLock { $0.pages[path] } }
    set { state.withLock { $0.pages[path] = newValue } }
  }

  /// A port of the loopback address where nobody listens at the moment.
  package static func freePort() throws -> UInt16 {
    let (socket, port) = try listen()
    close(socket)
    return port
  }

  /// A listening socket, and its port.
  package static func listen() throws -> (socket: Int32, port: UInt16) {
    let made = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        guard bind(made, pointer, size) == 0, Foundation.listen(made, 16) == 0 else { return Int32(-1) }
        return getsockname(made, pointer, &size)
      }
    }
    guard made >= 0, result == 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
    return (made, UInt16(bigEndian: address.sin_port))
  }

  private func answer(_ client: Int32) {
    // Nothing here may wait for ever.
    var limit = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    guard let request = readRequest(client) else { return }
    let page = state.withLock { state -> Page? in
      state.requests.append(request)
      let page = state.pages[request.path]
      if page?.cuts.isEmpty == false { state.pages[request.path]?.cuts.removeFirst() }
      if page?.gate != nil { state.pages[request.path]?.gate = nil }
      return page
    }
    guard let page else { return send(client, status: 404, body: Array("nothing here\n".utf8)) }
    var headers: [String] = []
    if let location = page.location { headers.append("Location: \(location)") }
    var body = page.content[...]
    var status = page.status
    if let first = request.firstByte, page.takesRanges, status == 200 {
      if first >= body.count {
        return send(client, status: 416, headers: ["Content-Range: bytes */\(body.count)"], body: [])
      }
      headers.append("Content-Range: bytes \(first)-\(body.count - 1)/\(body.count)")
      body = body[first...]
      status = 206
    }
    send(client, status: status, headers: headers, body: Array(body), cut: page.cuts.first, gate: page.gate)
  }

  private func readRequest(_ client: Int32) -> Request? {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while !bytes.suffix(4).elementsEqual("\r\n\r\n".utf8) {
      let count = recv(client, &chunk, chunk.count, 0)
      if count <= 0 || bytes.count > 1 << 16 { return nil }
      bytes += chunk[..<count]
    }
    let lines = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\r\n")
    let words = lines[0].split(separator: " ")
    guard words.count == 3, words[0] == "GET" else { return nil }
    let range = lines.first { $0.lowercased().hasPrefix("range: bytes=") }?.dropFirst("range: bytes=".count)
    return Request(String(words[1]), from: range.flatMap { Int($0.prefix { $0 != "-" }) })
  }

  private func send(
    _ client: Int32, status: Int, headers: [String] = [], body: [UInt8], cut: Int? = nil, gate: DispatchSemaphore? = nil
  ) {
    let lines = ["HTTP/1.1 \(status) -", "Content-Length: \(body.count)", "Connection: close"] + headers + ["", ""]
    put(client, Array(lines.joined(separator: "\r\n").utf8)[...])
    if let gate {
      put(client, body[..<(body.count / 2)])
      gate.wait()
      put(client, body[(body.count / 2)...])
    } else {
      put(client, body[..<min(cut ?? body.count, body.count)])
    }
    // A close with unread input would reset the connection, and what was sent might be lost.
    shutdown(client, Int32(SHUT_WR))
    var rest = [UInt8](repeating: 0, count: 4096)
    while recv(client, &rest, rest.count, 0) > 0 {}
  }

  private func put(_ client: Int32, _ bytes: ArraySlice<UInt8>) {
    var rest = bytes
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Foundation.send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      if count <= 0 { return }
      rest = rest.dropFirst(count)
    }
  }
}

import Foundation
import HostSystem
import Synchronization
import Yadori

/// Answers on a running machine's control socket, which only this user (and root) may use: the folder is closed to
/// others, and who connects is asked of the host. A thread for each connection; a silent one keeps nobody else waiting.
package final class ControlServer: Sendable {
  /// What a request wants done.
  package struct Handlers: Sendable {
    package var status: @Sendable () -> MachineStatus
    var pause: @Sendable () -> Void
    var resume: @Sendable () -> Void
    /// Why it can't be pressed; nil: it was.
    var pressPowerButton: @Sendable () -> MachineError?
    var kill: @Sendable () -> Void
    /// Why it can't be saved there; nil: it was.
    package var save: @Sendable (_ path: String, _ isDurable: Bool, _ asChanges: Bool) -> MachineError?
    /// The same for its translators' code.
    package var keepCode: @Sendable (String) -> MachineError?
    /// Processors (nil: no limit), a weight, which processors (nil: all), how many harts its guest uses by now and RAM,
    /// each where it is to be changed. Why not; nil: done.
    var set:
      @Sendable (_ processors: Double??, _ weight: Int?, _ pin: [Int]??, _ harts: Int?, _ memory: UInt64?) ->
        MachineError?
    package var publish: @Sendable (String) -> MachineError?
    var unpublish: @Sendable (String) -> MachineError?
    /// A folder, and by which path it is reached.
    var share: @Sendable (SharedFolder, _ place: String) -> MachineError?
    var unshare: @Sendable (String) -> MachineError?
    /// Takes the descriptor; nil: the console is somebody's terminal.
    var attachConsole: (@Sendable (Int32) -> Void)?
    var resizeConsole: @Sendable (Int, Int) -> Void
  }

  private enum End {
    case open([Int32])
    case closed(exitCode: Int32)
  }

  private let listener: Int32
  private let handlers: Handlers
  /// Connections that wait for the machine's end.
  private let waiting = Mutex(End.open([]))
  private let folder: MachineFolder

  /// Listens. The caller holds the machine's lock, so a socket that is there is a dead one's. Throws `HostError`.
  package init(_ folder: MachineFolder, _ handlers: Handlers) throws {
    BrokenPipes.becomeErrors()
    self.folder = folder
    self.handlers = handlers
    listener = try UnixSocket.listen(folder.controlSocket, isBlocking: true)
    Thread.detachNewThread { [self] in accept() }
  }

  private func accept() {
    while true {
      let connection = UnixSocket.accept(listener, isBlocking: true)
      if connection < 0 {
        switch errno {
        case EINTR, ECONNABORTED: continue
        // The guest's connections have all there are for now.
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: usleep(10_000)
        default: return
        }
        continue
      }
      guard let peer = UnixSocket.peer(connection), peer.user == geteuid() || peer.user == 0 else {
        ControlLine.write(ControlReply(MachineError(.permission, "this machine is another user's")), to: connection)
        close(connection)
        continue
      }
      Thread.detachNewThread { [self] in answer(connection) }
    }
  }

  private func answer(_ connection: Int32) {
    var passed: Int32?
    defer { if let passed { close(passed) } }
    guard let request = ControlLine.read(ControlRequest.self, from: connection, passed: &passed) else {
      ControlLine.write(
        ControlReply(MachineError(.usage, "this isn't a request that the machine knows")), to: connection)
      close(connection)
      return
    }
    var reply = ControlReply()
    switch request.verb {
    case .status: reply.status = handlers.status()
    case .pause: handlers.pause()
    case .resume: handlers.resume()
    case .powerButton: reply = ControlReply(handlers.pressPowerButton())
    case .kill: handlers.kill()
    case .set:
      reply = ControlReply(
        handlers.set(
          request.processors.map { $0 == 0 ? nil : $0 }, request.weight, request.pin.map { $0.isEmpty ? nil : $0 },
          request.harts, request.memory))
    case .publish: reply = Self.reply(request.forward, missing: "say which port", handlers.publish)
    case .unpublish: reply = Self.reply(request.forward, missing: "say which port", handlers.unpublish)
    case .share:
      reply = Self.reply(request.folder, missing: "say which folder") { folder in
        Self.reaching(folder.path, by: passed, isFolder: true) { handlers.share(folder, $0) }
      }
    case .unshare: reply = Self.reply(request.name, missing: "say which folder", handlers.unshare)
    case .keepCode:
      reply = Self.reply(request.path, missing: "say where") { Self.reaching($0, by: passed, handlers.keepCode) }
    case .save:
      reply = Self.reply(request.path, missing: "say where") { path in
        Self.reaching(path, by: passed) {
          handlers.save($0, request.isDurable ?? true, request.asChanges ?? false)
        }
      }
    case .resize:
      if let columns = request.columns, let rows = request.rows, (1...65535).contains(columns),
        (1...65535).contains(rows)
      {
        handlers.resizeConsole(columns, rows)
      } else {
        reply = ControlReply(MachineError(.usage, "a terminal has 1 to 65535 columns and rows"))
      }
    case .console:
      guard let attach = handlers.attachConsole else {
        reply = ControlReply(MachineError(.unavailable, "its console is the terminal that it was started on"))
        break
      }
      if ControlLine.write(reply, to: connection) { attach(connection) } else { close(connection) }
      return
    case .wait:
      let ended: Int32? = waiting.withLock { state in
        switch state {
        case .open(let connections):
          state = .open(connections + [connection])
          return nil
        case .closed(let code): return code
        }
      }
      guard let ended else { return release(connection) }
      reply.exitCode = ended
    }
    ControlLine.write(reply, to: connection)
    close(connection)
  }

  /// Closes a connection that waits, when the client has left or been told.
  private func release(_ connection: Int32) {
    var byte: UInt8 = 0
    while true {
      let count = read(connection, &byte, 1)
      if count == 0 || (count < 0 && errno != EINTR) { break }
    }
    waiting.withLock { state in
      if case .open(let connections) = state { state = .open(connections.filter { $0 != connection }) }
      // With the lock: the number may be another connection's at once.
      close(connection)
    }
  }

  private static func reply<Value>(
    _ value: Value?, missing words: String, _ body: (Value) -> MachineError?
  ) -> ControlReply {
    ControlReply(value.map(body) ?? MachineError(.usage, words))
  }

  /// Calls `body` with a path by which this process reaches what the client calls `path`, of which that has opened the
  /// folder: there may be no such path here. Returns what `body` refuses, in the client's words.
  private static func reaching(
    _ path: String, by folder: Int32?, isFolder: Bool = false, _ body: (String) -> MachineError?
  ) -> MachineError? {
    guard let folder else { return body(path) }
    let place = "/proc/self/fd/\(folder)"
    let url = URL(fileURLWithPath: path)
    let (inside, said) =
      isFolder ? (place, path) : (place + "/" + url.lastPathComponent, url.deletingLastPathComponent().path)
    return body(inside).map { MachineError($0.code, $0.message.replacing(place, with: said)) }
  }

  /// How many wait for the machine's end.
  package var waiterCount: Int {
    waiting.withLock { if case .open(let connections) = $0 { connections.count } else { 0 } }
  }

  /// Tells those who wait how the machine has ended, and takes no more.
  package func end(exitCode: Int32) {
    waiting.withLock { state in
      guard case .open(let connections) = state else { return }
      state = .closed(exitCode: exitCode)
      var reply = ControlReply()
      reply.exitCode = exitCode
      for connection in connections {
        ControlLine.write(reply, to: connection)
        shutdown(connection, Int32(SHUT_RDWR))
      }
    }
    shutdown(listener, Int32(SHUT_RDWR))
    unlink(folder.controlSocket)
  }
}

extension ControlServer.Handlers {
  /// Of a machine that can't do anything else.
  package init(status: @escaping @Sendable () -> MachineStatus) {
    self.init(
      status: status, pause: {}, resume: {}, pressPowerButton: { nil }, kill: {}, save: { _, _, _ in nil },
      keepCode: { _ in nil }, set: { _, _, _, _, _ in nil }, publish: { _ in nil }, unpublish: { _ in nil },
      share: { _, _ in nil }, unshare: { _ in nil }, resizeConsole: { _, _ in })
  }
}

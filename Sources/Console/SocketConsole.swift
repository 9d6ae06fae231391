import CHost
import Foundation
import HostSystem
import Synchronization

/// A console on a Unix socket: one client at a time, further ones wait until it leaves. Output while there is no client
/// is thrown away. A client that reads slowly makes the guest wait; one that reads nothing for 5 seconds while 1 MiB is
/// pending is disconnected.
public final class SocketConsole: ConsoleBackend {
  /// Seconds that a client may read nothing.
  private let patience: TimeInterval
  /// Bytes of input read ahead of the guest; further ones wait in the socket.
  private static let mostPending = 64 << 10

  public let path: String
  private let queue = OutputQueue()
  // Set once, at the start, before the guest runs.
  private var loop: EventLoop?

  // The I/O thread's.
  private var listener: Int32 = -1
  private var client: Int32 = -1
  private var listenerWatch: EventLoop.Token?
  private var clientWatch: EventLoop.Token?
  private var pending = PendingInput()
  private var deliver: ((UnsafeRawBufferPointer) -> Int)?

  public init(path: String, patience: TimeInterval = 5) {
    self.path = path
    self.patience = patience
  }

  deinit {
    if client >= 0 { close(client) }
    if listener >= 0 { close(listener) }
  }

  /// Makes the socket, for this user only; a dead one left at `path` is replaced. Throws `ConsoleError`.
  public func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws {
    precondition(listener < 0, "started twice")
    BrokenPipes.becomeErrors()
    queue.discard()
    listener = try listen()
    self.loop = loop
    deliver = input
    listenerWatch = loop.watch(listener, for: .read) { [weak self] _ in self?.acceptClient() }
  }

  private func listen() throws -> Int32 {
    guard !path.isEmpty, path.utf8.count <= UnixSocket.longestPath else {
      throw ConsoleError(
        .unavailable, "the socket path '\(path)' must have 1 to \(UnixSocket.longestPath) bytes; choose a shorter one")
    }
    do {
      return try UnixSocket.listen(path, backlog: 1)
    } catch let error as HostError {
      guard error.code == EADDRINUSE else { throw ConsoleError(.unavailable, error.message) }
      throw ConsoleError(.inUse, "the socket '\(path)' is in use by another program; choose another path")
    }
  }

  private func acceptClient() {
    guard client < 0 else { return }
    client = UnixSocket.accept(listener, isBlocking: false)
    guard client >= 0, let loop, let listenerWatch else { return }
    queue.discard(false)
    loop.change(listenerWatch, to: [])
    clientWatch = loop.watch(client, for: .read) { [weak self] found in
      if found.contains(.write) { self?.flush() }
      if !found.isDisjoint(with: [.read, .hangup]) { self?.readInput(isGone: found.contains(.hangup)) }
    }
  }

  private func disconnect() {
    guard client >= 0 else { return }
    queue.discard()
    if let clientWatch { loop?.cancel(clientWatch) }
    clientWatch = nil
    close(client)
    client = -1
    if let listenerWatch { loop?.change(listenerWatch, to: .read) }
  }

  private func readInput(isGone: Bool) {
    guard client >= 0 else { return }
    guard pending.count < SocketConsole.mostPending else {
      if isGone { disconnect() }
      return
    }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(client, &buffer, buffer.count)
    if count < 0, errno == EAGAIN || errno == EINTR { return }
    guard count > 0 else { return disconnect() }
    pending.append(buffer[..<count])
    offerInput()
  }

  private func offerInput() {
    if let deliver { PendingInput.offer(of: self, \.pending, to: deliver) }
    updateInterest()
  }

  private func updateInterest() {
    guard let clientWatch else { return }
    var interest: EventLoop.Interest = []
    if pending.count < SocketConsole.mostPending { interest.insert(.read) }
    if !queue.isEmpty { interest.insert(.write) }
    loop?.change(clientWatch, to: interest)
  }

  public func guestHasRoom() { offerInput() }

  private func flush() {
    guard client >= 0 else { return }
    var isGone = false
    _ = queue.flush { bytes in
      let count = Glibc.send(client, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT))
      if count < 0, errno != EAGAIN, errno != EINTR { isGone = true }
      return count
    }
    if isGone { disconnect() } else { updateInterest() }
  }

  public func write(_ bytes: UnsafeRawBufferPointer) {
    guard let loop else { return }
    if loop.isCurrent { return writeOnLoop(bytes) }
    // In portions below the queue's capacity, so that each one's start gets the loop going.
    var rest = bytes
    while !rest.isEmpty {
      let count = min(rest.count, 64 << 10)
      writeBeside(loop, UnsafeRawBufferPointer(rebasing: rest[..<count]))
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  private func writeBeside(_ loop: EventLoop, _ bytes: UnsafeRawBufferPointer) {
    var last: UInt64?
    var wasWarned = false
    let wasEmpty = queue.append(bytes, interval: patience) { departed in
      // Asked for here too: the queue may have been full all along.
      loop.perform { [weak self] in self?.flush() }
      if departed == last {
        if wasWarned { return .giveUp }
        wasWarned = true
        loop.perform { [weak self] in self?.disconnect() }
      }
      last = departed
      return .keepWaiting
    }
    if wasEmpty { loop.perform { [weak self] in self?.flush() } }
  }

  /// On the I/O thread nobody else makes room.
  private func writeOnLoop(_ bytes: UnsafeRawBufferPointer) {
    queue.append(bytes, interval: 0) { _ in
      waitAndFlush()
      return .keepWaiting
    }
    flush()
  }

  private func waitAndFlush() {
    var descriptor = pollfd(fd: client, events: Int16(POLLOUT), revents: 0)
    if poll(&descriptor, 1, Int32(patience * 1000)) == 0 { disconnect() } else { flush() }
  }

  public func stop() {
    guard let loop else { return }
    loop.performAndWait { [self] in
      guard listener >= 0 else { return }
      while client >= 0, !queue.isEmpty { waitAndFlush() }
      disconnect()
      queue.close()
      if let listenerWatch { loop.cancel(listenerWatch) }
      close(listener)
      unlink(path)
      (listener, listenerWatch, deliver) = (-1, nil, nil)
      pending.removeAll()
    }
  }
}

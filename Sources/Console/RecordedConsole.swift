import CHost
import Foundation
import HostSystem
import Synchronization

/// The console of a machine in the background: what the guest prints goes to a file, and to whoever is attached. Several
/// may be, each may type; one that doesn't read is let go when 1 MiB waits for it. A guest never waits for them.
///
/// The file is begun anew at `fileLimit` bytes; the one before is kept beside it, with ".1" behind its name.
public final class RecordedConsole: ConsoleBackend, @unchecked Sendable {
  public static let fileLimit = 4 << 20
  /// What is shown first to whoever attaches, that a person sees where the guest is: bytes.
  private static let recallLimit = 4096
  private static let mostWaiting = 1 << 20
  /// Bytes of input read ahead of the guest; further ones wait in the socket.
  private static let mostPending = 64 << 10

  private final class Client {
    let descriptor: Int32
    var watch: EventLoop.Token?
    var waiting: [UInt8] = []
    init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }
  }

  /// What threads share that print.
  private struct Output {
    var file: Int32 = -1
    var fileSize = 0
    var recalled: [UInt8] = []
    /// For the clients, on their way to the I/O thread.
    var fresh: [UInt8] = []
  }

  /// Before the machine starts.
  public var path: String
  private let output = Mutex(Output())
  // Set once, at the start, before the guest runs.
  private var loop: EventLoop?

  // The I/O thread's.
  private var clients: [Client] = []
  private var pending = PendingInput()
  private var deliver: ((UnsafeRawBufferPointer) -> Int)?
  private var resizeGuest: ((Int, Int) -> Void)?

  public init(path: String) { self.path = path }

  /// Opens the file, to append to it. Throws `ConsoleError`.
  public func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int,
    resize: @escaping (_ columns: Int, _ rows: Int) -> Void
  ) throws {
    precondition(self.loop == nil, "started twice")
    BrokenPipes.becomeErrors()
    try output.withLock { try Self.open(&$0, path) }
    self.loop = loop
    deliver = input
    resizeGuest = resize
  }

  private static func open(_ output: inout Output, _ path: String) throws {
    let file = chost_open(path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    guard file >= 0 else {
      throw ConsoleError(.unavailable, HostError.last("can't write the console's file '\(path)'").message)
    }
    var status = stat()
    output.fileSize = fstat(file, &status) == 0 ? Int(status.st_size) : 0
    output.file = file
  }

  // MARK: output

  public func write(_ bytes: UnsafeRawBufferPointer) {
    guard let loop else { return }
    let isFirst = output.withLock { output in
      record(bytes, &output)
      output.recalled.append(contentsOf: bytes)
      if output.recalled.count > 2 * Self.recallLimit {
        output.recalled.removeFirst(output.recalled.count - Self.recallLimit)
      }
      let isFirst = output.fresh.isEmpty
      output.fresh.append(contentsOf: bytes.suffix(Self.mostWaiting))
      if output.fresh.count > Self.mostWaiting { output.fresh.removeFirst(output.fresh.count - Self.mostWaiting) }
      return isFirst
    }
    if isFirst { loop.perform { [weak self] in self?.passOn() } }
  }

  /// A file that can't be written (a full disk) loses what is printed meanwhile; the machine goes on.
  private func record(_ bytes: UnsafeRawBufferPointer, _ output: inout Output) {
    if output.fileSize >= Self.fileLimit, output.file >= 0 {
      close(output.file)
      output.file = -1
      rename(path, path + ".1")
      try? Self.open(&output, path)
    }
    guard output.file >= 0 else { return }
    var rest = bytes
    while !rest.isEmpty {
      let count = Glibc.write(output.file, rest.baseAddress, rest.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return }
      output.fileSize += count
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  private func passOn() {
    let fresh = output.withLock { output in
      defer { output.fresh = [] }
      return output.fresh
    }
    for client in clients {
      client.waiting += fresh
      flush(client)
    }
  }

  private func flush(_ client: Client) {
    while !client.waiting.isEmpty {
      let count = client.waiting.withUnsafeBytes {
        send(client.descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno != EAGAIN { return detach(client) }
      if count <= 0 { break }
      client.waiting.removeFirst(count)
    }
    if client.waiting.count > Self.mostWaiting { return detach(client) }
    updateInterest(client)
  }

  // MARK: clients

  /// Has the guest talk with whoever is at the other side of the socket, which is closed when either has gone. Any
  /// thread; the descriptor is this console's from now on.
  public func attach(_ descriptor: Int32) {
    guard let loop else {
      close(descriptor)
      return
    }
    let client = Client(descriptor)
    loop.perform { [weak self] in self?.begin(client) }
  }

  private func begin(_ client: Client) {
    guard let loop, deliver != nil else { return }
    _ = chost_fcntl(client.descriptor, F_SETFL, Int(O_NONBLOCK))
    // What is fresh is recalled, too.
    passOn()
    client.waiting = output.withLock { Array($0.recalled.suffix(Self.recallLimit)) }
    clients.append(client)
    client.watch = loop.watch(client.descriptor, for: .read) { [weak self, weak client] found in
      guard let self, let client else { return }
      if found.contains(.write) { flush(client) }
      if !found.isDisjoint(with: [.read, .hangup]) { readInput(client, isGone: found.contains(.hangup)) }
    }
    flush(client)
  }

  private func detach(_ client: Client) {
    if let watch = client.watch { loop?.cancel(watch) }
    client.watch = nil
    clients.removeAll { $0 === client }
  }

  private func readInput(_ client: Client, isGone: Bool) {
    guard client.watch != nil else { return }
    guard pending.count < Self.mostPending else {
      if isGone { detach(client) }
      return
    }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(client.descriptor, &buffer, buffer.count)
    if count < 0, errno == EAGAIN || errno == EINTR { return }
    guard count > 0 else { return detach(client) }
    pending.append(buffer[..<count])
    offerInput()
  }

  private func offerInput() {
    if let deliver { PendingInput.offer(of: self, \.pending, to: deliver) }
    for client in clients { updateInterest(client) }
  }

  private func updateInterest(_ client: Client) {
    guard let watch = client.watch else { return }
    var interest: EventLoop.Interest = []
    if pending.count < Self.mostPending { interest.insert(.read) }
    if !client.waiting.isEmpty { interest.insert(.write) }
    loop?.change(watch, to: interest)
  }

  public func guestHasRoom() { offerInput() }

  /// Tells the guest the size of the terminal that somebody looks at it with. Any thread.
  public func resize(columns: Int, rows: Int) {
    loop?.perform { [weak self] in self?.resizeGuest?(columns, rows) }
  }

  public func stop() {
    guard let loop else { return }
    loop.performAndWait { [self] in
      passOn()
      for client in clients { detach(client) }
      deliver = nil
      resizeGuest = nil
      pending.removeAll()
    }
    output.withLock { output in
      if output.file >= 0 { close(output.file) }
      output.file = -1
    }
  }
}

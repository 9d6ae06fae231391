import CHost
import Foundation
import HostSystem
import Yadori

/// Starts a machine's process in the background: in a session of its own, that outlives the command and its terminal.
///
/// It is a copy of a copy of this process, made before that did anything else: it has the program loaded and what all
/// machines need made, and shares that with its like.
public enum MachineLauncher {
  /// What the process says on its first descriptor behind standard error when it runs; anything else is a refusal.
  static let ready = "ready"
  private static let reportDescriptor = CHOST_REPORT_DESCRIPTOR

  /// What the process is told there before: it needn't ask the registry, which takes longer than making the machine.
  private struct Order: Codable {
    var folder: URL
    var record: MachineRecord
    /// When it was started, on the monotonic clock, in nanoseconds.
    var time: UInt64
    /// Whether it ends, as by pulling the plug, when the process has ended that starts it.
    var endsWithStarter: Bool
    /// The saved machine from which it, and copies of it, go on; nil: it runs the one machine.
    var saved: String?
  }

  /// The socket of the copy that copies itself for each machine; below zero: there is none.
  nonisolated(unsafe) private static var template: Int32 = -1

  /// Has machines started by this process be copies of what it is now. Only at its start, while there is one thread.
  /// Returns true in such a copy, where `order` says what it is to run, and false in this process.
  /// - Parameter isLikely: whether there will be some, so that they find what they need made.
  public static func prepare(isLikely: Bool) -> Bool {
    let made = chost_copy_process()
    if made != CHOST_IN_COPY {
      template = made
      return false
    }
    if isLikely { makeCommonThings() }
    chost_serve_copies(CHOST_COPY_BARE)
    return true
  }

  /// Has what each machine's process would make for itself be there already. It must not make threads.
  private static func makeCommonThings() {
    let record = MachineRecord(
      identifier: MachineRecord.newIdentifier(), name: "none", image: "none", configuration: .example,
      isTemporary: true)
    let order = Order(folder: URL(fileURLWithPath: "/"), record: record, time: 0, endsWithStarter: false)
    if let bytes = try? JSONEncoder().encode(order) { _ = try? JSONDecoder().decode(Order.self, from: bytes) }
    _ = MachineFolder(order.folder.appendingPathComponent("machines/none")).lastEnding
    ControlLine.makeCommonThings()
    VirtualMachine.makeCommonThings()
    Confinement.tryIsolation()
  }

  /// A process that has a saved machine ready to go on: the processes of machines that do are copies of it. It ends with
  /// this.
  public final class Mould: Sendable {
    fileprivate let socket: Int32
    fileprivate init(_ socket: Int32) { self.socket = socket }
    deinit { close(socket) }
  }

  /// Makes one. Nil: that can't be, and each machine is started by itself.
  /// - Parameters:
  ///   - record: what the machines have in common, in the place of theirs.
  ///   - path: the saved machine's folder, in which there may be kept code, too.
  public static func mould(_ registry: MachineRegistry, _ record: MachineRecord, savedAt path: String) -> Mould? {
    guard MachineMould.isPossible(record.configuration) else { return nil }
    var record = record
    // A mould doesn't look for damage in it.
    let code = [MachineFolder(URL(fileURLWithPath: path)).keptCode] + (record.configuration.keptCode ?? [])
    record.configuration.keptCode = code.filter { VirtualMachine.checkCode(at: $0) }
    let order = Order(folder: registry.folder, record: record, time: 0, endsWithStarter: false, saved: path)
    guard let connection = try? send(order, to: template, log: "/dev/null") else { return nil }
    defer { close(connection) }
    // It works on what a guest may have written.
    var patience = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    var byte: UInt8 = 0
    var socket: Int32 = -1
    guard chost_receive_descriptor(connection, &byte, 1, &socket) == 1, socket >= 0 else { return nil }
    return Mould(socket)
  }

  /// For the process that was told to be one: has machines' processes be copies of what it is now. Returns in these.
  /// - Parameter network: whether the machines use the host's network.
  public static func serveAsMould(keepingNetwork network: Bool) throws {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0,
      chost_send_descriptor(reportDescriptor, "\n", 1, ends[0]) == 1, dup2(ends[1], reportDescriptor) >= 0
    else { throw HostError.last("can't make a pair of sockets") }
    for end in ends { close(end) }
    chost_gather_free_memory()
    chost_serve_copies(network ? CHOST_COPY_ISOLATED : CHOST_COPY_WITHOUT_NETWORK)
  }

  /// Has a copy of a process be made, and tells it what it is to do. Returns what it reports by. Throws `HostError`.
  /// - Parameter log: the path of the file for what it says on its way.
  private static func send(_ order: Order, to template: Int32, log: String) throws -> Int32 {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw HostError.last("can't make a pair of sockets")
    }
    defer { close(ends[1]) }
    do {
      guard log.withCString({ chost_send_descriptor(template, $0, strlen($0), ends[1]) }) > 0 else {
        throw HostError.last("can't make a process")
      }
      let bytes = try JSONEncoder().encode(order) + [endOfMessage]
      // What ends at once says why in its log.
      _ = bytes.withUnsafeBytes { UnixSocket.sendAll($0, to: ends[0]) }
      return ends[0]
    } catch {
      close(ends[0])
      throw error
    }
  }

  /// Starts it, and returns when it runs; `prepare` was called before. Throws the `MachineError` that the process gives as
  /// reason why not.
  /// - Parameters:
  ///   - endsWithThis: whether it is pulled the plug of when this process ends, however that does.
  ///   - mould: what it is made with.
  public static func start(
    _ registry: MachineRegistry, _ record: MachineRecord, endsWithThis: Bool = false, with mould: Mould? = nil
  ) throws {
    let folder = registry.folder(of: record)
    try folder.create()
    if folder.isInUse {
      throw MachineError(
        .unavailable, "the machine '\(record.name)' runs already; 'yadori console \(record.name)' shows it")
    }
    let order = Order(
      folder: registry.folder, record: record, time: MonotonicClock.nanoseconds(), endsWithStarter: endsWithThis)
    let connection: Int32
    do {
      connection = try send(order, to: mould?.socket ?? template, log: folder.processLog)
    } catch {
      // The mould has ended: others know how to make it as well.
      if mould == nil { throw error }
      return try start(registry, record, endsWithThis: endsWithThis)
    }
    var isKept = false
    defer { if !isKept { close(connection) } }
    let report = String(decoding: readMessage(connection), as: UTF8.self)
    if report == ready {
      // Its other end sees when it is closed.
      isKept = endsWithThis
      // Removed in the meantime: nobody would find it.
      if !record.isTemporary, try registry.record(identifier: record.identifier) == nil {
        try? ControlClient(registry, record).kill()
        throw MachineError(.noInput, "the machine '\(record.name)' was removed meanwhile")
      }
      for path in record.configuration.keptCode ?? [] { VirtualMachine.checkCode(at: path) }
      return
    }
    // It lets everything go before it closes its end: whoever cleans up finds nothing in use.
    while !readMessage(connection).isEmpty {}
    let words = report.split(separator: " ", maxSplits: 1)
    guard words.count == 2, let code = words.first.flatMap({ Int32($0) }).flatMap(MachineError.Code.init(rawValue:))
    else {
      if mould != nil { return try start(registry, record, endsWithThis: endsWithThis) }
      throw MachineError(
        .software, "the process of the machine '\(record.name)' ended at once; '\(folder.processLog)' may say why")
    }
    throw MachineError(code, String(words[1]))
  }

  /// What a machine's process was told.
  public struct Started {
    public let registry: MachineRegistry
    public let record: MachineRecord
    /// When it was started, on the monotonic clock, in nanoseconds.
    public let time: UInt64
    /// See `whenStarterIsGone`.
    public let endsWithStarter: Bool
    /// The saved machine of which the process is to be a mould; nil: it isn't to be one.
    public let saved: String?
  }

  /// For the process that was started: what it is to run. Nil: nobody says.
  public static func order() -> Started? {
    guard let order = try? JSONDecoder().decode(Order.self, from: Data(readMessage(reportDescriptor))) else {
      return nil
    }
    chost_set_title(
      CommandLine.unsafeArgv, CommandLine.argc,
      order.saved == nil ? "yadori machine \(order.record.name)" : "yadori mould")
    return Started(
      registry: MachineRegistry(whenUsed: order.folder), record: order.record, time: order.time,
      endsWithStarter: order.endsWithStarter, saved: order.saved)
  }

  /// For the process that was started, where it is to end with its starter: calls `action` on a thread of its own when
  /// that has ended. Before it reports.
  public static func whenStarterIsGone(_ action: @escaping @Sendable () -> Void) {
    let connection = chost_fcntl(reportDescriptor, F_DUPFD_CLOEXEC, Int(reportDescriptor) + 1)
    Thread.detachNewThread {
      // It says nothing more.
      while !readMessage(connection).isEmpty {}
      action()
    }
  }

  /// For the process that was started: says that the machine runs, or why not. Once. Where it doesn't, its descriptors are
  /// closed, and with them the machine's lock goes: the process can only end.
  public static func report(_ failure: (code: Int32, message: String)?) {
    let text = (failure.map { "\($0.code) \($0.message)" } ?? ready) + "\n"
    _ = text.withCString { write(reportDescriptor, $0, strlen($0)) }
    if failure != nil { chost_close_from(reportDescriptor + 1) }
    close(reportDescriptor)
  }

  /// Nothing follows one before the other side has heard an answer.
  private static let endOfMessage = UInt8(ascii: "\n")

  /// Reads a message, which comes without its end, or what there is where the other side has closed.
  private static func readMessage(_ descriptor: Int32) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return bytes }
      bytes += buffer[..<count]
      if bytes.last == endOfMessage { return bytes.dropLast() }
    }
  }
}

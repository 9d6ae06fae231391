import CHost
import Foundation
import HostSystem
import Images
import Synchronization
import Yadori

/// A command in a running guest, which the guest's agent runs. See `GuestAgent` for what is said on the way.
public final class GuestCommand: Sendable {
  /// What to run.
  public struct Request: Sendable {
    /// The program and its arguments; none: the user's shell, as at a login.
    public var arguments: [String]
    /// What is set beside the usual (PATH, HOME, USER, LANG ...).
    public var environment: [String: String] = [:]
    /// Where it runs; nil: in the user's home.
    public var folder: String?
    public var user = "root"
    /// Whether it gets a terminal, of this size where it is known.
    public var hasTerminal = false
    public var size: (columns: Int, rows: Int)?
    /// In place of a program: what the machine is to be called from now on; see `GuestIdentity`.
    var identity: [String: String]?

    public init(_ arguments: [String]) { self.arguments = arguments }

    fileprivate var words: [UInt8] {
      var words = ["user=\(user)", "time=\(time(nil))"] + arguments.map { "argument=\($0)" }
      words += environment.map { "environment=\($0)=\($1)" }
      if let folder { words.append("folder=\(folder)") }
      if hasTerminal { words.append("terminal=1") }
      if let identity { words += ["identity=1"] + identity.map { "\($0)=\($1)" } }
      if let size { words.append("size=\(size.rows) \(size.columns)") }
      return words.flatMap { Array($0.utf8) + [0] }
    }
  }

  /// What comes from the command.
  public enum Event {
    case output(ArraySlice<UInt8>)
    case diagnostics(ArraySlice<UInt8>)
  }

  /// How it ended.
  public enum Ending: Equatable, Sendable {
    case exit(code: Int32)
    case signal(Int32)

    /// As shells have it.
    public var code: Int32 {
      switch self {
      case .exit(let code): code
      case .signal(let number): 128 + number
      }
    }
  }

  /// Why the guest can't run it: there is no such program, folder or user there.
  public struct Refusal: Error, CustomStringConvertible, Sendable {
    public let message: String
    public var description: String { message }
  }

  private struct Input {
    /// Bytes that the guest may still be sent.
    var window = GuestAgent.inputWindow
    var hasEnded = false
  }

  private let name: String
  private let descriptor: Int32
  private let sending = NSLock()
  private let input = Mutex(Input())
  private let inputChanged = DispatchSemaphore(value: 0)

  /// Starts the command. Waits for a guest that is still on its way up.
  ///
  /// - Parameter patience: seconds that the guest may take until its agent answers.
  /// Throws `MachineError` where the machine doesn't run or has no agent, `Refusal` where that can't run this.
  public init(_ registry: MachineRegistry, _ record: MachineRecord, _ request: Request, patience: Double = 60) throws {
    guard request.words.count < 1 << 20, !request.arguments.contains(where: { $0.utf8.contains(0) }) else {
      throw MachineError(.usage, "the command is too long, or has a zero byte in it")
    }
    BrokenPipes.becomeErrors()
    name = record.name
    descriptor = try Self.connect(registry.folder(of: record), record, patience: patience)
    put("R", request.words[...])
    guard let (letter, bytes) = take() else { throw Self.gone(name) }
    if letter != UInt8(ascii: "B") { throw Refusal(message: String(decoding: bytes, as: UTF8.self)) }
  }

  deinit { close(descriptor) }

  private static func gone(_ name: String) -> MachineError {
    MachineError(.unavailable, "the machine '\(name)' has ended, or its agent has")
  }

  private static func connect(_ folder: MachineFolder, _ record: MachineRecord, patience: Double) throws -> Int32 {
    let deadline = MonotonicClock.nanoseconds() &+ UInt64(patience * 1e9)
    func checkPaused() throws {
      guard (try? ControlClient(folder, name: record.name).status().state) == .paused else { return }
      throw MachineError(
        .unavailable, "the machine '\(record.name)' is paused; 'yadori resume \(record.name)' has it go on")
    }
    while true {
      let descriptor = UnixSocket.make()
      guard descriptor >= 0 else { throw HostError.last("can't make a socket") }
      let failure = UnixSocket.connect(descriptor, to: folder.guestSocket)
      do {
        if failure == 0, try greet(descriptor, until: deadline, checkPaused) { return descriptor }
      } catch {
        close(descriptor)
        throw error
      }
      close(descriptor)
      guard folder.isInUse else {
        throw MachineError(
          .unavailable, "the machine '\(record.name)' doesn't run; 'yadori start \(record.name)' starts it")
      }
      if failure != 0, failure != ECONNREFUSED, failure != ENOENT {
        throw HostError(code: failure, message: "can't reach the guest: \(String(cString: strerror(failure)))")
      }
      guard MonotonicClock.nanoseconds() < deadline else {
        throw MachineError(
          .unavailable,
          "no agent answers in the machine '\(record.name)'; its image must be Debian, built by this version of yadori")
      }
      usleep(20_000)
    }
  }

  /// Asks for the agent's port. False: nobody listens there (yet).
  /// - Parameter checkWaiting: called each second without an answer.
  private static func greet(
    _ descriptor: Int32, until deadline: UInt64, _ checkWaiting: () throws -> Void
  ) throws -> Bool {
    let line = Array("CONNECT \(GuestAgent.port)\n".utf8)
    guard line.withUnsafeBytes({ UnixSocket.sendAll($0, to: descriptor) }) else { return false }
    var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while poll(&change, 1, 1000) <= 0 {
      guard MonotonicClock.nanoseconds() < deadline else { return false }
      try checkWaiting()
    }
    return UnixSocket.readLine(from: descriptor, longest: 32)?.starts(with: "OK ".utf8) == true
  }

  // MARK: frames

  @discardableResult
  private func put(_ letter: Character, _ bytes: ArraySlice<UInt8>) -> Bool {
    let count = UInt32(bytes.count)
    let frame = [letter.asciiValue!] + withUnsafeBytes(of: count.bigEndian) { Array($0) } + bytes
    sending.lock()
    defer { sending.unlock() }
    return frame.withUnsafeBytes { UnixSocket.sendAll($0, to: descriptor) }
  }

  /// The next frame of the guest; nil: there is none any more. A guest can't have more kept than is read at a time.
  private func take() -> (letter: UInt8, bytes: [UInt8])? {
    guard let head = read(exactly: 5) else { return nil }
    let count = head[1...].reduce(0) { $0 << 8 | Int($1) }
    guard count <= 1 << 20, let bytes = read(exactly: count) else { return nil }
    return (head[0], bytes)
  }

  private func read(exactly count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      let got = bytes.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress! + done, count - done) }
      if got < 0, errno == EINTR { continue }
      if got <= 0 { return nil }
      done += got
    }
    return bytes
  }

  // MARK: while it runs

  /// Hands on what the command writes, to its end. One thread. Throws `MachineError` where the machine ends before.
  public func wait(_ receive: (Event) throws -> Void) throws -> Ending {
    defer {
      input.withLock { $0.hasEnded = true }
      inputChanged.signal()
    }
    while let (letter, bytes) = take() {
      let number = Int32(truncatingIfNeeded: bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) })
      switch Character(UnicodeScalar(letter)) {
      case "O": try receive(.output(bytes[...]))
      case "D": try receive(.diagnostics(bytes[...]))
      case "C":
        input.withLock { $0.window = min(GuestAgent.inputWindow, $0.window + max(0, Int(number))) }
        inputChanged.signal()
      case "X": return .exit(code: number & 0xFF)
      case "K": return .signal(number & 0x7F)
      default: throw MachineError(.software, "the agent of '\(name)' speaks another language; build the image anew")
      }
    }
    throw Self.gone(name)
  }

  /// Runs a program of the guest's for its effect, to its end, as root. Throws `MachineError` where it can't be run, and,
  /// with `failure` and what it says first on its diagnostics, where it ends with another code than 0.
  static func perform(
    _ words: [String], _ registry: MachineRegistry, _ record: MachineRecord, patience: Double = 60, failure: String
  ) throws {
    let command = try GuestCommand(registry, record, .init(words), patience: patience)
    command.endInput()
    var said: [UInt8] = []
    let ending = try command.wait { event in
      if case .diagnostics(let bytes) = event { said += bytes.prefix(64 << 10 - min(said.count, 64 << 10)) }
    }
    guard ending == .exit(code: 0) else {
      let line = String(decoding: said, as: UTF8.self).split(separator: "\n").first.map { ": \($0)" } ?? ""
      throw MachineError(.software, failure + line)
    }
  }

  /// Sends input; waits while the command has enough. False: it has ended. One thread.
  public func write(_ bytes: ArraySlice<UInt8>) -> Bool {
    var rest = bytes
    while !rest.isEmpty {
      let count: Int? = input.withLock { input in
        if input.hasEnded { return nil }
        let count = min(rest.count, input.window, 64 << 10)
        input.window -= count
        return count
      }
      guard let count else { return false }
      if count == 0 {
        inputChanged.wait()
        continue
      }
      guard put("I", rest.prefix(count)) else { return false }
      rest = rest.dropFirst(count)
    }
    return true
  }

  /// There is no more input.
  public func endInput() { put("E", []) }

  public func signal(_ number: Int32) { put("S", ArraySlice("\(number)".utf8)) }

  public func resize(columns: Int, rows: Int) { put("W", ArraySlice("\(rows) \(columns)".utf8)) }
}

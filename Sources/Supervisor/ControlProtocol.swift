import Foundation
import HostSystem
import Yadori

/// What is said on a machine's control socket: a line of JSON each way, then the connection ends, or becomes the console.
struct ControlRequest: Codable {
  enum Verb: String, Codable {
    case status, pause, resume, powerButton, kill, console, resize, wait, save, keepCode, set, publish, unpublish,
      share,
      unshare
  }

  var verb: Verb
  /// Of `resize`.
  var columns: Int?
  var rows: Int?
  /// Of `save`: the folder to be made. Of `keepCode`: the file. The folder that it is to be in comes with the request.
  var path: String?
  /// Of `save`: whether its RAM is to outlive a failure of the host; nil: yes.
  var isDurable: Bool?
  /// Of `save`: whether what RAM was restored from may be left out; nil: no.
  var asChanges: Bool?
  /// Of `set`: processors at most, 0 for no limit, and the weight; nil: as it is.
  var processors: Double?
  var weight: Int?
  /// Of `set`: which processors, none for all; nil: as it is.
  var pin: [Int]?
  /// Of `set`: how many harts the guest uses by now.
  var harts: Int?
  /// Of `set`: bytes of RAM that the guest is to make do with.
  var memory: UInt64?
  /// Of `publish` and `unpublish`: "2222:22".
  var forward: String?
  /// Of `share`. It comes with the request.
  var folder: SharedFolder?
  /// Of `unshare`: the shared folder's name.
  var name: String?
}

/// What a running machine says of itself.
public struct MachineStatus: Codable, Sendable {
  public enum State: String, Codable, Sendable {
    case running, paused
  }

  public var state: State
  /// The machine's process on the host.
  public var process: Int32
  public var started: Date
  /// Seconds from the process's start to the machine's first instruction; nil: it was started by hand.
  public var startDuration: Double?
  /// Instructions retired by all harts since the machine was new.
  public var instructions: UInt64
  /// Seconds of the host's processors that the process has used.
  public var processorSeconds: Double
  /// Bytes of the host's memory that the process has in use; how many of them are its own (neither shared with another
  /// process nor as they are in a file), and how many other processes have, too.
  public var residentBytes: UInt64
  /// Bytes of RAM that the guest has: less than it was made with where it was told to make do.
  public var memoryBytes: UInt64?
  /// What it can be given until it is started again.
  public var mostMemory: UInt64?
  public var mostHarts: Int?
  public var hasBalloon: Bool?
  public var privateBytes: UInt64?
  public var sharedBytes: UInt64?
  /// Its guest has yet to come up and mount the shared folders.
  public var awaitsSharedFolders: Bool?
  /// It is being saved: what changes it waits for that.
  public var isBeingSaved: Bool?
  /// What its process has given up, and what this host didn't let it.
  public var confinement: [Confinement]?
  public var missingConfinement: [Confinement]?
}

extension MachineStatus {
  /// Has what its process says be something that can be shown and reckoned with.
  mutating func stayWithinReason() {
    started = min(max(started, Date(timeIntervalSince1970: 0)), Date())
    processorSeconds = min(max(processorSeconds, 0), 1e12)
    startDuration = startDuration.map { min(max($0, 0), 1e12) }
  }

  /// Of a machine that there isn't.
  package init(isBeingSaved: Bool) {
    self.init(
      state: .running, process: 0, started: Date(), instructions: 0, processorSeconds: 0, residentBytes: 0,
      isBeingSaved: isBeingSaved)
  }
}

struct ControlReply: Codable {
  /// One line that says why not, and what kind of trouble it is (`MachineError.Code`).
  var refusal: String?
  var code: Int32?
  var status: MachineStatus?
  /// Of `wait`.
  var exitCode: Int32?

  init(_ refusal: MachineError? = nil) {
    self.refusal = refusal?.message
    code = refusal?.code.rawValue
  }
}

/// A line of JSON on a socket.
enum ControlLine {
  static let longest = 64 << 10

  /// Reads one, and nothing beyond it: a console's bytes may follow. Nil: the connection has ended, or it isn't one.
  /// - Parameter deadline: when it must be there, on the monotonic clock; nil: whenever.
  static func read<Value: Decodable>(
    _ type: Value.Type, from descriptor: Int32, until deadline: UInt64? = nil
  ) -> Value? {
    UnixSocket.readLine(from: descriptor, longest: longest, until: deadline).flatMap { decode(type, $0) }
  }

  /// The same, with a descriptor that came with it, for the caller to close.
  static func read<Value: Decodable>(_ type: Value.Type, from descriptor: Int32, passed: inout Int32?) -> Value? {
    UnixSocket.readLine(from: descriptor, longest: longest, passed: &passed).flatMap { decode(type, $0) }
  }

  /// Makes what the first request to a machine would have made.
  static func makeCommonThings() {
    var reply = ControlReply()
    reply.status = MachineStatus(isBeingSaved: false)
    reply.status?.confinement = [.noCoreFiles]
    _ = try? JSONEncoder().encode(reply)
    if let line = try? JSONEncoder().encode(ControlRequest(verb: .status)) {
      _ = decode(ControlRequest.self, Array(line))
    }
  }

  private static func decode<Value: Decodable>(_ type: Value.Type, _ line: [UInt8]) -> Value? {
    try? JSONDecoder().decode(type, from: Data(line))
  }

  /// False: the other side is gone.
  @discardableResult
  static func write(_ value: some Encodable, to descriptor: Int32, passing passed: Int32? = nil) -> Bool {
    guard var data = try? JSONEncoder().encode(value) else { return false }
    data.append(UInt8(ascii: "\n"))
    return data.withUnsafeBytes { UnixSocket.sendAll($0, to: descriptor, passing: passed) }
  }
}

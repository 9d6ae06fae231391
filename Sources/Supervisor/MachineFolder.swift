import CHost
import Foundation
import HostSystem
import Synchronization
import Yadori

/// Where a machine's files are: its disk's overlay, what its console printed, its control socket. Its lock is beside it.
///
/// The machine's process may do here what it likes, and so a guest that owns that: others follow no links here, see
/// `DistrustedFolder`.
public struct MachineFolder: Sendable {
  public let url: URL

  public init(_ url: URL) { self.url = url }

  public var disk: String { file("disk.qcow2") }
  /// A saved machine as which it goes on at its next start.
  public var resumption: String { file("resumption") }
  /// Throws `MachineError` where the machine goes on at its next start as it was saved, and can't as what it is to be.
  public func checkResumption(_ wanted: VirtualMachineConfiguration, as record: MachineRecord) throws {
    guard FileManager.default.fileExists(atPath: resumption), !wanted.hasSameBoard(as: record.configuration) else {
      return
    }
    throw MachineError(
      .unavailable,
      "the machine '\(record.name)' goes on at its next start as it was saved, with the RAM, harts and devices of then; "
        + "start it first")
  }

  public var snapshots: URL { url.appendingPathComponent("snapshots") }
  public var consoleLog: String { file("console.log") }
  /// Code that its translators made, see `VirtualMachine.codeFile`.
  public var keptCode: String { file("kept-code") }
  /// What its process said on its way.
  public var processLog: String { file("process.log") }
  /// The control socket, and the one that leads to the guest's sockets.
  var controlSocket: String { file("control") }
  public var guestSocket: String { file("vsock") }
  /// Where the machine's process can't replace it.
  private var lock: String { url.path + Self.lockSuffix }
  static let lockSuffix = ".lock"
  private var ending: String { file("ending") }
  /// What its RAM was restored from, beside its folder.
  static let memorySuffix = ".memory"

  /// Keeps these files of a folder, of which the machine's RAM is to be restored, for saving only what is otherwise by
  /// then. Where that can't be, all is saved.
  func keepMemory(_ files: [String], of source: DistrustedFolder) {
    removeMemory()
    do {
      let machines = try DistrustedFolder(path: url.deletingLastPathComponent().path)
      try machines.makeFolder(url.lastPathComponent + Self.memorySuffix)
      let folder = try machines.folder(url.lastPathComponent + Self.memorySuffix)
      for file in files { try source.link(file, to: folder, as: file, mayCopy: false) }
    } catch {
      removeMemory()
    }
  }

  /// What was kept; nil: nothing.
  var memory: DistrustedFolder? { try? DistrustedFolder(path: url.path + Self.memorySuffix) }

  func removeMemory() {
    let machines = try? DistrustedFolder(path: url.deletingLastPathComponent().path)
    try? machines?.remove(url.lastPathComponent + Self.memorySuffix)
  }
  /// What saved machines are named until they are where they were to be.
  static let savingPrefix = ".saving-"

  private func file(_ name: String) -> String { url.appendingPathComponent(name).path }

  /// Makes the folder, for this user only. Throws `MachineError`.
  public func create() throws {
    do {
      try FileManager.default.createDirectory(
        at: url, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw MachineError(.cannotCreate, "can't make the folder '\(url.path)'; check its permissions")
    }
  }

  /// Whether a process runs the machine: then it holds the lock, which goes with it, however it ends.
  public var isInUse: Bool {
    // A machine's own process may not see it any more.
    if Self.ownLocks.withLock({ $0.contains(lock) }) { return true }
    let descriptor = chost_open(lock, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return HostFileLock.isHeld(descriptor)
  }

  /// The lock of a running machine, held as long as this is.
  public final class Lock {
    let descriptor: Int32
    private let path: String

    fileprivate init(_ descriptor: Int32, _ path: String) {
      self.descriptor = descriptor
      self.path = path
      ownLocks.withLock { _ = $0.insert(path) }
    }

    deinit {
      ownLocks.withLock { _ = $0.remove(path) }
      close(descriptor)
    }
  }

  /// The paths of those that this process holds.
  private static let ownLocks = Mutex<Set<String>>([])

  /// Takes the lock. Nil: another process runs the machine. Throws `HostError`.
  public func takeLock() throws -> Lock? {
    while true {
      let descriptor = chost_open(lock, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
      guard descriptor >= 0 else { throw HostError.last("can't open '\(lock)'") }
      guard HostFileLock.lock(descriptor, exclusive: true) else {
        close(descriptor)
        return nil
      }
      var (opened, named) = (stat(), stat())
      if fstat(descriptor, &opened) == 0, stat(lock, &named) == 0, opened.st_ino == named.st_ino {
        return Lock(descriptor, lock)
      }
      // Its machine was removed in between.
      close(descriptor)
    }
  }

  /// Deletes the lock of a machine that is no more. Who calls it holds it.
  func removeLock() { unlink(lock) }

  /// The processes that hold the lock, as far as this one may see that (proc(5): fdinfo).
  var processes: [Int32] {
    var wanted = stat()
    guard lstat(lock, &wanted) == 0 else { return [] }
    func holds(_ process: Int32) -> Bool {
      let folder = "/proc/\(process)"
      return ((try? FileManager.default.contentsOfDirectory(atPath: folder + "/fd")) ?? []).contains { number in
        var status = stat()
        let words = (try? String(contentsOfFile: "\(folder)/fdinfo/\(number)", encoding: .utf8)) ?? ""
        return words.contains(":\(wanted.st_ino) ") && words.contains("OFDLCK")
          && stat("\(folder)/fd/\(number)", &status) == 0 && status.st_dev == wanted.st_dev
          && status.st_ino == wanted.st_ino
      }
    }
    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return all.compactMap { Int32($0) }.filter { $0 != getpid() && holds($0) }
  }

  // MARK: how the machine ended

  /// How its last run ended; nil while it runs, and where its process was killed. The machine's process says so: it is
  /// looked at as what a guest may have written.
  public var lastEnding: MachineEnding? {
    let descriptor = chost_open(ending, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: MachineEnding.longest + 1)
    let count = read(descriptor, &bytes, bytes.count)
    guard (0...MachineEnding.longest).contains(count) else { return nil }
    return try? JSONDecoder().decode(MachineEnding.self, from: Data(bytes[..<count]))
  }

  func forgetEnding() { unlink(ending) }

  func write(_ value: MachineEnding, isDurable: Bool) throws {
    let writer = try AtomicFileWriter(path: ending, permissions: 0o600)
    try writer.write(try JSONEncoder().encode(value))
    try writer.commit(isDurable: isDurable)
  }

  private var restartMark: String { file("restart") }

  /// Whether a temporary machine is to be there after its end: it is started again.
  var isKept: Bool { access(restartMark, F_OK) == 0 }

  /// Has a temporary machine be there after its end, or not any more.
  public func keep(_ isKept: Bool) {
    unlink(restartMark)
    if isKept { close(chost_open(restartMark, O_WRONLY | O_CREAT | O_EXCL, 0o600)) }
  }

  /// Deletes what a temporary machine leaves, but for what says that it runs and how it ended.
  func empty() {
    let manager = FileManager.default
    let kept: Set = ["control", "ending"]
    for name in (try? manager.contentsOfDirectory(atPath: url.path)) ?? [] where !kept.contains(name) {
      try? manager.removeItem(at: url.appendingPathComponent(name))
    }
  }
}

/// How a machine's last run ended.
public struct MachineEnding: Codable, Sendable {
  /// What a command gets that ran it.
  public var exitCode: Int32
  public var words: String

  static let longest = 4096

  init(exitCode: Int32, words: String) {
    self.exitCode = exitCode
    self.words = String(words.prefix(500))
  }

  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    exitCode = try values.decode(Int32.self, forKey: .exitCode) & 0xFF
    // It may be shown on a terminal.
    words = try values.decode(String.self, forKey: .words).withoutControls
  }
}

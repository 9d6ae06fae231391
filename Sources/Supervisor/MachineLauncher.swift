import CHost
import Foundation
import HostSystem
import Yadori

/// Starts a machine's process in the background: in a session of its own, that outlives the command and its terminal.
public enum MachineLauncher {
  /// What the process says on its first descriptor behind standard error when it runs; anything else is a refusal.
  static let ready = "ready"
  private static let reportDescriptor = CHOST_REPORT_DESCRIPTOR

  /// Starts it, and returns when it runs. `program` is called with the verb and the machine's identifier. Throws the
  /// `MachineError` that the process gives as reason why not.
  public static func start(_ registry: MachineRegistry, _ record: MachineRecord, program: String, verb: String) throws {
    let folder = registry.folder(of: record)
    try folder.create()
    if folder.isInUse {
      throw MachineError(
        .unavailable, "the machine '\(record.name)' runs already; 'yadori console \(record.name)' shows it")
    }
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw HostError.last("can't make a pipe") }
    for end in ends { _ = chost_fcntl(end, F_SETFD, Int(FD_CLOEXEC)) }
    defer { close(ends[0]) }
    do {
      defer { close(ends[1]) }
      try spawn([program, verb, record.identifier], log: folder.processLog, report: ends[1])
    }
    let report = readAll(ends[0])
    if report == ready { return }
    // It has said why, and is on its way out: whoever cleans up finds it gone.
    while folder.isInUse { usleep(1000) }
    let words = report.split(separator: " ", maxSplits: 1)
    guard words.count == 2, let code = words.first.flatMap({ Int32($0) }).flatMap(MachineError.Code.init(rawValue:))
    else {
      throw MachineError(
        .software, "the process of the machine '\(record.name)' ended at once; '\(folder.processLog)' may say why")
    }
    throw MachineError(code, String(words[1]))
  }

  /// For the process that was started: says that the machine runs, or why not. Once.
  public static func report(_ failure: (code: Int32, message: String)?) {
    let text = failure.map { "\($0.code) \($0.message)" } ?? ready
    _ = text.withCString { write(reportDescriptor, $0, strlen($0)) }
    close(reportDescriptor)
  }

  private static func spawn(_ arguments: [String], log: String, report: Int32) throws {
    var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
    defer { for pointer in pointers { free(pointer) } }
    pointers.append(nil)
    let code = chost_spawn_session(pointers, log, report)
    guard code == 0 else {
      throw HostError(code: code, message: "can't start '\(arguments[0])': \(String(cString: strerror(code)))")
    }
  }

  private static func readAll(_ descriptor: Int32) -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(descriptor, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      if count <= 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += buffer[..<count]
    }
  }
}

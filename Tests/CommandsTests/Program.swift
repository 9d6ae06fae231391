import CHost
import Foundation
import HostSystem
import Testing

/// Whether a file system of our own can be mounted without root (user namespaces).
let canMount: Bool =
  (try? Subprocess.runAndWait("unshare", ["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).succeeded) == true

/// Whether this host knows a Debian mirror.
let hasMirror: Bool = {
  if ProcessInfo.processInfo.environment["YADORI_MIRROR"] != nil { return true }
  let folder = "/etc/apt/sources.list.d"
  let files = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).map { folder + "/" + $0 }
  return (files + ["/etc/apt/sources.list"]).contains { path in
    ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(whereSeparator: \.isWhitespace).contains {
      $0.hasPrefix("http") && ($0.hasSuffix("/debian") || $0.hasSuffix("/debian/"))
    }
  }
}()

/// The program as a person meets it, with a home of its own.
struct Program {
  let folder: URL
  /// The program beside the test bundle.
  let path: String

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var place = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    while place.path != "/", !FileManager.default.isExecutableFile(atPath: place.appendingPathComponent("yadori").path)
    {
      place.deleteLastPathComponent()
    }
    path = place.appendingPathComponent("yadori").path
    try #require(FileManager.default.isExecutableFile(atPath: path), "build the product yadori first")
  }

  struct Outcome {
    var status: Int32
    var output: String
    var error: String

    /// What stands on standard error, without the steps of a long work.
    var complaints: [Substring] { error.split(separator: "\n").filter { !$0.hasPrefix("[") } }
  }

  var environment: [String: String] {
    var environment = ProcessInfo.processInfo.environment
    environment["YADORI_HOME"] = folder.path
    environment["XDG_CACHE_HOME"] = folder.path
    environment["XDG_CONFIG_HOME"] = folder.path
    // A proxy can't reach this host's loopback address.
    environment["no_proxy"] = "127.0.0.1"
    environment["NO_PROXY"] = "127.0.0.1"
    return environment
  }

  /// Runs the program, at most so many seconds long. `shell` is a script that runs it as "$@".
  func run(_ arguments: [String], shell: String? = nil, seconds: Int = 120) throws -> Outcome {
    let command = (shell.map { ["sh", "-c", $0, folder.path] } ?? []) + [path] + arguments
    let outcome = try Subprocess.runAndWait("timeout", ["\(seconds)"] + command, environment: environment)
    return Outcome(
      status: outcome.status, output: String(decoding: outcome.output, as: UTF8.self),
      error: String(decoding: outcome.errorOutput, as: UTF8.self))
  }

  func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

  /// Runs the program on a terminal of its own, whose output and diagnostics are one. Each text is typed when the words have
  /// come that it waits for, since the last one was typed.
  func runOnTerminal(
    _ arguments: [String], typing keys: [(after: String, text: String)] = [], seconds: Int = 120
  ) throws -> Outcome {
    let terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
    defer { close(terminal) }
    // TIOCSPTLCK and TIOCGPTN, ioctl_tty(2).
    var (lock, number): (Int32, UInt32) = (0, 0)
    let isOpen = chost_ioctl(terminal, 0x4004_5431, &lock) == 0 && chost_ioctl(terminal, 0x8004_5430, &number) == 0
    try #require(isOpen)
    let end = open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC)
    try #require(end >= 0)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["timeout", "\(seconds)", path] + arguments
    process.environment = environment
    let handle = FileHandle(fileDescriptor: end, closeOnDealloc: false)
    (process.standardInput, process.standardOutput, process.standardError) = (handle, handle, handle)
    try process.run()
    close(end)
    var (output, isSearchedTo) = ([UInt8](), 0)
    var rest = keys[...]
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(terminal, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      // EIO: nobody has the other end any more.
      if count <= 0 { break }
      output += buffer[..<count]
      if let next = rest.first, String(decoding: output[isSearchedTo...], as: UTF8.self).contains(next.after) {
        _ = next.text.withCString { write(terminal, $0, strlen($0)) }
        isSearchedTo = output.count
        rest.removeFirst()
      }
    }
    process.waitUntilExit()
    return Outcome(status: process.terminationStatus, output: String(decoding: output, as: UTF8.self), error: "")
  }

  /// Expects one line on standard error with these words, and this exit code.
  func expectRefusal(
    _ arguments: [String], shell: String? = nil, code: Int32, says words: [String],
    location: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run(arguments, shell: shell)
    #expect(outcome.status == code, "\(arguments): \(outcome.error)", sourceLocation: location)
    #expect(outcome.complaints.count == 1, "\(outcome.error)", sourceLocation: location)
    for word in words {
      #expect(outcome.complaints.last?.contains(word) == true, "\(outcome.error)", sourceLocation: location)
    }
  }

  func expectRefusal(
    _ arguments: String..., code: Int32, says words: String..., location: SourceLocation = #_sourceLocation
  ) throws {
    try expectRefusal(arguments, code: code, says: words, location: location)
  }

  subscript(_ name: String) -> String { folder.appendingPathComponent(name).path }

  /// Everything below the program's home, by relative path.
  var names: [String] { (FileManager.default.enumerator(atPath: folder.path)?.allObjects as? [String] ?? []).sorted() }

  @discardableResult
  func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let place = folder.appendingPathComponent(name)
    try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(bytes).write(to: place)
    return place.path
  }

  /// A Linux Image header over a kernel that does nothing, for ever.
  func kernel() throws -> String {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.replaceSubrange(0..<4, with: [0x6F, 0, 0, 0])
    bytes.replaceSubrange(8..<16, with: [0, 0, 0x20, 0, 0, 0, 0, 0])
    bytes.replaceSubrange(16..<24, with: [0, 0x10, 0, 0, 0, 0, 0, 0])
    bytes.replaceSubrange(48..<56, with: Array("RISCV\0\0\0".utf8))
    bytes.replaceSubrange(56..<60, with: Array("RSC\u{05}".utf8))
    return try file("Image", bytes)
  }
}

import Foundation
import HostSystem
import Images
import Supervisor
import Synchronization
import Testing
import Yadori

private let hasPerl = Subprocess.find("perl") != nil

/// A machine whose guest is this host: at its guest socket the agent's own program answers, on this host's Perl.
private final class AgentOnHost: @unchecked Sendable {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
  let registry: MachineRegistry
  let record: MachineRecord
  private let listener: Int32
  private let lock: MachineFolder.Lock?
  private let script: String

  init() throws {
    registry = try MachineRegistry(folder: folder)
    record = MachineRecord(
      identifier: MachineRecord.newIdentifier(), name: "web", image: "debian",
      configuration: VirtualMachineConfiguration(boot: .init()))
    try registry.add(record)
    let place = registry.folder(of: record)
    try place.create()
    lock = try place.takeLock()
    // All of the program but its waiting for connections, which come to its standard input here.
    var text = GuestAgent.program
    let start = try #require(text.range(of: "socket(my $listener")).lowerBound
    let end = try #require(text.range(of: "sub put")).lowerBound
    text.replaceSubrange(
      start..<end, with: "open(my $connection, '+<&=', 0) or die; serve($connection); POSIX::_exit(0);\n\n")
    script = folder.appendingPathComponent("agent").path
    try Data(text.utf8).write(to: URL(fileURLWithPath: script))
    listener = try UnixSocket.listen(place.guestSocket, isBlocking: true)
    Thread.detachNewThread { [listener, script] in Self.serve(listener, script) }
  }

  deinit {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
    try? FileManager.default.removeItem(at: folder)
  }

  private static func serve(_ listener: Int32, _ script: String) {
    while true {
      let connection = UnixSocket.accept(listener, isBlocking: true)
      if connection < 0 { return }
      var byte: UInt8 = 0
      while read(connection, &byte, 1) == 1, byte != UInt8(ascii: "\n") {}
      _ = write(connection, "OK 1\n", 5)
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
      process.arguments = ["perl", script]
      process.standardInput = FileHandle(fileDescriptor: connection, closeOnDealloc: true)
      try? process.run()
      process.terminationHandler = { _ in }
      try? (process.standardInput as? FileHandle)?.close()
    }
  }

  var user: String { String(cString: getpwuid(geteuid()).pointee.pw_name) }

  func start(_ arguments: String..., change: (inout GuestCommand.Request) -> Void = { _ in }) throws -> GuestCommand {
    var request = GuestCommand.Request(arguments)
    request.user = user
    request.folder = folder.path
    change(&request)
    return try GuestCommand(registry, record, request)
  }

  struct Outcome {
    var ending: GuestCommand.Ending?
    var output: [UInt8] = []
    var diagnostics: [UInt8] = []
    var text: String { String(decoding: output, as: UTF8.self) }
  }

  func finish(_ command: GuestCommand) throws -> Outcome {
    var outcome = Outcome()
    outcome.ending = try command.wait { event in
      switch event {
      case .output(let bytes): outcome.output += bytes
      case .diagnostics(let bytes): outcome.diagnostics += bytes
      }
    }
    return outcome
  }

  subscript(_ name: String) -> String { folder.appendingPathComponent(name).path }
}

@Suite(.enabled(if: hasPerl, "the agent needs perl")) struct GuestCommandTests {
  private let host: AgentOnHost

  init() throws { host = try AgentOnHost() }

  @Test func outputDiagnosticsAndExitCode() throws {
    let outcome = try host.finish(host.start("sh", "-c", "echo out; echo err >&2; exit 3"))
    #expect(outcome.ending == .exit(code: 3) && outcome.ending?.code == 3)
    #expect(outcome.text == "out\n" && outcome.diagnostics == Array("err\n".utf8))
    let killed = try host.finish(host.start("sh", "-c", "kill -9 $$"))
    #expect(killed.ending == .signal(9) && killed.ending?.code == 137)
  }

  @Test func whereAndAsWhom() throws {
    let command = try host.start("sh", "-c", "pwd; echo $GREETING; echo $USER; ls -d $HOME") {
      $0.environment = ["GREETING": "good = day"]
    }
    let lines = try host.finish(command).text.split(separator: "\n")
    #expect(lines.count >= 3 && lines[0].hasSuffix(host.folder.lastPathComponent))
    #expect(lines[1] == "good = day" && lines[2] == host.user)
  }

  @Test func inputOfAnySize() throws {
    let bytes = (0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 2) }
    let command = try host.start("cat")
    let writer = HostThread(name: "input") {
      #expect(command.write(bytes[...]))
      command.endInput()
    }
    let outcome = try host.finish(command)
    writer.join()
    #expect(outcome.ending == .exit(code: 0) && outcome.output == bytes)
  }

  /// One that reads none of it ends as if there were none, and whoever writes doesn't wait for ever.
  @Test func inputThatNobodyReads() throws {
    let command = try host.start("sh", "-c", "exec <&-; echo done")
    let writer = HostThread(name: "input") {
      while command.write([UInt8](repeating: 7, count: 1 << 20)[...]) {}
    }
    let outcome = try host.finish(command)
    writer.join()
    #expect(outcome.text == "done\n" && outcome.ending == .exit(code: 0))
  }

  @Test func signals() throws {
    let command = try host.start("sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done")
    var text = ""
    let ending = try command.wait { event in
      guard case .output(let bytes) = event else { return }
      text += String(decoding: bytes, as: UTF8.self)
      if text == "ready\n" { command.signal(SIGINT) }
    }
    #expect(text == "ready\ncaught\n" && ending == .exit(code: 5))
  }

  @Test func aTerminal() throws {
    let command = try host.start("sh", "-c", "test -t 0 && test -t 1 && echo yes; stty size; read line; echo $line") {
      $0.hasTerminal = true
      $0.size = (columns: 91, rows: 17)
    }
    var text = ""
    var isTyped = false
    let ending = try command.wait { event in
      guard case .output(let bytes) = event else { return }
      text += String(decoding: bytes, as: UTF8.self)
      if !isTyped, text.hasPrefix("yes\r\n17 91\r\n") {
        isTyped = true
        #expect(command.write(Array("typed\n".utf8)[...]))
      }
    }
    // The terminal shows what is typed, then the program what it has read.
    #expect(text == "yes\r\n17 91\r\ntyped\r\ntyped\r\n" && ending == .exit(code: 0))
  }

  /// What goes on behind a command that has ended keeps nobody waiting.
  @Test func whatIsLeftInTheBackground() throws {
    let outcome = try host.finish(host.start("sh", "-c", "sleep 60 & echo $!"))
    #expect(outcome.ending == .exit(code: 0))
    kill(try #require(pid_t(outcome.text.trimmingCharacters(in: .newlines))), SIGKILL)
  }

  @Test func refusals() throws {
    func refusal(_ body: () throws -> GuestCommand) -> String {
      let error = #expect(throws: GuestCommand.Refusal.self) { _ = try body() }
      return error?.message ?? ""
    }
    #expect(refusal { try host.start("no-such-program") }.contains("can't run 'no-such-program'"))
    #expect(refusal { try host.start("true") { $0.user = "nobody-here" } }.contains("no user 'nobody-here'"))
    #expect(refusal { try host.start("true") { $0.folder = "/no/such" } }.contains("no folder '/no/such'"))
    #expect(throws: MachineError.self) { try host.start("zero\0byte") }
  }

  // MARK: copies

  private func put(_ text: String, at name: String) throws {
    let url = host.folder.appendingPathComponent(name)
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: url)
  }

  private func text(_ name: String) -> String? { try? String(contentsOfFile: host[name], encoding: .utf8) }

  private var copy: GuestCopy {
    var copy = GuestCopy(host.registry, host.record)
    copy.user = host.user
    return copy
  }

  @Test func treesGoBothWays() throws {
    try put("one", at: "tree/file")
    try put("two", at: "tree/sub/file")
    chmod(host["tree/sub"], 0o750)
    symlink("file", host["tree/link"])
    for (name, body) in [
      ("to", { try copy.copy(host["tree"], toGuest: host["to"]) }),
      ("from", { try copy.copy(fromGuest: host["tree"], to: host["from"]) }),
    ] as [(String, () throws -> Void)] {
      try body()
      #expect(text("\(name)/file") == "one" && text("\(name)/sub/file") == "two")
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: host["\(name)/link"]) == "file")
      var status = stat()
      #expect(stat(host["\(name)/sub"], &status) == 0 && status.st_mode & 0o777 == 0o750)
      // By now it is a folder, and the copy goes into it.
      try body()
      #expect(text("\(name)/tree/sub/file") == "two")
    }
    try copy.copy(host["tree/file"], toGuest: host["tree/sub"])
    #expect(text("tree/sub/file") == "one")
    try copy.copy(fromGuest: host["tree/sub/file"], to: host["renamed"])
    #expect(text("renamed") == "one")
  }

  @Test func copiesThatCannotBe() throws {
    try put("one", at: "file")
    func refusal(_ body: () throws -> Void) -> String {
      let error = #expect(throws: MachineError.self) { try body() }
      return error?.message ?? ""
    }
    #expect(refusal { try copy.copy(host["none"], toGuest: "/tmp") }.contains("no file or folder"))
    #expect(refusal { try copy.copy(fromGuest: host["none"], to: host["x"]) }.contains("none"))
    #expect(refusal { try copy.copy(host["file"], toGuest: host["no/such/place"]) }.contains("'web'"))
    #expect(refusal { try copy.copy(fromGuest: "/dev/null", to: host["x"]) }.contains("neither"))
    #expect(refusal { try copy.copy(fromGuest: "/", to: host["x"]) }.contains("name a file"))
    #expect(text("x") == nil)
  }

  @Test func amachineThatDoesNotRun() throws {
    var other = host.record
    other.identifier = MachineRecord.newIdentifier()
    other.name = "other"
    try host.registry.add(other)
    let error = #expect(throws: MachineError.self) {
      _ = try GuestCommand(host.registry, other, .init(["true"]), patience: 1)
    }
    #expect(error?.message.contains("doesn't run") == true)
  }
}

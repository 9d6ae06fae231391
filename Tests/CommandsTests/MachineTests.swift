import Foundation
import HostSystem
import Testing

/// Machines in the background, as a person meets them.
@Suite struct MachineTests {
  private let program: Program

  init() throws { program = try Program() }

  private struct Description: Decodable {
    struct Status: Decodable {
      var process: Int32
      var instructions: UInt64
    }
    var name: String
    var state: String
    var folder: String
    var isTemporary: Bool
    var status: Status?
    var exitCode: Int32?
  }

  private func inspect(_ name: String) throws -> Description {
    let outcome = try program.run("inspect", "--json", name)
    #expect(outcome.status == 0, "\(outcome.error)")
    return try #require(try JSONDecoder().decode([Description].self, from: Data(outcome.output.utf8)).first)
  }

  /// Starts a machine whose kernel does nothing, for ever.
  private func start(_ name: String) throws {
    let outcome = try program.run("run", "-d", "--name", name, "--kernel", program.kernel(), "-m", "64M")
    #expect(outcome.status == 0 && outcome.output == "\(name)\n", "\(outcome.error)")
  }

  private func expectSuccess(_ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let outcome = try program.run(arguments)
    #expect(outcome.status == 0, "\(outcome.error)", sourceLocation: location)
  }

  @Test func markedMachinesStartWithTheHost() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    for name in ["web", "mail", "other"] { try start(name) }
    try expectSuccess("autostart", "web", "mail", "other")
    try expectSuccess("autostart", "--off", "other")
    #expect(try program.run("autostart").output == "mail\nweb\n")
    for name in ["web", "other"] { try expectSuccess("kill", name) }
    // One runs still.
    try expectSuccess("autostart", "--start-all")
    #expect(try ["web", "mail", "other"].map { try inspect($0).state } == ["running", "running", "stopped"])

    let written = try program.run("autostart", "--write-unit")
    #expect(written.status == 0 && written.error.contains("systemctl --user enable"))
    let unit = try String(contentsOfFile: String(written.output.dropLast()), encoding: .utf8)
    // One that fails must not have systemd end the others.
    #expect(unit.contains("ExecStart=-\"\(program.path)\" \"autostart\" \"--start-all\"\n"))
    #expect(unit.contains("Environment=\"YADORI_HOME=\(program.folder.path)\"\n"))
    try program.expectRefusal("autostart", "--off", code: 64, says: "which machines")
    try program.expectRefusal("autostart", "nobody", code: 66, says: "no machine 'nobody'")
    try expectSuccess("remove", "-f", "web", "mail", "other")
  }

  @Test func aMachineInTheBackgroundFromStartToEnd() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    #expect(try program.run("list").output.contains("no machines"))
    try start("web")
    #expect(try program.run("list").output.contains("web   running  -"))
    try program.expectRefusal(
      "run", "-d", "--name", "web", "--kernel", program["Image"], code: 69, says: "'web' runs already")
    try program.expectRefusal("start", "web", code: 69, says: "'web' runs already")
    try program.expectRefusal("remove", "web", code: 69, says: "'web' runs", "by force")

    try expectSuccess("pause", "web")
    let paused = try inspect("web")
    #expect(paused.state == "paused")
    #expect(try inspect("web").status?.instructions == paused.status?.instructions)
    try expectSuccess("resume", "web")
    #expect(try inspect("web").state == "running")

    try expectSuccess("rename", "web", "site")
    try program.expectRefusal("pause", "web", code: 66, says: "no machine 'web'")
    // It has no system that listens to its power button.
    try program.expectRefusal("stop", "--timeout", "0", "site", code: 69, says: "yadori kill site")
    try expectSuccess("kill", "site")
    let ended = try inspect("site")
    #expect(ended.state == "stopped" && ended.exitCode == 137)
    #expect(try program.run("wait", "site").status == 137)
    try program.expectRefusal("pause", "site", code: 69, says: "doesn't run", "yadori start site")

    try expectSuccess("start", "site")
    #expect(try inspect("site").state == "running")
    try expectSuccess("remove", "--force", "site")
    try program.expectRefusal("inspect", "site", code: 66, says: "no machine 'site'")
    #expect(!FileManager.default.fileExists(atPath: ended.folder))
  }

  /// Of starts at the same time one starts the machine, and the others say that it runs; nobody waits for its end.
  @Test func startsAtTheSameTime() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try start("web")
    for _ in 0..<5 {
      try expectSuccess("kill", "web")
      let script = """
        for i in 1 2 3 4 5 6; do { "$@" 2> "$0/error-$i"; echo $?; } & done; wait; cat "$0"/error-*; rm "$0"/error-*
        """
      let outcome = try program.run(["start", "web"], shell: script, seconds: 60)
      let lines = outcome.output.split(separator: "\n")
      #expect(lines.prefix(6).sorted() == ["0"] + [Substring](repeating: "69", count: 5), "\(outcome)")
      #expect(lines.dropFirst(6).count == 5 && lines.dropFirst(6).allSatisfy { $0.contains("'web' runs already") })
      #expect(try inspect("web").state == "running")
    }
    try expectSuccess("remove", "--force", "web")
  }

  /// It is there again, and goes when it ends, as before.
  @Test func aTemporaryMachineIsRestarted() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    // Waits for a "q" on the UART, and ends the machine: it takes no notice of its power button.
    let kernel = try program([
      0x1000_02B7, 0x0052_C383, 0x0013_F393, 0xFE03_8CE3, 0x0002_CE03, 0x0710_0313, 0xFE6E_16E3, 0x0010_02B7,
      0x0000_5337, 0x5553_0313, 0x0062_A023, 0x0000_006F,
    ])
    try expectSuccess("run", "-d", "--rm", "--name", "web", "--kernel", kernel, "-m", "64M")
    let before = try inspect("web")
    // It is asked to end when it has become one that stays.
    let script = """
      "$@" & n=0
      until "$1" inspect --json web | grep -q '"isTemporary" : false' || [ $n -ge 200 ]; do n=$((n + 1)); sleep 0.05; done
      printf q | "$1" console web; wait $!
      """
    let outcome = try program.run(["restart", "web"], shell: script)
    #expect(outcome.status == 0, "\(outcome.error)")
    let after = try inspect("web")
    #expect(after.state == "running" && after.isTemporary && after.folder == before.folder)
    #expect(after.status?.process != before.status?.process)
    _ = try program.run(["console", "web"], shell: "printf q | \"$@\"")
    _ = try program.run("wait", "web")
    #expect(try program.run("list").output.contains("no machines"))
    #expect(!FileManager.default.fileExists(atPath: after.folder))
  }

  /// What was set stays when the machine is run again, unless a flag says otherwise.
  @Test func runKeepsWhatNoFlagChanges() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    func run(_ more: String...) throws {
      let outcome = try program.run(["run", "-d", "--name", "web", "--kernel", kernel] + more)
      #expect(outcome.status == 0, "\(outcome.error)")
    }
    let port = UInt16.random(in: 20_000..<30_000)
    try run("-m", "64M", "--net", "user", "--append", "quiet")
    try expectSuccess("publish", "web", "\(port):22")
    try expectSuccess("kill", "web")
    try expectSuccess("set", "web", "--harts", "3", "--memory", "96M", "--cpus", "0.5")
    try run()
    let kept = try program.run("inspect", "web").output
    for words in ["3\n", "96M\n", "at most 0.50\n", "\(port):22\n", "quiet\n"] {
      #expect(kept.contains(words), "\(kept)")
    }
    // Its last run's end isn't this one's.
    let process = try #require(try inspect("web").status?.process)
    #expect(kill(process, SIGKILL) == 0)
    try program.expectRefusal("wait", "web", code: 69, says: "was killed")
    #expect(try inspect("web").exitCode == nil)
    try run("-c", "2", "-p", "\(port):23", "-p", "\(port + 1):80/udp")
    let changed = try program.run("inspect", "web").output
    for words in ["2\n", "96M\n", "\(port):23\n", "\(port + 1):80/udp\n"] {
      #expect(changed.contains(words), "\(changed)")
    }
    #expect(!changed.contains("\(port):22\n"))
    try expectSuccess("remove", "-f", "web")
  }

  /// Whatever becomes of the process, the machine is stopped and can be started.
  @Test func aKilledProcessLeavesAMachineThatStarts() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try start("web")
    for _ in 0..<5 {
      let process = try #require(try inspect("web").status?.process)
      #expect(kill(process, SIGKILL) == 0)
      #expect(try [0, 69].contains(program.run("wait", "web").status))
      #expect(try inspect("web").state == "stopped")
      try expectSuccess("start", "web")
      #expect(try inspect("web").state == "running")
    }
    try expectSuccess("remove", "--force", "web")
  }

  /// The state of each machine, by name.
  private func states() throws -> [String: String] {
    let outcome = try program.run("list", "--json")
    #expect(outcome.status == 0, "\(outcome.error)")
    let machines = try JSONDecoder().decode([Description].self, from: Data(outcome.output.utf8))
    return Dictionary(uniqueKeysWithValues: machines.map { ($0.name, $0.state) })
  }

  /// Runs the program, and kills it so many milliseconds later.
  private func runAndKill(_ arguments: [String], after delay: Int) throws {
    _ = try program.run(
      arguments, shell: "\"$@\" > /dev/null 2>&1 & p=$!; sleep $(printf 0.%03d \(delay)); kill -9 $p; wait")
  }

  /// Whenever a command is killed: what it was at is done or not, the list can be read, and each machine runs or can be
  /// started and removed.
  @Test func killedCommandsLeaveWholeMachines() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let run = ["run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M"]
    /// Its process may be on its way still.
    func expectThatItRuns(_ name: String) throws {
      #expect(try [0, 69].contains(program.run("start", name).status))
      var looks = 0
      while try inspect(name).status == nil, looks < 200 {
        looks += 1
        usleep(50_000)
      }
      #expect(looks < 200)
    }
    for delay in [0, 3, 6, 10, 15, 20, 30, 50, 80] {
      try runAndKill(run, after: delay)
      let made = try states()
      #expect(made.isEmpty || made.keys.sorted() == ["web"])
      if made.isEmpty { #expect(try program.run(run).status == 0) }
      try expectThatItRuns("web")

      try runAndKill(["rename", "web", "site"], after: delay)
      let names = try states()
      #expect(names == ["web": "running"] || names == ["site": "running"], "\(names)")
      let name = try #require(names.keys.first)

      try expectSuccess("kill", name)
      try runAndKill(["start", name], after: delay)
      try expectThatItRuns(name)

      try runAndKill(["remove", "-f", name], after: delay)
      let left = try states()
      #expect(left.isEmpty || left.keys.sorted() == [name])
      if !left.isEmpty { try expectSuccess("remove", "-f", name) }
      #expect(try states().isEmpty)
    }
  }

  private func program(_ words: [UInt32]) throws -> String {
    try program.file("program.bin", words.flatMap { word in (0..<4).map { UInt8(word >> (8 * $0) & 0xFF) } })
  }

  @Test func theConsoleIsRecordedAndCanBeTypedAt() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    // Prints "hi" on the UART, then for each byte the next one, and ends at "q".
    let kernel = try program([
      0x1000_02B7, 0x0680_0313, 0x0062_8023, 0x0690_0313, 0x0062_8023, 0x00A0_0313, 0x0062_8023, 0x0052_C383,
      0x0013_F393, 0xFE03_8CE3, 0x0002_CE03, 0x0710_0313, 0x006E_0863, 0x001E_0E13, 0x01C2_8023, 0xFE1F_F06F,
      0x0010_02B7, 0x0000_5337, 0x5553_0313, 0x0062_A023, 0x0000_006F,
    ])
    try program.expectRefusal("console", "echo", code: 66, says: "no machine 'echo'")
    try expectSuccess("run", "-d", "--name", "echo", "--firmware", "none", "--kernel", kernel)
    let typed = try program.run(["console", "echo"], shell: "printf abq | \"$@\"")
    #expect(typed.status == 0 && typed.output == "hi\nbc", "\(typed.error)")
    #expect(try program.run("logs", "echo").output == "hi\nbc")
    #expect(try program.run("logs", "-f", "echo").output == "hi\nbc")
    try program.expectRefusal("console", "echo", code: 69, says: "doesn't run", "yadori start echo")
  }

  @Test func theGuestsExitCodeIsTheMachines() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    // Writes (7 << 16 | 0x3333) to the test finisher at 0x10_0000: lui t0, 0x100; lui t1, 0x73; addi t1, t1, 0x333; sw.
    let kernel = try program([0x0010_02B7, 0x0007_3337, 0x3333_0313, 0x0062_A023, 0x0000_006F])
    try expectSuccess("run", "-d", "--name", "job", "--firmware", "none", "--kernel", kernel)
    #expect(try program.run("wait", "job").status == 7)
    #expect(try inspect("job").exitCode == 7)
    try expectSuccess("run", "-d", "--rm", "--name", "gone", "--firmware", "none", "--kernel", kernel)
    _ = try program.run("wait", "gone")
    #expect(try !program.run("list").output.contains("gone"))
  }

  /// A machine that was made for a start that failed goes; one that was there stays, and means the same files anywhere.
  @Test func whatNeverStartedIsNotKept() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    let occupied = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(occupied) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let port: UInt16? = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        bind(occupied, pointer, size) == 0 && listen(occupied, 1) == 0 && getsockname(occupied, pointer, &size) == 0
      } ? UInt16(bigEndian: $0.pointee.sin_port) : nil
    }
    let forward = "\(try #require(port)):22"
    try program.expectRefusal(
      "run", "-d", "--name", "web", "--kernel", kernel, "--net", "user", "-p", forward, code: 69,
      says: forward.components(separatedBy: ":")[0])
    #expect(try program.run("list").output.contains("no machines"))

    let outcome = try program.run(
      ["run", "-d", "--name", "web", "--kernel", "Image"], shell: "cd \"$YADORI_HOME\" && exec \"$@\"")
    #expect(outcome.status == 0, "\(outcome.error)")
    try expectSuccess("kill", "web")
    try expectSuccess("start", "web")
    try expectSuccess("remove", "--force", "web")
  }

  /// For people by default, for programs on request.
  @Test func inspectionIsForPeopleAndForPrograms() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try start("web")
    try expectSuccess("set", "web", "--weight", "50")
    let shown = try program.run("inspect", "web")
    #expect(shown.status == 0, "\(shown.error)")
    let fields = Dictionary(
      shown.output.split(separator: "\n").map { line in
        let parts = line.split(separator: " ", maxSplits: 1)
        return (String(parts[0]), parts.dropFirst().first.map { $0.trimmingCharacters(in: .whitespaces) } ?? "")
      }, uniquingKeysWith: { first, _ in first })
    let process = try #require(try inspect("web").status?.process)
    #expect(fields["Name"] == "web" && fields["Memory"] == "64M" && fields["Processors"] == "weight 50")
    #expect(fields["State"]?.hasPrefix("running since ") == true)
    #expect(fields["State"]?.hasSuffix("process \(process)") == true)
    #expect(fields["Kernel"] == program["Image"] && fields["Ended"] == nil)
    try expectSuccess("kill", "web")
    #expect(try program.run("inspect", "web").output.contains("killed, exit code 137"))
    try expectSuccess("remove", "web")
  }

  @Test func refusals() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try program.expectRefusal("inspect", "web", code: 66, says: "no machine 'web'", "yadori list")
    try program.expectRefusal(
      "run", "-d", "--name", "No!", "--kernel", try program.kernel(), code: 64, says: "can't name a machine")
    try program.expectRefusal(
      "run", "-d", "--name", "web", "--kernel", program["nothing"], code: 66, says: "no file", "nothing")
    #expect(try program.run("list").output.contains("no machines"))
    try program.expectRefusal(
      "run", "-d", "--stats", "--kernel", program["Image"], code: 64, says: "--stats", "-d")
    try program.expectRefusal("logs", "web", code: 66, says: "no machine 'web'")
  }
}

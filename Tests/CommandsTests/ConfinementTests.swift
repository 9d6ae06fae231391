import Foundation
import HostSystem
import Testing

/// What the process of a machine in the background has given up.
@Suite struct ConfinementTests {
  private let program: Program

  init() throws { program = try Program() }

  @Test func aMachinesProcessIsConfined() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let outcome = try program.run("run", "-d", "--name", "web", "--kernel", program.kernel(), "-m", "64M")
    defer { _ = try? program.run("remove", "-f", "web", "again") }
    #expect(outcome.status == 0, "\(outcome.error)")
    let text = try program.run("inspect", "--json", "web").output
    let line = text.split(separator: "\n").first { $0.contains("\"process\"") } ?? ""
    let process = try #require(Int32(line.filter { $0.isNumber }))
    // Its own session, its name, and nothing of the command that started it.
    #expect(getsid(process) == process)
    let name = try String(contentsOfFile: "/proc/\(process)/cmdline", encoding: .utf8)
    #expect("yadori machine web".hasPrefix(name.prefix { $0 != "\0" }) && !name.contains("-d"), "\(name)")
    func target(_ descriptor: Int) throws -> String {
      try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/\(descriptor)")
    }
    #expect(try target(0) == "/dev/null")
    #expect(try target(1) == target(2) && target(1).hasPrefix(program.folder.path))
    // As the host's kernel sees it, for each thread.
    for thread in try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task") {
      // A thread that has answered a command may have ended meanwhile.
      guard let status = try? String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8) else {
        continue
      }
      let lines = status.split(separator: "\n").map { $0.split(separator: "\t").map(String.init) }
      #expect(lines.contains(["NoNewPrivs:", "1"]))
      if text.contains("\"system call filter\"") { #expect(lines.contains(["Seccomp:", "2"])) }
    }
    // The machine has no network, and so its process none.
    if text.contains("\"own network namespace\"") {
      func namespace(_ name: String, _ process: String) throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/\(name)")
      }
      for thread in try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task") {
        guard let networks = try? namespace("net", "\(process)/task/\(thread)"),
          let means = try? namespace("ipc", "\(process)/task/\(thread)")
        else { continue }
        #expect(try networks != namespace("net", "self"))
        #expect(try means != namespace("ipc", "self"))
      }
      let routes = try String(contentsOfFile: "/proc/\(process)/net/route", encoding: .utf8)
      #expect(routes.split(separator: "\n").count <= 1)
    }
    // It sees no other process, and of the host's files its home only.
    let root = "/proc/\(process)/root"
    let manager = FileManager.default
    if text.contains("\"own PID namespace\"") {
      let numbers = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8).split(separator: "\n")
        .first { $0.hasPrefix("NSpid:") }?.split(separator: "\t").dropFirst()
      #expect(numbers?.count == 2 && numbers?.last == "1")
    }
    if text.contains("\"own mount namespace\"") {
      #expect(!manager.fileExists(atPath: root + "/etc") && !manager.fileExists(atPath: root + "/usr"))
      let beside = program.folder.deletingLastPathComponent().path
      #expect(try manager.contentsOfDirectory(atPath: root + beside) == [program.folder.lastPathComponent])
      let home = root + program.folder.path
      #expect(
        try manager.contentsOfDirectory(atPath: home).allSatisfy { ["machines", "images", "Image"].contains($0) })
      #expect(try manager.contentsOfDirectory(atPath: home + "/machines").count == 1)
      #expect(try manager.contentsOfDirectory(atPath: root + "/proc").filter { Int($0) != nil } == ["1"])
    }
    if text.contains("\"few capabilities\"") {
      for thread in try manager.contentsOfDirectory(atPath: "/proc/\(process)/task") {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8) else {
          continue
        }
        let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("CapEff:\t") })
        // chown, dac_override, fowner, fsetid, net_bind_service, net_admin, net_raw, sys_nice
        #expect(try #require(UInt64(line.dropFirst(8), radix: 16)) & ~0x80_341B == 0)
      }
    }
    let limits = try String(contentsOfFile: "/proc/\(process)/limits", encoding: .utf8)
    let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") } ?? ""
    #expect(core.split(separator: " ").dropFirst(4).prefix(2) == ["0", "0"])
    #expect(text.contains("\"confinement\"") && text.contains("\"no new privileges\""))
    // What it is told to write elsewhere it writes there.
    let elsewhere = manager.temporaryDirectory.appendingPathComponent("yadori-saved-\(UUID().uuidString)").path
    try manager.createDirectory(atPath: elsewhere, withIntermediateDirectories: false)
    defer { try? manager.removeItem(atPath: elsewhere) }
    for _ in 1...2 {
      let saving = try program.run("save", "web", elsewhere + "/web")
      #expect(saving.status == 0, "\(saving.error)")
    }
    #expect(try manager.contentsOfDirectory(atPath: elsewhere) == ["web"])
    let restoring = try program.run("restore", elsewhere + "/web", "--name", "again")
    #expect(restoring.status == 0, "\(restoring.error)")
    try program.expectRefusal("save", "web", elsewhere + "/none/web", code: 66, says: elsewhere + "/none", "No such")
    try Data("mine".utf8).write(to: URL(fileURLWithPath: elsewhere + "/note"))
    try program.expectRefusal(
      "save", "web", elsewhere + "/note", code: 73, says: "'\(elsewhere)/note' is there already")
  }

  /// What became of each attempt of the probe; see its source.
  private struct Report: Codable {
    var applied: [String]
    var results: [String: Int32]
  }

  private static var probe: String {
    // Built beside the test bundle.
    Bundle.main.bundleURL.appendingPathComponent("confinement-probe").path
  }

  /// Runs the probe in place of a machine with a folder and a shared one, beside the files that it is to try.
  /// - Parameter user: whose process it is; nil: this one's.
  private func probe(_ kind: String, network: Bool, user: Int? = nil) throws -> (report: Report, files: [String]) {
    let manager = FileManager.default
    let machines = program.folder.appendingPathComponent("machines")
    for folder in ["machines/1", "machines/2", "shared/folder", "images/debian"] {
      try manager.createDirectory(at: program.folder.appendingPathComponent(folder), withIntermediateDirectories: true)
    }
    let files = try ["machines.sqlite", "machines/2/disk.qcow2", "shared/secret", ".ssh/id"].map {
      try program.file($0, [1, 2, 3])
    }
    if let user {
      for name in program.names + ["."] { #expect(chown(program[name], uid_t(user), gid_t(user)) == 0) }
    }
    // It would lead out, were it taken for what disks are overlays of.
    try? manager.createSymbolicLink(atPath: machines.path + "/1/base-link", withDestinationPath: "/")
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    try #require(listen(listener, 8) == 0)
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) {
      _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(listener, $0, &size) }
    }
    let rights = user.map { ["setpriv", "--reuid=\($0)", "--regid=\($0)", "--clear-groups"] } ?? []
    let victim = Process()
    victim.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    victim.arguments = rights + ["sleep", "600"]
    victim.standardOutput = FileHandle.nullDevice
    victim.standardError = FileHandle.nullDevice
    try victim.run()
    // Other signals may be blocked in it, as they are in the thread that starts it.
    defer { kill(victim.processIdentifier, SIGKILL) }
    let arguments =
      [kind, machines.path + "/1", program["shared/folder"], network ? "yes" : "no", "\(victim.processIdentifier)"]
      + ["\(UInt16(bigEndian: address.sin_port))", "/etc/passwd"] + files
    // The process that runs in the end is another one, which has the output as well.
    let outcome = try Subprocess.runAndWait(
      "sh", ["-c", "\"$@\" | cat", "sh"] + rights + [Self.probe] + arguments, environment: program.environment)
    return (try JSONDecoder().decode(Report.self, from: Data(outcome.output)), ["/etc/passwd"] + files)
  }

  /// What a machine's process is for works, and all else fails.
  private func expectConfined(_ report: Report, _ files: [String], network: Bool) {
    var results = report.results
    let works = [
      "own folder", "own file renamed", "shared folder", "folder in the shared one", "moved there", "itself",
      "own limits", "Unix socket", "pair of Unix sockets",
    ]
    for name in works {
      #expect(results.removeValue(forKey: name) == 0, "\(name)")
    }
    // Where it has a network, it is its user's.
    if network { for name in ["TCP", "UDP"] { #expect(results.removeValue(forKey: name) == 0, "\(name)") } }
    // A number says nothing of a process; what could be done with it is refused. Where there is no PID namespace, others
    // are seen.
    _ = results.removeValue(forKey: "pidfd_open")
    if !report.applied.contains("own PID namespace") { _ = results.removeValue(forKey: "list of processes") }
    for file in files {
      #expect(results.keys.contains("read \(file)") && results.keys.contains("write \(file)"))
    }
    // By the filter, whatever else would have been in their way.
    for name in ["pair of other sockets", "file cut by its path"] { #expect(results[name] == EPERM, "\(name)") }
    #expect(results.count > 30)
    for (name, code) in results { #expect(code != 0, "\(name)") }
  }

  private func holdsFiles(_ report: Report) -> Bool {
    report.applied.contains("own mount namespace") || report.applied.contains("Landlock file rules")
  }

  @Test(arguments: ["background", "terminal"], [false, true])
  func whoeverOwnsAMachinesProcessReachesNothingElse(kind: String, network: Bool) throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let (report, files) = try probe(kind, network: network)
    #expect(report.applied.contains("no new privileges"))
    #expect(report.applied.contains("own PID namespace") == report.applied.contains("own mount namespace"))
    // A host that lets it be confined by nothing is none to test this on.
    guard holdsFiles(report), report.applied.contains("system call filter") else { return }
    expectConfined(report, files, network: network)
  }

  /// The command's own process is held where one in the background is.
  @Test func aMachineOnATerminalIsHeldByLandlock() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    #expect(try program.run("run", "-d", "--name", "back", "--kernel", kernel, "-m", "64M").status == 0)
    let hasLandlock = try program.run("inspect", "--json", "back").output.components(separatedBy: "missingConfinement")[
      0
    ]
    .contains("\"Landlock scopes\"")
    _ = try program.run("remove", "-f", "back")
    let script = #"""
      (sleep 20 | "$1" run --name front --kernel "$2" -m 64M) > /dev/null 2>&1 &
      until "$1" inspect --json front 2> /dev/null | grep -q missingConfinement; do sleep 0.1; done
      "$1" inspect --json front; "$1" kill front
      """#
    let outcome = try program.run([kernel], shell: script, seconds: 60)
    let applied = outcome.output.components(separatedBy: "missingConfinement")[0]
    #expect(applied.contains("\"no core files\""), "\(outcome.output) \(outcome.error)")
    if hasLandlock {
      for name in ["Landlock file rules", "Landlock scopes", "few capabilities"] {
        #expect(applied.contains("\"\(name)\""), "\(outcome.output)")
      }
    }
  }

  /// Another user's process has less to give up, and to do it by. Needs root, to become one.
  @Test(.enabled(if: geteuid() == 0), arguments: ["background", "terminal"])
  func anotherUsersProcessReachesNothingElse(kind: String) throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let user = 54_321
    let tried = try Subprocess.runAndWait(
      "setpriv", ["--reuid=\(user)", "--regid=\(user)", "--clear-groups", "test", "-x", Self.probe])
    guard tried.succeeded else { return }
    let (report, files) = try probe(kind, network: false, user: user)
    guard holdsFiles(report), report.applied.contains("system call filter") else { return }
    expectConfined(report, files, network: false)
  }

  /// Whatever the folder's permissions. Needs root, to become somebody else.
  @Test(.enabled(if: geteuid() == 0))
  func anotherUserIsRefusedAtTheControlSocket() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let outcome = try program.run("run", "-d", "--name", "web", "--kernel", program.kernel(), "-m", "64M")
    #expect(outcome.status == 0, "\(outcome.error)")
    defer { _ = try? program.run("remove", "-f", "web") }
    let machines = program["machines"]
    let folder = try machineFolder()
    for path in [program.folder.path, machines, folder] { #expect(chmod(path, 0o755) == 0) }
    #expect(chmod(folder + "/control", 0o666) == 0)
    let asking = [Self.probe, "ask", folder + "/control"]
    let own = try Subprocess.runAndWait(asking[0], Array(asking[1...]))
    #expect(String(decoding: own.output, as: UTF8.self).contains("\"running\""))
    let rights = ["--reuid=54321", "--regid=54321", "--clear-groups"]
    guard try Subprocess.runAndWait("setpriv", rights + ["test", "-x", Self.probe]).succeeded else { return }
    let other = try Subprocess.runAndWait("setpriv", rights + asking)
    let answer = String(decoding: other.output, as: UTF8.self)
    #expect(answer.contains("another user's") && !answer.contains("running"), "\(answer)")
  }

  /// What a guest that owned its machine's process may have left in the machine's folder leads nowhere at the next start.
  @Test func whatAMachineLeftInItsFolderIsntFollowed() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let manager = FileManager.default
    let run = ["run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M"]
    #expect(try program.run(run).status == 0)
    let hasMounts = try program.run("inspect", "web").output.contains("own mount namespace")
    #expect(try program.run("kill", "web").status == 0)
    let folder = try machineFolder()
    let file = try program.file("elsewhere/profile", Array("mine".utf8))
    // Where nothing is written, and where nothing is deleted.
    try? manager.removeItem(atPath: folder + "/process.log")
    try manager.createSymbolicLink(atPath: folder + "/process.log", withDestinationPath: file)
    try manager.createSymbolicLink(
      atPath: folder + "/snapshots", withDestinationPath: program["elsewhere"])
    let hidden = try program.file("elsewhere/.hidden", [1])
    try manager.setAttributes([.modificationDate: Date(timeIntervalSince1970: 1)], ofItemAtPath: hidden)
    try program.expectRefusal(["start", "web"], code: 73, says: ["process.log"])
    try manager.removeItem(atPath: folder + "/process.log")
    try manager.createSymbolicLink(atPath: folder + "/base-link", withDestinationPath: "/")
    #expect(try program.run("start", "web").status == 0)
    #expect(try program.run("inspect", "web").output.contains("own mount namespace") == hasMounts)
    _ = try program.run("snapshot", "create", "web", "one")
    #expect(manager.fileExists(atPath: hidden))
    // Nor is it shown, gone back to or deleted there.
    try manager.createDirectory(atPath: program["elsewhere/two"], withIntermediateDirectories: false)
    #expect(try program.run("snapshot", "list", "web").output.contains("no snapshots"))
    for verb in ["revert", "delete"] {
      try program.expectRefusal("snapshot", verb, "web", "two", code: 66, says: "no snapshot 'two'")
    }
    #expect(manager.fileExists(atPath: program["elsewhere/two"]))
    for log in ["console.log", "console.log.1"] {
      try? manager.removeItem(atPath: folder + "/" + log)
      try manager.createSymbolicLink(atPath: folder + "/" + log, withDestinationPath: file)
    }
    try program.expectRefusal("logs", "web", code: 66, says: "hasn't run")
    try manager.removeItem(atPath: folder + "/console.log")
    #expect(mkfifo(folder + "/console.log", 0o600) == 0)
    try program.expectRefusal("logs", "web", code: 66, says: "hasn't run")
    try manager.removeItem(atPath: folder + "/console.log")
    #expect(try String(contentsOfFile: file, encoding: .utf8) == "mine")
    _ = try program.run("kill", "web")
    // What it says of its end is short, and of one line.
    let ending = "{\"exitCode\":3,\"words\":\"a\\u001b[31mb\\nc\"}"
    try Data(ending.utf8).write(to: URL(fileURLWithPath: folder + "/ending"))
    let shown = try program.run("inspect", "--json", "web").output
    #expect(shown.contains("\"a[31mbc\""), "\(shown)")
    try manager.removeItem(atPath: folder + "/ending")
    #expect(mkfifo(folder + "/ending", 0o600) == 0)
    #expect(try !program.run("inspect", "--json", "web").output.contains("ending"))
    #expect(try program.run("remove", "web").status == 0)
  }

  /// Of the only machine.
  private func machineFolder() throws -> String {
    let names = try FileManager.default.contentsOfDirectory(atPath: program["machines"])
    return program["machines/" + (try #require(names.first { !$0.contains(".") }))]
  }

  /// Has a process be the machine `web`, which doesn't run, as a guest may be that owned it.
  private func impersonate(answering answer: String) throws -> Process {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: Self.probe)
    process.arguments = ["machine", try machineFolder(), answer]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    #expect(String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self) == "ready\n")
    return process
  }

  /// What it says keeps nobody waiting, and its terminal obeys nothing in it.
  @Test func whoOwnsAMachinesProcessKeepsNobodyWaiting() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    #expect(try program.run("run", "-d", "--name", "web", "--kernel", program.kernel(), "-m", "64M").status == 0)
    #expect(try program.run("kill", "web").status == 0)
    // Half a line, and nothing at all.
    for answer in ["{\"status\":", "none"] {
      let process = try impersonate(answering: answer)
      let listed = try program.run(["list"], seconds: 60)
      #expect(listed.status == 0 && listed.output.contains("web   running"), "\(listed.output)\(listed.error)")
      #expect(try program.run(["kill", "web"], seconds: 60).status == 0)
      process.waitUntilExit()
      #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == SIGKILL)
    }
    let refusing = try impersonate(answering: "{\"refusal\":\"a\\u001b[31mb\\u009bc\"}\n")
    try program.expectRefusal("pause", "web", code: 69, says: "refuses: a[31mbc")
    kill(refusing.processIdentifier, SIGKILL)
    refusing.waitUntilExit()
    // A time that no calendar has, and more use than can be.
    let status = """
      {"state":"running","process":1,"started":1e300,"instructions":1,"processorSeconds":1e308,"residentBytes":1,
      "startDuration":-1e300}
      """
    let boasting = try impersonate(answering: "{\"status\":\(status.split(separator: "\n").joined())}\n")
    for arguments in [["list"], ["list", "--json"], ["inspect", "web"], ["stats"], ["stats", "--json"]] {
      let outcome = try program.run(arguments)
      #expect(outcome.status == 0 && outcome.output.contains("web"), "\(arguments): \(outcome.error)")
    }
    kill(boasting.processIdentifier, SIGKILL)
    boasting.waitUntilExit()
    #expect(try program.run("remove", "web").status == 0)
  }

  /// A link in place of the machine's socket leads to nobody, and only the machine's own process is killed.
  @Test func aLinkToASocketEndsNobodyElse() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    for name in ["web", "other"] {
      #expect(try program.run("run", "-d", "--name", name, "--kernel", program.kernel(), "-m", "64M").status == 0)
    }
    defer { _ = try? program.run("remove", "-f", "web", "other") }
    struct Machine: Decodable { var folder: String }
    func folder(_ name: String) throws -> String {
      let text = try program.run("inspect", "--json", name).output
      return try #require(try JSONDecoder().decode([Machine].self, from: Data(text.utf8)).first).folder
    }
    let (own, victim) = (try folder("web"), try folder("other") + "/control")
    for name in ["control", "vsock"] {
      unlink(own + "/" + name)
      #expect(symlink(victim, own + "/" + name) == 0)
    }
    try program.expectRefusal(["exec", "web", "--", "true"], code: 71, says: ["can't reach the guest"])
    #expect(try program.run(["kill", "web"], seconds: 60).status == 0)
    #expect(try program.run("list").output.contains("other  running"))
    #expect(try program.run("inspect", "web").output.contains("stopped"))
  }
}

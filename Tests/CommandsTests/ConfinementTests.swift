import Foundation
import Testing

/// What the process of a machine in the background has given up.
@Suite struct ConfinementTests {
  private let program: Program

  init() throws { program = try Program() }

  @Test func aMachinesProcessIsConfined() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let outcome = try program.run("run", "-d", "--name", "web", "--kernel", program.kernel(), "-m", "64M")
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
      let status = try String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8)
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
        #expect(try namespace("net", "\(process)/task/\(thread)") != namespace("net", "self"))
        #expect(try namespace("ipc", "\(process)/task/\(thread)") != namespace("ipc", "self"))
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
      #expect(try manager.contentsOfDirectory(atPath: root + "/proc").filter { Int($0) != nil } == ["1"])
    }
    if text.contains("\"few capabilities\"") {
      for thread in try manager.contentsOfDirectory(atPath: "/proc/\(process)/task") {
        let status = try String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8)
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
      "save", "web", elsewhere + "/note", code: 69, says: "'\(elsewhere)/note' is there already")
    _ = try program.run("remove", "-f", "web", "again")
  }
}

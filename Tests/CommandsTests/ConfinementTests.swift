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
    let text = try program.run("inspect", "web").output
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
    let limits = try String(contentsOfFile: "/proc/\(process)/limits", encoding: .utf8)
    let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") } ?? ""
    #expect(core.split(separator: " ").dropFirst(4).prefix(2) == ["0", "0"])
    #expect(text.contains("\"confinement\"") && text.contains("\"no new privileges\""))
    _ = try program.run("remove", "-f", "web")
  }
}

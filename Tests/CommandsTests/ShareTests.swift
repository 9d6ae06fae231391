import Foundation
import HostSystem
import Testing

/// What machines get of the host, and what is said of that.
@Suite struct ShareTests {
  private let program: Program

  init() throws { program = try Program() }

  private func expectSuccess(_ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let outcome = try program.run(arguments)
    #expect(outcome.status == 0, "\(outcome.error)", sourceLocation: location)
  }

  private struct Usage: Decodable {
    var name: String
    var processors: Double
    var processorLimit: Double?
    var instructionsPerSecond: Double
    var residentBytes: UInt64
    var privateBytes: UInt64?
    var sharedBytes: UInt64?
  }

  private func usages(_ arguments: String...) throws -> [Usage] {
    let outcome = try program.run(["stats", "--json"] + arguments)
    #expect(outcome.status == 0, "\(outcome.error)")
    return try JSONDecoder().decode([Usage].self, from: Data(outcome.output.utf8))
  }

  /// A cap holds however much others leave, and a new one counts at once.
  @Test func aCapHolds() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    try expectSuccess("run", "-d", "--name", "web", "--kernel", kernel, "-m", "64M", "--cpus", "0.1")
    let lowUsages = try usages("--interval", "2", "web")
    let low = try #require(lowUsages.first)
    // Never more; less where the host has other work.
    #expect(low.processors > 0.01 && low.processors < 0.13 && low.processorLimit == 0.1, "\(low)")
    #expect(low.instructionsPerSecond > 0 && low.residentBytes > 1 << 20)
    try expectSuccess("set", "web", "--cpus", "0.3")
    let middleUsages = try usages("--interval", "2")
    let middle = try #require(middleUsages.first)
    #expect(middle.processors < 0.34 && middle.processorLimit == 0.3, "\(middle)")
    #expect(middle.instructionsPerSecond > low.instructionsPerSecond)
    try expectSuccess("set", "web", "--cpus", "max", "--weight", "50")
    #expect(try usages().first?.processorLimit == nil)
    #expect(try program.run("stats").output.hasPrefix("NAME"))
    // A capped machine answers as quickly as others.
    try expectSuccess("set", "web", "--cpus", "0.01")
    try expectSuccess("pause", "web")
    try expectSuccess("resume", "web")
    try expectSuccess("kill", "web")
    try program.expectRefusal("stats", "web", code: 69, says: "'web' doesn't run", "yadori start web")
    #expect(try program.run("stats", "--interval", "0.1").output == "no machine runs\n")
    // It has kept its share, and what was set meanwhile.
    try expectSuccess("set", "web", "--harts", "3", "--memory", "96M")
    try expectSuccess("start", "web")
    #expect(try usages("--interval", "0.1").first?.processorLimit == 0.01)
    #expect(try program.run("list").output.contains("3      96M"))
    try expectSuccess("remove", "-f", "web")
  }

  /// One look after the other, until somebody has seen enough.
  @Test func statsCanBeWatched() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try expectSuccess("run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M")
    let script = """
      "$@" > "$0/looks" & n=0
      until [ $(grep -c ^web "$0/looks") -ge 3 ] || [ $n -ge 400 ]; do n=$((n + 1)); sleep 0.05; done
      kill $!; wait $!; grep -c ^web "$0/looks"
      """
    let watched = try program.run(["stats", "-w", "--interval", "0.1", "web"], shell: script)
    #expect(try #require(Int(watched.output.dropLast())) >= 3, "\(watched)")
    // On a terminal each is written over the one before.
    let terminal = try program.runOnTerminal(["stats", "-w", "--interval", "0.1", "web"], seconds: 2)
    #expect(terminal.output.components(separatedBy: "\u{1B}[H\u{1B}[J").count > 2, "\(terminal)")
    try expectSuccess("remove", "-f", "web")
  }

  /// What a clone hasn't changed it has with others, which is said.
  @Test func whatIsSharedIsSaid() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try expectSuccess("run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M")
    try expectSuccess("clone", "web", "web-1..2")
    for usage in try usages("--interval", "0.1") {
      let (alone, shared) = (try #require(usage.privateBytes), try #require(usage.sharedBytes))
      // They are of the same program at least.
      #expect(shared > 1 << 20 && alone > 0 && alone + shared <= usage.residentBytes + (1 << 20), "\(usage)")
    }
    #expect(try program.run("stats", "--interval", "0.1").output.contains("PRIVATE  SHARED"))
    try expectSuccess("remove", "-f", "web", "web-1", "web-2")
  }

  /// Machines that want the same processor get it by their weights, which can be raised again, and without root.
  @Test func weightsCountAgainstEachOther() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    let last = try #require(HostResources.processors.last)
    for (name, weight) in [("light", "100"), ("heavy", "400")] {
      try expectSuccess(
        "run", "-d", "--name", name, "--kernel", kernel, "-m", "64M", "--pin", "\(last)", "--weight", weight)
    }
    func ratio() throws -> Double {
      // The first second is for finding out.
      _ = try usages("--interval", "1")
      let usages = try usages("--interval", "2")
      let (light, heavy) = (usages.first { $0.name == "light" }, usages.first { $0.name == "heavy" })
      return try #require(heavy).processors / max(0.001, try #require(light).processors)
    }
    let before = try ratio()
    #expect(before > 2 && before < 8)
    try expectSuccess("set", "light", "--weight", "400")
    try expectSuccess("set", "heavy", "--weight", "100")
    let after = try ratio()
    #expect(after < 0.5)
    // Nobody else wants it.
    try expectSuccess("kill", "light")
    try expectSuccess("set", "heavy", "--weight", "1")
    try expectSuccess("remove", "-f", "light", "heavy")
  }

  /// A pinned machine's threads may run on the processors named only, from its start and from when that is changed.
  @Test func aPinHolds() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    func allowed(_ process: Int32) throws -> Set<[Int]> {
      let threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")
      return Set(
        try threads.compactMap { thread in
          // One that has answered a command may have ended meanwhile.
          guard let status = try? String(contentsOfFile: "/proc/\(process)/task/\(thread)/status", encoding: .utf8)
          else { return nil }
          let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list:") })
          let list = line.dropFirst(18).trimmingCharacters(in: .whitespaces)
          let processors: [Int] = try #require(HostResources.processors(in: list))
          return processors
        })
    }
    func process() throws -> Int32 {
      let text = try program.run("inspect", "--json", "web").output
      let line = text.split(separator: "\n").first { $0.contains("\"process\"") } ?? ""
      return try #require(Int32(line.filter { $0.isNumber }))
    }
    let all = try #require(try allowed(getpid()).first)
    let last = try #require(all.last)
    try expectSuccess(
      "run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M", "--pin", "\(last)")
    #expect(try allowed(try process()) == [[last]])
    try expectSuccess("set", "web", "--pin", "all")
    #expect(try allowed(try process()) == [all])
    try expectSuccess("set", "web", "--pin", "\(all[0])")
    #expect(try allowed(try process()) == [[all[0]]])
    // It keeps to that.
    try expectSuccess("kill", "web")
    try expectSuccess("start", "web")
    #expect(try allowed(try process()) == [[all[0]]])
    try program.expectRefusal("set", "web", "--pin", "7999", code: 64, says: "--pin", "processors are")
    try program.expectRefusal("set", "web", "--pin", "1-0", code: 64, says: "--pin")
    try program.expectRefusal("set", "web", "--pin", "", code: 64, says: "--pin")
    try expectSuccess("remove", "-f", "web")
  }

  @Test func refusals() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    try program.expectRefusal("set", "web", "--cpus", "1", code: 66, says: "no machine 'web'")
    try program.expectRefusal("stats", "web", code: 66, says: "no machine 'web'")
    try program.expectRefusal("run", "--kernel", kernel, "--cpus", "0", code: 64, says: "--cpus")
    try program.expectRefusal("run", "--kernel", kernel, "--cpus", "many", code: 64, says: "--cpus")
    let many = HostResources.processors.count + 1
    try program.expectRefusal(
      "run", "-d", "--name", "web", "--kernel", kernel, "--cpus", "\(many)", code: 64, says: "--cpus", "this host has")
    #expect(try program.run("list").output.contains("no machines"))
    try program.expectRefusal("run", "--kernel", kernel, "--weight", "0", code: 64, says: "--weight")
    try program.expectRefusal(
      "run", "--kernel", kernel, "-c", "2", "--max-harts", "1", code: 64, says: "--max-harts", "give 2")
    try program.expectRefusal(
      "run", "--kernel", kernel, "-m", "64M", "--max-memory", "32M", code: 64, says: "--max-memory", "64M")
    try expectSuccess("run", "-d", "--name", "web", "--kernel", kernel, "-m", "64M")
    try program.expectRefusal("set", "web", code: 64, says: "say what to change")
    try program.expectRefusal("set", "web", "--weight", "0", code: 64, says: "--weight", "10000")
    try program.expectRefusal("set", "web", "--cpus", "\(many)", code: 64, says: "--cpus", "this host has", "max")
    try program.expectRefusal("set", "web", "--harts", "0", code: 64, says: "1 to 64")
    try program.expectRefusal("stats", "--interval", "0", code: 64, says: "--interval")
    try program.expectRefusal("publish", "web", "2222:22", code: 69, says: "user network")
    try expectSuccess("remove", "-f", "web")
  }

  /// A port that is forwarded while the machine runs is listened to from then on, and at its next start.
  @Test func portsAreForwardedLive() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    func canConnect(_ port: UInt16) -> Bool {
      let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      defer { close(descriptor) }
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
      return withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
        }
      }
    }
    let port = UInt16.random(in: 20_000..<30_000)
    try expectSuccess("run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M", "--net", "user")
    #expect(!canConnect(port))
    try expectSuccess("publish", "web", "\(port):22")
    #expect(canConnect(port))
    try program.expectRefusal("publish", "web", "\(port):23", code: 69, says: "\(port)")
    try program.expectRefusal("publish", "web", "nonsense", code: 64, says: "2222:22")
    try program.expectRefusal("unpublish", "web", "nonsense", code: 64, says: "2222")
    try program.expectRefusal("unpublish", "web", "\(port)/udp", code: 66, says: "\(port):22")
    try expectSuccess("unpublish", "web", "\(port)")
    try program.expectRefusal("unpublish", "web", "\(port)", code: 66, says: "none")
    // The port is free again, for another machine's port, too.
    try expectSuccess("publish", "web", "\(port):23")
    try expectSuccess("kill", "web")
    #expect(!canConnect(port))
    try expectSuccess("start", "web")
    #expect(canConnect(port))
    try expectSuccess("remove", "-f", "web")
  }
}

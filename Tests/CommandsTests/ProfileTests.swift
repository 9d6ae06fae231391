import Foundation
import Testing

/// Where a guest's time goes, as a person asks for it.
@Suite struct ProfileTests {
  let program: Program
  /// A loop of 67 million turns at 0x8000_0004, then the end.
  let code: String
  let symbols: String

  init() throws {
    program = try Program()
    let words: [UInt32] = [
      0x0400_0337, 0xFFF3_0313, 0xFE03_1EE3, 0x0010_02B7, 0x0000_5337, 0x5553_031B, 0x0062_A023, 0x0000_006F,
    ]
    code = try program.file("code.bin", words.flatMap { word in (0..<4).map { UInt8(word >> ($0 * 8) & 0xFF) } })
    let map = "0000000080000000 T start\n0000000080000004 t spin\n000000008000000c T finish\n0000000080000020 D data\n"
    symbols = try program.file("System.map", Array(map.utf8))
  }

  private func run(_ more: String..., shell: String? = nil) throws -> Program.Outcome {
    try program.run(["run", "--firmware", "none", "--kernel", code, "-m", "16M"] + more, shell: shell)
  }

  @Test(arguments: ["interpreter", "translator"]) func theBusiestSymbolStandsFirst(engine: String) throws {
    let path = program["profile"]
    let result = try run("--engine", engine, "--profile", path, "--symbols", symbols)
    #expect(result.status == 0, "\(result.error)")
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let rows = lines.filter { !$0.hasPrefix("#") }.map { $0.split(separator: " ") }
    let first = try #require(rows.first)
    #expect(first.last == "spin" && first[2] == "machine")
    #expect(try #require(Double(first[0])) > 80)
    #expect(try #require(Int(first[1])) > 10)
    // Shares add up.
    #expect(abs(rows.reduce(0) { $0 + (Double($1[0]) ?? 0) } - 100) < 1)
    #expect(program.names.allSatisfy { !$0.hasSuffix(".partial") })
  }

  @Test func linesForFlameGraphs() throws {
    let path = program["profile.folded"]
    #expect(try run("--profile", path, "--symbols", symbols).status == 0)
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    let first = try #require(lines.first).split(separator: " ")
    #expect(first.count == 2 && first[0] == "machine;spin")
    #expect(Int(first[1]) != nil)
  }

  @Test func pagesStandForWhatHasNoSymbol() throws {
    let path = program["profile"]
    #expect(try run("--profile", path).status == 0)
    #expect(try String(contentsOfFile: path, encoding: .utf8).contains("machine     page 0x80000000\n"))
  }

  #if arch(x86_64)
    @Test func perfIsToldTheNames() throws {
      let result = try run("--perf-map", "--symbols", symbols, shell: "echo $$; exec \"$@\"")
      #expect(result.status == 0)
      let path = "/tmp/perf-\(result.output.split(whereSeparator: \.isNewline).first ?? "").map"
      defer { unlink(path) }
      var end: UInt64 = 0
      var names: [String] = []
      for line in try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") {
        let fields = line.split(separator: " ", maxSplits: 2)
        try #require(fields.count == 3)
        let start = try #require(UInt64(fields[0], radix: 16))
        #expect(start >= end)
        end = start + (try #require(UInt64(fields[1], radix: 16)))
        names.append(String(fields[2]))
      }
      #expect(names.contains("guest:0x80000000+0x4 spin"))
    }

    @Test func theTranslatorsMemoryIsAccountedFor() throws {
      let error = try run("--stats", "--engine", "translator").error
      #expect(error.contains("instructions in") && error.contains("code memory") && error.contains("bytes of tables"))
    }
  #endif

  @Test func flagsThatCanNotBe() throws {
    let kernel = try program.kernel()
    func expectRefusal(_ flags: String..., code: Int32, says words: String...) throws {
      try program.expectRefusal(["run", "--kernel", kernel, "-m", "64M"] + flags, code: code, says: words)
    }
    try expectRefusal("--symbols", symbols, code: 64, says: "--symbols", "--profile")
    try expectRefusal("--profile", "/nowhere/profile", code: 73, says: "--profile", "/nowhere/profile")
    try expectRefusal(
      "--profile", program["p"], "--symbols", "/nowhere/map", code: 66, says: "--symbols", "/nowhere/map")
    try expectRefusal("--profile", program["p"], "--symbols", code, code: 65, says: "--symbols", "System.map")
    let empty = try program.file("empty", [])
    try expectRefusal("--profile", program["p"], "--symbols", empty, code: 65, says: "--symbols", "no symbols")
    try expectRefusal("--perf-map", "--engine", "interpreter", code: 64, says: "--perf-map", "translator")
  }
}

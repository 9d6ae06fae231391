import Foundation
import HostSystem
import Testing

/// Saved machines that aren't what they were, and disks on which there is no room for them.
@Suite struct DamagedSavesTests {
  private let program: Program

  init() throws { program = try Program() }

  private func expectSuccess(_ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let outcome = try program.run(arguments)
    #expect(outcome.status == 0, "\(arguments): \(outcome.error)", sourceLocation: location)
  }

  /// A running machine with a disk, saved in the folder `saved` and with a snapshot `first`: their folders.
  private func prepare() throws -> [String] {
    let disk = try program.file("disk.img", [UInt8](repeating: 7, count: 1 << 20))
    try expectSuccess("run", "-d", "--name", "web", "--kernel", program.kernel(), "-m", "64M", "--disk", disk)
    try expectSuccess("save", "web", program["saved"])
    try expectSuccess("snapshot", "create", "web", "first")
    let snapshot = try #require(program.names.first { $0.hasSuffix("/first") })
    return [program["saved"], program[snapshot]]
  }

  /// Everything that a failed restore or revert might have left, and what there is of machines.
  private func state() throws -> [String] {
    let names = program.names.filter { $0.hasPrefix("machines") && !$0.contains(".sqlite") }
    return names + [try program.run("list").output]
  }

  private func expectRefusals(_ words: [String], location: SourceLocation = #_sourceLocation) throws {
    for command in [["restore", program["saved"], "--name", "bad"], ["snapshot", "revert", "web", "first"]] {
      try program.expectRefusal(command, code: 65, says: words, location: location)
    }
  }

  /// Whichever file it is, and wherever in it: nothing is made of it, and the machine goes on.
  @Test func flippedBytes() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let folders = try prepare()
    let before = try state()
    let names = try FileManager.default.contentsOfDirectory(atPath: folders[0])
    #expect(names.count >= 3, "\(names)")
    #expect(try FileManager.default.contentsOfDirectory(atPath: folders[1]).sorted() == names.sorted())
    for name in names {
      let files = try folders.map { try FileHandle(forUpdating: URL(fileURLWithPath: $0 + "/" + name)) }
      let size = try files[0].seekToEnd()
      for place in Set([0, size / 7, size / 2, size - 1]) {
        func flip() throws {
          for file in files {
            try file.seek(toOffset: place)
            let byte = try #require(try file.read(upToCount: 1)?.first)
            try file.seek(toOffset: place)
            try file.write(contentsOf: [byte ^ 0x10])
          }
        }
        try flip()
        // The name of the format is what it begins with.
        try expectRefusals([name == "machine" && place == 0 ? "isn't a saved machine" : "damaged"])
        try flip()
      }
    }
    // Cut short, and gone.
    for name in names where name != "machine" {
      for folder in folders { #expect(rename(folder + "/" + name, folder + "/aside") == 0) }
      try expectRefusals(["damaged"])
      for folder in folders {
        let whole = try Data(contentsOf: URL(fileURLWithPath: folder + "/aside"))
        try whole.dropLast(5000).write(to: URL(fileURLWithPath: folder + "/" + name))
      }
      try expectRefusals(["damaged"])
      for folder in folders { #expect(rename(folder + "/aside", folder + "/" + name) == 0) }
    }
    #expect(try state() == before)
    try expectSuccess("restore", program["saved"], "--name", "good")
    try expectSuccess("snapshot", "revert", "web", "first")
    try expectSuccess("remove", "-f", "web", "good")
  }

  @Test func anotherVersion() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let folders = try prepare()
    let before = try state()
    for folder in folders {
      let place = URL(fileURLWithPath: folder + "/machine")
      let text = String(decoding: try Data(contentsOf: place), as: UTF8.self)
      let end = try #require(text.firstIndex(of: "\n"))
      var words = text[..<end].split(separator: " ")
      words[1] = "999"
      try Data((words.joined(separator: " ") + text[end...]).utf8).write(to: place)
    }
    try expectRefusals(["was saved in version 999", "this program reads"])
    #expect(try state() == before)
    try expectSuccess("remove", "-f", "web")
  }

  /// Where there is no room a machine isn't saved, what was saved before is whole, and the machine goes on.
  @Test(.enabled(if: canMount, "this host doesn't let users mount"))
  func noRoom() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let kernel = try program.kernel()
    try FileManager.default.createDirectory(atPath: program["small"], withIntermediateDirectories: true)
    // The machine's home is on a small disk, which is full from the first mark on.
    let script = """
      mount -t tmpfs -o size=16M none "$YADORI_HOME/small"; export YADORI_HOME="$YADORI_HOME/small"
      see() { "$@" list; ( cd "$YADORI_HOME"; find machines saved | grep -v sqlite | sort ); }
      "$@" run -d --name web --kernel '\(kernel)' -m 64M
      "$@" save web "$YADORI_HOME/saved"
      "$@" snapshot create web first
      see "$@" > "$YADORI_HOME/../before"
      cat /dev/zero > "$YADORI_HOME/fill" 2>&- || :
      for what in "save web $YADORI_HOME/saved" "snapshot create web second" "clone web copy"; do
        echo "$what" >&2; "$@" $what >&2 || echo $?
      done
      rm "$YADORI_HOME/fill"
      see "$@" > "$YADORI_HOME/../after"
      "$@" pause web; "$@" resume web
      "$@" snapshot revert web first
      "$@" restore "$YADORI_HOME/saved"
      "$@" remove -f web saved
      """
    let outcome = try Subprocess.runAndWait(
      "timeout", ["120", "unshare", "-rm", "sh", "-ec", script, "sh", program.path], environment: program.environment)
    let (output, errors) = (
      String(decoding: outcome.output, as: UTF8.self), String(decoding: outcome.errorOutput, as: UTF8.self)
    )
    #expect(outcome.status == 0, "\(errors)")
    #expect(output.split(separator: "\n").filter { Int($0) != nil } == ["74", "74", "74"], "\(output)\(errors)")
    let lines = errors.split(separator: "\n")
    #expect(lines.count == 6 && lines.filter { $0.contains("No space left on device") }.count == 3, "\(errors)")
    func text(_ name: String) throws -> String { try String(contentsOfFile: program[name], encoding: .utf8) }
    #expect(try text("before") == text("after"))
  }
}

import CHost
import Foundation
import HTTPTestServer
import HostSystem
import Storage
import Testing

/// Machines that are saved, restored, cloned and taken back.
@Suite struct SavingTests {
  private let program: Program

  init() throws { program = try Program() }

  private func expectSuccess(_ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let outcome = try program.run(arguments)
    #expect(outcome.status == 0, "\(outcome.error)", sourceLocation: location)
  }

  /// Waits for a byte on the UART and echoes the one that came before, from memory; "q" ends the machine.
  private func startEcho(_ name: String, memory: String = "64M", _ more: [String] = []) throws {
    let words: [UInt32] = [
      0x1000_02B7,  // lui   t0, 0x10000     the UART
      0x0000_1497,  // auipc s1, 1           memory
      0x02D0_0313,  // li    t1, '-'
      0x0064_8023,  // sb    t1, 0(s1)
      0x0052_C383,  // lbu   t2, 5(t0)       is there a byte?
      0x0013_F393,  // andi  t2, t2, 1
      0xFE03_8CE3,  // beqz  t2, -8
      0x0002_CE03,  // lbu   t3, 0(t0)
      0x0710_0313,  // li    t1, 'q'
      0x006E_0A63,  // beq   t3, t1, +20
      0x0004_CE83,  // lbu   t4, 0(s1)
      0x01D2_8023,  // sb    t4, 0(t0)
      0x01C4_8023,  // sb    t3, 0(s1)
      0xFDDF_F06F,  // j     -36
      0x0010_02B7,  // lui   t0, 0x100       the test finisher
      0x0000_5337,  // lui   t1, 5
      0x5553_0313,  // addi  t1, t1, 0x555
      0x0062_A023,  // sw    t1, 0(t0)
      0x0000_006F,  // j     .
    ]
    let kernel = try program.file("echo.bin", words.flatMap { word in (0..<4).map { UInt8(word >> (8 * $0) & 0xFF) } })
    let outcome = try program.run(
      ["run", "-d", "--name", name, "--firmware", "none", "--kernel", kernel, "-m", memory] + more)
    #expect(outcome.status == 0, "\(outcome.error)")
  }

  /// Types keys, and expects this to be all that the machine has printed since its process began.
  private func type(_ keys: String, at name: String, expecting output: String) throws {
    let script = """
      printf '\(keys)' | "$@" > "$YADORI_HOME/out" & n=0
      while [ $(wc -c < "$YADORI_HOME/out") -lt \(output.utf8.count) ] && [ $n -lt 500 ]; do n=$((n + 1)); sleep 0.02; done
      kill $!; cat "$YADORI_HOME/out"
      """
    let outcome = try program.run(["console", name], shell: ": > \"$YADORI_HOME/out\"; " + script)
    #expect(outcome.output == output, "\(outcome.error)")
  }

  @Test func aSavedMachineGoesOnWhereItStood() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    try type("a", at: "web", expecting: "-")
    let saved = program["saved"]
    try expectSuccess("save", "web", saved)
    try expectSuccess("kill", "web")
    try expectSuccess("restore", saved, "--name", "again")
    try type("b", at: "again", expecting: "a")
    // A second time, from where it stood then.
    try expectSuccess("restore", saved, "--name", "third", "--unchecked")
    try type("c", at: "third", expecting: "a")
    try program.expectRefusal("restore", saved, "--name", "third", code: 69, says: "'third' already")
    // What it was restored from is used once: the next start is a new one.
    try expectSuccess("kill", "third")
    try expectSuccess("start", "third")
    try type("d", at: "third", expecting: "-")
    for name in ["web", "again", "third"] { try expectSuccess("remove", "-f", name) }
  }

  @Test func clonesLiveOnTheirOwn() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    try type("a", at: "web", expecting: "-")
    let outcome = try program.run("clone", "web", "copy-1..3")
    #expect(outcome.status == 0 && outcome.output == "copy-1\ncopy-2\ncopy-3\n", "\(outcome.error)")
    try type("b", at: "copy-1", expecting: "a")
    try type("c", at: "copy-1", expecting: "ab")
    try type("d", at: "copy-3", expecting: "a")
    try type("e", at: "web", expecting: "-a")
    // Numbers of the same width.
    #expect(try program.run("clone", "web", "wide-08..10").output == "wide-08\nwide-09\nwide-10\n")
    try expectSuccess("remove", "-f", "wide-08", "wide-09", "wide-10")
    try program.expectRefusal("clone", "web", "copy-3..4", code: 69, says: "'copy-3' already")
    try program.expectRefusal("clone", "web", "copy-9..1", code: 64, says: "no range")
    let names = try program.run("list").output
    #expect(!names.contains("copy-4"))
    let left = try FileManager.default.contentsOfDirectory(atPath: program["machines"])
    #expect(!left.contains { $0.hasPrefix(".clone") }, "\(left)")
    for name in ["web", "copy-1", "copy-2", "copy-3"] { try expectSuccess("remove", "-f", name) }
  }

  // MARK: clones that are copies of one process

  /// A machine's identifier, by which its folder is named.
  private func identifier(of name: String) throws -> String {
    let text = try program.run("inspect", "--json", name).output
    let line = try #require(text.split(separator: "\n").first { $0.contains("\"identifier\"") })
    return String(try #require(line.split(separator: "\"").dropFirst(3).first))
  }

  /// The files of RAM that a machine's process shows its guest.
  private func memoryFiles(of name: String) throws -> Set<String> {
    let maps = try String(contentsOfFile: "/proc/\(try process(of: name))/maps", encoding: .utf8)
    return Set(
      maps.split(separator: "\n").filter { $0.contains("/memory-") }.map { line in
        let path = line.drop { $0 != "/" }
        return String(path.hasSuffix(" (deleted)") ? path.dropLast(" (deleted)".count) : path)
      })
  }

  /// By which the host tells the descriptors apart that a machine's process is woken by.
  private func eventIdentities(of name: String) throws -> Set<String> {
    let folder = "/proc/\(try process(of: name))/fdinfo"
    let texts = try FileManager.default.contentsOfDirectory(atPath: folder).compactMap {
      try? String(contentsOfFile: "\(folder)/\($0)", encoding: .utf8)
    }
    return Set(texts.flatMap { $0.split(separator: "\n").filter { $0.hasPrefix("eventfd-id") } }.map(String.init))
  }

  @Test func clonesOfOneCommandShareWhatTheyAreMadeOf() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    try type("a", at: "web", expecting: "-")
    try expectSuccess("clone", "web", "copy-1..3")
    let names = ["copy-1", "copy-2", "copy-3"]
    let files = try names.map { try memoryFiles(of: $0) }
    #expect(!files[0].isEmpty && files[1] == files[0] && files[2] == files[0], "\(files)")
    for name in names {
      let own = "/\(try identifier(of: name))/"
      #expect(!files[0].contains { $0.contains(own) }, "\(files[0])")
    }
    // What wakes one doesn't wake another.
    let identities = try names.map { try eventIdentities(of: $0) }
    #expect(identities.allSatisfy { !$0.isEmpty })
    #expect(identities[0].isDisjoint(with: identities[1]) && identities[1].isDisjoint(with: identities[2]))
    #expect(identities[0].isDisjoint(with: identities[2]), "\(identities)")
    for (name, key) in zip(names, ["x", "y", "z"]) { try type(key, at: name, expecting: "a") }
    for (name, key) in zip(names, ["x", "y", "z"]) { try type("b", at: name, expecting: "a\(key)") }
    for name in ["web"] + names { try expectSuccess("remove", "-f", name) }
  }

  /// Each has what its original had by then, however much of that is changes to what came before.
  @Test func clonesOfClonesGoOnWhereThoseStand() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("m-0")
    try type("a", at: "m-0", expecting: "-")
    var last = "a"
    for number in 1...4 {
      try expectSuccess("clone", "m-\(number - 1)", "m-\(number)")
      let key = ["b", "c", "d", "e"][number - 1]
      try type(key, at: "m-\(number)", expecting: last)
      last = key
    }
    // Those that they were made of may go.
    for number in 0...3 { try expectSuccess("remove", "-f", "m-\(number)") }
    try expectSuccess("clone", "m-4", "last-1..2")
    for name in ["last-1", "last-2"] { try type("f", at: name, expecting: "e") }
    #expect(try memoryFiles(of: "last-1") == memoryFiles(of: "last-2"))
    try expectSuccess("save", "last-1", program["saved"])
    for name in ["m-4", "last-1", "last-2"] { try expectSuccess("remove", "-f", name) }
    // What is saved to stay needs nothing of all that.
    let saved = try FileManager.default.contentsOfDirectory(atPath: program["saved"])
    #expect(saved.contains("memory-0") && !saved.contains("memory-changes"), "\(saved)")
    try expectSuccess("restore", program["saved"], "--name", "again")
    try type("g", at: "again", expecting: "f")
    try expectSuccess("clone", "again", "twin")
    try type("h", at: "twin", expecting: "g")
    for name in ["again", "twin"] { try expectSuccess("remove", "-f", name) }
  }

  @Test func clonesOfAMachineThatWentBackShowWhatItDidSince() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    try type("b", at: "web", expecting: "-a")
    try expectSuccess("snapshot", "create", "web", "second")
    func expectClone(_ key: String, location: SourceLocation = #_sourceLocation) throws {
      try expectSuccess("clone", "web", "copy", location: location)
      try type("z", at: "copy", expecting: key)
      try expectSuccess("remove", "-f", "copy", location: location)
    }
    try expectSuccess("snapshot", "revert", "web", "first")
    try expectClone("a")
    try type("c", at: "web", expecting: "a")
    try expectClone("c")
    // To another one, which isn't what it was restored from before.
    try expectSuccess("snapshot", "revert", "web", "second")
    try expectClone("b")
    try type("d", at: "web", expecting: "b")
    try expectSuccess("snapshot", "delete", "web", "second")
    try expectClone("d")
    // A new start has nothing to do with all that.
    try expectSuccess("kill", "web")
    try expectSuccess("start", "web")
    try expectClone("-")
    try type("e", at: "web", expecting: "-")
    try expectClone("e")
    try expectSuccess("remove", "-f", "web")
  }

  @Test func whatRAMWasRestoredFromGoesWithTheMachine() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    func kept(_ identifier: String) -> Bool { program.names.contains("machines/\(identifier).memory/memory-0") }
    let web = try identifier(of: "web")
    #expect(!kept(web))
    try expectSuccess("clone", "web", "copy")
    let copy = try identifier(of: "copy")
    #expect(kept(copy) && !kept(web))
    try expectSuccess("remove", "-f", "copy")
    #expect(!program.names.contains { $0.contains(copy) }, "\(program.names)")
    // A machine that begins anew was restored from nothing.
    try expectSuccess("clone", "web", "other")
    let other = try identifier(of: "other")
    #expect(kept(other))
    try expectSuccess("kill", "other")
    try expectSuccess("start", "other")
    #expect(!program.names.contains { $0.contains(".memory") }, "\(program.names)")
    try expectSuccess("remove", "-f", "other", "web")
    let left = try FileManager.default.contentsOfDirectory(atPath: program["machines"])
    #expect(left.isEmpty, "\(left)")
  }

  @Test func snapshotsAreGoneBackTo() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let disk = program["disk.img"]
    #expect(FileManager.default.createFile(atPath: disk, contents: nil) && truncate(disk, 1 << 20) == 0)
    try startEcho("web", ["--disk", disk])
    #expect(try program.run("snapshot", "list", "web").output.contains("no snapshots"))
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    try program.expectRefusal("snapshot", "create", "web", "first", code: 73, says: "'first' already")
    try program.expectRefusal("snapshot", "create", "web", "a/b", code: 64, says: "can't name a snapshot")
    #expect(try program.run("snapshot", "list", "web").output.contains("first"))
    // Without a name it gets one, another each time.
    let unnamed = try (0..<3).map { _ in try program.run("snapshot", "create", "web").output }
    #expect(Set(unnamed).count == 3 && unnamed.allSatisfy { $0.hasPrefix("20") && $0.hasSuffix("\n") }, "\(unnamed)")
    for name in unnamed { try expectSuccess("snapshot", "delete", "web", String(name.dropLast())) }
    try type("b", at: "web", expecting: "-a")
    try expectSuccess("snapshot", "revert", "web", "first")
    try type("c", at: "web", expecting: "a")
    try expectSuccess("snapshot", "revert", "web", "first")
    try type("d", at: "web", expecting: "a")
    try program.expectRefusal("snapshot", "revert", "web", "firs", code: 66, says: "did you mean 'first'")
    try expectSuccess("snapshot", "delete", "web", "first")
    try program.expectRefusal("snapshot", "delete", "web", "first", code: 66, says: "no snapshot 'first'")
    // It is itself still, on the disk that it went back to.
    try type("e", at: "web", expecting: "ad")
    try expectSuccess("remove", "-f", "web")
  }

  /// What the disks of saved machines show belongs to them, however many machines were made of each other.
  @Test func disksOutliveThoseThatTheyWereMadeOf() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let (base, disk) = (program["base.img"], program["disk.qcow2"])
    #expect(FileManager.default.createFile(atPath: base, contents: Data(repeating: 7, count: 1 << 20)))
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (base, .raw))
    try startEcho("web", ["--disk", disk])
    try type("a", at: "web", expecting: "-")
    try expectSuccess("clone", "web", "one")
    try expectSuccess("clone", "one", "two")
    try expectSuccess("save", "two", program["saved"])
    try expectSuccess("snapshot", "create", "two", "first")
    try expectSuccess("remove", "-f", "web", "one")
    unlink(disk)
    for name in ["first", "first"] {
      try expectSuccess("snapshot", "revert", "two", name)
      try type("b", at: "two", expecting: "a")
    }
    try expectSuccess("snapshot", "create", "two", "second")
    try expectSuccess("snapshot", "revert", "two", "second")
    try type("c", at: "two", expecting: "b")
    try expectSuccess("snapshot", "revert", "two", "first")
    try type("d", at: "two", expecting: "a")
    try expectSuccess("kill", "two")
    try expectSuccess("start", "two")
    try expectSuccess("remove", "-f", "two")
    try expectSuccess("restore", program["saved"], "--name", "three")
    try type("e", at: "three", expecting: "a")
    try expectSuccess("remove", "-f", "three")
    // What they don't contain must be as it was.
    try Data([1]).write(to: URL(fileURLWithPath: base))
    try program.expectRefusal("restore", program["saved"], "--name", "four", code: 65, says: "base.img' as it was")
    unlink(base)
    try program.expectRefusal("restore", program["saved"], "--name", "four", code: 65, says: "is gone")
  }

  @Test func aMachineThatIsOffIsSavedToo() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let disk = program["disk.img"]
    #expect(FileManager.default.createFile(atPath: disk, contents: nil) && truncate(disk, 1 << 20) == 0)
    try startEcho("web", ["--disk", disk])
    try expectSuccess("snapshot", "create", "web", "running")
    try expectSuccess("kill", "web")
    try expectSuccess("save", "web", program["saved"])
    try expectSuccess("snapshot", "create", "web", "off")
    try expectSuccess("restore", program["saved"], "--name", "again")
    #expect(try states()["again"] == "stopped")
    try expectSuccess("start", "again")
    try type("a", at: "again", expecting: "-")
    try expectSuccess("snapshot", "revert", "web", "running")
    #expect(try states()["web"] == "running")
    try expectSuccess("snapshot", "revert", "web", "off")
    #expect(try states()["web"] == "stopped")
    try program.expectRefusal(
      "restore", program["saved"], "--name", "x", "--new-identity", code: 69, says: "leave it out")
    try program.expectRefusal("restore", program["saved"], "--name", "x", "-p", "1:1", code: 69, says: "user network")
    for name in ["web", "again"] { try expectSuccess("remove", "-f", name) }
  }

  /// It ends on the way, and is there afterwards, as temporary as before.
  @Test func aTemporaryMachineGoesBack() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web", ["--rm"])
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    for _ in 0..<2 {
      try expectSuccess("snapshot", "revert", "web", "first")
      try type("b", at: "web", expecting: "a")
    }
    _ = try program.run(["console", "web"], shell: "printf q | \"$@\"")
    _ = try program.run("wait", "web")
    #expect(try program.run("list").output.contains("no machines"))
  }

  /// One that is to go on as it was saved, and couldn't yet, waits for that as it is.
  @Test func whatGoesOnLaterIsntChanged() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let port = try HTTPTestServer.freePort()
    try startEcho("web", ["--net", "user", "-p", "\(port):80"])
    try program.expectRefusal("publish", "web", "\(port):81", code: 69, says: "'\(port):80'", "another one")
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    try expectSuccess("kill", "web")
    try startEcho("other", ["--net", "user", "-p", "\(port):80"])
    try program.expectRefusal("snapshot", "revert", "web", "first", code: 69, says: "\(port)")
    try expectSuccess("remove", "-f", "other")
    try program.expectRefusal("set", "web", "-m", "96M", code: 69, says: "goes on at its next start as it was saved")
    try expectSuccess("set", "web", "--cpus", "1")
    try expectSuccess("start", "web")
    try type("b", at: "web", expecting: "a")
    try expectSuccess("remove", "-f", "web")
  }

  @Test func deletingASnapshotLeavesAllOthers() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    for name in ["a", "a.removed"] { try expectSuccess("snapshot", "create", "web", name) }
    try expectSuccess("snapshot", "delete", "web", "a")
    #expect(try program.run("snapshot", "list", "web").output.contains("a.removed"))
    try expectSuccess("remove", "-f", "web")
  }

  @Test func refusals() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try program.expectRefusal("save", "web", program["x"], code: 66, says: "no machine 'web'")
    try program.expectRefusal("restore", program["x"], code: 66, says: "no saved machine")
    try program.expectRefusal("restore", program.folder.path, code: 65, says: "isn't a saved machine")
    try startEcho("web")
    try expectSuccess("save", "web", program["saved"])
    // Over itself, but over nothing else.
    try expectSuccess("save", "web", program["saved"])
    try program.file("mine/file", [1])
    try program.expectRefusal("save", "web", program["mine"], code: 73, says: "isn't a saved machine")
    try program.expectRefusal("save", "web", program["no/where"], code: 66, says: "can't use the folder", program["no"])
    // A byte of RAM has changed.
    let memory = try FileHandle(forUpdating: URL(fileURLWithPath: program["saved/memory-0"]))
    try memory.write(contentsOf: [0x55])
    try memory.close()
    try program.expectRefusal("restore", program["saved"], "--name", "bad", code: 65, says: "damaged")
    #expect(try !program.run("list").output.contains("bad"))
    try expectSuccess("kill", "web")
    try program.expectRefusal("exec", "web", "--", "true", code: 69, says: "doesn't run")
    try program.expectRefusal("exec", "web", code: 64, says: "say what to run")
    try program.expectRefusal("copy", "a", "b", code: 64, says: "MACHINE:PATH")
    try program.expectRefusal("copy", "web:/a", "web:/b", code: 64, says: "MACHINE:PATH")
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--", "true", code: 64, says: "only a machine of an image")
  }

  private func states() throws -> [String: String] {
    struct Machine: Decodable {
      var name: String
      var state: String
    }
    let machines = try JSONDecoder().decode([Machine].self, from: Data(try program.run("list", "--json").output.utf8))
    return Dictionary(uniqueKeysWithValues: machines.map { ($0.name, $0.state) })
  }

  /// Changes a saved machine's configuration, as the machine's process could that wrote it.
  private func forge(_ folder: String, _ change: (inout [String: Any]) -> Void) throws {
    let place = URL(fileURLWithPath: folder + "/machine")
    let data = try Data(contentsOf: place)
    let end = try #require(data.firstIndex(of: UInt8(ascii: "\n")))
    let parsed = try JSONSerialization.jsonObject(with: data[(end + 1)...])
    var manifest = try #require(parsed as? [String: Any])
    var configuration = try #require(manifest["configuration"] as? [String: Any])
    change(&configuration)
    manifest["configuration"] = configuration
    let json = try JSONSerialization.data(withJSONObject: manifest)
    let sum = json.withUnsafeBytes { chost_crc32c(0, $0.baseAddress, $0.count) }
    let words = String(decoding: data[..<end], as: UTF8.self).split(separator: " ").prefix(2)
    try Data("\(words.joined(separator: " ")) \(String(sum, radix: 16))\n".utf8 + json).write(to: place)
  }

  private func snapshot(_ name: String) throws -> String {
    program[try #require(program.names.first { $0.hasSuffix("/snapshots/\(name)") })]
  }

  /// A snapshot lies where the machine's process can write, and says of the host what that likes.
  @Test func aForgedSnapshotReachesNothing() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let (base, disk) = (program["base.img"], program["disk.qcow2"])
    #expect(FileManager.default.createFile(atPath: base, contents: Data(repeating: 7, count: 1 << 20)))
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (base, .raw))
    let secret = try program.file("secret", [UInt8](repeating: 1, count: 4096))
    try startEcho("web", ["--disk", disk])
    defer { _ = try? program.run("remove", "-f", "web") }
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    let folder = try snapshot("first")
    try program.expectRefusal("restore", folder, "--name", "other", code: 64, says: "in a machine's own folder")
    try forge(folder) { forged in
      forged["sharedFolders"] = [["name": "all", "path": "/", "isReadOnly": false]]
      forged["keptCode"] = [secret]
      forged["processorWeight"] = 10_000
      var boot = forged["boot"] as? [String: Any]
      boot?["kernel"] = secret
      forged["boot"] = boot
    }
    // Its kernel is none that has such a device; a device that it had not is in no state.
    try program.expectRefusal("snapshot", "revert", "web", "first", code: 65, says: "doesn't fit")
    try forge(folder) { $0["sharedFolders"] = nil }
    try expectSuccess("snapshot", "revert", "web", "first")
    try type("b", at: "web", expecting: "a")
    let shown = try program.run("inspect", "--json", "web").output
    #expect(!shown.contains(secret) && !shown.contains("processorWeight") && shown.contains("echo.bin"), "\(shown)")
    // A disk's file behind it.
    func refuses(_ words: String) throws {
      try program.expectRefusal("snapshot", "revert", "web", "first", code: 65, says: words)
      #expect(try states()["web"] == "running")
    }
    func setBehind(_ files: [String]) throws {
      try forge(folder) { forged in
        var disks = forged["disks"] as? [[String: Any]]
        disks?[0]["behind"] = files
        forged["disks"] = disks
      }
    }
    try setBehind([base, secret])
    try refuses("secret")
    try setBehind([base])
    let original = try Data(contentsOf: URL(fileURLWithPath: folder + "/disk-0"))
    unlink(folder + "/disk-0")
    try DiskImage.create(path: folder + "/disk-0", format: .qcow2, size: 1 << 20, backing: (secret, .raw))
    try refuses("secret")
    unlink(folder + "/disk-0")
    #expect(symlink(secret, folder + "/disk-0") == 0)
    try refuses("damaged")
    unlink(folder + "/disk-0")
    try original.write(to: URL(fileURLWithPath: folder + "/disk-0"))
    try expectSuccess("snapshot", "revert", "web", "first")
    try type("c", at: "web", expecting: "a")
  }

  /// The same of the disk of a machine that is off, when a command reads it that may read more.
  @Test func aForgedDiskIsntSaved() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let disk = program["disk.img"]
    #expect(FileManager.default.createFile(atPath: disk, contents: nil) && truncate(disk, 1 << 20) == 0)
    let secret = try program.file("secret", [UInt8](repeating: 1, count: 4096))
    try startEcho("web", ["--disk", disk])
    try expectSuccess("snapshot", "create", "web", "first")
    try expectSuccess("snapshot", "revert", "web", "first")
    try expectSuccess("kill", "web")
    let own = program[try #require(program.names.first { $0.hasSuffix(".qcow2") })]
    try expectSuccess("save", "web", program["good"])
    #expect(rename(own, own + ".aside") == 0)
    try DiskImage.create(path: own, format: .qcow2, size: 1 << 20, backing: (secret, .raw))
    try program.expectRefusal("save", "web", program["saved"], code: 65, says: "wants to show", secret)
    unlink(own)
    #expect(symlink(secret, own) == 0)
    for arguments in [["save", "web", program["saved"]], ["snapshot", "create", "web", "second"]] {
      try program.expectRefusal(arguments, code: 65, says: ["isn't a file"])
    }
    #expect(!FileManager.default.fileExists(atPath: program["saved"]))
    try expectSuccess("remove", "web")
    #expect(FileManager.default.fileExists(atPath: secret))
  }

  /// What is behind a disk was noted when the machine was made: its file can't say something else later.
  @Test func whatIsBehindADiskStaysSo() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let (base, disk) = (program["base.img"], program["disk.qcow2"])
    #expect(FileManager.default.createFile(atPath: base, contents: Data(repeating: 7, count: 1 << 20)))
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (base, .raw))
    try startEcho("web", ["--disk", disk])
    let shown = try program.run("inspect", "--json", "web").output
    #expect(shown.contains("\"behind\" : [\n") && shown.contains(base), "\(shown)")
    let isConfined = shown.components(separatedBy: "missingConfinement")[0].contains("own mount namespace")
    try expectSuccess("kill", "web")
    unlink(disk)
    let secret = try program.file("elsewhere/secret", [UInt8](repeating: 1, count: 1 << 20))
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (secret, .raw))
    if isConfined { #expect(try program.run("start", "web").status != 0) }
    try expectSuccess("remove", "-f", "web")
  }

  /// However the command ends that makes clones: each is whole, running or stopped, or there is none; the original runs.
  @Test func aKilledCloneLeavesWholeMachines() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web")
    try type("a", at: "web", expecting: "-")
    for delay in [0, 10, 20, 40, 80, 160, 320] {
      _ = try program.run(
        ["clone", "web", "copy-1..3"], shell: "\"$@\" & p=$!; sleep $(printf 0.%03d \(delay)); kill -9 $p; wait")
      let states = try states()
      #expect(states["web"] == "running")
      for (name, state) in states where name != "web" {
        if state == "stopped" { try expectSuccess("start", name) }
        try type("b", at: name, expecting: "a")
        try expectSuccess("remove", "-f", name)
      }
    }
    try expectSuccess("clone", "web", "copy-1")
    try expectSuccess("remove", "-f", "web", "copy-1")
  }

  /// Whoever is killed while a snapshot is made, those before are whole, and there is no half one.
  @Test func aKilledSnapshotLeavesTheOldOnes() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web", memory: "512M")
    try type("a", at: "web", expecting: "-")
    try expectSuccess("snapshot", "create", "web", "first")
    for (number, delay) in [0, 2, 5, 10, 20, 40].enumerated() {
      // Its own command, or the machine's process.
      let victim = number % 2 == 0 ? "$p" : try process(of: "web")
      _ = try program.run(
        ["snapshot", "create", "web", "next"],
        shell: "\"$@\" & p=$!; sleep $(printf 0.%03d \(delay)); kill -9 \(victim); wait")
      // Where only the command was killed the machine may be at it still.
      if try states()["web"] == "running" { try expectSuccess("pause", "web") }
      let listed = try program.run("snapshot", "list", "web").output
      for name in listed.contains("next") ? ["next", "first"] : ["first"] {
        try expectSuccess("snapshot", "revert", "web", name)
        // Killed before the command came to it, it was off.
        if try states()["web"] == "stopped" {
          try expectSuccess("start", "web")
          try type("b", at: "web", expecting: "-")
          continue
        }
        // What was typed before the snapshot was begun: in the first turn the same as in the first one.
        try type("b", at: "web", expecting: name == "next" && number > 0 ? "b" : "a")
      }
      if listed.contains("next") { try expectSuccess("snapshot", "delete", "web", "next") }
    }
    try expectSuccess("remove", "-f", "web")
  }

  private func process(of name: String) throws -> String {
    let text = try program.run("inspect", "--json", name).output
    let line = text.split(separator: "\n").first { $0.contains("\"process\"") } ?? ""
    let digits = line.filter(\.isNumber)
    try #require(!digits.isEmpty)
    return digits
  }

  /// However its process ends while machines are saved, what was saved before is whole, and nothing else is left.
  @Test func aKilledSaveLeavesTheOldOne() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try startEcho("web", memory: "512M")
    let saved = program["place/saved"]
    try FileManager.default.createDirectory(atPath: program["place"], withIntermediateDirectories: true)
    try expectSuccess("save", "web", saved)
    for delay in [0, 1, 2, 5, 10, 20, 40] {
      let process = try process(of: "web")
      _ = try program.run(
        ["save", "web", saved], shell: "\"$@\" & sleep $(printf 0.%03d \(delay)); kill -9 \(process); wait")
      try expectSuccess("restore", saved, "--name", "check")
      // Killed before the command came to it, it was off when it was saved.
      if try states()["check"] == "stopped" { try expectSuccess("start", "check") }
      try type("a", at: "check", expecting: "-")
      try expectSuccess("remove", "-f", "check")
      _ = try program.run("start", "web")
    }
    try expectSuccess("remove", "-f", "web")
  }
}

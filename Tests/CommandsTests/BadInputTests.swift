import Foundation
import HTTPTestServer
import HostSystem
import Storage
import Testing

/// Input that can't be, from people and from files: one line that says what to do, nothing damaged, nothing left.
@Suite struct BadInputTests {
  let program: Program

  init() throws { program = try Program() }

  // MARK: Files

  @Test(.enabled(if: geteuid() != 0, "root reads everything"))
  func filesThatCanNotBeRead() throws {
    let path = try program.file("secret", [1, 2, 3])
    #expect(chmod(path, 0) == 0)
    for arguments in [
      ["run", "--kernel", path], ["run", path], ["run", "--kernel", try program.kernel(), "--initrd", path],
      ["run", "--load-state", path], ["disassemble", path],
    ] { try program.expectRefusal(arguments, code: 66, says: ["secret"]) }
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--disk", path, code: 77, says: "secret", "permissions")
  }

  @Test func kernelsForOtherMachines() throws {
    var image = try Data(contentsOf: URL(fileURLWithPath: program.kernel()))
    image.replaceSubrange(48..<60, with: [UInt8](repeating: 0, count: 8) + Array("ARMd".utf8))
    let path = try program.file("arm64", [UInt8](image))
    try program.expectRefusal("run", "--kernel", path, code: 65, says: "arm64", "architecture")
  }

  @Test func damagedKernels() throws {
    for (name, bytes) in [
      ("empty", []), ("cut-elf", Array("\u{7F}ELF".utf8) + [2, 1, 1]),
      ("cut-gzip", [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]),
    ] as [(String, [UInt8])] {
      try program.expectRefusal("run", "--kernel", try program.file(name, bytes), code: 65, says: name)
    }
  }

  @Test func damagedStates() throws {
    let state = program["state"]
    let saved = try program.run("run", "--kernel", try program.kernel(), "-m", "64M", "--save-state-at", "1000", state)
    try #require(saved.status == 0, "\(saved.error)")
    // Each of its files, cut in several places, with a byte changed, and missing.
    let files = try FileManager.default.contentsOfDirectory(atPath: state)
    #expect(files.contains("machine") && files.contains("memory-0"))
    for file in files {
      let path = state + "/" + file
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
      var damaged = [0, 10, bytes.count / 2, bytes.count - 1].map { Array(bytes[..<$0]) }
      for place in [5, bytes.count / 3, bytes.count - 5] {
        var changed = bytes
        changed[place] ^= 0x20
        damaged.append(changed)
      }
      for content in damaged {
        try Data(content).write(to: URL(fileURLWithPath: path))
        try program.expectRefusal("run", "--load-state", state, code: 65, says: state)
      }
      try FileManager.default.removeItem(atPath: path)
      try program.expectRefusal("run", "--load-state", state, code: 65, says: state)
      try Data(bytes).write(to: URL(fileURLWithPath: path))
    }
    try program.expectRefusal("run", "--load-state", program["none"], code: 66, says: "none")
  }

  // MARK: Disks

  /// A sound image, with bytes put over it.
  private func disk(_ name: String, _ patches: [(Int, [UInt8])], cutTo count: Int? = nil) throws -> String {
    let path = program[name]
    try DiskImage.create(path: path, format: .qcow2, size: 8 << 20, options: .init(clusterSize: 4096))
    let image = try DiskImage.open(path: path)
    try [UInt8](repeating: 7, count: 4096).withUnsafeBytes { try image.write(at: 0, from: $0) }
    try image.close()
    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    for (offset, patch) in patches { bytes.replaceSubrange(offset..<(offset + patch.count), with: patch) }
    return try program.file(name, count.map { Array(bytes[..<$0]) } ?? bytes)
  }

  private func expectRefusedDisk(_ path: String, code: Int32 = 65, says words: String...) throws {
    let before = try Data(contentsOf: URL(fileURLWithPath: path))
    try program.expectRefusal(
      ["run", "--kernel", try program.kernel(), "-m", "64M", "--disk", path], code: code,
      says: [(path as NSString).lastPathComponent] + words)
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
  }

  @Test func hostileDisks() throws {
    let whole = [UInt8](repeating: 0xFF, count: 8)
    let cases: [(String, String, [(Int, [UInt8])])] = [
      ("version.qcow2", "version 9", [(4, [0, 0, 0, 9])]),
      ("clusters.qcow2", "2^63", [(20, [0, 0, 0, 63])]),
      ("size.qcow2", "18446744073709551615", [(24, whole)]),
      ("l1-size.qcow2", "4294967295", [(36, Array(whole[..<4]))]),
      ("l1-place.qcow2", "L1 table", [(40, [0, 0, 1, 0, 0, 0, 0, 0])]),
      ("refcounts.qcow2", "refcount table", [(48, [0, 0, 1, 0, 0, 0, 0, 0])]),
      ("refcount-size.qcow2", "refcount table", [(56, Array(whole[..<4]))]),
      ("snapshots.qcow2", "4294967295 snapshots", [(60, Array(whole[..<4]))]),
      ("features.qcow2", "bit 63", [(72, [0x80, 0, 0, 0, 0, 0, 0, 0])]),
      ("extension.qcow2", "extension", [(104, [0xE2, 0x79, 0x2A, 0xCA] + whole[..<4])]),
      ("name.qcow2", "backing file's name", [(8, whole), (16, [0, 0, 0, 9])]),
    ]
    for (name, word, patches) in cases { try expectRefusedDisk(try disk(name, patches), says: word) }
    for count in [10, 100, 4096, 9000] { try expectRefusedDisk(try disk("cut-\(count).qcow2", [], cutTo: count)) }
    // The L2 table is the L1 table: a loop.
    let sound = [UInt8](try Data(contentsOf: URL(fileURLWithPath: try disk("sound.qcow2", []))))
    let l1 = sound[40..<48].reduce(0) { $0 << 8 | Int($1) }
    try expectRefusedDisk(try disk("loop.qcow2", [(l1, [0x80] + sound[41..<48])]), says: "overlaps")
  }

  @Test func backingLoops() throws {
    func overlay(_ name: String, on base: String) throws -> String {
      let path = program[name]
      let outcome = try Subprocess.runAndWait(
        "qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, path, "1M"])
      try #require(outcome.succeeded, "\(outcome.errorText)")
      return path
    }
    try expectRefusedDisk(try overlay("self.qcow2", on: "self.qcow2"), says: "back to itself")
    _ = try overlay("b.qcow2", on: "a.qcow2")
    try expectRefusedDisk(try overlay("a.qcow2", on: "b.qcow2"), says: "back to itself")
    try expectRefusedDisk(try overlay("gone.qcow2", on: "nothing.qcow2"), code: 66, says: "nothing.qcow2")
    try expectRefusedDisk(try overlay("far.qcow2", on: "nbd://127.0.0.1/x"), says: "only files are supported")
    _ = try program.file("text.qcow2", Array("no image".utf8))
    try expectRefusedDisk(try overlay("text-top.qcow2", on: "text.qcow2"), says: "text.qcow2")
  }

  // MARK: Networks

  @Test(arguments: ["", "127.0.0.1:"])
  func aPortInUse(address: String) throws {
    let (socket, port) = try HTTPTestServer.listen()
    defer { close(socket) }
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "-m", "64M", "--net", "user", "-p", "\(address)\(port):22", code: 69,
      says: "port \(port)", "in use", "-p")
  }

  @Test func anAddressOfAnotherHost() throws {
    // 192.0.2.0/24 is for documentation (RFC 5737): no host has it.
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "-m", "64M", "--net", "user", "-p", "192.0.2.1:22022:22", code: 69,
      says: "192.0.2.1", "-p")
  }

  @Test func aWrongChecksumOnAMirror() throws {
    let packages = "Package: busybox-static\nVersion: 1\n"
    let release = """
      Codename: trixie
      SHA256:
       \(String(repeating: "0", count: 64)) \(packages.utf8.count) main/binary-riscv64/Packages

      """
    let list = "/debian/dists/trixie/main/binary-riscv64/Packages"
    let server = try HTTPTestServer(["/debian/dists/trixie/Release": .init(release), list: .init(packages)])
    let outcome = try program.run("image", "build", "--variant", "tiny", "--mirror", server.address + "/debian")
    #expect(outcome.status == 65)
    // The mirror isn't signed: that is said before.
    let lines = outcome.complaints.filter { !$0.hasPrefix("yadori: warning: ") }
    #expect(lines.count == 1)
    #expect(lines.first?.contains("\(server.address)\(list) has a wrong checksum") == true, "\(outcome.error)")
    #expect(!program.names.contains { $0.hasSuffix("Packages") || $0.hasPrefix("images/") })
  }

  // MARK: Full disks

  /// Every file that the program writes may have no more than so many blocks of 512 bytes.
  private func limit(_ blocks: Int) -> String { "trap '' XFSZ; ulimit -f \(blocks); exec \"$@\"" }

  @Test func aStateThatCanNotBeWritten() throws {
    let arguments = ["run", "--kernel", try program.kernel(), "-m", "64M", "--save-state-at", "1000", program["state"]]
    let before = program.names
    try program.expectRefusal(arguments, shell: limit(0), code: 74, says: [program["state"]])
    #expect(program.names == before)
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "-m", "64M", "--save-state-at", "1000", "/nowhere/state", code: 73,
      says: "/nowhere/state")
  }

  @Test(.enabled(if: canMount, "this host doesn't let users mount"))
  func aStateOnAFullDisk() throws {
    // What is on the disk at the end stands on standard output.
    let shell =
      "mkdir \"$0/small\" && mount -t tmpfs -o size=4k none \"$0/small\" && \"$@\"; s=$?; find \"$0/small\" -type f; exit $s"
    let kernel = try program.kernel()
    let arguments = ["run", "--kernel", kernel, "-m", "64M", "--save-state-at", "1000", program["small/state"]]
    let outcome = try Subprocess.runAndWait(
      "unshare", ["-rm", "sh", "-c", shell, program.folder.path, program.path] + arguments,
      environment: program.environment)
    #expect(outcome.status == 74, "\(outcome.errorText)")
    #expect(outcome.errorText.split(separator: "\n").count == 1)
    #expect(outcome.errorText.contains(program["small/state"]) && outcome.errorText.contains("No space left"))
    #expect(outcome.output.isEmpty)
  }
}

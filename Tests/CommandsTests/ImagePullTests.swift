import Foundation
import HTTPTestServer
import HostSystem
import Images
import Storage
import Testing

/// `yadori image pull` and `export`, through the program.
@Suite struct ImagePullTests {
  let program: Program
  /// Of the image "sample".
  private let kernel = [UInt8](repeating: 1, count: 5000)
  private let ramdisk = [UInt8](repeating: 2, count: 9000)
  private let disk: [UInt8]

  init() throws {
    program = try Program()
    // What doesn't compress, so that a small host disk can't hold it.
    var generator = SystemRandomNumberGenerator()
    disk = (0..<(1 << 17)).flatMap { _ in withUnsafeBytes(of: generator.next() as UInt64) { [UInt8]($0) } }
  }

  private func digest(_ bytes: [UInt8]) -> String { Checksum.hexadecimal(.sha256, of: bytes) }

  private func manifest(_ changes: [String: Any] = [:]) throws -> [UInt8] {
    func file(_ name: String, _ bytes: [UInt8]) -> [String: Any] {
      ["name": name, "byteCount": bytes.count, "sha256": digest(bytes)]
    }
    let all: [String: Any] = [
      "formatVersion": 1, "name": "sample", "distribution": "debian", "version": "13.1", "variant": "standard",
      "architecture": "riscv64", "created": "2026-01-01T00:00:00Z", "commandLine": "root=/dev/vda rw",
      "hostname": "sample", "mirror": "http://mirror/debian", "signatureChecked": true, "packages": [String](),
      "kernel": file("kernel", kernel), "initialRamdisk": file("initrd", ramdisk),
      "disk": ["file": file("disk.raw", disk), "format": "raw", "virtualByteCount": disk.count] as [String: Any],
    ]
    return [UInt8](try JSONSerialization.data(withJSONObject: all.merging(changes) { $1 }))
  }

  private func archive(_ changes: [String: Any] = [:]) throws -> [UInt8] {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for (name, bytes) in [
      ("manifest.json", try manifest(changes)), ("kernel", kernel), ("initrd", ramdisk), ("disk.raw", disk),
    ] { try writer.add(TarEntry(path: name, kind: .file, mode: 0o644), content: bytes) }
    try writer.finish()
    return sink.bytes
  }

  /// What is left of images, and of downloads.
  private var remains: [String] { program.names.filter { $0.hasPrefix("images/") || $0.hasPrefix("yadori/images/") } }

  @Test func anImageGoesFromHostToHost() throws {
    let server = try HTTPTestServer()
    let first = try program.run("image", "pull", try program.file("in.tar", try archive()))
    #expect(first.status == 0, "\(first.error)")
    #expect(first.output == program["images/sample"] + "\n")
    let file = program["out.tar.zst"]
    let exported = try program.run("image", "export", "sample", file)
    #expect(exported.status == 0, "\(exported.error)")
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file)))
    var page = HTTPTestServer.Page(bytes)
    page.cuts = [300_000]
    server["/sample.tar.zst"] = page
    let url = server.address + "/sample.tar.zst"
    let pulled = try program.run("image", "pull", url, "--name", "copy", "--sha256", digest(bytes))
    #expect(pulled.status == 0, "\(pulled.error)")
    #expect(server.requests == [.init("/sample.tar.zst"), .init("/sample.tar.zst", from: 300_000)])
    for (name, content) in [("kernel", kernel), ("initrd", ramdisk), ("disk.raw", disk)] {
      #expect(FileManager.default.contents(atPath: program["images/copy/\(name)"]) == Data(content))
    }
    let list = try program.run("image", "list").output
    #expect(list.contains("copy") && list.contains("sample"))
    #expect(try program.run("image", "info", "copy").output.contains("root=/dev/vda rw"))
    // The second time comes from the cache.
    server.forgetRequests()
    #expect(try program.run("image", "pull", url, "--name", "third", "--sha256", digest(bytes)).status == 0)
    #expect(server.requests.isEmpty)
    try program.expectRefusal("image", "pull", url, "--name", "copy", code: 64, says: "copy", "--name")
    try program.expectRefusal("image", "export", "sample", file, code: 64, says: file, "already")
    #expect(try program.run("image", "remove", "copy", "third").status == 0)
  }

  @Test func wrongChecksums() throws {
    let bytes = try archive()
    let server = try HTTPTestServer(["/a.tar": .init(bytes)])
    let url = server.address + "/a.tar"
    try program.expectRefusal(
      "image", "pull", url, "--sha256", digest([]), code: 65, says: url, digest(bytes), "--sha256")
    try program.expectRefusal("image", "pull", url, "--sha256", "abc", code: 64, says: "--sha256", "64 hex digits")
    var damaged = bytes
    damaged[bytes.count - 5000] ^= 1
    server["/a.tar"] = .init(damaged)
    try program.expectRefusal("image", "pull", url, code: 65, says: url, "disk.raw")
    #expect(remains.isEmpty)
  }

  @Test func serversThatDoNotHelp() throws {
    let port = try HTTPTestServer.freePort()
    try program.expectRefusal(
      "image", "pull", "http://127.0.0.1:\(port)/a.tar", code: 69, says: "127.0.0.1:\(port)/a.tar", "check the network")
    let server = try HTTPTestServer(["/page": .init("<html>not found</html>")])
    try program.expectRefusal("image", "pull", server.address + "/a.tar", code: 66, says: "/a.tar", "check the URL")
    try program.expectRefusal("image", "pull", server.address + "/page", code: 65, says: "/page", "yadori image export")
    try program.expectRefusal("image", "pull", "ftp://127.0.0.1/a.tar", code: 64, says: "ftp://127.0.0.1/a.tar")
    try program.expectRefusal("image", "pull", "/nowhere/a.tar", code: 66, says: "/nowhere/a.tar")
    #expect(remains.isEmpty)
  }

  @Test func imagesForOtherMachines() throws {
    for (changes, word) in [
      (["architecture": "aarch64"], "aarch64"), (["formatVersion": 2], "formatVersion is 2"),
      (["name": "../../evil"], "--name"),
    ] as [([String: Any], String)] {
      let path = try program.file("other.tar", try archive(changes))
      try program.expectRefusal("image", "pull", path, code: 65, says: "other.tar", word)
    }
    #expect(remains.isEmpty)
  }

  @Test(arguments: [SIGINT, SIGTERM])
  func stopsWhenAsked(signal: Int32) throws {
    let bytes = try archive()
    var page = HTTPTestServer.Page(bytes)
    let gate = DispatchSemaphore(value: 0)
    page.gate = gate
    let server = try HTTPTestServer(["/a.tar": page])
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program.path)
    process.arguments = ["image", "pull", server.address + "/a.tar"]
    process.environment = program.environment
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    // The server has been asked, so the program is at work.
    let end = Date() + 60
    while server.requests.isEmpty && Date() < end { usleep(10_000) }
    try #require(server.requests.count == 1)
    kill(process.processIdentifier, signal)
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    gate.signal()
    #expect(process.terminationReason == .exit && process.terminationStatus == 75)
    #expect(text.split(separator: "\n").last == "yadori: stopped; what was downloaded is kept for the next time")
    #expect(!program.names.contains { $0.hasPrefix("images/") })
    #expect(try program.run("image", "pull", server.address + "/a.tar").status == 0)
  }

  // MARK: Full disks

  /// No file may have more than 64 blocks of 512 bytes.
  private static let limit = "trap '' XFSZ; ulimit -f 64; exec \"$@\""

  @Test func nothingIsLeftWhenTheDiskIsFull() throws {
    let bytes = try archive()
    let server = try HTTPTestServer(["/a.tar": .init(bytes)])
    // While fetching, with the cache folder on it.
    try FileManager.default.createDirectory(atPath: program["yadori/images"], withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(
      atPath: program["yadori/images/\(digest(bytes)).part"], withDestinationPath: "/dev/full")
    try program.expectRefusal(
      ["image", "pull", server.address + "/a.tar", "--sha256", digest(bytes)], code: 74,
      says: ["\(digest(bytes)).part", "the disk is full", "free some space"])
    try FileManager.default.removeItem(atPath: program["yadori"])
    // While unpacking.
    let path = try program.file("a.tar", bytes)
    try program.expectRefusal(["image", "pull", path], shell: Self.limit, code: 74, says: ["disk.raw"])
    #expect(remains.isEmpty)
    // While exporting.
    #expect(try program.run("image", "pull", path).status == 0)
    let before = program.names
    for name in ["out.tar", "out.tar.zst"] {
      try program.expectRefusal(
        ["image", "export", "sample", program[name]], shell: Self.limit, code: 74, says: [program[name]])
    }
    #expect(program.names == before)
  }

  @Test(.enabled(if: canMount, "this host doesn't let users mount"))
  func unpackingOnAFullDisk() throws {
    let path = try program.file("a.tar", try archive())
    // What is on the disk at the end stands on standard output.
    let shell = """
      mkdir "$0/images" && mount -t tmpfs -o size=512k none "$0/images" && "$@"
      status=$?
      find "$0/images" -mindepth 1
      exit $status
      """
    let outcome = try Subprocess.runAndWait(
      "unshare", ["-rm", "sh", "-c", shell, program.folder.path, program.path, "image", "pull", path],
      environment: program.environment)
    #expect(outcome.status == 74, "\(outcome.errorText)")
    let lines = outcome.errorText.split(separator: "\n").filter { !$0.hasPrefix("[") }
    #expect(lines.count == 1)
    #expect(lines.last?.contains("disk.raw") == true && lines.last?.contains("the disk is full") == true)
    #expect(outcome.output.isEmpty)
  }

  /// Machines had folders of their names before there was a registry.
  @Test func anOlderMachinesDiskIsKeptWhateverHappens() throws {
    #expect(try program.run("image", "pull", try program.file("a.tar", try archive())).status == 0)
    let disk = try program.file("machines/sample/disk.qcow2", Array("not a disk, but mine".utf8))
    for flags in [["-d"], []] {
      #expect(try program.run(["run", "sample"] + flags).status != 0)
      #expect(FileManager.default.contents(atPath: disk) == Data("not a disk, but mine".utf8))
    }
  }

  @Test func aMachinesDiskThatCanNotBeMade() throws {
    #expect(try program.run("image", "pull", try program.file("a.tar", try archive())).status == 0)
    #expect(try program.run("list").status == 0)
    try program.expectRefusal(
      ["run", "sample"], shell: "trap '' XFSZ; ulimit -f 0; exec \"$@\"", code: 74,
      says: [program["machines/"], "disk.qcow2"])
    #expect(!program.names.contains { $0.contains("disk.qcow2") })
  }
}

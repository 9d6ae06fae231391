import Foundation
import HostSystem
import Testing

/// The program as a person meets it: bad input is one line that says what to do, and an exit code of sysexits(3).
@Suite struct CommandLineTests {
  let folder: URL
  /// The program beside the test bundle.
  let program: String

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var place = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    while place.path != "/", !FileManager.default.isExecutableFile(atPath: place.appendingPathComponent("yadori").path)
    {
      place.deleteLastPathComponent()
    }
    program = place.appendingPathComponent("yadori").path
    try #require(FileManager.default.isExecutableFile(atPath: program), "build the product yadori first")
  }

  private func run(_ arguments: String...) throws -> (status: Int32, output: String, error: String) {
    var environment = ProcessInfo.processInfo.environment
    environment["YADORI_HOME"] = folder.path
    environment["XDG_CACHE_HOME"] = folder.path
    let outcome = try Subprocess.runAndWait(program, arguments, environment: environment)
    return (
      outcome.status, String(decoding: outcome.output, as: UTF8.self),
      String(decoding: outcome.errorOutput, as: UTF8.self)
    )
  }

  /// Expects one line on standard error with these words, and this exit code.
  private func expectRefusal(
    _ arguments: String..., code: Int32, says words: String..., location: SourceLocation = #_sourceLocation
  ) throws {
    var environment = ProcessInfo.processInfo.environment
    environment["YADORI_HOME"] = folder.path
    environment["XDG_CACHE_HOME"] = folder.path
    let outcome = try Subprocess.runAndWait(program, arguments, environment: environment)
    let error = String(decoding: outcome.errorOutput, as: UTF8.self)
    #expect(outcome.status == code, "\(arguments): \(error)", sourceLocation: location)
    // Steps of a long work may stand before it.
    let lines = error.split(separator: "\n").filter { !$0.hasPrefix("[") }
    #expect(lines.count == 1, "\(error)", sourceLocation: location)
    for word in words { #expect(lines.last?.contains(word) == true, "\(error)", sourceLocation: location) }
  }

  private func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    let path = folder.appendingPathComponent(name).path
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    return path
  }

  /// A Linux Image header with nothing behind it.
  private func kernel() throws -> String {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.replaceSubrange(0..<4, with: [0x6F, 0, 0, 0])
    bytes.replaceSubrange(8..<16, with: [0, 0, 0x20, 0, 0, 0, 0, 0])
    bytes.replaceSubrange(16..<24, with: [0, 0x10, 0, 0, 0, 0, 0, 0])
    bytes.replaceSubrange(48..<56, with: Array("RISCV\0\0\0".utf8))
    bytes.replaceSubrange(56..<60, with: Array("RSC\u{05}".utf8))
    return try file("Image", bytes)
  }

  @Test func filesThatAreNotThere() throws {
    try expectRefusal("run", "--kernel", "/nowhere/Image", code: 66, says: "--kernel", "/nowhere/Image")
    try expectRefusal("run", "--kernel", folder.path, code: 66, says: "folder")
    try expectRefusal("run", "./missing.elf", code: 66, says: "missing.elf")
    try expectRefusal(
      "run", "--kernel", try kernel(), "--disk", "/nowhere/disk.img", code: 66, says: "/nowhere/disk.img")
    try expectRefusal("run", "--load-state", "/nowhere/state", code: 66, says: "/nowhere/state")
    try expectRefusal("disassemble", "/nowhere/file", code: 66, says: "/nowhere/file")
  }

  @Test func programsForOtherMachines() throws {
    try expectRefusal("run", program, code: 65, says: "another architecture", "x86-64")
  }

  @Test(arguments: ["0", "3", "100T"])
  func impossibleMemory(size: String) throws {
    try expectRefusal("run", "--kernel", try kernel(), "-m", size, code: 64, says: "-m")
  }

  @Test func anInitialRAMDiskThatDoesNotFit() throws {
    let path = folder.appendingPathComponent("initrd").path
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    #expect(truncate(path, 200 << 20) == 0)
    try expectRefusal(
      "run", "--kernel", try kernel(), "--initrd", path, "-m", "64M", code: 78, says: "initrd")
  }

  @Test func unknownFlagsAndVerbs() throws {
    try expectRefusal("run", "--kernal", "x", code: 64, says: "--kernal", "--kernel")
    try expectRefusal("run", code: 64, says: "say what to run")
    try expectRefusal(
      "run", "--kernel", try kernel(), "--net", "bridge", code: 64, says: "bridge", "user, tap=NAME or none")
    try expectRefusal("run", "--kernel", try kernel(), "-p", "22:22", code: 64, says: "--net user")
    try expectRefusal("run", "--kernel", try kernel(), "--net", "user", "-p", "22", code: 64, says: "port")
  }

  @Test func unknownImages() throws {
    try expectRefusal("run", "debain", code: 66, says: "debain")
    try expectRefusal("image", "info", "nothing", code: 66, says: "nothing")
    try expectRefusal("image", "remove", "nothing", code: 66, says: "nothing")
  }

  @Test func aMirrorThatCanNotBeReached() throws {
    // Port 9 of this host: nobody listens.
    try expectRefusal(
      "image", "build", "--variant", "tiny", "--mirror", "http://127.0.0.1:9/debian", code: 69, says: "127.0.0.1:9")
  }

  @Test func aDiskInUse() throws {
    let disk = folder.appendingPathComponent("disk.img").path
    #expect(FileManager.default.createFile(atPath: disk, contents: Data(count: 1 << 20)))
    let descriptor = open(disk, O_RDWR)
    defer { close(descriptor) }
    #expect(flockWhole(descriptor))
    try expectRefusal(
      "run", "--kernel", try kernel(), "--disk", disk, "-m", "64M", code: 69, says: "disk.img", "in use")
  }

  /// The lock that another machine would hold.
  private func flockWhole(_ descriptor: Int32) -> Bool { HostFileLock.lock(descriptor, exclusive: true) }

  @Test func corruptDisks() throws {
    let disk = try file("disk.qcow2", Array("QFI\u{FB}".unicodeScalars.map { UInt8($0.value) }) + [0, 0, 0, 3, 0, 0])
    try expectRefusal("run", "--kernel", try kernel(), "--disk", disk, "-m", "64M", code: 65, says: "disk.qcow2")
  }

  @Test func whatTheProcessorImplements() throws {
    let result = try run("isa", "--string")
    #expect(result.status == 0)
    #expect(result.output.hasPrefix("rv64imafdc_zicbom"))
  }

  @Test func plainCodeIsDisassembled() throws {
    let path = try file("code", [0x13, 0x05, 0x10, 0x00, 0x82, 0x80])
    let result = try run("disassemble", "--raw", path)
    #expect(result.status == 0)
    #expect(result.output.contains("li a0, 0x1"))
    #expect(result.output.contains("ret"))
  }
}

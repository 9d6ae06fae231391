import Foundation
import HostSystem
import Testing

/// The program as a person meets it: bad input is one line that says what to do, and an exit code of sysexits(3).
@Suite struct CommandLineTests {
  let program: Program

  init() throws { program = try Program() }

  @Test func filesThatAreNotThere() throws {
    try program.expectRefusal("run", "--kernel", "/nowhere/Image", code: 66, says: "--kernel", "/nowhere/Image")
    try program.expectRefusal("run", "--kernel", program.folder.path, code: 66, says: "folder")
    try program.expectRefusal("run", "./missing.elf", code: 66, says: "missing.elf")
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--disk", "/nowhere/disk.img", code: 66, says: "/nowhere/disk.img")
    try program.expectRefusal("run", "--load-state", "/nowhere/state", code: 66, says: "/nowhere/state")
    try program.expectRefusal("disassemble", "/nowhere/file", code: 66, says: "/nowhere/file")
  }

  @Test func programsForOtherMachines() throws {
    try program.expectRefusal("run", program.path, code: 65, says: "another architecture", "x86-64")
  }

  @Test(arguments: ["0", "3", "100T"])
  func impossibleMemory(size: String) throws {
    try program.expectRefusal("run", "--kernel", try program.kernel(), "-m", size, code: 64, says: "-m")
  }

  @Test func anInitialRAMDiskThatDoesNotFit() throws {
    let path = program["initrd"]
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    #expect(truncate(path, 200 << 20) == 0)
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--initrd", path, "-m", "64M", code: 78, says: "initrd")
  }

  @Test func unknownFlagsAndVerbs() throws {
    try program.expectRefusal("run", "--kernal", "x", code: 64, says: "--kernal", "--kernel")
    try program.expectRefusal("run", code: 64, says: "say what to run")
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--net", "bridge", code: 64, says: "bridge", "user, tap=NAME or none")
    try program.expectRefusal("run", "--kernel", try program.kernel(), "-p", "22:22", code: 64, says: "--net user")
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--net", "user", "-p", "22", code: 64, says: "port")
  }

  @Test func unknownImages() throws {
    try program.expectRefusal("run", "debain", code: 66, says: "debain")
    try program.expectRefusal("image", "info", "nothing", code: 66, says: "nothing")
    try program.expectRefusal("image", "remove", "nothing", code: 66, says: "nothing")
  }

  @Test func aMirrorThatCanNotBeReached() throws {
    // Port 9 of this host: nobody listens.
    try program.expectRefusal(
      "image", "build", "--variant", "tiny", "--mirror", "http://127.0.0.1:9/debian", code: 69, says: "127.0.0.1:9")
  }

  @Test func aDiskInUse() throws {
    let disk = program["disk.img"]
    #expect(FileManager.default.createFile(atPath: disk, contents: Data(count: 1 << 20)))
    let descriptor = open(disk, O_RDWR)
    defer { close(descriptor) }
    #expect(flockWhole(descriptor))
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--disk", disk, "-m", "64M", code: 69, says: "disk.img", "in use")
  }

  /// The lock that another machine would hold.
  private func flockWhole(_ descriptor: Int32) -> Bool { HostFileLock.lock(descriptor, exclusive: true) }

  @Test func corruptDisks() throws {
    let disk = try program.file(
      "disk.qcow2", Array("QFI\u{FB}".unicodeScalars.map { UInt8($0.value) }) + [0, 0, 0, 3, 0, 0])
    try program.expectRefusal(
      "run", "--kernel", try program.kernel(), "--disk", disk, "-m", "64M", code: 65, says: "disk.qcow2")
  }

  @Test func theLastOutputIsNeverLost() throws {
    // Prints an x to the UART and powers off by the test finisher, in one breath.
    let words: [UInt32] = [
      0x1000_02B7, 0x0780_0313, 0x0062_8023, 0x0010_02B7, 0x0000_5337, 0x5553_031B, 0x0062_A023, 0x0000_006F,
    ]
    let code = try program.file("code.bin", words.flatMap { word in (0..<4).map { UInt8(word >> ($0 * 8) & 0xFF) } })
    for _ in 0..<20 {
      let result = try program.run("run", "--firmware", "none", "--kernel", code, "-m", "16M")
      #expect(result.status == 0)
      #expect(result.output == "x")
    }
  }

  @Test func impossibleEngines() throws {
    try program.expectRefusal("run", "x.elf", "--threshold", "0", code: 64, says: "--threshold", "1 to 255")
    try program.expectRefusal(
      "run", "--engine", "interpreter", "--threshold", "5", "--kernel", try program.kernel(), code: 64,
      says: "--threshold")
    try program.expectRefusal("run", "--engine", "magic", code: 64, says: "--engine", "translator", "audit")
    try program.expectRefusal(
      "run", "--engine", "audit", "-c", "2", "--kernel", try program.kernel(), code: 64, says: "-c", "audit")
    try program.expectRefusal(
      "run", "x.elf", "--engine", "audit", "--threshold", "256", code: 64, says: "--threshold", "1 to 255")
  }

  @Test func whatTheProcessorImplements() throws {
    let result = try program.run("isa", "--string")
    #expect(result.status == 0)
    #expect(result.output.hasPrefix("rv64imafdc_zicbom"))
  }

  @Test func plainCodeIsDisassembled() throws {
    let path = try program.file("code", [0x13, 0x05, 0x10, 0x00, 0x82, 0x80])
    let result = try program.run("disassemble", "--raw", path)
    #expect(result.status == 0)
    #expect(result.output.contains("li a0, 0x1"))
    #expect(result.output.contains("ret"))
  }
}

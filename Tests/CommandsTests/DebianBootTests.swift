import Foundation
import HostSystem
import Testing

/// Debian's own kernel in a machine of ours, from a mirror to a file that is there at the next boot. Needs the mirror
/// that this host's apt uses, or YADORI_MIRROR.
@Suite(.serialized, .enabled(if: hasMirror, "no Debian mirror: set YADORI_MIRROR"))
struct DebianBootTests {
  let folder: URL
  let program: String

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let bundle = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    program = bundle.appendingPathComponent("yadori").path
    try #require(FileManager.default.isExecutableFile(atPath: program), "build the product yadori first")
    #expect(try run("image", "build", "--variant", "tiny").status == 0)
  }

  private func run(_ arguments: String...) throws -> (status: Int32, output: String) {
    var environment = ProcessInfo.processInfo.environment
    environment["YADORI_HOME"] = folder.path
    let outcome = try Subprocess.runAndWait("timeout", ["300", program] + arguments, environment: environment)
    if outcome.status != 0 { print(String(decoding: outcome.errorOutput, as: UTF8.self)) }
    return (outcome.status, String(decoding: outcome.output, as: UTF8.self))
  }

  /// Boots the image with a disk and runs a shell command in the guest.
  private func boot(_ command: String, _ more: [String] = []) throws -> String {
    let disk = folder.appendingPathComponent("disk.img").path
    if !FileManager.default.fileExists(atPath: disk) {
      #expect(FileManager.default.createFile(atPath: disk, contents: nil) && truncate(disk, 16 << 20) == 0)
    }
    var environment = ProcessInfo.processInfo.environment
    environment["YADORI_HOME"] = folder.path
    let parameter = "yadori.run=" + command.replacingOccurrences(of: " ", with: "%20")
    let outcome = try Subprocess.runAndWait(
      "timeout", ["300", program, "run", "tiny", "--disk", disk, "--append", parameter] + more,
      environment: environment)
    #expect(outcome.status == 0)
    return String(decoding: outcome.output, as: UTF8.self)
  }

  @Test func aFileFromTheHostsServerIsThereAtTheNextBoot() throws {
    let site = folder.appendingPathComponent("site")
    try FileManager.default.createDirectory(at: site, withIntermediateDirectories: true)
    let secret = "lodging-\(UInt64.random(in: 0 ... .max))"
    try Data((secret + "\n").utf8).write(to: site.appendingPathComponent("page"))
    let server = Process()
    server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    server.arguments = ["python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", site.path]
    let output = Pipe()
    server.standardOutput = output
    server.standardError = FileHandle.nullDevice
    try server.run()
    // Other signals may be blocked in it, as they are in the thread that starts it.
    defer { kill(server.processIdentifier, SIGKILL) }
    // "Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ..."
    let greeting = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self).split(separator: " ")
    let word = try #require(greeting.firstIndex(of: "port"))
    let port = try #require(UInt16(greeting[word + 1]))

    let first = try boot(
      "mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && wget -q -O /mnt/page http://10.0.2.2:\(port)/page; umount /mnt"
    )
    #expect(first.contains("the command ended with status 0"))
    let second = try boot("mount /dev/vda /mnt && cat /mnt/page")
    #expect(second.contains(secret))
  }

  @Test func bothTransportsAndTwoHartsBoot() throws {
    #expect(try boot("nproc; ls /sys/bus/virtio/drivers/virtio_blk", ["-c", "2"]).contains("virtio0"))
  }
}

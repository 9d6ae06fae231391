import Foundation
import Storage
import Testing

/// Disks whose guest has written to them what would be an image with a file of the host behind it.
@Suite struct UntrustedDiskTests {
  private let program: Program

  init() throws { program = try Program() }

  private func expectSuccess(_ arguments: String..., location: SourceLocation = #_sourceLocation) throws {
    let outcome = try program.run(arguments)
    #expect(outcome.status == 0, "\(outcome.error)", sourceLocation: location)
  }

  private func bytes(_ path: String, _ format: DiskFormat) throws -> [UInt8] {
    let disk = try DiskImage.open(path: path, readOnly: true, format: format)
    defer { try? disk.close() }
    var bytes = [UInt8](repeating: 0, count: Int(disk.byteCount))
    try bytes.withUnsafeMutableBytes { try disk.read(at: 0, into: $0) }
    return bytes
  }

  @Test func aRawDiskStaysRawInWhatIsMadeOfIt() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let secret = try program.file("secret", [UInt8](repeating: 7, count: 1 << 16))
    let disk = program["disk"]
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (secret, .raw))
    let content = try bytes(disk, .raw)
    try expectSuccess(
      "run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M", "--disk", disk + ",format=raw")
    try expectSuccess("save", "web", program["saved"])
    try expectSuccess("restore", program["saved"], "--name", "again")
    try expectSuccess("clone", "web", "copy")
    try expectSuccess("snapshot", "create", "web", "first")
    try expectSuccess("snapshot", "revert", "web", "first")
    for name in ["web", "again", "copy"] { try expectSuccess("kill", name) }
    let saved = try String(contentsOfFile: program["saved/machine"], encoding: .utf8)
    #expect(saved.contains("disk-0") && !saved.contains("secret"))
    let overlays = program.names.filter { $0.hasPrefix("machines/") && $0.hasSuffix(".qcow2") }
    #expect(overlays.count == 3)
    for overlay in overlays {
      #expect(try DiskImage.information(path: program[overlay], format: .qcow2).backingFormat == "raw")
      #expect(try bytes(program[overlay], .qcow2) == content)
    }
    // One that is off is saved by who asks.
    try expectSuccess("save", "copy", program["off"])
    try expectSuccess("restore", program["off"], "--name", "third")
    #expect(try !String(contentsOfFile: program["off/machine"], encoding: .utf8).contains("secret"))
    for name in ["web", "again", "copy", "third"] { try expectSuccess("remove", "-f", name) }
  }

  /// What a disk is, where nobody says it, is found out when the machine is made.
  @Test func aDiskIsWhatItWasAtFirst() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    let secret = try program.file("secret", [UInt8](repeating: 7, count: 1 << 16))
    let disk = try program.file("disk", [UInt8](repeating: 0, count: 1 << 16))
    let run = ["run", "-d", "--name", "web", "--kernel", try program.kernel(), "-m", "64M"]
    #expect(try program.run(run + ["--disk", disk]).status == 0)
    try expectSuccess("kill", "web")
    try FileManager.default.removeItem(atPath: disk)
    try DiskImage.create(path: disk, format: .qcow2, size: nil, backing: (secret, .raw))
    for command in [["start", "web"], ["save", "web", program["saved"]], run] {
      let outcome = try program.run(command)
      #expect(outcome.status == 77 && outcome.error.contains("was a raw disk"), "\(command) \(outcome)")
    }
    // Unless somebody says otherwise.
    #expect(try program.run(run + ["--disk", disk + ",format=qcow2"]).status == 0)
    try expectSuccess("remove", "-f", "web")
  }
}

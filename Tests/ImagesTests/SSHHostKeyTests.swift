import Foundation
import HostSystem
import Images
import Testing

@Suite struct SSHHostKeyTests {
  /// RFC 8032, 7.1, the first test.
  private static let seed: [UInt8] = [
    0x9D, 0x61, 0xB1, 0x9D, 0xEF, 0xFD, 0x5A, 0x60, 0xBA, 0x84, 0x4A, 0xF4, 0x92, 0xEC, 0x2C, 0xC4, 0x44, 0x49, 0xC5,
    0x69,
    0x7B, 0x32, 0x69, 0x19, 0x70, 0x3B, 0xAC, 0x03, 0x1C, 0xAE, 0x7F, 0x60,
  ]
  private static let point: [UInt8] = [
    0xD7, 0x5A, 0x98, 0x01, 0x82, 0xB1, 0x0A, 0xB7, 0xD5, 0x4B, 0xFE, 0xD3, 0xC9, 0x64, 0x07, 0x3A, 0x0E, 0xE1, 0x72,
    0xF3,
    0xDA, 0xA6, 0x23, 0x25, 0xAF, 0x02, 0x1A, 0x68, 0xF7, 0x07, 0x51, 0x1A,
  ]

  @Test func thePublicKeyOfAKnownSeed() throws {
    let key = try #require(SSHHostKey(seed: Self.seed, comment: "root@web"))
    let words = key.publicFile.split(whereSeparator: \.isWhitespace)
    #expect(words.count == 3 && words[0] == "ssh-ed25519" && words[2] == "root@web")
    #expect(Data(base64Encoded: String(words[1]))?.suffix(32) == Data(Self.point))
    #expect(SSHHostKey(seed: [1, 2], comment: "") == nil)
    let others = try (0..<2).map { _ in try #require(SSHHostKey(comment: "c")).publicFile }
    #expect(others[0] != others[1])
  }

  /// OpenSSH's own tool reads the private file, and finds the public key in it.
  @Test(
    .enabled(if: Subprocess.find("ssh-keygen") != nil, "no ssh-keygen"), arguments: ["", "root@a", "root@longer-name"])
  func openSSHReadsIt(comment: String) throws {
    let key = try #require(SSHHostKey(comment: comment))
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("key-\(UUID().uuidString)").path
    defer { unlink(path) }
    try Data(key.privateFile.utf8).write(to: URL(fileURLWithPath: path))
    chmod(path, 0o600)
    let outcome = try Subprocess.runAndWait("ssh-keygen", ["-y", "-f", path])
    let said = String(decoding: outcome.output, as: UTF8.self).split(whereSeparator: \.isWhitespace)
    #expect(outcome.succeeded && said.prefix(2) == key.publicFile.split(whereSeparator: \.isWhitespace).prefix(2))
  }
}

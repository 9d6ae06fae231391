import CCrypto
import Foundation

/// A key by which an SSH server is known, made for a guest: Ed25519, in the files' format of OpenSSH (PROTOCOL.key), without
/// a passphrase.
public struct SSHHostKey {
  /// What ssh_host_ed25519_key and ssh_host_ed25519_key.pub hold.
  public let privateFile: String
  public let publicFile: String

  private static let kind = "ssh-ed25519"

  /// A new one. Nil where the host has no Ed25519.
  /// - Parameter comment: stands behind the public key, usually user@host.
  public init?(comment: String) {
    self.init(seed: (0..<32).map { _ in UInt8.random(in: .min ... .max) }, comment: comment)
  }

  /// Of 32 bytes that nobody else knows.
  package init?(seed: [UInt8], comment: String) {
    guard seed.count == 32, let key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, seed, 32) else { return nil }
    defer { EVP_PKEY_free(key) }
    var point = [UInt8](repeating: 0, count: 32)
    var count = 32
    guard EVP_PKEY_get_raw_public_key(key, &point, &count) == 1, count == 32 else { return nil }
    func number(_ value: Int) -> [UInt8] { withUnsafeBytes(of: UInt32(value).bigEndian) { Array($0) } }
    func string(_ bytes: some Collection<UInt8>) -> [UInt8] { number(bytes.count) + bytes }
    let shown = string(Self.kind.utf8) + string(point)
    let check = [UInt8](seed.prefix(4).map { $0 ^ 0x5A })
    var hidden = check + check + shown + string(seed + point) + string(comment.utf8)
    var padding: UInt8 = 1
    while hidden.count % 8 != 0 {
      hidden.append(padding)
      padding += 1
    }
    let file =
      Array("openssh-key-v1\0".utf8) + string("none".utf8) + string("none".utf8) + string([]) + number(1)
      + string(shown)
      + string(hidden)
    let lines = Data(file).base64EncodedString(options: [.lineLength64Characters, .endLineWithLineFeed])
    privateFile = "-----BEGIN OPENSSH PRIVATE KEY-----\n\(lines)\n-----END OPENSSH PRIVATE KEY-----\n"
    publicFile = "\(Self.kind) \(Data(shown).base64EncodedString()) \(comment)\n"
  }
}

import CCrypto

/// A checksum of bytes that come piece by piece, by OpenSSL's libcrypto.
package struct Checksum: ~Copyable {
  package enum Algorithm {
    case sha256
    /// What dpkg keeps for conffiles. It protects from nothing and isn't used to check anything here.
    case md5
  }

  private let context: OpaquePointer

  package init(_ algorithm: Algorithm) {
    guard let context = EVP_MD_CTX_new() else { fatalError("no memory for a checksum") }
    self.context = context
    // It fails where the host's policy has no such algorithm (MD5 under FIPS): then nothing can be said of any file.
    let isKnown = EVP_DigestInit_ex(context, algorithm == .sha256 ? EVP_sha256() : EVP_md5(), nil)
    precondition(isKnown == 1, "this host's OpenSSL refuses \(algorithm); change its configuration (openssl.cnf)")
  }

  deinit { EVP_MD_CTX_free(context) }

  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    precondition(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1)
  }

  /// The checksum of all bytes as lower-case hex digits. Nothing may follow.
  package consuming func finish() -> String {
    var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var count: UInt32 = 0
    precondition(EVP_DigestFinal_ex(context, &digest, &count) == 1)
    let digits = Array("0123456789abcdef".utf8)
    let characters = digest.prefix(Int(count)).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    return String(decoding: characters, as: UTF8.self)
  }

  package static func hexadecimal(_ algorithm: Algorithm, of bytes: some Sequence<UInt8>) -> String {
    var checksum = Checksum(algorithm)
    Array(bytes).withUnsafeBytes { checksum.update($0) }
    return checksum.finish()
  }
}

/// The SHA-256 of a file, as lower-case hex digits.
package func sha256(ofFile path: String, task: ImageTask? = nil) throws -> String {
  let source = try FileSource(path: path)
  var checksum = Checksum(.sha256)
  var chunk = [UInt8](repeating: 0, count: 1 << 20)
  while true {
    try task?.checkCancellation()
    let count = try chunk.withUnsafeMutableBytes { try source.read(into: $0) }
    if count == 0 { return checksum.finish() }
    chunk.withUnsafeBytes { checksum.update(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
  }
}

import Foundation

/// The Release file of a suite: which lists there are, with their sizes and checksums.
package struct ReleaseFile: Sendable {
  package struct List: Equatable, Sendable {
    package var byteCount: UInt64
    package var sha256: String
  }

  package var codename: String
  package var version: String?
  package var validUntil: Date?
  /// By the path below the suite's folder.
  package var lists: [String: List]

  package init(text: String, name: String) throws {
    guard let paragraph = try ControlParagraph.parse(text, name: name).first,
      let codename = paragraph["Codename"], let sums = paragraph["SHA256"]
    else { throw ImageError(.corrupt, "\(name) isn't a Release file with Codename and SHA256; check the mirror") }
    self.codename = codename
    version = paragraph["Version"]
    validUntil = paragraph["Valid-Until"].flatMap(Self.date)
    lists = [:]
    for line in sums.split(separator: "\n") {
      let words = line.split(whereSeparator: \.isWhitespace)
      guard words.count == 3, words[0].utf8.count == 64, let byteCount = UInt64(words[1]) else { continue }
      lists[String(words[2])] = List(byteCount: byteCount, sha256: words[0].lowercased())
    }
  }

  private static func date(_ text: String) -> Date? {
    let format = DateFormatter()
    format.locale = Locale(identifier: "en_US_POSIX")
    format.dateFormat = "EEE, dd MMM yyyy HH:mm:ss zzz"
    return format.date(from: text)
  }

  /// The part of a clear-signed text that is signed (RFC 9580, chapter 7), nil when it isn't one, or when there is
  /// anything else before, between or after its text and its signature: `gpgv` may speak of another part then.
  package static func signedText(_ text: String) -> String? {
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)[...]
    guard lines.popFirst()?.trimmingBlanks == "-----BEGIN PGP SIGNED MESSAGE-----" else { return nil }
    while let line = lines.popFirst(), !line.trimmingBlanks.isEmpty {}
    // Within the text such lines begin with "- ".
    guard let end = lines.firstIndex(where: { $0.hasPrefix("-----") }),
      lines[end].trimmingBlanks == "-----BEGIN PGP SIGNATURE-----"
    else { return nil }
    let rest = lines[(end + 1)...]
    guard let last = rest.firstIndex(where: { $0.hasPrefix("-----") }),
      rest[last].trimmingBlanks == "-----END PGP SIGNATURE-----",
      rest[(last + 1)...].allSatisfy({ $0.trimmingBlanks.isEmpty })
    else { return nil }
    return lines[..<end].map { $0.hasPrefix("- ") ? $0.dropFirst(2) : $0 }.joined(separator: "\n") + "\n"
  }
}

/// Checks the signatures of Release files with `gpgv` where the host has it.
package struct ReleaseSignature {
  package enum Verdict: Equatable, Sendable {
    case good(signer: String)
    /// Nobody could tell: the reason, in words for a person.
    case unknown(String)
  }

  package static let debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

  /// Verifies a clear-signed file, or a file with a signature beside it.
  ///
  /// - Parameters:
  ///   - keyring: what the user gave; then only a good signature will do.
  ///   - scratch: a folder for the program's own files.
  /// - Throws: when a signature is bad, whoever made it.
  package static func verify(
    _ path: String, detachedSignature: String? = nil, keyring: String?, scratch: String
  ) throws -> Verdict {
    func unknown(_ why: String) throws -> Verdict {
      if let keyring { throw ImageError(.corrupt, "no signature by a key of \(keyring): \(why)") }
      return .unknown(why)
    }
    if let keyring, fileByteCount(keyring) == nil { throw ImageError(.notFound, "the keyring \(keyring) isn't there") }
    guard let gpgv = SystemCommand.find("gpgv") else {
      return try unknown("the program gpgv isn't installed")
    }
    let keys = keyring ?? debianKeyring
    if fileByteCount(keys) == nil { return try unknown("the keyring \(keys) isn't installed") }
    let files = detachedSignature.map { [$0, path] } ?? [path]
    let result = try SystemCommand.run(gpgv, ["--status-fd", "1", "--keyring", keys] + files, in: scratch)
    return try verdict(result.output, path: path) ?? unknown("its keys aren't in the keyring \(keys)")
  }

  /// Reads what gpgv said (GnuPG: doc/DETAILS, "Format of the status-fd output"). Nil when no key was known.
  package static func verdict(_ status: String, path: String) throws -> Verdict? {
    var signer: String?
    for line in status.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 3)
      guard words.count >= 2, words[0] == "[GNUPG:]" else { continue }
      switch words[1] {
      case "BADSIG":
        throw ImageError(.corrupt, "\(path) has a bad signature; try another mirror")
      case "GOODSIG":
        if words.count == 4 { signer = String(words[3]) }
      default: break
      }
    }
    return signer.map { .good(signer: $0) }
  }
}

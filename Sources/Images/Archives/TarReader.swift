/// Reads a tar archive: ustar (POSIX.1-1988), pax extended headers (POSIX.1-2001), and GNU long names and numbers.
///
/// Everything in it may be hostile: paths that would leave the root, absurd sizes and damaged headers are refused.
package final class TarReader {
  private let source: ByteSource
  private let name: String
  private var content: LimitedSource?
  private var padding: UInt64 = 0

  /// - Parameter name: names the archive in errors.
  package init(_ source: ByteSource, name: String) {
    self.source = source
    self.name = name
  }

  /// The content of the entry that `next` returned last.
  package var contentSource: ByteSource { content ?? LimitedSource(source, count: 0, name: name) }

  private func damaged(_ why: String) -> ImageError { ImageError(.corrupt, "\(name): damaged tar archive: \(why)") }

  package func next() throws -> TarEntry? {
    if let content { try source.skip(content.remaining + padding, of: name) }
    content = nil
    var overrides: [String: String] = [:]
    while true {
      guard let header = try TarHeader(from: source, name: name) else { return nil }
      switch header.type {
      case UInt8(ascii: "L"), UInt8(ascii: "K"):
        var text = try metadata(header.byteCount, limit: 1 << 16)
        if let end = text.firstIndex(of: 0) { text.removeSubrange(end...) }
        overrides[header.type == UInt8(ascii: "L") ? "path" : "linkpath"] = try string(text)
      case UInt8(ascii: "x"):
        try parseExtendedHeader(metadata(header.byteCount, limit: 1 << 20), into: &overrides)
      case UInt8(ascii: "g"):
        _ = try metadata(header.byteCount, limit: 1 << 20)
      default:
        return try entry(header, overrides)
      }
    }
  }

  private func metadata(_ byteCount: UInt64, limit: UInt64) throws -> [UInt8] {
    if byteCount > limit { throw damaged("a name of \(byteCount) bytes") }
    let bytes = try source.readExactly(Int(byteCount), of: name)
    try source.skip((512 - byteCount % 512) % 512, of: name)
    return bytes
  }

  private func string(_ bytes: some Collection<UInt8>) throws -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw damaged("a name that isn't UTF-8") }
    return text
  }

  /// Records of the form "LENGTH KEY=VALUE\n", where the length counts the whole record.
  private func parseExtendedHeader(_ bytes: [UInt8], into overrides: inout [String: String]) throws {
    var position = 0
    while position < bytes.count {
      guard let space = bytes[position...].firstIndex(of: UInt8(ascii: " ")),
        let length = Int(String(decoding: bytes[position..<space], as: UTF8.self)),
        length > space - position + 1, length <= bytes.count - position,
        bytes[position + length - 1] == 0x0A,
        let equals = bytes[space..<position + length].firstIndex(of: UInt8(ascii: "="))
      else { throw damaged("an extended header without form") }
      let key = String(decoding: bytes[space + 1..<equals], as: UTF8.self)
      if ["path", "linkpath", "size", "uid", "gid", "mtime"].contains(key) {
        overrides[key] = try string(bytes[equals + 1..<position + length - 1])
      }
      position += length
    }
  }

  private func entry(_ header: TarHeader, _ overrides: [String: String]) throws -> TarEntry {
    func number(_ key: String, _ plain: UInt64) throws -> UInt64 {
      guard let text = overrides[key] else { return plain }
      guard let value = UInt64(text.prefix { $0 != "." }) else { throw damaged("\(key) is \(text)") }
      return value
    }
    func identifier(_ key: String, _ plain: UInt64) throws -> UInt32 {
      guard let value = UInt32(exactly: try number(key, plain)) else { throw damaged("\(key) is too large") }
      return value
    }
    let written = try overrides["path"] ?? string(header.path)
    let link = try overrides["linkpath"] ?? string(header.linkName)
    guard let path = TarEntry.normalized(written) else { throw damaged("the path \(written) leaves the root") }
    let byteCount = try number("size", header.byteCount)
    var kind = TarEntry.Kind.file
    switch header.type {
    case 0, UInt8(ascii: "0"), UInt8(ascii: "7"):
      // Old archives mark a directory by its trailing slash only.
      kind = written.hasSuffix("/") ? .directory : .file
    case UInt8(ascii: "1"):
      guard let target = TarEntry.normalized(link), !target.isEmpty else {
        throw damaged("the link \(written) leaves the root")
      }
      kind = .hardLink(target)
    case UInt8(ascii: "2"):
      if link.isEmpty || link.utf8.contains(0) { throw damaged("the link \(written) points to nothing") }
      kind = .symbolicLink(link)
    case UInt8(ascii: "3"): kind = .characterDevice(major: header.deviceMajor, minor: header.deviceMinor)
    case UInt8(ascii: "4"): kind = .blockDevice(major: header.deviceMajor, minor: header.deviceMinor)
    case UInt8(ascii: "5"): kind = .directory
    case UInt8(ascii: "6"): kind = .namedPipe
    default: throw damaged("\(written) is of an unknown type")
    }
    if path.isEmpty && kind != .directory { throw damaged("an entry without a name") }
    // Links and directories may carry a size; only files carry content.
    let contentCount = kind == .file ? byteCount : 0
    if contentCount > 1 << 40 { throw damaged("\(written) is said to be \(byteCount) bytes long") }
    content = LimitedSource(source, count: contentCount, name: name)
    padding = (512 - contentCount % 512) % 512
    return TarEntry(
      path: path, kind: kind, mode: header.mode & 0o7777, user: try identifier("uid", header.user),
      group: try identifier("gid", header.group), modified: try number("mtime", header.modified),
      byteCount: contentCount)
  }
}

/// The fields of one header block.
private struct TarHeader {
  var path: [UInt8]
  var linkName: [UInt8]
  var mode: UInt32
  var user: UInt64
  var group: UInt64
  var byteCount: UInt64
  var modified: UInt64
  var type: UInt8
  var deviceMajor: UInt32
  var deviceMinor: UInt32

  /// Nil at the end of the archive.
  init?(from source: ByteSource, name: String) throws {
    var block = [UInt8](repeating: 0, count: 512)
    let count = try block.withUnsafeMutableBytes { try source.readFully(into: $0) }
    if count == 0 { return nil }
    if count < 512 { throw ImageError(.corrupt, "\(name) is cut short") }
    if block.allSatisfy({ $0 == 0 }) { return nil }
    func damaged() -> ImageError { ImageError(.corrupt, "\(name): damaged tar archive: a header without form") }
    func text(_ range: Range<Int>) -> [UInt8] { Array(block[range].prefix { $0 != 0 }) }
    func number(_ range: Range<Int>) throws -> UInt64 {
      if block[range.lowerBound] & 0x80 != 0 {
        // GNU: a big-endian binary number. Negative ones and those beyond 63 bits aren't for us.
        var value = UInt64(block[range.lowerBound] & 0x7F)
        for byte in block[range].dropFirst() {
          if value >> 55 != 0 { throw damaged() }
          value = value << 8 | UInt64(byte)
        }
        return value
      }
      var value: UInt64 = 0
      for byte in block[range].drop(while: { $0 == 0x20 }).prefix(while: { $0 != 0 && $0 != 0x20 }) {
        guard (0x30...0x37).contains(byte), value >> 60 == 0 else { throw damaged() }
        value = value << 3 | UInt64(byte - 0x30)
      }
      return value
    }
    let sum = block.enumerated().reduce(UInt64(0)) { $0 + UInt64((148..<156).contains($1.offset) ? 0x20 : $1.element) }
    if try number(148..<156) != sum { throw damaged() }
    path = text(0..<100)
    if block[257..<262].elementsEqual("ustar".utf8) && block[262] == 0 && block[345] != 0 {
      path = text(345..<500) + [UInt8(ascii: "/")] + path
    }
    linkName = text(157..<257)
    mode = UInt32(truncatingIfNeeded: try number(100..<108))
    user = try number(108..<116)
    group = try number(116..<124)
    byteCount = try number(124..<136)
    modified = try number(136..<148)
    type = block[156]
    deviceMajor = UInt32(truncatingIfNeeded: try number(329..<337))
    deviceMinor = UInt32(truncatingIfNeeded: try number(337..<345))
  }
}

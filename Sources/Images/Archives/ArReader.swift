/// Reads the members of an `ar` archive, the outer format of a Debian package (deb(5), ar(5)).
package final class ArReader {
  package struct Member: Equatable, Sendable {
    package var name: String
    package var byteCount: UInt64
  }

  private let source: ByteSource
  private let archiveName: String
  private var current: LimitedSource?
  private var currentIsOdd = false

  package init(_ source: ByteSource, name: String) throws {
    self.source = source
    archiveName = name
    if try source.readExactly(8, of: name) != Array("!<arch>\n".utf8) {
      throw ImageError(.corrupt, "\(name) isn't a Debian package (no ar archive)")
    }
  }

  /// The next member and a source of its bytes, which is valid until the next call; nil at the end.
  package func next() throws -> (Member, ByteSource)? {
    if let current {
      try source.skip(current.remaining + (currentIsOdd ? 1 : 0), of: archiveName)
    }
    var header = [UInt8](repeating: 0, count: 60)
    let count = try header.withUnsafeMutableBytes { try source.readFully(into: $0) }
    if count == 0 { return nil }
    guard count == 60, header[58...] == [0x60, 0x0A] else {
      throw ImageError(.corrupt, "\(archiveName): a member header of the ar archive is damaged")
    }
    func text(_ range: Range<Int>) -> String {
      String(decoding: header[range].prefix { $0 != 0x20 }, as: UTF8.self)
    }
    guard let byteCount = UInt64(text(48..<58)) else {
      throw ImageError(.corrupt, "\(archiveName): a member size of the ar archive is damaged")
    }
    var name = text(0..<16)
    if name.hasSuffix("/") { name.removeLast() }
    let body = LimitedSource(source, count: byteCount, name: archiveName)
    current = body
    currentIsOdd = byteCount % 2 == 1
    return (Member(name: name, byteCount: byteCount), body)
  }
}

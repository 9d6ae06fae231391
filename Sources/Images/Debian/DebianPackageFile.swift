/// A Debian binary package file (deb(5)), read from its beginning to its end.
package final class DebianPackageFile {
  package struct ControlFile: Sendable {
    package var name: String
    package var mode: UInt32
    package var content: [UInt8]
  }

  /// The paragraph of the file `control`.
  package let control: ControlParagraph
  /// All files of the control archive, with `control` among them.
  package let controlFiles: [ControlFile]
  /// The objects that the package installs. Read once.
  package let data: TarReader

  private let archive: ArReader

  package convenience init(path: String) throws { try self.init(FileSource(path: path), name: path) }

  package init(_ source: ByteSource, name: String) throws {
    archive = try ArReader(source, name: name)
    guard let (first, version) = try archive.next(), first.name == "debian-binary",
      try version.readAll(limit: 64, of: name).starts(with: Array("2.".utf8))
    else { throw ImageError(.corrupt, "\(name) isn't a Debian package of format 2") }
    var files: [ControlFile]?
    while true {
      guard let (member, body) = try archive.next() else {
        throw ImageError(.corrupt, "\(name) has no data archive; fetch it again")
      }
      if member.name.hasPrefix("control.tar") {
        files = try Self.controlFiles(try Self.archive(member, body, name), name)
      } else if member.name.hasPrefix("data.tar") {
        data = try Self.archive(member, body, name)
        break
      } else if !member.name.hasPrefix("_") {
        throw ImageError(.corrupt, "\(name) has a member \(member.name) that isn't known")
      }
    }
    guard let files, let text = files.first(where: { $0.name == "control" })?.content,
      let paragraph = try ControlParagraph.parse(String(decoding: text, as: UTF8.self), name: "\(name), control").first
    else { throw ImageError(.corrupt, "\(name) has no control file; fetch it again") }
    controlFiles = files
    control = paragraph
  }

  private static func archive(_ member: ArReader.Member, _ body: ByteSource, _ name: String) throws -> TarReader {
    let known = ["", ".xz", ".gz", ".zst"]
    guard known.contains(where: { member.name.hasSuffix(".tar" + $0) }) else {
      throw ImageError(.corrupt, "\(name): \(member.name) is compressed in a way that isn't known")
    }
    let source = try DecompressedSource(body, compression: Compression(fileName: member.name), name: name)
    return TarReader(source, name: name)
  }

  private static func controlFiles(_ reader: TarReader, _ name: String) throws -> [ControlFile] {
    var files: [ControlFile] = []
    while let entry = try reader.next() {
      guard entry.kind == .file else { continue }
      if entry.path.contains("/") { throw ImageError(.corrupt, "\(name) has a control file \(entry.path)") }
      let content = try reader.contentSource.readAll(limit: 1 << 26, of: "\(name), \(entry.path)")
      files.append(ControlFile(name: entry.path, mode: entry.mode, content: content))
    }
    return files
  }

  /// The text of a control file, nil when the package has none of this name.
  package func controlText(_ name: String) -> String? {
    controlFiles.first { $0.name == name }.map { String(decoding: $0.content, as: UTF8.self) }
  }
}

import Foundation
import Storage

/// An image as one file: a tar archive of the image's folder, plain or compressed.
///
/// Whoever made it isn't trusted: only the files that its manifest names come out of it, under plain names, with the
/// sizes and checksums that the manifest says, and a disk may not lead to another file.
struct ImageArchive {
  let path: String
  /// What errors call it.
  let name: String
  let task: ImageTask

  private static let manifestLimit = 1 << 24

  private func damaged(_ why: String) -> ImageError { ImageError(.corrupt, "\(name) \(why)") }

  private func open() throws -> (file: FileSource, reader: TarReader) {
    let file = try FileSource(path: path)
    return (file, TarReader(try DecompressedSource(file, compression: compression(), name: name), name: name))
  }

  private func compression() throws -> Compression {
    var start = [UInt8](repeating: 0, count: 6)
    let count = try start.withUnsafeMutableBytes { try FileSource(path: path).readFully(into: $0) }
    return Compression(magic: start.prefix(count))
  }

  /// The next entry, which is a file or a folder: an image has nothing else.
  private func next(_ reader: TarReader) throws -> TarEntry? {
    try task.checkCancellation()
    return try reader.next().map(checked)
  }

  private func checked(_ entry: TarEntry) throws -> TarEntry {
    if entry.kind == .file || entry.kind == .directory { return entry }
    throw damaged("has \(entry.path), which is neither a file nor a folder; give an archive of an image")
  }

  /// The manifest, and the folder in the archive that it lies in ("" for none).
  func manifest() throws -> (manifest: ImageManifest, folder: String) {
    let (_, reader) = try open()
    let isPlain = try compression() == .none
    var entry: TarEntry?
    do {
      entry = try reader.next()
    } catch let error as ImageError where isPlain && error.code == .corrupt {
      throw damaged("isn't an archive of an image; give a file that \"yadori image export\" made")
    }
    while let found = try entry.map(checked) {
      let parts = found.path.split(separator: "/")
      if found.kind == .file, parts.count <= 2, parts.last == "manifest.json" {
        let text = try reader.contentSource.readAll(limit: Self.manifestLimit, of: "\(name): manifest.json")
        return (try .parse(Data(text), path: "\(name): manifest.json"), parts.dropLast().joined())
      }
      entry = try next(reader)
    }
    throw damaged("has no manifest.json; give a file that \"yadori image export\" made")
  }

  /// Puts the files of the manifest into `work`, checked.
  func unpack(_ manifest: ImageManifest, folder: String, into work: URL) throws {
    let (file, reader) = try open()
    let total = Double(max(fileByteCount(path) ?? 1, 1))
    var wanted = Dictionary(uniqueKeysWithValues: manifest.files.map { ($0.name, $0) })
    let prefix = folder.isEmpty ? "" : folder + "/"
    while !wanted.isEmpty, let entry = try next(reader) {
      guard entry.kind == .file, entry.path.hasPrefix(prefix),
        let said = wanted.removeValue(forKey: String(entry.path.dropFirst(prefix.count)))
      else { continue }
      if entry.byteCount != said.byteCount {
        throw damaged("has \(entry.byteCount) bytes of \(said.name), but its manifest says \(said.byteCount)")
      }
      let sink = try FileSink(path: work.appendingPathComponent(said.name).path, leavesHoles: true)
      try copy(reader.contentSource, to: sink) {
        task.report(ImageProgress(.unpacking, fraction: Double(file.position) / total, detail: said.name))
      }
      if try sink.finish() != said.sha256.lowercased() {
        throw damaged("has a wrong checksum for \(said.name); fetch or export it again")
      }
    }
    if let missing = wanted.keys.min() { throw damaged("lacks the file \(missing) that its manifest names") }
    if let disk = manifest.disk { try check(disk, in: work) }
  }

  private func copy(_ source: ByteSource, to sink: ByteSink, each: () -> Void) throws {
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      try task.checkCancellation()
      let count = try chunk.withUnsafeMutableBytes { try source.readFully(into: $0) }
      if count == 0 { return }
      try chunk.withUnsafeBytes { try sink.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
      each()
    }
  }

  private func check(_ disk: ImageManifest.Disk, in work: URL) throws {
    if disk.format == .raw {
      // A machine opens it as raw, whatever its first bytes look like.
      if disk.virtualByteCount != (disk.file.byteCount + 511) / 512 * 512 {
        throw damaged("says that its raw disk has \(disk.virtualByteCount) bytes, which its file has not")
      }
      return
    }
    let information: DiskImage.Information
    do {
      information = try DiskImage.information(path: work.appendingPathComponent(disk.file.name).path)
    } catch let error as StorageError {
      throw damaged(
        "has a disk that can't be used: \(error.message.replacingOccurrences(of: work.path + "/", with: ""))")
    }
    if information.format != .qcow2 || information.virtualSize != disk.virtualByteCount {
      throw damaged("has a disk \(disk.file.name) of another format or size than its manifest says")
    }
    if information.backingPath != nil {
      throw damaged("has a disk that stands on another file of the host, which isn't allowed; export it anew")
    }
  }
}

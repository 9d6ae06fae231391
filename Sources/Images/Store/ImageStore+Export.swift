import Foundation
import Glibc
import Storage

extension ImageStore {
  /// Writes an image into one file, which `pull` reads: a tar archive, compressed when its name ends in ".zst".
  ///
  /// - Throws: when there is such a file already, when a machine writes to the image's disk, or when a file of the image
  ///   isn't what its manifest says. Nothing half-written stays.
  public func export(_ name: String, to path: String, task: ImageTask = ImageTask()) throws {
    let image = try find(name)
    guard path.hasSuffix(".tar") || path.hasSuffix(".tar.zst") else {
      throw ImageError(.usage, "\(path): the name of an archive ends in .tar or .tar.zst")
    }
    if FileManager.default.fileExists(atPath: path) {
      throw ImageError(.usage, "there is a file \(path) already; remove it or choose another name")
    }
    // Its lock: no machine may write to the disk meanwhile.
    let disk = try image.disk.map { try DiskFile(path: $0.path, readOnly: true) }
    defer { disk?.close() }
    let manifest = try measured(image, task)
    let partial = URL(fileURLWithPath: path).deletingLastPathComponent()
      .appendingPathComponent(".yadori-\(UUID().uuidString).partial").path
    do {
      try write(image, manifest, to: partial, isCompressed: path.hasSuffix(".zst"), task)
      if rename(partial, path) != 0 { throw ImageError.last("can't make \(path)") }
    } catch {
      unlink(partial)
      guard let known = error as? ImageError else { throw error }
      throw ImageError(known.code, known.message.replacingOccurrences(of: partial, with: path))
    }
  }

  /// The manifest with the sizes and checksums that the files have now.
  private func measured(_ image: Image, _ task: ImageTask) throws -> ImageManifest {
    func measure(_ file: ImageManifest.File) throws -> ImageManifest.File {
      task.report(ImageProgress(.reading, detail: file.name))
      let path = image.folder.appendingPathComponent(file.name).path
      return .init(name: file.name, byteCount: fileByteCount(path) ?? 0, sha256: try sha256(ofFile: path, task: task))
    }
    for file in [image.manifest.kernel, image.manifest.initialRamdisk] where try measure(file) != file {
      let path = image.folder.appendingPathComponent(file.name).path
      throw ImageError(.corrupt, "\(path) isn't what the manifest says; build the image again")
    }
    var manifest = image.manifest
    if let disk = manifest.disk, let path = image.disk?.path {
      manifest.disk?.file = try measure(disk.file)
      if disk.format == .qcow2, let backing = try DiskImage.information(path: path, format: .qcow2).backingPath {
        throw ImageError(
          .usage, "\(path) stands on \(backing), which the archive wouldn't hold; make it whole with qemu-img convert")
      }
    }
    return manifest
  }

  private func write(
    _ image: Image, _ manifest: ImageManifest, to partial: String, isCompressed: Bool, _ task: ImageTask
  ) throws {
    let file = try FileSink(path: partial, leavesHoles: !isCompressed)
    let compressor = isCompressed ? try ZstandardSink(file) : nil
    let writer = TarWriter(compressor ?? file)
    // The manifest comes first, so that whoever reads the archive knows the rest.
    let text = Array(try manifest.serialized())
    try writer.add(TarEntry(path: "manifest.json", kind: .file, mode: 0o644), content: text)
    let total = Double(max(manifest.files.reduce(0) { $0 + $1.byteCount }, 1))
    var done: UInt64 = 0
    for part in manifest.files {
      let source = try FileSource(path: image.folder.appendingPathComponent(part.name).path)
      let reporting = ReportingSource(source) { count in
        try task.checkCancellation()
        done += UInt64(count)
        task.report(ImageProgress(.writing, fraction: min(1, Double(done) / total), detail: part.name))
      }
      try writer.add(
        TarEntry(path: part.name, kind: .file, mode: 0o644, byteCount: part.byteCount), from: reporting)
    }
    try writer.finish()
    try compressor?.finish()
    try file.finish()
  }
}

/// Another source, and somebody who is told of each piece.
private final class ReportingSource: ByteSource {
  private let base: ByteSource
  private let report: (Int) throws -> Void

  init(_ base: ByteSource, report: @escaping (Int) throws -> Void) {
    self.base = base
    self.report = report
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    let count = try base.read(into: buffer)
    try report(count)
    return count
  }
}

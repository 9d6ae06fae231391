import CHost
import Glibc
import HostSystem

extension DiskImage {
  /// How a new image is laid out.
  public struct CreationOptions: Sendable {
    /// Bytes of a qcow2 cluster, a power of two from 512 to 2097152.
    public var clusterSize = 65536
    /// The qcow2 feature that lets other programs postpone refcounts; this one never does.
    public var lazyRefcounts = false
    /// Version of qcow2, 2 or 3.
    public var version = 3

    public init(clusterSize: Int = 65536, lazyRefcounts: Bool = false, version: Int = 3) {
      self.clusterSize = clusterSize
      self.lazyRefcounts = lazyRefcounts
      self.version = version
    }
  }

  /// Makes an image that reads as zeroes, or as its backing file. It appears under its name only when it is whole.
  ///
  /// - Parameters:
  ///   - size: bytes of the disk, rounded up to whole sectors; nil takes the backing file's.
  ///   - backing: a file that shows through where nothing has been written, with its format (nil: find it out now).
  ///     A relative path is relative to the new image's folder.
  /// - Throws: `StorageError`, when there is such a file already, among others.
  public static func create(
    path: String, format: DiskFormat, size: UInt64?, backing: (path: String, format: DiskFormat?)? = nil,
    options: CreationOptions = CreationOptions()
  ) throws {
    guard DiskFile.identity(of: path) == nil else {
      throw StorageError(.exists, "there is a file \(path) already; remove it or choose another name")
    }
    var header = Qcow2Header()
    var size = size
    if let backing {
      guard format == .qcow2 else {
        throw StorageError(.invalidArgument, "\(path): a raw image can't have a backing file; make it a qcow2 image")
      }
      let found = try inspect(backing.path, format: backing.format, for: path)
      header.backingName = backing.path
      header.backingFormat = found.format.rawValue
      size = size ?? found.size
    }
    guard let size, size > 0, size <= UInt64(Int64.max) - 511 else {
      throw StorageError(.invalidArgument, "\(path): a disk can't have \(size ?? 0) bytes; give its size")
    }
    header.size = (size + 511) / 512 * 512
    switch format {
    case .raw: try write(path, [], fileSize: header.size)
    case .qcow2:
      try apply(options, to: &header, path)
      let image = try Qcow2Creation(header, path: path)
      try write(path, image.bytes, fileSize: image.fileSize)
    }
  }

  private static func inspect(
    _ name: String, format: DiskFormat?, for path: String
  ) throws -> (format: DiskFormat, size: UInt64) {
    let backingPath = try BackingChain.resolve(name, from: path)
    let found = try format ?? DiskFormat.probe(DiskFile(path: backingPath, readOnly: true))
    let disk = try open(path: backingPath, readOnly: true, format: found)
    defer { try? disk.close() }
    return (found, disk.byteCount)
  }

  private static func apply(_ options: CreationOptions, to header: inout Qcow2Header, _ path: String) throws {
    guard options.clusterSize.nonzeroBitCount == 1, (512...(2 << 20)).contains(options.clusterSize) else {
      throw StorageError(
        .invalidArgument,
        "\(path): clusters can't have \(options.clusterSize) bytes; choose a power of two from 512 to 2097152")
    }
    guard options.version == 3 || (options.version == 2 && !options.lazyRefcounts) else {
      throw StorageError(
        .invalidArgument, "\(path): qcow2 has version 2 and 3, and lazy refcounts only in version 3; choose version 3")
    }
    header.clusterBits = options.clusterSize.trailingZeroBitCount
    header.version = UInt32(options.version)
    header.compatible = options.lazyRefcounts ? Qcow2Header.compatibleLazyRefcounts : 0
  }

  /// Writes beside, makes it stable, renames.
  static func write(_ path: String, _ bytes: [UInt8], fileSize: UInt64) throws {
    let temporary = "\(path).\(UInt32.random(in: 0...UInt32.max)).new"
    let descriptor = chost_open(temporary, O_RDWR | O_CREAT | O_EXCL, 0o666)
    guard descriptor >= 0 else { throw DiskFile.failure("can't make \(path)") }
    defer { Glibc.close(descriptor) }
    do {
      let file = try DiskFile(path: temporary, readOnly: false)
      defer { file.close() }
      try bytes.withUnsafeBytes { try writeContent(of: $0, to: file) }
      guard ftruncate(descriptor, off_t(clamping: fileSize)) == 0 else {
        throw DiskFile.failure("can't make \(path) \(fileSize) bytes long")
      }
      try file.synchronize()
      guard rename(temporary, path) == 0 else { throw DiskFile.failure("can't make \(path)") }
    } catch {
      unlink(temporary)
      throw error
    }
    try synchronizeFolder(of: path)
  }

  /// Leaves out pages that are all zero.
  private static func writeContent(of bytes: UnsafeRawBufferPointer, to file: DiskFile) throws {
    let page = 4096
    for start in stride(from: 0, to: bytes.count, by: page) {
      let part = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + page, bytes.count)])
      if !SparseCopy.isZero(part) { try file.write(at: UInt64(start), part) }
    }
  }

  private static func synchronizeFolder(of path: String) throws {
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let descriptor = chost_open(folder, O_RDONLY | O_DIRECTORY, 0)
    guard descriptor >= 0 else { throw DiskFile.failure("can't open the folder \(folder)") }
    defer { Glibc.close(descriptor) }
    // Some file systems can't synchronise a folder and say so; the image itself is stable.
    guard fsync(descriptor) == 0 || errno == EINVAL || errno == EROFS else {
      throw DiskFile.failure("can't flush the folder \(folder)")
    }
  }
}

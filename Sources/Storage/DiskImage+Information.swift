import Glibc

extension DiskImage {
  /// What an image is, for people.
  public struct Information: Sendable, Equatable {
    public let format: DiskFormat
    /// Bytes of the disk that a machine sees.
    public let virtualSize: UInt64
    /// Bytes that the file occupies on the host.
    public let allocatedSize: UInt64
    /// The backing file's name as the image has it, and its format if the image says it.
    public let backingPath: String?
    public let backingFormat: String?
    /// Of qcow2 only, else nil.
    public let qcow2: Qcow2Information?
  }

  /// What only qcow2 images have.
  public struct Qcow2Information: Sendable, Equatable {
    public let version: Int
    public let clusterSize: Int
    /// "zlib" or "zstd".
    public let compressionType: String
    public let lazyRefcounts: Bool
    public let snapshotCount: Int
    /// Its last user didn't get to write the refcounts; they are rebuilt when it is opened for writing.
    public let isDirty: Bool
    /// A program found it inconsistent; it is only opened read-only.
    public let isCorrupt: Bool
  }

  /// Describes the image at `path`, also while a machine uses it. Its backing file needn't be there.
  ///
  /// - Parameter format: nil finds it out from the first bytes of the file. Those of a raw disk are the guest's, who
  ///   may have any file of the host be named there: so it is said where it is known.
  public static func information(path: String, format: DiskFormat? = nil) throws -> Information {
    let file = try DiskFile(path: path, readOnly: true, isLocked: false)
    let allocated = try file.allocatedByteCount()
    guard try format ?? DiskFormat.probe(file) == .qcow2 else {
      let disk = try RawDisk(file, isProbed: true)
      return Information(
        format: .raw, virtualSize: disk.byteCount, allocatedSize: allocated, backingPath: nil, backingFormat: nil,
        qcow2: nil)
    }
    let header = try Qcow2Header(reading: file)
    let details = Qcow2Information(
      version: Int(header.version), clusterSize: header.clusterSize,
      compressionType: header.compression == .zstd ? "zstd" : "zlib",
      lazyRefcounts: header.compatible & Qcow2Header.compatibleLazyRefcounts != 0,
      snapshotCount: header.snapshotCount, isDirty: header.isDirty, isCorrupt: header.isCorrupt)
    return Information(
      format: .qcow2, virtualSize: (header.size + 511) / 512 * 512, allocatedSize: allocated,
      backingPath: header.backingName, backingFormat: header.backingFormat, qcow2: details)
  }

  /// The paths of the files that stand behind the image at `path`, the nearest first, as far as they can be read.
  ///
  /// - Parameter format: as in `information`.
  public static func backingFiles(of path: String, format: DiskFormat?) -> [String] {
    var files: [String] = []
    var (image, format) = (path, format)
    while files.count < BackingChain.maximumDepth, let next = behind(image, format), let path = next.path,
      canHoldDisk(path)
    {
      files.append(path)
      (image, format) = (path, next.format)
    }
    return files
  }

  /// What an image says is right behind it: as it has it, where that leads, and of which format it is. Nil: nothing.
  private static func behind(
    _ image: String, _ format: DiskFormat?
  ) -> (name: String, path: String?, format: DiskFormat?)? {
    guard let found = try? information(path: image, format: format), let name = found.backingPath else { return nil }
    return (
      name, try? BackingChain.resolve(name, from: image), found.backingFormat.flatMap(DiskFormat.init(rawValue:))
    )
  }

  /// The first file behind the image at `path` that isn't a known one; nil: there is none. None but known ones is opened.
  public static func backingFile(of path: String, format: DiskFormat?, isKnown: (String) -> Bool) -> String? {
    var (image, format) = (path, format)
    for _ in 0..<BackingChain.maximumDepth {
      guard let next = behind(image, format) else { return nil }
      guard let path = next.path, isKnown(path) else { return next.name }
      (image, format) = (path, next.format)
    }
    return nil
  }

  /// Whether a path leads to a regular file or a block device: nothing else is opened as a disk.
  public static func canHoldDisk(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && [S_IFREG, S_IFBLK].contains(status.st_mode & S_IFMT)
  }

  /// The format that the first bytes of a file show. Throws `StorageError`.
  public static func probe(path: String) throws -> DiskFormat {
    try DiskFormat.probe(DiskFile(path: path, readOnly: true, isLocked: false))
  }
}

/// Files on the host that hold disks: opening, making and describing them.
public enum DiskImage {
  /// Opens a disk image and locks its file: for writing nobody else may have it open, for reading nobody else may write
  /// to it. Backing files are opened read-only.
  ///
  /// - Parameters:
  ///   - format: nil finds it out from the first bytes of the file. A guest of a raw image that was opened so can't
  ///     write the beginning of another format into it.
  ///   - wasProbed: `format` was found out so at an earlier time: the same holds, and a file that isn't any more what
  ///     it was is refused.
  /// - Throws: `StorageError`, one line that names the file.
  public static func open(
    path: String, readOnly: Bool = false, format: DiskFormat? = nil, wasProbed: Bool = false
  ) throws -> any BlockStorage {
    if wasProbed, format == .raw, try probe(path: path) != .raw {
      throw StorageError(
        .notPermitted,
        "\(path) was a raw disk and begins as a qcow2 image now; say which it is (format=raw or format=qcow2)")
    }
    return try open(path: path, readOnly: readOnly, format: format, wasProbed: wasProbed, chain: [])
  }

  static func open(
    path: String, readOnly: Bool, format: DiskFormat?, wasProbed: Bool = false, chain: [DiskFile.Identity]
  ) throws -> any BlockStorage {
    let file = try DiskFile(path: path, readOnly: readOnly)
    switch try format ?? DiskFormat.probe(file) {
    case .raw: return try RawDisk(file, isProbed: wasProbed || format == nil)
    case .qcow2:
      let header = try Qcow2Header(reading: file)
      var backing: (any BlockStorage)?
      if let name = header.backingName {
        backing = try BackingChain.open(
          name, format: header.backingFormat, of: path, chain: chain + [file.identity])
      }
      return try Qcow2Disk(file, header, backing: backing)
    }
  }
}

/// How a file holds a disk.
public enum DiskFormat: String, Sendable, CaseIterable {
  /// The bytes of the file are the bytes of the disk.
  case raw
  /// QEMU's copy-on-write format, version 2 or 3.
  case qcow2

  /// The format that the first bytes of a file show; raw when they show none.
  static func probe(_ start: UnsafeRawBufferPointer) -> DiskFormat {
    guard start.count >= 4 else { return .raw }
    return UInt32(bigEndian: start.loadUnaligned(as: UInt32.self)) == Qcow2Header.magic ? .qcow2 : .raw
  }

  static func probe(_ file: DiskFile) throws -> DiskFormat {
    var start: UInt64 = 0
    return try withUnsafeMutableBytes(of: &start) { bytes in
      _ = try file.read(at: 0, into: bytes)
      return probe(UnsafeRawBufferPointer(bytes))
    }
  }
}

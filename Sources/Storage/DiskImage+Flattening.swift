import Glibc

extension DiskImage {
  /// Makes a qcow2 image of what a disk's files hold down to the file `base` behind it, so that it needs neither: it shows
  /// what is behind `base` where they hold nothing. Nobody writes to the disk meanwhile. Throws `StorageError`.
  ///
  /// - Parameters:
  ///   - disk: an open qcow2 disk. What is behind it is qcow2, too, but for `base`, which may be raw.
  ///   - base: the path of a file among those behind it, as it was given or stands in the one before.
  ///   - path: there is no such file.
  public static func flatten(_ disk: any BlockStorage, downTo base: String, to path: String) throws {
    guard DiskFile.identity(of: path) == nil else {
      throw StorageError(.exists, "there is a file \(path) already; remove it or choose another name")
    }
    var layers: [Qcow2Disk] = []
    var next: (any BlockStorage)? = disk
    while let layer = next as? Qcow2Disk {
      layers.append(layer)
      if layer.file.path == base { break }
      next = layer.backing
    }
    let raw = next as? RawDisk
    guard let top = layers.first, let last = layers.last, (raw?.file ?? last.file).path == base else {
      throw StorageError(.invalidArgument, "\(base) isn't behind \(path), which is to be a qcow2 image")
    }
    var header = Qcow2Header()
    header.size = top.byteCount
    // So that all that is copied comes in whole clusters.
    header.clusterBits = layers.map(\.header.clusterBits).min()!
    if raw == nil, let name = last.header.backingName {
      header.backingName = try BackingChain.resolve(name, from: absolute(last.file.path))
      header.backingFormat = last.header.backingFormat
    }
    let image = try Qcow2Creation(header, path: path)
    try write(path, image.bytes, fileSize: image.fileSize)
    let file = try DiskFile(path: path, readOnly: false)
    let written = try Qcow2Header(reading: file)
    let target = try Qcow2Disk(
      file, written, backing: written.backingName.map { _ in UnreadDisk(byteCount: top.byteCount) })
    do {
      try copy(layers, raw, to: target)
      try target.close()
    } catch {
      file.close()
      unlink(path)
      throw error
    }
  }

  /// A path that means the same from another folder.
  private static func absolute(_ path: String) throws -> String {
    if path.hasPrefix("/") { return path }
    guard let folder = getcwd(nil, 0) else { throw DiskFile.failure("can't find the folder of \(path)") }
    defer { free(folder) }
    return String(cString: folder) + "/" + path
  }

  /// Stands for a backing file that nobody reads.
  private final class UnreadDisk: BlockStorage {
    let byteCount: UInt64
    let isReadOnly = true

    init(byteCount: UInt64) { self.byteCount = byteCount }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws {
      throw StorageError(.outOfRange, "a backing file is read whose content isn't asked for")
    }
    func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws { try refuse() }
    func discard(at offset: UInt64, count: UInt64) throws { try refuse() }
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws { try refuse() }
    func flush() throws {}
    func close() throws {}
    private func refuse() throws { throw StorageError(.readOnly, "a backing file is written to") }
  }

  private static func copy(_ layers: [Qcow2Disk], _ raw: RawDisk?, to target: Qcow2Disk) throws {
    // Whole clusters, whatever their size.
    let step = max(1 << 20, target.header.clusterSize)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: step, alignment: 4096)
    defer { buffer.deallocate() }
    /// Clusters that aren't all zero.
    func copyRaw(_ raw: RawDisk, _ offset: UInt64, _ count: UInt64) throws {
      let size = target.clusterMask + 1
      for position in stride(from: offset, to: min(offset + count, raw.byteCount), by: Int(size)) {
        let part = UnsafeMutableRawBufferPointer(
          rebasing: buffer[..<Int(min(size, offset + count - position, raw.byteCount - position))])
        try raw.read(at: position, into: part)
        if part.contains(where: { $0 != 0 }) { try target.write(at: position, from: UnsafeRawBufferPointer(part)) }
      }
    }
    func copy(_ layer: Int, _ offset: UInt64, _ count: UInt64) throws {
      var done: UInt64 = 0
      while done < count {
        let position = offset + done
        let (extent, length) = try layers[layer].extent(at: position, limit: min(count - done, UInt64(step)))
        switch extent {
        case .data, .compressed:
          let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(length)])
          try layers[layer].readContent(at: position, into: part)
          try target.write(at: position, from: UnsafeRawBufferPointer(part))
        case .zero: try target.writeZeroes(at: position, count: length, mayUnmap: true)
        case .unallocated:
          guard layer + 1 < layers.count else {
            if let raw { try copyRaw(raw, position, length) }
            break
          }
          let size = layers[layer + 1].byteCount
          let behind = position < size ? min(length, size - position) : 0
          let whole = behind == length ? behind : behind & ~target.clusterMask
          if whole > 0 { try copy(layer + 1, position, whole) }
          // The file behind ends here: what lies beyond shows nothing of those behind that.
          var rest = whole
          if whole < behind {
            let count = min(length - whole, target.clusterMask + 1)
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(count)])
            try layers[layer].readContent(at: position + whole, into: part)
            try target.write(at: position + whole, from: UnsafeRawBufferPointer(part))
            rest += count
          }
          if rest < length { try target.writeZeroes(at: position + rest, count: length - rest, mayUnmap: true) }
        }
        done += length
      }
    }
    try copy(0, 0, layers[0].byteCount)
  }
}

import CZlib
import CZstd

/// Reads compressed clusters, and keeps the last few, because a guest reads them in smaller pieces.
///
/// Source: docs/interop/qcow2.txt, "Compressed Clusters Descriptor". Deflate streams there have no header and a window
/// of 4 KiB.
struct CompressedClusters {
  private struct Slot {
    var entry: UInt64
    var content: [UInt8]
  }

  private let method: Qcow2Header.Compression
  private let clusterSize: Int
  private var slots: [Slot] = []
  private var next = 0
  private static let slotCount = 4

  init(_ method: Qcow2Header.Compression, clusterSize: Int) {
    self.method = method
    self.clusterSize = clusterSize
  }

  /// Where the compressed bytes of an L2 entry are: offset in the file and count.
  static func extent(of entry: UInt64, clusterBits: Int) -> (offset: UInt64, count: Int) {
    let shift = UInt64(62 - (clusterBits - 8))
    let offset = entry & ((1 << shift) - 1)
    let sectors = Int(entry >> shift) & ((1 << (clusterBits - 8)) - 1) + 1
    return (offset, sectors * 512 - Int(offset & 511))
  }

  /// Copies what the cluster that `entry` describes holds from `start` on.
  mutating func read(
    _ entry: UInt64, from start: Int, into part: UnsafeMutableRawBufferPointer, clusterBits: Int, in file: DiskFile
  ) throws {
    let index = try slotIndex(of: entry, clusterBits: clusterBits, in: file)
    part.copyBytes(from: slots[index].content[start..<(start + part.count)])
  }

  private mutating func slotIndex(of entry: UInt64, clusterBits: Int, in file: DiskFile) throws -> Int {
    if let found = slots.firstIndex(where: { $0.entry == entry }) { return found }
    let (offset, count) = CompressedClusters.extent(of: entry, clusterBits: clusterBits)
    var source = [UInt8](repeating: 0, count: count)
    // The last compressed cluster of a file needn't fill its last sector.
    let available = try source.withUnsafeMutableBytes { try file.read(at: offset, into: $0) }
    var content = [UInt8](repeating: 0, count: clusterSize)
    guard available > 0, expand(source[..<available], into: &content) else {
      throw StorageError(.corrupt, "\(file.path): the compressed cluster at \(offset) can't be expanded")
    }
    if slots.count < CompressedClusters.slotCount {
      slots.append(Slot(entry: entry, content: content))
      return slots.count - 1
    }
    next = (next + 1) % CompressedClusters.slotCount
    slots[next] = Slot(entry: entry, content: content)
    return next
  }

  private func expand(_ source: ArraySlice<UInt8>, into content: inout [UInt8]) -> Bool {
    source.withUnsafeBytes { input in
      content.withUnsafeMutableBytes { output in
        switch method {
        case .zlib: CompressedClusters.inflate(input, output)
        case .zstd: CompressedClusters.expandZstd(input, output)
        }
      }
    }
  }

  private static func inflate(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Bool {
    var stream = z_stream()
    guard inflateInit2_(&stream, -12, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return false }
    defer { inflateEnd(&stream) }
    stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: UInt8.self).baseAddress)
    stream.avail_in = UInt32(input.count)
    stream.next_out = output.bindMemory(to: UInt8.self).baseAddress
    stream.avail_out = UInt32(output.count)
    let result = CZlib.inflate(&stream, Z_FINISH)
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0
  }

  private static func expandZstd(_ input: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> Bool {
    guard let stream = ZSTD_createDStream() else { return false }
    defer { ZSTD_freeDStream(stream) }
    var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
    var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
    // The frame may be followed by whatever fills the last sector, so reading stops with the full cluster.
    while target.pos < target.size {
      let before = (source.pos, target.pos)
      let result = ZSTD_decompressStream(stream, &target, &source)
      if ZSTD_isError(result) != 0 || before == (source.pos, target.pos) { return false }
    }
    return true
  }
}

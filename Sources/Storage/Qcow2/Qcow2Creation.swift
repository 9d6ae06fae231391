/// The bytes of an empty qcow2 image.
struct Qcow2Creation {
  /// The metadata from the beginning of the file: header, refcount table, refcount blocks. The L1 table follows, all
  /// zeroes, up to `fileSize`.
  let bytes: [UInt8]
  let fileSize: UInt64

  /// `header` says size, version, cluster bits, features and backing file; where the tables are is decided here.
  init(_ header: Qcow2Header, path: String) throws {
    var header = header
    let clusterSize = header.clusterSize
    let l1Entries = (header.size + header.bytesPerL2 - 1) >> UInt64(header.clusterBits * 2 - 3)
    guard l1Entries <= UInt64(Qcow2Header.maximumL1Size) else {
      throw StorageError(
        .invalidArgument,
        "\(path): clusters of \(clusterSize) bytes are too small for a disk of \(header.size) bytes; choose larger ones"
      )
    }
    header.l1Size = Int(l1Entries)
    // An L1 table is allotted even for an empty disk, so that it has a place.
    let l1Clusters = max(1, (header.l1Size * 8 + clusterSize - 1) / clusterSize)
    var blocks = 1
    var tableClusters = 1
    while true {
      let all = 1 + tableClusters + blocks + l1Clusters
      let neededBlocks = (all + header.refcountsPerBlock - 1) / header.refcountsPerBlock
      let neededTable = (neededBlocks * 8 + clusterSize - 1) / clusterSize
      if neededBlocks <= blocks, neededTable <= tableClusters { break }
      blocks = max(blocks, neededBlocks)
      tableClusters = max(tableClusters, neededTable)
    }
    let used = 1 + tableClusters + blocks + l1Clusters
    header.refcountTableOffset = UInt64(clusterSize)
    header.refcountTableClusters = tableClusters
    header.l1Offset = UInt64((1 + tableClusters + blocks) * clusterSize)
    var bytes = header.encoded()
    guard bytes.count <= clusterSize, (header.backingName?.utf8.count ?? 0) <= 1023 else {
      throw StorageError(.invalidArgument, "\(path): the backing file's name is too long; use a shorter path")
    }
    bytes += repeatElement(0, count: (1 + tableClusters + blocks) * clusterSize - bytes.count)
    bytes.withUnsafeMutableBytes { all in
      for block in 0..<blocks {
        let location = UInt64((1 + tableClusters + block) * clusterSize)
        all.storeBytes(of: location.bigEndian, toByteOffset: clusterSize + block * 8, as: UInt64.self)
      }
      let firstBlock = (1 + tableClusters) * clusterSize
      for cluster in 0..<used {
        all.storeBytes(of: UInt16(1).bigEndian, toByteOffset: firstBlock + cluster * 2, as: UInt16.self)
      }
    }
    self.bytes = bytes
    fileSize = UInt64(used * clusterSize)
  }
}

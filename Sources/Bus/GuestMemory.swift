import HostSystem
import Synchronization

/// The guest's RAM: one contiguous block of the physical address space, zero when new. Devices reach it only through
/// the checked accessors here; the guest and other threads may change its bytes at any moment.
public final class GuestMemory: @unchecked Sendable {
  private let mapping: MemoryMapping
  /// Where `show` has put files, in bytes from `base`.
  private let shown = Mutex<[Range<Int>]>([])
  public let base: PhysicalAddress
  /// Bytes of RAM, a multiple of 4096.
  public let size: UInt64
  /// Where the byte at `base` lies in this process.
  public let host: UnsafeMutableRawPointer

  /// Throws `HostError` when the host can't map `size` bytes.
  public init(base: PhysicalAddress, size: UInt64) throws {
    precondition(size % 4096 == 0 && size > 0)
    mapping = try MemoryMapping(anonymous: Int(size))
    self.base = base
    self.size = size
    host = mapping.base
  }

  /// Has RAM from its byte `start` on hold a part of a file, which is read as it is touched; writes don't reach the file.
  /// `start`, `offset` (in the file) and `count` are multiples of the host's page size. Before the guest runs. Throws
  /// `HostError`.
  public func show(_ descriptor: Int32, at start: Int, offset: Int, count: Int) throws {
    try mapping.show(descriptor, at: start, offset: offset, count: count)
    shown.withLock { $0.append(start..<start + count) }
  }

  /// How much work there is at most in each piece of `size` bytes for whoever reads what isn't zero, in pages; 0: all of it
  /// is zero. Nothing changes meanwhile.
  public func contentBounds(inPiecesOf size: Int) -> [Int] {
    let whole = size / MemoryMapping.pageSize
    let count = (Int(self.size) + size - 1) / size
    guard var bounds = mapping.touchedPages(inPiecesOf: size) else { return [Int](repeating: whole, count: count) }
    for range in shown.withLock({ $0 }) where !range.isEmpty {
      for piece in range.lowerBound / size...(range.upperBound - 1) / size { bounds[piece] = whole }
    }
    return bounds
  }

  /// Runs of pages, by number from `base` and in order, outside of which all of RAM is as `show` left it, or zero. Nothing
  /// changes meanwhile. Nil: the host doesn't say, or there are more than `most` pages in them.
  public func changedPages(atMost most: Int = .max) -> [Range<Int>]? {
    let page = MemoryMapping.pageSize
    guard let own = mapping.ownPages() else { return nil }
    var count = 0
    let shown = shown.withLock { $0 }.map { $0.lowerBound / page..<$0.upperBound / page }.sorted {
      $0.lowerBound < $1.lowerBound
    }
    var runs: [Range<Int>] = []
    var next = 0
    for run in own {
      for number in run {
        while next < shown.count, shown[next].upperBound <= number { next += 1 }
        let isShown = next < shown.count && shown[next].contains(number)
        if isShown || !SparseCopy.isZero(UnsafeRawBufferPointer(start: host + number * page, count: page)) {
          count += 1
          if count > most { return nil }
          runs.add(number)
        }
      }
    }
    return runs
  }

  /// Gives whole pages of RAM back to the host. They read as zero, or as what `show` put there, until they are written.
  public func release(_ bytes: UnsafeMutableRawBufferPointer) {
    guard let start = bytes.baseAddress else { return }
    mapping.release(offset: start - host, count: bytes.count)
  }

  /// The host bytes of `[address, address + count)`, or nil when any of them lies outside RAM.
  @inline(__always)
  public func bytes(at address: PhysicalAddress, count: UInt64) -> UnsafeMutableRawBufferPointer? {
    let offset = address.rawValue &- base.rawValue
    guard offset <= size, count <= size &- offset else { return nil }
    return UnsafeMutableRawBufferPointer(start: host + Int(offset), count: Int(count))
  }

  /// Reads a little-endian integer, or nil outside RAM. Alignment doesn't matter; an aligned one is read whole.
  @inline(__always)
  public func load<Value: FixedWidthInteger & BitwiseCopyable>(
    _ address: PhysicalAddress, as type: Value.Type
  ) -> Value? {
    guard let bytes = bytes(at: address, count: UInt64(MemoryLayout<Value>.size)) else { return nil }
    return Value(littleEndian: bytes.baseAddress!.loadUnaligned(as: Value.self))
  }

  /// Writes a little-endian integer; false, and nothing written, outside RAM.
  @inline(__always)
  public func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at address: PhysicalAddress) -> Bool {
    guard let bytes = bytes(at: address, count: UInt64(MemoryLayout<Value>.size)) else { return false }
    bytes.baseAddress!.storeBytes(of: value.littleEndian, as: Value.self)
    noteWrite(of: bytes)
    return true
  }

  /// Copies `source` into RAM; false, and nothing written, when it doesn't fit there.
  public func copy(_ source: UnsafeRawBufferPointer, to address: PhysicalAddress) -> Bool {
    guard let target = bytes(at: address, count: UInt64(source.count)) else { return false }
    target.copyMemory(from: source)
    noteWrite(of: target)
    return true
  }

  // MARK: what harts didn't write

  /// Pages that others than harts have written.
  private struct Writes {
    var pages: [PhysicalAddress] = []
    /// There were more than are worth a list, or nobody knows which.
    var areUnknown = false
    static let capacity = 16384
  }
  private let writes = Mutex(Writes())
  private let isWritten = Atomic(false)

  /// To be called by whoever isn't a hart and has written to RAM by way of `bytes`, before it tells the guest: there may
  /// be code.
  public func noteWrite(of bytes: UnsafeMutableRawBufferPointer) {
    guard let start = bytes.baseAddress, !bytes.isEmpty else { return }
    let first = UInt64(start - host) & ~0xFFF
    let end = UInt64(start - host) + UInt64(bytes.count)
    writes.withLock { writes in
      for offset in stride(from: first, to: end, by: 4096) {
        if writes.pages.last == base + offset { continue }
        if writes.areUnknown || writes.pages.count == Writes.capacity {
          writes.areUnknown = true
          break
        }
        writes.pages.append(base + offset)
      }
    }
    isWritten.store(true, ordering: .releasing)
  }

  /// The same, where it could be anywhere.
  public func noteWriteAnywhere() {
    writes.withLock { $0.areUnknown = true }
    isWritten.store(true, ordering: .releasing)
  }

  /// Whether `takeWrites` has news.
  public var hasWrites: Bool { isWritten.load(ordering: .acquiring) }

  /// The pages that others than harts have written since this was asked last; nil: it could be any.
  public func takeWrites() -> [PhysicalAddress]? {
    isWritten.store(false, ordering: .relaxed)
    return writes.withLock { writes in
      defer { writes = Writes() }
      return writes.areUnknown ? nil : writes.pages
    }
  }
}

/// Memory for many pieces that are used at random and all go at once: it lies together, in the host's large pages where
/// there are any.
public final class MemoryArena {
  private final class Region {
    let mapping: MemoryMapping
    init(count: Int) throws { mapping = try MemoryMapping(anonymous: count) }
  }

  /// Large enough for `MemoryMapping` to ask for large pages; the host gives it as it is touched.
  private static let regionSize = 64 << 20
  /// Of the first one, which is all that a small machine needs: there large pages would be most of it, till more is needed.
  private static let firstRegionSize = 24 << 20
  private var regions: [Region] = []
  private var used = 0
  private var size = 0

  public init() {}

  /// `count` bytes, zeroed, at a multiple of 64. Throws `HostError` where the host has no room.
  public func allocate(_ count: Int) throws -> UnsafeMutableRawPointer {
    precondition(count > 0 && count <= Self.regionSize)
    if used + count > size {
      let wanted = regions.isEmpty && count <= Self.firstRegionSize ? Self.firstRegionSize : Self.regionSize
      regions.last?.mapping.useLargePages()
      regions.append(try Region(count: wanted))
      (used, size) = (0, wanted)
    }
    defer { used += (count + 63) & ~63 }
    return regions[regions.count - 1].mapping.base + used
  }
}

/// Memory for many pieces that are used at random and all go at once: it lies together, in the host's large pages where
/// there are any.
public final class MemoryArena {
  private final class Region {
    let mapping: MemoryMapping
    init(count: Int) throws { mapping = try MemoryMapping(anonymous: count) }
  }

  /// Large enough for `MemoryMapping` to ask for large pages; the host gives it as it is touched.
  private static let regionSize = 64 << 20
  private var regions: [Region] = []
  private var used = MemoryArena.regionSize

  public init() {}

  /// `count` bytes, zeroed, at a multiple of 64. Throws `HostError` where the host has no room.
  public func allocate(_ count: Int) throws -> UnsafeMutableRawPointer {
    precondition(count > 0 && count <= Self.regionSize)
    if used + count > Self.regionSize {
      regions.append(try Region(count: Self.regionSize))
      used = 0
    }
    defer { used += (count + 63) & ~63 }
    return regions[regions.count - 1].mapping.base + used
  }
}

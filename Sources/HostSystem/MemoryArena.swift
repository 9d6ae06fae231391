/// Memory for many pieces that are used at random and all go at once: it lies together, in the host's large pages where
/// there are any and it is in use for long.
public final class MemoryArena {
  private final class Region {
    let mapping: MemoryMapping
    init(count: Int) throws { mapping = try MemoryMapping(anonymous: count) }
  }

  /// Too small for `MemoryMapping` to ask for large pages: there they would be most of what a small machine needs.
  private static let regionSize = 24 << 20
  private var regions: [Region] = []
  private var used = 0
  /// So many of the first regions are in large pages.
  private var gathered = 0

  public init() {}

  /// `count` bytes, zeroed, at a multiple of 64. Throws `HostError` where the host has no room.
  public func allocate(_ count: Int) throws -> UnsafeMutableRawPointer {
    precondition(count > 0 && count <= Self.regionSize)
    if regions.isEmpty || used + count > Self.regionSize {
      regions.append(try Region(count: Self.regionSize))
      used = 0
    }
    defer { used += (count + 63) & ~63 }
    return regions[regions.count - 1].mapping.base + used
  }

  /// Has the host gather a part of it in large pages that is full, if there is one that isn't yet. That takes some
  /// milliseconds: it is worth it for what goes on to be used.
  public func gather() {
    guard gathered + 1 < regions.count else { return }
    regions[gathered].mapping.useLargePages()
    gathered += 1
  }
}

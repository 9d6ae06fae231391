import Glibc
import Hart

/// How often places of the guest's code were reached before they were translated. One table for all pages: few of a
/// page's places are ever reached, and places that share an entry by chance only get translated sooner.
struct HeatTable {
  private static let countBits = 19
  private static let count = 1 << countBits
  /// Of these, the places in use till so many changes: what a machine that does little touches is small.
  private static let leastCount = 1 << 14
  private static let fewChanges = 1 << 12
  /// Changes after which all is forgotten, before chance has made everything hot.
  private static let largestAge = 1 << 18

  private let counts: UnsafeMutablePointer<UInt8>
  private var age = 0
  private var mask = leastCount - 1

  init() {
    // Zero without being touched.
    guard let memory = calloc(Self.count, 1) else { fatalError("no memory for the guest's code") }
    counts = memory.assumingMemoryBound(to: UInt8.self)
  }

  func deallocate() { free(counts) }

  /// Where a page's places are counted from.
  @inline(__always)
  private static func base(_ page: UnsafeMutablePointer<CodePage>) -> Int {
    Int(truncatingIfNeeded: (page.pointee.physical >> 12 &* 0x9E37_79B9_7F4A_7C15) >> UInt64(64 - countBits))
  }

  /// Counts that the half-word `index` of a page is reached. Whether that has happened `threshold` times by now.
  @inline(__always)
  mutating func reach(_ page: UnsafeMutablePointer<CodePage>, _ index: Int, threshold: UInt8) -> Bool {
    let place = counts + ((Self.base(page) + index) & mask)
    if place.pointee >= threshold - 1 { return true }
    place.pointee += 1
    grow()
    return false
  }

  /// Has a place translated when it is reached next.
  @inline(__always)
  mutating func markHot(_ page: UnsafeMutablePointer<CodePage>, _ index: Int) {
    counts[(Self.base(page) + index) & mask] = .max
    grow()
  }

  @inline(__always)
  private mutating func grow() {
    age += 1
    if age == Self.fewChanges { mask = Self.count - 1 }
    if age == Self.largestAge { clear() }
  }

  mutating func clear() {
    memset(counts, 0, Self.count)
    age = 0
  }
}

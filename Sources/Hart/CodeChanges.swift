import Bus
import Glibc

/// Which code of a hart that is alone in its machine may have been changed, so that a FENCE.I needs to compare no other.
///
/// A store needs a remembered translation or goes through `Hart.willStore`: both note the page here, once. From then on
/// the page may be stored to again without another look, until all translations for stores are forgotten. What devices
/// write they tell the memory (`GuestMemory.noteWrite`). Another hart's stores would be seen by nobody.
struct CodeChanges {
  /// Of the pages of RAM, a bit each: it may be stored to at any moment.
  private let stored: UnsafeMutablePointer<UInt64>
  private let ramBase: UInt64
  private let pageCount: UInt64
  /// The pages with code that may change at any moment.
  fileprivate let suspects: UnsafeMutablePointer<UnsafeMutablePointer<CodePage>>
  fileprivate var suspectCount = 0
  /// Pages compared since the translations for stores were last forgotten.
  private var comparisons = 0
  /// So many are as costly as to find the translations for stores again.
  private static let largestComparisons = 4096

  init(ramBase: UInt64, ramSize: UInt64) {
    self.ramBase = ramBase
    pageCount = ramSize >> 12
    // All zero without being touched.
    guard let memory = calloc(Int(pageCount >> 6) + 1, 8) else { fatalError("no memory to note stores in") }
    stored = memory.bindMemory(to: UInt64.self, capacity: Int(pageCount >> 6) + 1)
    suspects = .allocate(capacity: CodePages.capacity)
  }

  func deallocate() {
    free(stored)
    suspects.deallocate()
  }

  /// Notes that the page of `physical` may be stored to from now on. True where that is news.
  @inline(__always)
  mutating func noteStore(_ physical: UInt64) -> Bool {
    let index = (physical &- ramBase) >> 12
    guard index < pageCount else { return false }
    let bit = UInt64(1) << (index & 63)
    if stored[Int(index >> 6)] & bit != 0 { return false }
    stored[Int(index >> 6)] |= bit
    return true
  }

  /// Whether a page with code at `physical` may change without a further `noteStore`.
  func isStored(_ physical: UInt64) -> Bool {
    let index = (physical &- ramBase) >> 12
    return index >= pageCount || stored[Int(index >> 6)] & 1 << (index & 63) != 0
  }

  mutating func suspect(_ page: UnsafeMutablePointer<CodePage>) {
    if page.pointee.isSuspect { return }
    page.pointee.isSuspect = true
    suspects[suspectCount] = page
    suspectCount += 1
  }

  /// Counts a comparison of all suspects. True where it is time to forget all translations for stores: no page is
  /// suspect then.
  fileprivate mutating func mustForgetStores() -> Bool {
    comparisons += suspectCount
    guard comparisons > Self.largestComparisons else { return false }
    comparisons = 0
    for index in 0..<suspectCount { suspects[index].pointee.isSuspect = false }
    suspectCount = 0
    memset(stored, 0, (Int(pageCount >> 6) + 1) * 8)
    return true
  }
}

extension Hart {
  /// Called when the page of `physical` may be stored to from now on.
  @inline(__always)
  func noteStore(_ physical: UInt64) {
    if isAlone, codeChanges.noteStore(physical) { suspectCode(physical & TranslationCache.pageMask) }
  }

  @inline(never)
  private func suspectCode(_ physical: UInt64) {
    if let page = codePages.find(physical) { codeChanges.suspect(page) }
  }

  /// FENCE.I: code that may have changed is compared with memory, at once or before its next use.
  func fenceInstructions() {
    guard isAlone else { return suspectAllCode() }
    if memory.hasWrites { compareWritten() }
    var kept = 0
    var isAnyOutside = false
    for index in 0..<codeChanges.suspectCount {
      let page = codeChanges.suspects[index]
      if memory.bytes(at: PhysicalAddress(page.pointee.physical), count: 4096) != nil {
        _ = refresh(page)
        codeChanges.suspects[kept] = page
        kept += 1
      } else {
        // To be read anew, if it is used again.
        page.pointee.isSuspect = false
        page.pointee.epoch = codeEpoch &- 1
        isAnyOutside = true
      }
    }
    codeChanges.suspectCount = kept
    if isAnyOutside { translations.fenceFetch() }
    if codeChanges.mustForgetStores() { translations.clearStores() }
  }

  /// Compares what others than harts have written.
  @inline(never)
  private func compareWritten() {
    guard let written = memory.takeWrites() else { return suspectAllCode() }
    for physical in written {
      if let page = codePages.find(physical.rawValue) { _ = refresh(page) }
    }
  }

  /// Has all code compared with memory before its next use.
  func suspectAllCode() {
    codeEpoch &+= 1
    translations.fenceFetch()
  }
}

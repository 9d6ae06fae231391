import Glibc
import HostSystem

/// One remembered data translation. The interpreter takes it for an access when `tag` equals the address with its offset
/// in the page cleared, except for the bits that natural alignment wants zero: a misaligned access never matches.
/// Generated code takes it when the address is `tag` or above it by less than a page, with room for the access's width.
package struct TranslationEntry {
  package var tag: UInt64
  /// Added to the virtual address gives the host address.
  package var addend: UInt64
}

/// One remembered fetch translation.
package struct FetchEntry {
  /// The virtual address of the page.
  package var tag: UInt64
  package var page: UnsafeMutablePointer<CodePage>?
  /// Where generated code for the page's instructions is, by half-word; see `CodePage.entryPoints`. Nil: not looked at.
  package var entryPoints: UnsafeMutablePointer<UInt32>?
  /// The virtual address of the page, where only a FENCE.I has come since: the translation is valid still, and the code
  /// must be compared with memory before its next use. All ones, or zero without `page`: nothing is known.
  var unfencedTag: UInt64 = ~0

  init(tag: UInt64, page: UnsafeMutablePointer<CodePage>?) {
    self.tag = tag
    self.page = page
  }
}

/// What a set of remembered translations depends on.
struct TranslationKey: Equatable {
  /// satp, or 0 where translation is off.
  var satp: UInt64
  /// Effective privilege in bits 0-1, SUM in bit 2, MXR in bit 3.
  var mode: UInt64

  var asid: UInt64 { satp >> 44 & 0xFFFF }

  static let sum: UInt64 = 4
}

/// Remembered translations of several contexts (address space, privilege, SUM, MXR), so that a switch between them
/// forgets nothing. Entries are 4 KiB each, whatever the size of the guest's page.
///
/// What changes entries is `mutating`, so that it works where the cache stands, not on a copy that has a reference counted.
package struct TranslationCache {
  package static let entryCount = 1024
  package static let indexMask: UInt64 = 1023
  /// Behind the entries stand those of a second, larger table, in other places: pages that take each other's entry in
  /// the first are found there by generated code, without a walk. It grows where they take each other's entry there, too:
  /// that of a guest that does little is small.
  static let largestSecondCount = 16384
  private static let leastSecondCount = 256
  static let totalCount = entryCount + largestSecondCount
  /// The table of fetches has places for so many, of which the first are used at first.
  private static let largestFetchCount = 4096
  private static let leastFetchCount = 512
  package static let pageMask: UInt64 = ~0xFFF

  /// The tag of a slot that remembers nothing, of each table: zero where page 0 belongs to another slot. So memory that
  /// nobody has touched remembers nothing. That of slot 0 is of another slot's page, which neither equals nor lies within
  /// a page below any address that is looked for there; in the others, whose tags must be equal, of no page.
  private static func invalidTag(_ slot: Int) -> UInt64 { slot == 0 ? 1 << 12 : 0 }
  private static func invalidSecondTag(_ slot: Int) -> UInt64 { slot == entryCount ? ~0 : 0 }
  private static func invalidFetchTag(_ slot: Int) -> UInt64 { slot == 0 ? ~0 : 0 }

  /// Has both tables remember nothing. The memory is zero, or held entries.
  private func empty(_ entries: UnsafeMutablePointer<TranslationEntry>, isZero: Bool) {
    if !isZero { memset(entries, 0, (Self.entryCount + Int(secondMask) + 1) * MemoryLayout<TranslationEntry>.stride) }
    entries[0].tag = Self.invalidTag(0)
    entries[Self.entryCount].tag = Self.invalidSecondTag(Self.entryCount)
  }

  /// - Parameter count: of entries that may be in use; 0: the memory is zero.
  private static func emptyFetch(_ entries: UnsafeMutablePointer<FetchEntry>, _ count: Int) {
    memset(entries, 0, count * MemoryLayout<FetchEntry>.stride)
    entries[0].tag = invalidFetchTag(0)
    entries[0].unfencedTag = invalidFetchTag(0)
  }

  /// The second tables' entries in use, less one: their number is a power of two.
  private(set) var secondMask = UInt64(leastSecondCount - 1)
  /// Entries that were taken from another page since it grew.
  private var secondConflicts = 0

  /// Where the second table's entry for an address is, counted from the first table's begin.
  @inline(__always)
  func secondSlot(_ address: UInt64) -> Int {
    Self.entryCount + Int((address >> 12 ^ address >> 24) & secondMask)
  }

  /// Puts an entry for its page into both tables. True: the second ones have another size from now on. What a page has
  /// where it was found before isn't looked at for it any more.
  @inline(__always)
  mutating func remember(_ entry: TranslationEntry, in entries: UnsafeMutablePointer<TranslationEntry>) -> Bool {
    entries[Int(entry.tag >> 12 & Self.indexMask)] = entry
    let slot = secondSlot(entry.tag)
    let before = entries[slot].tag
    entries[slot] = entry
    if before == entry.tag || before == Self.invalidSecondTag(slot) { return false }
    return noteSecondConflict()
  }

  private mutating func noteSecondConflict() -> Bool {
    secondConflicts += 1
    guard secondConflicts > (secondMask < 1023 ? 512 : Int(secondMask) / 4),
      secondMask < UInt64(Self.largestSecondCount - 1)
    else { return false }
    secondMask = secondMask << 2 | 3
    secondConflicts = 0
    return true
  }

  /// How many entries of the tables of fetches are in use, a power of two: it grows where pages of code take each other's.
  private var fetchCount = leastFetchCount
  private var fetchConflicts = 0

  /// What the generated code takes of an address that was shifted right by `fetchShift`: an entry's distance in bytes.
  var fetchMask: UInt64 { UInt64((fetchCount - 1) * MemoryLayout<FetchEntry>.stride) }
  package static let fetchShift: UInt64 = 7

  @inline(__always)
  private func fetchSlot(_ address: UInt64) -> Int { Int(address >> 12) & (fetchCount - 1) }

  /// An entry is about to be taken for a page. True: the tables have another size from now on, and remember nothing.
  @inline(__always)
  mutating func noteFetch(_ entry: UnsafeMutablePointer<FetchEntry>, _ tag: UInt64) -> Bool {
    let isAnother =
      Self.isOfAnother(entry.pointee.tag, than: tag) || Self.isOfAnother(entry.pointee.unfencedTag, than: tag)
    if !isAnother || fetchCount == Self.largestFetchCount { return false }
    fetchConflicts += 1
    if fetchConflicts <= fetchCount { return false }
    growFetch()
    return true
  }

  @inline(__always)
  private static func isOfAnother(_ known: UInt64, than tag: UInt64) -> Bool {
    known != tag && known != 0 && known != ~0
  }

  @inline(never)
  private mutating func growFetch() {
    clearFetch()
    fetchCount = Self.largestFetchCount
  }

  package struct Context {
    var key: TranslationKey
    var lastUse: UInt64
    /// The region that guest pages above 4 KiB came from, by address half: a fence of one address in it clears all,
    /// for such a page stands in many entries. `mask` 0: none.
    var largeLow: (base: UInt64, mask: UInt64)
    var largeHigh: (base: UInt64, mask: UInt64)
    package let read: UnsafeMutablePointer<TranslationEntry>
    package let write: UnsafeMutablePointer<TranslationEntry>
    let fetch: UnsafeMutablePointer<FetchEntry>
    /// The pages remembered since the context was last empty.
    var pages: PageLog
    var fetchPages: PageLog
    /// The context whose key has the other SUM, as long as both have these keys.
    var partner: UnsafeMutablePointer<Context>?
    /// The context that was chosen after this one the last time, whatever its key is now: a guess.
    var follower: UnsafeMutablePointer<Context>?
  }

  /// A list of page addresses, that few entries are emptied one by one. It overflows into "any".
  struct PageLog {
    private let addresses: UnsafeMutablePointer<UInt64>
    private(set) var count = 0
    static let capacity = 2048

    init() { addresses = .allocate(capacity: Self.capacity) }

    func deallocate() { addresses.deallocate() }

    var isAny: Bool { count > Self.capacity }

    @inline(__always)
    mutating func note(_ address: UInt64) {
      if count < Self.capacity { addresses[count] = address }
      if count <= Self.capacity { count += 1 }
    }

    subscript(_ index: Int) -> UInt64 { addresses[index] }

    mutating func empty() { count = 0 }
  }

  private static let mostContexts = 16
  private let contexts: UnsafeMutablePointer<Context>
  /// Those that there are. Many machines need few.
  private var contextCount = 0
  private let arena: MemoryArena
  private var useCounter: UInt64 = 0

  /// Tables lie together in large pages: generated code looks into them all the time.
  private func table<Entry>(of type: Entry.Type, _ count: Int) -> UnsafeMutablePointer<Entry> {
    guard let memory = try? arena.allocate(count * MemoryLayout<Entry>.stride) else {
      fatalError("no memory for remembered translations")
    }
    return memory.bindMemory(to: Entry.self, capacity: count)
  }

  /// The tables' memory is the arena's.
  init(_ arena: MemoryArena) {
    self.arena = arena
    contexts = .allocate(capacity: Self.mostContexts)
  }

  /// One more, that remembers nothing.
  private mutating func makeContext(_ key: TranslationKey) -> UnsafeMutablePointer<Context> {
    let context = contexts + contextCount
    let read = table(of: TranslationEntry.self, Self.totalCount)
    let write = table(of: TranslationEntry.self, Self.totalCount)
    let fetch = table(of: FetchEntry.self, Self.largestFetchCount)
    empty(read, isZero: true)
    empty(write, isZero: true)
    Self.emptyFetch(fetch, 0)
    context.initialize(
      to: Context(
        key: key, lastUse: useCounter, largeLow: (0, 0), largeHigh: (0, 0), read: read, write: write, fetch: fetch,
        pages: PageLog(), fetchPages: PageLog(), partner: nil))
    contextCount += 1
    return context
  }

  func deallocate() {
    for index in 0..<contextCount {
      contexts[index].pages.deallocate()
      contexts[index].fetchPages.deallocate()
    }
    contexts.deallocate()
  }

  /// The context for `key` when `previous` was the one before: traps and returns go back and forth.
  @inline(__always)
  mutating func context(
    for key: TranslationKey, after previous: UnsafeMutablePointer<Context>
  ) -> UnsafeMutablePointer<Context> {
    if let follower = previous.pointee.follower, follower.pointee.key == key {
      touch(follower)
      return follower
    }
    let context = context(for: key)
    previous.pointee.follower = context
    return context
  }

  /// The context for `key`: the one that has it, or the one unused for longest, emptied.
  mutating func context(for key: TranslationKey) -> UnsafeMutablePointer<Context> {
    useCounter &+= 1
    var oldest = contexts
    for index in 0..<contextCount {
      let context = contexts + index
      if context.pointee.key == key {
        context.pointee.lastUse = useCounter
        return context
      }
      if context.pointee.lastUse < oldest.pointee.lastUse { oldest = context }
    }
    if contextCount < Self.mostContexts { return makeContext(key) }
    clear(oldest)
    oldest.pointee.partner?.pointee.partner = nil
    oldest.pointee.partner = nil
    oldest.pointee.key = key
    oldest.pointee.lastUse = useCounter
    return oldest
  }

  mutating func touch(_ context: UnsafeMutablePointer<Context>) {
    useCounter &+= 1
    context.pointee.lastUse = useCounter
  }

  private func clear(_ context: UnsafeMutablePointer<Context>) {
    if context.pointee.pages.isAny {
      empty(context.pointee.read, isZero: false)
      empty(context.pointee.write, isZero: false)
    } else {
      for index in 0..<context.pointee.pages.count {
        let address = context.pointee.pages[index]
        let slot = Int(address >> 12 & Self.indexMask)
        let second = secondSlot(address)
        context.pointee.read[slot].tag = Self.invalidTag(slot)
        context.pointee.write[slot].tag = Self.invalidTag(slot)
        context.pointee.read[second].tag = Self.invalidSecondTag(second)
        context.pointee.write[second].tag = Self.invalidSecondTag(second)
      }
    }
    context.pointee.pages.empty()
    clearFetch(context)
    context.pointee.largeLow = (0, 0)
    context.pointee.largeHigh = (0, 0)
  }

  /// Forgets everything, or everything of one address space (translations of bare contexts stay then).
  mutating func clearAll(asid: UInt64? = nil) {
    for index in 0..<contextCount {
      let key = contexts[index].key
      if let asid, key.satp == 0 || key.asid != asid { continue }
      clear(contexts + index)
    }
  }

  /// Forgets the translations for stores of all contexts.
  mutating func clearStores() {
    for index in 0..<contextCount {
      empty(contexts[index].write, isZero: false)
    }
  }

  /// The pages of code that are remembered for an address, those of the contexts first that were used last.
  var fetchedPages: [UnsafeMutablePointer<CodePage>] {
    (0..<contextCount).map { contexts + $0 }.sorted {
      $0.pointee.lastUse > $1.pointee.lastUse
    }.flatMap { context in
      (0..<fetchCount).compactMap { slot in
        let entry = context.pointee.fetch[slot]
        return [0, ~0].contains(entry.tag) && [0, ~0].contains(entry.unfencedTag) ? nil : entry.page
      }
    }
  }

  /// Forgets the fetch translations of all contexts.
  mutating func clearFetch() {
    for index in 0..<contextCount { clearFetch(contexts + index) }
  }

  /// Has the code behind the fetch translations of all contexts looked at again before its next use (FENCE.I).
  mutating func fenceFetch() {
    for index in 0..<contextCount {
      let context = contexts + index
      if context.pointee.fetchPages.isAny {
        for slot in 0..<fetchCount { Self.fence(context.pointee.fetch + slot) }
      } else {
        for index in 0..<context.pointee.fetchPages.count {
          Self.fence(context.pointee.fetch + fetchSlot(context.pointee.fetchPages[index]))
        }
      }
    }
  }

  @inline(__always)
  private static func fence(_ entry: UnsafeMutablePointer<FetchEntry>) {
    if entry.pointee.tag == ~0 || entry.pointee.page == nil { return }
    entry.pointee.unfencedTag = entry.pointee.tag
    entry.pointee.tag = ~0
  }

  private func clearFetch(_ context: UnsafeMutablePointer<Context>) {
    if context.pointee.fetchPages.isAny {
      Self.emptyFetch(context.pointee.fetch, fetchCount)
    } else {
      for index in 0..<context.pointee.fetchPages.count {
        let slot = fetchSlot(context.pointee.fetchPages[index])
        context.pointee.fetch[slot].tag = Self.invalidFetchTag(slot)
        context.pointee.fetch[slot].unfencedTag = Self.invalidFetchTag(slot)
      }
    }
    context.pointee.fetchPages.empty()
  }

  /// Forgets what stands for the page of `address`, in one address space or in all.
  mutating func clearPage(containing address: UInt64, asid: UInt64?) {
    for index in 0..<contextCount {
      let context = contexts + index
      let key = context.pointee.key
      if key.satp == 0 { continue }
      if let asid, key.asid != asid { continue }
      let large = Int64(bitPattern: address) < 0 ? context.pointee.largeHigh : context.pointee.largeLow
      if large.mask != 0, address & large.mask == large.base {
        clear(context)
        continue
      }
      let slot = Int(address >> 12 & Self.indexMask)
      let tag = address & Self.pageMask
      let slotTag = Self.invalidTag(slot)
      if context.pointee.read[slot].tag == tag { context.pointee.read[slot].tag = slotTag }
      if context.pointee.write[slot].tag == tag { context.pointee.write[slot].tag = slotTag }
      let second = secondSlot(address)
      let secondTag = Self.invalidSecondTag(second)
      if context.pointee.read[second].tag == tag { context.pointee.read[second].tag = secondTag }
      if context.pointee.write[second].tag == tag { context.pointee.write[second].tag = secondTag }
      let fetchSlot = fetchSlot(address)
      let fetchTag = Self.invalidFetchTag(fetchSlot)
      if context.pointee.fetch[fetchSlot].tag == tag { context.pointee.fetch[fetchSlot].tag = fetchTag }
      if context.pointee.fetch[fetchSlot].unfencedTag == tag {
        context.pointee.fetch[fetchSlot].unfencedTag = fetchTag
      }
    }
  }

  /// Notes that `context` holds translations out of a guest page of 2^`shift` bytes.
  static func noteLargePage(_ context: UnsafeMutablePointer<Context>, address: UInt64, shift: UInt64) {
    let mask = ~UInt64(0) << shift
    func widen(_ region: (base: UInt64, mask: UInt64)) -> (base: UInt64, mask: UInt64) {
      guard region.mask != 0 else { return (address & mask, mask) }
      var wide = region.mask & mask
      while (region.base ^ address) & wide != 0 { wide <<= 1 }
      // A mask of all of one half still has its top bit, which is what tells the halves apart.
      if wide == 0 { wide = 1 << 63 }
      return (region.base & wide, wide)
    }
    if Int64(bitPattern: address) < 0 {
      context.pointee.largeHigh = widen(context.pointee.largeHigh)
    } else {
      context.pointee.largeLow = widen(context.pointee.largeLow)
    }
  }
}

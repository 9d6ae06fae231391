import Bus
import Glibc
import HostSystem
import RISCV

/// One decoded instruction, ready to be executed.
package struct Slot {
  /// `reserved` stands for everything that isn't an instruction; `auxiliary` tells which `SlotKind`.
  var operation: Operation
  /// 32 instead of 0 where the destination is an integer register.
  var rd: UInt8
  var rs1: UInt8
  var rs2: UInt8
  /// Length in slots: 1 for a 16-bit instruction, 2 for a 32-bit one.
  var length: UInt8
  /// rs3; for jumps and branches 1 when the target lies in the same page; for `reserved` a `SlotKind`.
  var auxiliary: UInt8
  /// The static rounding mode, 7 for the dynamic one. (Only floating point needs it.)
  var roundingMode: UInt8
  /// For a branch within the page: the distance in slots. For `reserved`: the instruction's bits.
  var immediate: Int64
}

/// What a slot without an instruction means.
enum SlotKind {
  static let undecoded: UInt8 = 0
  static let illegal: UInt8 = 1
  static let pageEnd: UInt8 = 2
  /// The first half of an instruction whose second half lies in the next page.
  static let straddling: UInt8 = 3
}

/// The code of one physical page.
///
/// `source` holds the bytes that were decoded or translated. RISC-V promises nothing about code changes before FENCE.I,
/// so the page is compared with its source only then; see `CodeChanges`.
package struct CodePage {
  package static let slotCount = 2048
  /// Where an instruction begins that may end in the next page.
  package static let lastHalf = 4094
  package var physical: UInt64
  /// The hart's fence count at which the page agreed with memory.
  var epoch: UInt64
  /// The decoded instructions; nil where they have been given up for another page's. See `DecodedPages`.
  fileprivate(set) var slots: UnsafeMutablePointer<Slot>?
  /// Which of `DecodedPages` they are.
  fileprivate var slotsPlace = 0
  package fileprivate(set) var source: UnsafeRawPointer
  /// Memory of its own for them; nil: it has needed none yet.
  fileprivate var ownSource: UnsafeMutableRawPointer?
  /// Where the engine's code for the instruction at each half-word is, and what else it notes about the page; nil until
  /// it has looked at the page. The engine's to allocate and to free.
  package var entryPoints: UnsafeMutablePointer<UInt32>?
  /// The engine's: whether it has looked for code for the page as it is that it needn't make.
  package var isLookedUp = false
  /// The hart's retired instructions when it was last found for an address.
  fileprivate var lastFetch: UInt64 = 0
  /// It is among those of `CodeChanges`.
  var isSuspect = false

  fileprivate init(physical: UInt64, source: UnsafeRawPointer) {
    self.physical = physical
    epoch = 0
    self.source = source
  }
}

/// The decoded instructions of the pages that were interpreted last: for each page `CodePage.slotCount` slots, one for
/// every half-word, filled as they are reached, and the mark of the page's end. What is all zero is undecoded.
///
/// An engine leaves little to be interpreted, in many pages: it needs few of these, and they stay in the host's caches.
struct DecodedPages {
  static let usualCapacity = 4096
  static let capacityBesideEngine = 4

  private struct Place {
    var owner: UnsafeMutablePointer<CodePage>
    let slots: UnsafeMutablePointer<Slot>
    /// The slots that aren't zero, while they are few: the others needn't be touched again.
    var filled = InlineArray<64, UInt16>(repeating: 0)
    var filledCount = 0
  }
  private let places: UnsafeMutablePointer<Place>
  private var count = 0
  private var nextVictim = 0

  init() { places = .allocate(capacity: Self.usualCapacity) }

  /// The decoded instructions' memory is the arena's.
  func deallocate() { places.deallocate() }

  /// Gives a page without slots some, all undecoded: another page's where there are `capacity` of them.
  mutating func give(
    to page: UnsafeMutablePointer<CodePage>, capacity: Int, from arena: MemoryArena
  ) -> UnsafeMutablePointer<Slot> {
    if count < capacity {
      guard let memory = try? arena.allocate((CodePage.slotCount + 1) * MemoryLayout<Slot>.stride) else {
        fatalError("no memory for the guest's code")
      }
      let slots = memory.bindMemory(to: Slot.self, capacity: CodePage.slotCount + 1)
      slots[CodePage.slotCount].auxiliary = SlotKind.pageEnd
      (places + count).initialize(to: Place(owner: page, slots: slots))
      page.pointee.slots = slots
      page.pointee.slotsPlace = count
      count += 1
      return slots
    }
    let place = places + nextVictim
    empty(place.pointee.owner)
    place.pointee.owner.pointee.slots = nil
    place.pointee.owner = page
    page.pointee.slots = place.pointee.slots
    page.pointee.slotsPlace = nextVictim
    nextVictim = (nextVictim + 1) % count
    return place.pointee.slots
  }

  /// Notes that a slot of `page`, which has some, is filled.
  func note(_ page: UnsafeMutablePointer<CodePage>, _ index: Int) {
    let place = places + page.pointee.slotsPlace
    if place.pointee.filledCount < place.pointee.filled.count {
      place.pointee.filled[place.pointee.filledCount] = UInt16(truncatingIfNeeded: index)
    }
    place.pointee.filledCount += 1
  }

  /// Forgets what was decoded of `page`.
  func empty(_ page: UnsafeMutablePointer<CodePage>) {
    guard let slots = page.pointee.slots else { return }
    let place = places + page.pointee.slotsPlace
    if place.pointee.filledCount <= place.pointee.filled.count {
      for index in 0..<place.pointee.filledCount {
        memset(slots + Int(place.pointee.filled[index]), 0, MemoryLayout<Slot>.stride)
      }
    } else {
      memset(slots, 0, CodePage.slotCount * MemoryLayout<Slot>.stride)
    }
    place.pointee.filledCount = 0
  }
}

/// A hart's pages of code: a fixed number of places, found by physical page number, the oldest replaced first.
struct CodePages {
  static let capacity = 16384
  /// A table grows with what is in it, half full at most: that of a small machine is small.
  private static let leastBucketBits = 9
  private var bucketBits = Self.leastBucketBits
  private var bucketCount: Int { 1 << bucketBits }
  private let pages: UnsafeMutablePointer<UnsafeMutablePointer<CodePage>>
  private var count = 0
  private var nextVictim = 0
  /// Memory for so many pages is taken at once; where the rest of it begins and ends.
  private static let batch = 256
  private var fresh: UnsafeMutablePointer<CodePage>?
  private var freshEnd: UnsafeMutablePointer<CodePage>?
  /// Open addressing; nil: empty.
  private var buckets: UnsafeMutablePointer<UnsafeMutablePointer<CodePage>?>

  static let undecoded = Slot(
    operation: .reserved, rd: 0, rs1: 0, rs2: 0, length: 0, auxiliary: SlotKind.undecoded, roundingMode: 0,
    immediate: 0)

  init() {
    pages = .allocate(capacity: Self.capacity)
    buckets = Self.makeBuckets(Self.leastBucketBits)
  }

  private static func makeBuckets(_ bits: Int) -> UnsafeMutablePointer<UnsafeMutablePointer<CodePage>?> {
    // All nil without being touched.
    guard let memory = calloc(1 << bits, MemoryLayout<UnsafeMutablePointer<CodePage>?>.stride) else {
      fatalError("no memory for the table of the guest's code")
    }
    return memory.bindMemory(to: UnsafeMutablePointer<CodePage>?.self, capacity: 1 << bits)
  }

  private mutating func grow() {
    free(buckets)
    bucketBits += 1
    buckets = Self.makeBuckets(bucketBits)
    for index in 0..<count { place(pages[index]) }
  }

  func deallocate() {
    pages.deallocate()
    free(buckets)
  }

  private func bucket(of physical: UInt64) -> Int {
    Int(truncatingIfNeeded: (physical >> 12 &* 0x9E37_79B9_7F4A_7C15) >> UInt64(64 - bucketBits))
  }

  func find(_ physical: UInt64) -> UnsafeMutablePointer<CodePage>? {
    var bucket = bucket(of: physical)
    while let page = buckets[bucket] {
      if page.pointee.physical == physical { return page }
      bucket = (bucket + 1) & (bucketCount - 1)
    }
    return nil
  }

  /// A page for `physical`, which has none, with any source. Whoever holds fetch translations forgets them when
  /// `replaced`.
  mutating func insert(
    _ physical: UInt64, from arena: MemoryArena
  ) -> (page: UnsafeMutablePointer<CodePage>, replaced: Bool) {
    let page: UnsafeMutablePointer<CodePage>
    let replaced = count == Self.capacity
    if replaced {
      page = pages[nextVictim]
      nextVictim = (nextVictim + 1) % Self.capacity
      remove(page)
      page.pointee.physical = physical
      place(page)
    } else {
      if fresh == freshEnd {
        // Together: what is written of them isn't in many of the host's pages.
        guard let memory = try? arena.allocate(Self.batch * MemoryLayout<CodePage>.stride) else {
          fatalError("no memory for the guest's code")
        }
        fresh = memory.bindMemory(to: CodePage.self, capacity: Self.batch)
        freshEnd = fresh.map { $0 + Self.batch }
      }
      page = fresh.unsafelyUnwrapped
      fresh = page + 1
      page.initialize(to: CodePage(physical: physical, source: UnsafeRawPointer(page)))
      pages[count] = page
      place(page)
      count += 1
      if count * 2 > bucketCount { grow() }
    }
    return (page, replaced)
  }

  func forEach(_ body: (UnsafeMutablePointer<CodePage>) throws -> Void) rethrows {
    for index in 0..<count { try body(pages[index]) }
  }

  private func place(_ page: UnsafeMutablePointer<CodePage>) {
    var bucket = bucket(of: page.pointee.physical)
    while buckets[bucket] != nil { bucket = (bucket + 1) & (bucketCount - 1) }
    buckets[bucket] = page
  }

  /// Takes a page out of its bucket, and lets those behind it that can move up.
  private func remove(_ page: UnsafeMutablePointer<CodePage>) {
    let mask = bucketCount - 1
    var hole = bucket(of: page.pointee.physical)
    while buckets[hole] != page { hole = (hole + 1) & mask }
    var next = (hole + 1) & mask
    while let follower = buckets[next] {
      let wanted = bucket(of: follower.pointee.physical)
      // Whether it would be found at the hole: its wanted place isn't behind that.
      if (next - wanted) & mask >= (next - hole) & mask {
        buckets[hole] = follower
        hole = next
      }
      next = (next + 1) & mask
    }
    buckets[hole] = nil
  }
}

extension Hart {
  /// Calls `body` with each page of code that is known. While the hart doesn't run.
  package func forEachCodePage(_ body: (UnsafeMutablePointer<CodePage>) throws -> Void) rethrows {
    try codePages.forEach(body)
  }

  /// The physical addresses of the pages of code that were used last, so many at most: those first that are remembered for
  /// an address still. While the hart doesn't run.
  package func codePagesUsed(most count: Int) -> [UInt64] {
    var others: [UnsafeMutablePointer<CodePage>] = []
    codePages.forEach { if $0.pointee.entryPoints != nil { others.append($0) } }
    let used = translations.fetchedPages + others.sorted { $0.pointee.lastFetch > $1.pointee.lastFetch }
    var known: Set<UInt64> = []
    return Array(used.map(\.pointee.physical).filter { known.insert($0).inserted }.prefix(count))
  }

  /// Has what can be known about pages of code be there before they are run. Those that aren't RAM are left out. Before
  /// the hart runs.
  package func prepareCode(_ pages: [UInt64]) {
    for physical in pages where physical & ~TranslationCache.pageMask == 0 {
      guard memory.bytes(at: PhysicalAddress(physical), count: 4096) != nil, let page = codePage(physical) else {
        continue
      }
      engine?.prepare(page)
    }
  }

  /// Finds the decoded page for the instruction at `pc` and remembers it. Nil: a trap was raised.
  @inline(never)
  package func fetchPage(_ pc: UInt64) -> UnsafeMutablePointer<CodePage>? {
    let known = state.fetchEntry(pc)
    if known.pointee.unfencedTag == pc & TranslationCache.pageMask, let page = known.pointee.page,
      page.pointee.epoch == codeEpoch || refresh(page)
    {
      isFetchConfined = false
      known.pointee.tag = known.pointee.unfencedTag
      known.pointee.unfencedTag = ~0
      known.pointee.entryPoints = page.pointee.entryPoints ?? absentEntryPoints
      return page
    }
    guard let translation = physicalAddress(pc, size: 2, .fetch) else { return nil }
    let physical = translation.physical & TranslationCache.pageMask
    guard let page = codePage(physical) else {
      raise(TrapCause.instructionAccessFault, pc)
      return nil
    }
    page.pointee.lastFetch = state.pointee.retired
    guard isUniformlyProtected(page: physical) else {
      isFetchConfined = true
      return confineFetch(pc, translation.physical) ? page : nil
    }
    isFetchConfined = false
    let tag = pc & TranslationCache.pageMask
    if translations.noteFetch(state.fetchEntry(pc), tag) { useTableSizes() }
    let entry = state.fetchEntry(pc)
    entry.pointee = FetchEntry(tag: tag, page: page)
    fetchContext.pointee.fetchPages.note(pc)
    entry.pointee.entryPoints = page.pointee.entryPoints ?? absentEntryPoints
    if translation.shift > 12, translation.shift < 63 {
      TranslationCache.noteLargePage(fetchContext, address: pc, shift: translation.shift)
    }
    return page
  }

  private func codePage(_ physical: UInt64) -> UnsafeMutablePointer<CodePage>? {
    if let page = codePages.find(physical) {
      if page.pointee.epoch != codeEpoch {
        guard refresh(page) else { return nil }
      }
      return page
    }
    let (page, replaced) = codePages.insert(physical, from: codeArena)
    if replaced {
      translations.clearFetch()
      decodedPages.empty(page)
      engine?.forget(page)
    }
    if isAlone, codeChanges.isStored(physical) { codeChanges.suspect(page) }
    // A page that can't be read gets bytes that never agree, so that it's looked at again.
    page.pointee.epoch = codeEpoch &- 1
    guard let bytes = memory.bytes(at: PhysicalAddress(physical), count: 4096) else {
      return refresh(page) ? page : nil
    }
    takeSource(page, bytes.baseAddress!)
    page.pointee.epoch = codeEpoch
    return page
  }

  /// Has a page's source be what stands in memory.
  private func takeSource(_ page: UnsafeMutablePointer<CodePage>, _ bytes: UnsafeRawPointer) {
    if let lasting = engine?.lastingContent(equalTo: bytes) {
      page.pointee.source = lasting
    } else {
      ownSource(of: page).copyMemory(from: bytes, byteCount: 4096)
    }
  }

  /// A page's source in memory of its own, to be written.
  private func ownSource(of page: UnsafeMutablePointer<CodePage>) -> UnsafeMutableRawPointer {
    if page.pointee.ownSource == nil {
      guard let memory = try? codeArena.allocate(4096) else { fatalError("no memory for the guest's code") }
      page.pointee.ownSource = memory
    }
    let own = page.pointee.ownSource.unsafelyUnwrapped
    page.pointee.source = UnsafeRawPointer(own)
    return own
  }

  /// Compares a page with memory, and empties it when they differ. False: nothing answers at its address.
  func refresh(_ page: UnsafeMutablePointer<CodePage>) -> Bool {
    let physical = PhysicalAddress(page.pointee.physical)
    if let bytes = memory.bytes(at: physical, count: 4096) {
      if memcmp(bytes.baseAddress!, page.pointee.source, 4096) != 0 {
        takeSource(page, bytes.baseAddress!)
        decodedPages.empty(page)
        engine?.forget(page)
      }
    } else {
      // Code outside RAM (reset ROM, flash): read through the bus, and never taken for unchanged.
      let source = ownSource(of: page)
      for offset in stride(from: 0, to: 4096, by: 4) {
        guard let word = addressSpace.read(physical + UInt64(offset), width: 4) else {
          if offset == 0 { return false }
          source.storeBytes(of: 0, toByteOffset: offset, as: UInt32.self)
          continue
        }
        source.storeBytes(of: UInt32(truncatingIfNeeded: word), toByteOffset: offset, as: UInt32.self)
      }
      decodedPages.empty(page)
      engine?.forget(page)
      if isAlone { codeChanges.suspect(page) }
    }
    page.pointee.epoch = codeEpoch
    return true
  }

  /// The decoded instructions of a page. They are its till those of another are asked for.
  @inline(__always)
  func slots(of page: UnsafeMutablePointer<CodePage>) -> UnsafeMutablePointer<Slot> {
    page.pointee.slots ?? giveSlots(to: page)
  }

  @inline(never)
  private func giveSlots(to page: UnsafeMutablePointer<CodePage>) -> UnsafeMutablePointer<Slot> {
    decodedPages.give(
      to: page, capacity: engine == nil ? DecodedPages.usualCapacity : DecodedPages.capacityBesideEngine,
      from: codeArena)
  }

  /// Decodes the instruction that begins at slot `index` of `page`.
  @inline(never)
  func decode(_ page: UnsafeMutablePointer<CodePage>, _ index: Int) {
    let half = page.pointee.source.loadUnaligned(fromByteOffset: index * 2, as: UInt16.self)
    let slot = slots(of: page) + index
    decodedPages.note(page, index)
    if half & 3 == 3 {
      if index == CodePage.slotCount - 1 {
        slot.pointee.auxiliary = SlotKind.straddling
        return
      }
      let bits = page.pointee.source.loadUnaligned(fromByteOffset: index * 2, as: UInt32.self)
      slot.pointee = makeSlot(decoder.decode(bits), offset: Int64(index * 2))
    } else {
      slot.pointee = makeSlot(decoder.decode(UInt32(half)), offset: Int64(index * 2))
    }
  }

  /// Fills the two-slot page that stands for an instruction across a page border. False: a trap was raised.
  func decodeStraddling(_ pc: UInt64, _ firstHalf: UInt16) -> Bool {
    guard let translation = physicalAddress(pc &+ 2, size: 2, .fetch) else { return false }
    guard let half = addressSpace.read(PhysicalAddress(translation.physical), width: 2) else {
      raise(TrapCause.instructionAccessFault, pc &+ 2)
      return false
    }
    let bits = UInt32(firstHalf) | UInt32(truncatingIfNeeded: half) << 16
    // Offset beyond the page, so that no branch takes its target for one in the same page.
    straddlingSlots[0] = makeSlot(decoder.decode(bits), offset: 1 << 20)
    return true
  }

  /// Fills the page of one instruction with the one at `pc`, whose first half may be fetched. False: a trap was raised.
  private func confineFetch(_ pc: UInt64, _ physical: UInt64) -> Bool {
    guard let half = addressSpace.read(PhysicalAddress(physical), width: 2) else {
      raise(TrapCause.instructionAccessFault, pc)
      return false
    }
    if half & 3 == 3 { return decodeStraddling(pc, UInt16(truncatingIfNeeded: half)) }
    straddlingSlots[0] = makeSlot(decoder.decode(UInt32(truncatingIfNeeded: half)), offset: 1 << 20)
    return true
  }

  private func makeSlot(_ instruction: Instruction, offset: Int64) -> Slot {
    var slot = Slot(
      operation: instruction.operation, rd: instruction.rd, rs1: instruction.rs1, rs2: instruction.rs2,
      length: instruction.length / 2, auxiliary: instruction.rs3, roundingMode: instruction.roundingMode,
      immediate: instruction.immediate)
    switch instruction.operation {
    case .reserved:
      slot.auxiliary = SlotKind.illegal
      slot.immediate = Int64(instruction.bits)
    case .beq, .bne, .blt, .bge, .bltu, .bgeu, .jal:
      let target = offset &+ instruction.immediate
      slot.auxiliary = 0
      if target >= 0, target < 4096 {
        slot.auxiliary = 1
        slot.immediate = instruction.immediate / 2
      }
      if slot.rd == 0 { slot.rd = 32 }
    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci:
      // x0 as source means "no write" and as destination "no read": the handler sees the real numbers.
      break
    default:
      if slot.rd == 0, !instruction.operation.effects.contains(.writesFloatingPoint) { slot.rd = 32 }
    }
    return slot
  }
}

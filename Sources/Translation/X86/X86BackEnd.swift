import Hart
import RISCV

/// Makes x86-64 code of traces. What is rare (side exits, slow paths) is emitted behind the block.
///
/// The block subtracts the number of its instructions from the count of those left when it begins, and gives back what
/// it didn't execute where it is left early.
struct X86BackEnd: BackEnd, ~Copyable {
  var assembler: Assembler
  let thunks: Thunks
  private let code: CodeMemory
  let absent: UInt32
  private let enterFunction: @convention(c) (UnsafeMutableRawPointer, UInt) -> UInt32

  /// Where blocks begin, behind what all share.
  private let firstBlock: UnsafeMutablePointer<UInt8>
  /// Where what stands behind blocks goes next, in the mapping that can be written. It lies apart to leave the rest dense.
  private var behind: UnsafeMutablePointer<UInt8>

  /// Where the next stub goes, in the mapping that can be written: where jumps lead that are to be led elsewhere later.
  private var stubs: UnsafeMutablePointer<UInt8>

  /// An upper bound of a block's code, and of what stands behind it, bytes.
  private static let largestBlock = 384 << 10
  /// And of its stubs: a few for each instruction, in each of a loop's two versions.
  private static let largestStubs = 2 * 2 * Trace.maximumStraightLength * 32
  var trace = Trace()
  private(set) var following: Int?
  private var mayRunOn = false
  private(set) var map: CodeMap?
  /// What is emitted behind the block.
  let deferred: UnsafeMutablePointer<(item: Deferred, unextended: UInt32, snapshot: Int)>
  var deferredCount = 0
  static let maximumDeferred = 8192

  /// Jumps within pages that wait for their target's block: chains by page.
  private struct WaitingJump {
    var patch: Assembler.Patch
    var index: Int32
    var next: Int32
  }
  private let waiting: UnsafeMutablePointer<WaitingJump>
  private var waitingCount = 0
  /// The first of those that have been led to their blocks, and may be used again.
  private var freeWaiting = PageTranslations.none
  private static let maximumWaiting = 1 << 20

  // Where registers are; see RegisterAllocation.swift.

  var registers = RegisterMap.canonical
  /// How many of `RegisterMap.places` this block uses.
  var placeCount = 0
  /// The register that the present step will write, while its place doesn't hold it yet; `RegisterMap.none`: none.
  var pending = RegisterMap.none
  /// Registers whose places are needed by the present step, a bit each.
  var stepLocked: UInt32 = 0
  /// Where the registers were for what is postponed.
  let snapshots: UnsafeMutablePointer<(map: RegisterMap, pending: UInt8, countsDown: Bool)>
  var snapshotCount = 0
  /// A block that ends with a branch to its begin: where that goes (nil: `turn` is to be led there), and the registers
  /// there.
  var loop: (head: Assembler.Label?, map: RegisterMap)?
  var turn: Assembler.Patch?
  /// The loop's accesses have been looked up, and it counts its own turns.
  var countsDown = false

  var heat = HeatTable()

  // The state of the block that is being translated.
  private var page: UnsafeMutablePointer<CodePage>
  var translations: PageTranslations
  /// The step that is being emitted.
  var current = 0
  /// Registers whose value is known: a constant, or a distance from the page's base.
  var known: UnsafeMutablePointer<KnownValue>
  /// Whether floating point was found to be on and rounding to nearest.
  var isFloatChecked = false
  /// Whether the block has marked the floating-point state dirty.
  var isFloatDirty = false
  /// Floating-point registers known to hold boxed single-precision values, a bit each.
  var boxed: UInt32 = 0
  /// The group whose address is in rdx; -1: none.
  var loadedGroup: Int16 = -1
  /// Whether rdx keeps the addend for the next access of a loop: no guest register lives there, and no group's address.
  var keepsAddend = false
  /// The `LoopAccess` whose addend is in rdx; -1: none.
  var loadedAddend: Int8 = -1
  /// Integer registers whose lower half only is right, a bit each: the sign still has to be extended into the upper one,
  /// before that is read or the block is left. See `prepareSources`.
  var unextended: UInt32 = 0
  /// The same at the begin of the loop that is being emitted.
  var loopUnextended: UInt32 = 0
  /// Integer registers that hold sign-extended 32-bit values (the unextended ones will), a bit each.
  var words: UInt32 = 1
  /// Whether the step that is being emitted leaves its result unextended.
  var isResultUnextended = false
  /// The flags hold the carry of the step before, or of the present one for the next.
  var isCarryLeft = false
  var isCarryNext = false
  /// Of the next comparison for a branch.
  var comparisonWidth = HostWidth.quad
  /// The guest register, one that lives in memory, whose value the step before has left in rax. It holds until the
  /// present step's first use of rax.
  var held: UInt8?
  /// The same for the next step.
  var nextHeld: UInt8?

  static func checkHost() throws { try HostInstructions.check() }

  init(_ code: CodeMemory) {
    self.code = code
    var assembler = Assembler(code.writable, executableOffset: code.executableOffset)
    thunks = Thunks(&assembler)
    self.assembler = assembler
    // In another page, for what comes from files is mapped by the page.
    firstBlock = code.writable + (assembler.cursor - code.writable + 4095) / 4096 * 4096
    self.assembler.cursor = firstBlock
    behind = code.middle
    stubs = code.stubs
    absent = UInt32(truncatingIfNeeded: thunks.exitDispatch)
    enterFunction = unsafeBitCast(
      UnsafeRawPointer(bitPattern: thunks.enter), to: (@convention(c) (UnsafeMutableRawPointer, UInt) -> UInt32).self)
    snapshots = .allocate(capacity: 2 * Trace.maximumStraightLength + 6)
    deferred = .allocate(capacity: Self.maximumDeferred)
    waiting = .allocate(capacity: Self.maximumWaiting)
    known = .allocate(capacity: 32)
    known.initialize(repeating: .nothing, count: 32)
    page = UnsafeMutablePointer(bitPattern: 8)!
    translations = PageTranslations(UnsafeMutablePointer(bitPattern: 8)!)
  }

  deinit {
    snapshots.deallocate()
    deferred.deallocate()
    waiting.deallocate()
    known.deallocate()
    heat.deallocate()
  }

  @inline(__always)
  func enter(_ state: UnsafeMutablePointer<HartState>, _ address: UInt32) -> ExitReason {
    ExitReason(rawValue: enterFunction(state, UInt(address)))!
  }

  mutating func clear() {
    assembler.cursor = firstBlock
    behind = code.middle
    stubs = code.stubs
    waitingCount = 0
    freeWaiting = PageTranslations.none
    heat.clear()
    map?.clear()
  }

  var sharedBytes: Int { firstBlock - code.writable }
  var frontBytes: Int { assembler.cursor - code.writable }
  var behindBytes: Int { behind - code.middle }
  var stubBytes: Int { stubs - code.stubs }

  mutating func goOn(front: Int, behind: Int, stubs: Int) {
    assembler.cursor = code.writable + front
    self.behind = code.middle + behind
    self.stubs = code.stubs + stubs
  }

  func forEachWaiting(_ translations: PageTranslations, _ body: (_ index: Int, _ jump: Int) throws -> Void) rethrows {
    for list in 0..<PageTranslations.waitingLists {
      var item = translations[waitingIn: list]
      while item != PageTranslations.none {
        let jump = waiting[Int(item)]
        try body(Int(jump.index), jump.patch.location - code.writable)
        item = jump.next
      }
    }
  }

  mutating func addBlock(_ translations: PageTranslations, _ index: Int, at place: Int) {
    guard translations.entryPoints[index] == absent else { return }
    let start = UInt32(truncatingIfNeeded: code.executable + UInt(place))
    self.translations = translations
    translations.entryPoints[index] = start
    resolve(index, start)
  }

  mutating func addWaiting(_ translations: PageTranslations, _ index: Int, _ place: Int) {
    let location = code.writable + place
    let target = translations.entryPoints[index]
    if target != absent {
      code.lead(location, to: UInt(target))
    } else {
      self.translations = translations
      wait(Assembler.Patch(location: location), index)
    }
  }

  func hasRoom(forBlocks count: Int) -> Bool {
    let size = count * Self.largestBlock
    return waitingCount + (count + 1) * Self.maximumDeferred <= Self.maximumWaiting
      && code.middle - assembler.cursor > size && code.stubs - behind > size
      && code.writable + code.count - stubs > count * Self.largestStubs
  }

  var codeBytes: Int { frontBytes + behindBytes + stubBytes }
  var here: UInt { assembler.here }
  var lastLength: Int { trace.count }

  mutating func keepMap(_ map: CodeMap) {
    map.places.pointee.shared = UInt64(code.executable)
    map.places.pointee.calls = UInt64(thunks.refillRead)
    map.places.pointee.blocks = UInt64(code.executable) + UInt64(firstBlock - code.writable)
    map.places.pointee.end = UInt64(code.executable) + UInt64(code.count)
    self.map = map
  }

  mutating func translate(
    _ page: UnsafeMutablePointer<CodePage>, _ translations: PageTranslations, _ index: Int, isGrouping: Bool,
    nextHalf: UInt16?, mayRunOn: Bool
  ) -> UInt32 {
    self.page = page
    self.translations = translations
    following = nil
    code.populate(from: assembler.cursor, behind: behind)
    trace.read(page.pointee.source, from: index * 2, nextHalf, until: translations, absent)
    if isGrouping { trace.planGroups(Self.self) }
    trace.simplify()
    let isLoop = isGrouping && trace.endsAtItsBegin
    trace.planEvents(isLoop: isLoop)
    deferredCount = 0
    let start = UInt32(truncatingIfNeeded: assembler.here)
    if isGrouping {
      translations.entryPoints[index] = start
      resolve(index, start)
    }
    map?.begin(at: assembler.here, page, offset: index * 2)
    current = 0
    beginRegisters()
    if let nextHalf { emitCheck(nextHalf: nextHalf) }
    loop = nil
    countsDown = false
    loopUnextended = 0
    if isLoop {
      let chosen = loopRegisters()
      assembler.convert(registers, to: chosen)
      registers = chosen
      trace.planLoopAccesses()
      keepsAddend = placeCount < RegisterMap.places.count && !trace.hasGroupsBesideLoopAccesses
      loop = (trace.loopAccessCount > 0 ? nil : assembler.here, chosen)
    }
    let plain = assembler.here
    if trace.count > 0 {
      takeSnapshot()
      if let count = located(RegisterMap.remaining) {
        assembler.arithmetic(.sub, count, immediate: Int32(trace.count))
      } else {
        assembler.arithmetic(.sub, StateLayout.remaining, immediate: Int32(trace.count))
      }
      let patch = assembler.jump(if: .less)
      postpone(.budget(patch))
    }
    // What is emitted behind the block stands in the way where a map wants it there.
    self.mayRunOn = mayRunOn && map == nil && trace.loopAccessCount == 0
    emitSteps()
    if trace.loopAccessCount > 0, let loop, let turn {
      self.mayRunOn = mayRunOn && map == nil
      assembler.fillHere(turn)
      loopUnextended = unextendedAtHead(of: loop.map)
      emitLoopLookups(loop.map, otherwise: plain)
      emitSteps()
    }
    if let map {
      // Whoever looks addresses up finds them in their order.
      map.note(assembler.here, offset: index * 2)
      emitDeferred()
      map.end(at: assembler.here)
    } else {
      swap(&assembler.cursor, &behind)
      emitDeferred()
      swap(&assembler.cursor, &behind)
    }
    // With a map, what is led elsewhere often lies there, too.
    if map == nil, following == nil { code.noteComplete(below: assembler.cursor) }
    return start
  }

  /// Emits all steps, and the way on behind them.
  private mutating func emitSteps() {
    isFloatChecked = false
    isFloatDirty = false
    boxed = 0
    unextended = loopUnextended
    words = 1 | loopUnextended
    held = nil
    loadedGroup = -1
    loadedAddend = -1
    isCarryNext = false
    known.update(repeating: .nothing, count: 32)
    current = 0
    while current < trace.count {
      nextHeld = nil
      map?.note(assembler.here, offset: trace.steps[current].offset)
      emit(trace.steps[current])
      held = nextHeld
      current += 1
    }
    extendAll()
    restoreCanonical()
    countWhole()
    switch trace.end {
    case .jump: break
    case .next(let offset):
      if offset < 4096 { emitEnd(toOffset: offset) } else { emitFarJump(Int64(offset), isCall: false) }
    case .interpreter(let offset):
      assembler.moveImmediate(.rax, UInt64(offset))
      assembler.jump(thunks.executeBlockEnd)
    }
  }

  // MARK: ways out

  /// How many instructions the block has counted and not executed when it is left before the present step.
  var uncounted: Int { trace.count - current }

  /// Jumps to a place of this page, whose block may be still to come. All instructions counted are executed. What is
  /// reached about as often as this block gets its own when it is reached next.
  mutating func emitJump(toOffset offset: Int, isUsual: Bool = true) {
    let index = offset >> 1
    let target = translations.entryPoints[index]
    if target != absent {
      assembler.jump(UInt(target))
    } else {
      let patch = assembler.jump()
      if isUsual { heat.markHot(page, index) }
      wait(patch, index)
      postpone(.link(patch, offset))
    }
  }

  /// Ends the block with a way on to a place of this page. Where there is no block yet, it is to follow right here.
  mutating func emitEnd(toOffset offset: Int) {
    if mayRunOn, !trace.hasBranches, offset != CodePage.lastHalf, translations.entryPoints[offset >> 1] == absent {
      following = offset
    } else {
      emitJump(toOffset: offset)
    }
  }

  /// Notes that `patch` is to be led to the block at `index` when there is one.
  mutating func wait(_ patch: Assembler.Patch, _ index: Int) {
    let item: Int32
    if freeWaiting != PageTranslations.none {
      item = freeWaiting
      freeWaiting = waiting[Int(item)].next
    } else {
      guard waitingCount < Self.maximumWaiting else { return }
      item = Int32(waitingCount)
      waitingCount += 1
    }
    waiting[Int(item)] = WaitingJump(patch: patch, index: Int32(index), next: translations[waitingFor: index])
    translations[waitingFor: index] = item
  }

  private mutating func resolve(_ index: Int, _ start: UInt32) {
    var previous = PageTranslations.none
    var item = translations[waitingFor: index]
    while item != PageTranslations.none {
      let next = waiting[Int(item)].next
      if waiting[Int(item)].index == Int32(index) {
        code.lead(waiting[Int(item)].patch.location, to: UInt(start))
        if previous == PageTranslations.none {
          translations[waitingFor: index] = next
        } else {
          waiting[Int(previous)].next = next
        }
        waiting[Int(item)].next = freeWaiting
        freeWaiting = item
      } else {
        previous = item
      }
      item = next
    }
  }

  /// Compares the begin of the next page with the half of an instruction that was found there. What is behind the page
  /// may be another one for each process.
  private mutating func emitCheck(nextHalf: UInt16) {
    assembler.loadAddress(.rdx, HostAddress(pageBase(.rdx), 4096))
    let missing = Self.emitFetchEntry(&assembler)
    assembler.load(.rcx, HostAddress(.rcx, StateLayout.fetchPage))
    assembler.load(.rcx, HostAddress(.rcx, StateLayout.pageSource))
    assembler.zeroExtend16(.rcx, HostAddress(.rcx))
    assembler.arithmetic(.compare, .rcx, immediate: Int32(nextHalf), .long)
    let differing = assembler.jump(if: .notEqual)
    postpone(.otherNextPage(missing, differing))
  }

  /// Looks up the page whose address is in rdx among the remembered fetch translations; leaves the entry's address in
  /// rcx. Returns the jump that is taken where it isn't there.
  private static func emitFetchEntry(_ a: inout Assembler) -> Assembler.Patch {
    a.rotateRight(.rcx, .rdx, by: UInt8(TranslationCache.fetchShift), .long)
    a.arithmetic(.and, .rcx, StateLayout.fetchMask, .long)
    a.arithmetic(.add, .rcx, StateLayout.fetchEntries)
    a.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    return a.jump(if: .notEqual)
  }

  /// The same, and goes over to that page: its entry points' address is in rcx.
  private static func emitPageLookup(_ a: inout Assembler) -> Assembler.Patch {
    let missing = emitFetchEntry(&a)
    a.store(StateLayout.pageBase, .rdx)
    a.move(PinnedRegisters.pageBase, .rdx)
    a.load(.rcx, HostAddress(.rcx, StateLayout.fetchEntryPoints))
    return missing
  }

  /// Jumps to the guest address in rax. Entry points expect the offset in the page in eax. Returns the jump that is taken
  /// where the page isn't known, for the way out at `exitAbsolute`.
  static func emitIndirectJump(_ a: inout Assembler, isCall: Bool) -> Assembler.Patch {
    a.move(.rdx, .rax)
    a.arithmetic(.and, .rdx, immediate: -4096)
    let missing = emitPageLookup(&a)
    a.arithmetic(.and, .rax, immediate: 0xFFE, .long)
    a.load(.rcx, HostAddress(.rcx, index: .rax, shift: 1), .long)
    if isCall { a.call(.rcx) } else { a.jump(.rcx) }
    return missing
  }

  /// Jumps to a place outside this page, `offset` bytes from its base.
  mutating func emitFarJump(_ offset: Int64, isCall: Bool) {
    let inPage = Int32(offset & 0xFFF)
    let distance = offset & ~0xFFF
    if let short = Int32(exactly: distance) {
      assembler.loadAddress(.rdx, HostAddress(PinnedRegisters.pageBase, short))
    } else {
      assembler.moveImmediate(.rdx, UInt64(bitPattern: distance))
      assembler.arithmetic(.add, .rdx, PinnedRegisters.pageBase)
    }
    let missing = Self.emitPageLookup(&assembler)
    postpone(.farMiss(missing, inPage))
    assembler.moveImmediate(.rax, UInt64(inPage))
    assembler.load(.rcx, HostAddress(.rcx, inPage << 1), .long)
    if isCall { assembler.call(.rcx) } else { assembler.jump(.rcx) }
  }

  /// Puts the guest's return address onto the host's stack.
  mutating func emitPushReturn(_ address: HostRegister) {
    assembler.arithmetic(.compare, .rsp, StateLayout.returnStackLimit)
    let full = assembler.jump(if: .below)
    postpone(.returnStackFull(full, assembler.here))
    assembler.push(address)
  }

  /// Where a call comes back to: the guest's return address is on top.
  mutating func emitLanding(_ offset: Int) {
    let base = PinnedRegisters.pageBase
    assembler.pop(base)
    assembler.arithmetic(.and, base, immediate: -4096)
    // Behind a call at the page's end it is the next page's.
    if offset >= 4096 { assembler.arithmetic(.sub, base, immediate: 4096) }
    assembler.store(StateLayout.pageBase, base)
    if offset < 4096 { emitEnd(toOffset: offset) } else { emitFarJump(Int64(offset), isCall: false) }
  }

  // MARK: what stands behind the block

  /// The check of an access that fails: its jump, and where to try again with the address in rax.
  struct Miss {
    var jump: Assembler.Patch
    var retry: Assembler.Label
  }

  enum Deferred {
    /// The page behind isn't known, or its begin isn't the half of an instruction that it was; nothing is counted.
    case otherNextPage(Assembler.Patch, Assembler.Patch)
    /// The block is entered with too few instructions left.
    case budget(Assembler.Patch)
    /// A loop has counted down: it looks its accesses up anew.
    case lookUpAgain(Assembler.Patch, Assembler.Label)
    /// A jump whose target has no block yet, all counted.
    case link(Assembler.Patch, Int)
    /// A branch out of the block: to an offset of the page (or beyond), giving back what wasn't executed.
    case side(Assembler.Patch, Int64, Int)
    case farMiss(Assembler.Patch, Int32)
    case returnStackFull(Assembler.Patch, Assembler.Label)
    /// A call of a slow path, then back.
    case slowLoad(Miss, UInt32, HostRegister, Assembler.Label)
    /// The value to store is in a register; nil: in memory at the address.
    case slowStore(Miss, UInt32, HostRegister?, HostAddress, Assembler.Label)
    /// The check of a group: the number of its bytes; where in the page and with how many instructions to give back the
    /// block is left; whether the check holds the first address less the page's in rax, or else the address.
    case prepare(Miss, UInt32, Int32, Int, Int, isStore: Bool, isDistance: Bool, Assembler.Label)
    /// Prepares floating point, then back; or the interpreter goes on.
    case floatReady(Assembler.Patch, Int, Int, Assembler.Label)
    case executeOne(Assembler.Patch, UInt32, Assembler.Label)
    /// The page of a block to be zeroed isn't known.
    case zeroBlock(Miss, UInt32, Assembler.Label)
    /// A floating-point load's slow path: its bits go to xmm0.
    case slowFloatLoad(Miss, UInt32, Assembler.Label)
    /// A floating-point store's slow path.
    case slowFloatStore(Miss, UInt32, VectorRegister, Assembler.Label)
    /// Puts the canonical NaN into a register.
    case notANumber(Assembler.Patch, VectorRegister, isSingle: Bool, Assembler.Label)
  }

  mutating func postpone(_ item: Deferred) {
    // A block has a few for each instruction at most.
    precondition(deferredCount < Self.maximumDeferred)
    deferred[deferredCount] = (item, unextended, snapshotCount - 1)
    deferredCount += 1
  }

  private mutating func emitOffsetExit(_ offset: Int, _ exit: Assembler.Label) {
    assembler.moveImmediate(.rax, UInt64(bitPattern: Int64(offset)))
    assembler.jump(exit)
  }

  /// Emits code where it can still be written when all else can't.
  @inline(__always)
  private mutating func emitStub(_ body: (inout X86BackEnd) -> Void) {
    // With a map, all is in the order of addresses, and nothing is settled.
    if map != nil { return body(&self) }
    swap(&assembler.cursor, &stubs)
    body(&self)
    swap(&assembler.cursor, &stubs)
  }

  private mutating func emitDeferred() {
    // Items may add items.
    var index = 0
    while index < deferredCount {
      emit(deferred[index].item, deferred[index].unextended, deferred[index].snapshot)
      index += 1
    }
  }

  /// Tries the second table. The check has left the address, or its distance from the entry's page, in rax, and the
  /// entry's place in rcx; where that table doesn't know, the address is in rax.
  private mutating func emitRefill(_ miss: Miss, isStore: Bool, isDistance: Bool = true) {
    assembler.fillHere(miss.jump)
    if isDistance { assembler.arithmetic(.add, .rax, HostAddress(.rcx, 0)) }
    assembler.call(isStore ? thunks.refillWrite : thunks.refillRead)
    assembler.jump(miss.retry, if: .equal)
  }

  /// Calls the slow path of an access to the address in rax.
  private mutating func emitSlowAccess(_ site: UInt32, _ unextended: UInt32, _ snapshot: Int) {
    emitCanonical(snapshot, unextended)
    assembler.moveImmediate(.rcx, UInt64(site))
    assembler.call(thunks.slowAccess)
    emitRestore(snapshot)
  }

  private mutating func giveBack(_ count: Int) {
    if count > 0 { assembler.arithmetic(.add, PinnedRegisters.remaining, immediate: Int32(count)) }
  }

  private mutating func emit(_ item: Deferred, _ unextended: UInt32, _ snapshot: Int) {
    switch item {
    case .otherNextPage(let missing, let differing):
      assembler.fillHere(missing)
      assembler.fillHere(differing)
      emitOffsetExit(CodePage.lastHalf, thunks.exitInterpretOne)
    case .budget(let patch):
      assembler.fillHere(patch)
      emitCanonical(snapshot, 0)
      giveBack(trace.count)
      emitOffsetExit(trace.steps[0].offset, thunks.exitBudget)
    case .lookUpAgain(let patch, let again):
      assembler.fillHere(patch)
      endCountDown(snapshots[snapshot].map)
      assembler.jump(again)
    case .link(let patch, let offset):
      emitStub { back in
        back.assembler.fillHere(patch)
        back.emitOffsetExit(offset, back.thunks.exitDispatch)
      }
    case .side(let patch, let offset, let count):
      assembler.fillHere(patch)
      emitCanonical(snapshot, unextended)
      giveBack(count)
      if offset >= 0, offset < 4096 {
        emitJump(toOffset: Int(offset), isUsual: false)
      } else {
        emitFarJump(offset, isCall: false)
      }
    case .farMiss(let patch, let inPage):
      assembler.fillHere(patch)
      assembler.loadAddress(.rax, HostAddress(.rdx, inPage))
      assembler.jump(thunks.exitAbsolute)
    case .returnStackFull(let patch, let back):
      assembler.fillHere(patch)
      assembler.load(.rsp, StateLayout.returnStackBase)
      assembler.jump(back)
    case .slowLoad(let miss, let site, let register, let back):
      emitRefill(miss, isStore: false)
      emitSlowAccess(site, unextended, snapshot)
      if register != .rax { assembler.move(register, .rax) }
      assembler.jump(back)
    case .slowStore(let miss, let site, let register, let place, let back):
      emitRefill(miss, isStore: true)
      if register == nil { assembler.load(.rcx, place) }
      assembler.store(StateLayout.slowValue, register ?? .rcx)
      emitSlowAccess(site, unextended, snapshot)
      assembler.jump(back)
    case .slowFloatStore(let miss, let site, let register, let back):
      emitRefill(miss, isStore: true)
      assembler.store(StateLayout.slowValue, register, .double)
      emitSlowAccess(site, unextended, snapshot)
      assembler.jump(back)
    case .slowFloatLoad(let miss, let site, let back):
      emitRefill(miss, isStore: false)
      emitSlowAccess(site, unextended, snapshot)
      assembler.move(.xmm0, .rax)
      assembler.jump(back)
    case .prepare(let miss, let site, let span, let offset, let count, let isStore, let isDistance, let retry):
      emitRefill(miss, isStore: isStore, isDistance: isDistance)
      emitCanonical(snapshot, unextended)
      // Accesses across the page's end don't match either, and never will.
      assembler.move(.rcx, .rax, .long)
      assembler.arithmetic(.and, .rcx, immediate: 0xFFF, .long)
      assembler.arithmetic(.compare, .rcx, immediate: 4096 - span, .long)
      let crossing = assembler.jump(if: .above)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.prepareAccess)
      assembler.test(.rax, .rax, .long)
      let failed = assembler.jump(if: .equal)
      emitRestore(snapshot)
      assembler.jump(retry)
      assembler.fillHere(failed)
      assembler.fillHere(crossing)
      giveBack(count)
      let way = assembler.jump()
      emitStub { back in
        back.assembler.fillHere(way)
        let jump = back.assembler.jump()
        back.assembler.fillHere(jump)
        back.assembler.loadAddress(
          .rcx, of: UInt(bitPattern: Int(bitPattern: jump.location) &+ back.assembler.executableOffset))
        back.emitOffsetExit(offset, back.thunks.exitUngrouped)
      }
    case .floatReady(let patch, let offset, let count, let back):
      assembler.fillHere(patch)
      assembler.call(thunks.makeFloatReady)
      assembler.test(.rax, .rax, .long)
      assembler.jump(back, if: .notEqual)
      emitCanonical(snapshot, unextended)
      giveBack(count)
      emitOffsetExit(offset, thunks.exitInterpretOn)
    case .executeOne(let patch, let site, let back):
      assembler.fillHere(patch)
      emitCanonical(snapshot, unextended)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.executeOne)
      emitRestore(snapshot)
      assembler.jump(back)
    case .zeroBlock(let miss, let site, let back):
      emitRefill(miss, isStore: true)
      emitCanonical(snapshot, unextended)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.executeOne)
      emitRestore(snapshot)
      assembler.jump(back)
    case .notANumber(let patch, let register, let isSingle, let back):
      assembler.fillHere(patch)
      assembler.moveImmediate(.rax, isSingle ? 0xFFFF_FFFF_7FC0_0000 : 0x7FF8_0000_0000_0000)
      assembler.move(register, .rax)
      assembler.jump(back)
    }
  }
}

/// What is known of an integer register's value while a block is translated.
enum KnownValue {
  case nothing
  case constant(UInt64)
  /// A distance from the address of the block's page.
  case fromPage(Int64)
}

import Hart
import HostSystem
import RISCV

/// Runs a hart's hot code as host code. Each hart has its own translator, with its own code memory: nothing is shared,
/// so nothing is locked, and a FENCE.I concerns only the hart that executes it, as the architecture has it.
///
/// Code is translated by physical page: a block holds nothing that depends on the virtual address it runs at (that comes
/// from `HartState.pageBase`), so a library's code is translated once, wherever processes map it. Jumps within a page are
/// direct; any other jump looks the target's page up among the remembered fetch translations, and goes through that
/// page's table of entry points. So neither a change of mappings nor of code has links to undo.
package final class Translator: ExecutionEngine {
  /// The hart holds its engine. Functions of the run loop are handed the hart, for each use of this one would count.
  let hart: Unmanaged<Hart>
  let state: UnsafeMutablePointer<HartState>
  private let code: CodeMemory
  private var backEnd: HostBackEnd
  private let hostToPhysical: UInt64
  /// How often a place is reached before it is translated.
  private let threshold: UInt8
  /// Counts the pages whose translations were dropped.
  private(set) var forgottenPages: UInt64 = 0
  /// Code that it began with; nil: none.
  private var kept: KeptCode?
  /// The code memory has that still.
  private var isKeptShown = false
  private var keptPageCount = 0
  /// Notes each block that is translated; nil: nobody asks.
  var ledger: BlockLedger?
  private var flushCount = 0
  private var entryCount = 0
  private var blockCount = 0
  private var instructionCount = 0
  private var pages: [PageTranslations] = []
  /// The entry points of a page that has none.
  private let absentPage: PageTranslations

  private var stretches: UInt64 = 0
  /// Some 0.4 s of busy stretches: whoever runs so long gets its tables in large pages, a part at a time.
  private static let gatherInterval: UInt64 = 16384

  /// Some 0.1 s of busy stretches.
  package static let usualQuietLimit = 4096

  /// Bytes of code memory of one hart at most. The host gives them as they are touched.
  static let largestCodeSize = 256 << 20

  /// A translator for `hart`; the caller sets it as its engine. Throws `HostError` where the host has no executable
  /// memory or lacks instructions that generated code uses.
  ///
  /// - Parameters:
  ///   - threshold: how often a place in the guest's code is reached before it is translated, 1...255.
  ///   - codeSize: bytes of code memory, a multiple of the page size and at least 1 MiB.
  ///   - quietLimit: stretches without new code after which what is complete moves to large pages.
  ///   - kept: code of an earlier run to begin with.
  package init(
    _ hart: Hart, threshold: Int, codeSize: Int, quietLimit: Int = Translator.usualQuietLimit,
    beginningWith kept: KeptCode? = nil
  ) throws {
    try HostBackEnd.checkHost()
    self.hart = .passUnretained(hart)
    state = hart.state
    hostToPhysical = hart.memory.base.rawValue &- UInt64(UInt(bitPattern: hart.memory.host))
    self.threshold = UInt8(max(1, min(255, threshold)))
    code = try CodeMemory(count: codeSize, quietLimit: quietLimit)
    backEnd = HostBackEnd(code)
    // Entry points that lead nowhere yet lead to the way out, with the offset in the page.
    absentPage = PageTranslations(try hart.codeArena.allocate(PageTranslations.byteCount), absent: backEnd.absent)
    hart.absentEntryPoints = absentPage.entryPoints
    if let kept, kept.show(in: code, sharedBytes: backEnd.sharedBytes) {
      backEnd.goOn(front: kept.front, behind: kept.behind, stubs: kept.stubs)
      self.kept = kept
      isKeptShown = true
    }
  }

  // MARK: running

  package func execute(_ budget: Int, exactly: Bool) {
    hart._withUnsafeGuaranteedRef { execute($0, budget, exactly: exactly) }
  }

  private func execute(_ hart: Hart, _ budget: Int, exactly: Bool) {
    state.pointee.translator = Unmanaged.passUnretained(self).toOpaque()
    state.pointee.hostToPhysical = hostToPhysical
    code.noteStretch()
    stretches &+= 1
    if stretches % Self.gatherInterval == 0 { hart.codeArena.gather() }
    var remaining = Int64(budget)
    while remaining > 0 {
      let pc = state.pointee.pc
      let base = pc & TranslationCache.pageMask
      var entry = state.fetchEntry(pc)
      if entry.pointee.tag != base {
        guard hart.fetchPage(pc) != nil else {
          hart.takeTrap(state.pointee.trapCause, state.pointee.trapValue)
          remaining -= 1
          if mustLeave(hart) { return }
          continue
        }
        if hart.isFetchConfined {
          interpret(hart, 1, &remaining)
          if mustLeave(hart) { return }
          continue
        }
        entry = state.fetchEntry(pc)
      }
      let page = entry.pointee.page.unsafelyUnwrapped
      let index = Int(pc & 0xFFF) >> 1
      var entryPoints = page.pointee.entryPoints ?? absentPage.entryPoints
      var target = entryPoints[index]
      if target == backEnd.absent, !page.pointee.isLookedUp, isKeptShown, addKeptCode(to: page) {
        entryPoints = page.pointee.entryPoints.unsafelyUnwrapped
        target = entryPoints[index]
      }
      if target == backEnd.absent {
        let nextHalf = nextHalf(page, index, base)
        if !backEnd.heat.reach(page, index, threshold: threshold) || nextHalf.isUnknown {
          interpret(hart, Int(remaining), &remaining, untilJump: true)
          if mustLeave(hart) { return }
          continue
        }
        if isFull { flush() }
        target = translate(page, index, nextHalf.value)
        entryPoints = page.pointee.entryPoints.unsafelyUnwrapped
      }
      entry.pointee.entryPoints = entryPoints
      state.pointee.remaining = remaining
      state.pointee.horizon = state.pointee.retired &+ UInt64(remaining)
      state.pointee.pageBase = base
      entryCount &+= 1
      let reason = backEnd.enter(state, target)
      remaining = state.pointee.remaining
      state.pointee.retired = state.pointee.horizon &- UInt64(bitPattern: remaining)
      collectFloatingPointFlags()
      switch reason {
      case .dispatch: break
      case .budget:
        // Large blocks would leave the interpreter much to do at the end of each stretch.
        if !exactly, remaining < budget { return }
        interpret(hart, Int(remaining), &remaining)
      case .interpretOne where remaining > 0: interpret(hart, 1, &remaining)
      case .interpretOn: interpret(hart, Int(remaining), &remaining, untilJump: true)
      case .ungrouped: if !addUngroupedBlock() { interpret(hart, Int(remaining), &remaining, untilJump: true) }
      default: break
      }
      if reason != .dispatch, mustLeave(hart) { return }
    }
  }

  /// Blocks that run into each other, at most.
  private static let longestRun = 6

  /// Translates a block and those that it runs into, and returns its address.
  private func translate(
    _ page: UnsafeMutablePointer<CodePage>, _ index: Int, _ nextHalf: UInt16?
  ) -> UInt32 {
    let translations = PageTranslations(page.pointee.entryPoints ?? addTranslations(to: page))
    var count = 0
    var start: UInt32 = 0
    var next: Int? = index
    while let index = next {
      count += 1
      let address = translate(
        page, translations, index, nextHalf: count == 1 ? nextHalf : nil,
        mayRunOn: count < Self.longestRun && backEnd.hasRoom(forBlocks: 2))
      if count == 1 { start = address }
      next = backEnd.following.map { $0 >> 1 }
    }
    return start
  }

  private func translate(
    _ page: UnsafeMutablePointer<CodePage>, _ translations: PageTranslations, _ index: Int, isGrouping: Bool = true,
    nextHalf: UInt16? = nil, mayRunOn: Bool = false
  ) -> UInt32 {
    let start = backEnd.translate(
      page, translations, index, isGrouping: isGrouping, nextHalf: nextHalf, mayRunOn: mayRunOn)
    blockCount += 1
    instructionCount += backEnd.lastLength
    ledger?.add(
      TranslatedBlock(
        physical: page.pointee.physical &+ UInt64(index * 2), start: UInt(start), end: backEnd.here,
        instructionCount: backEnd.lastLength))
    return start
  }

  /// The second half of an instruction that begins with the last two bytes of the page at `base`; nil for any other
  /// place. Unknown where the page behind hasn't been fetched from.
  private func nextHalf(
    _ page: UnsafeMutablePointer<CodePage>, _ index: Int, _ base: UInt64
  ) -> (value: UInt16?, isUnknown: Bool) {
    guard index * 2 == CodePage.lastHalf,
      page.pointee.source.loadUnaligned(fromByteOffset: CodePage.lastHalf, as: UInt16.self) & 3 == 3
    else { return (nil, false) }
    let next = base &+ 4096
    let entry = state.fetchEntry(next)
    guard entry.pointee.tag == next, let page = entry.pointee.page else { return (nil, true) }
    return (page.pointee.source.loadUnaligned(as: UInt16.self), false)
  }

  /// Translates the block at pc without access groups, and leads the jump there that came here for it.
  /// False where the page isn't known any more or memory is full.
  private func addUngroupedBlock() -> Bool {
    let pc = state.pointee.pc
    let entry = state.fetchEntry(pc)
    guard entry.pointee.tag == pc & TranslationCache.pageMask, let page = entry.pointee.page,
      let entryPoints = page.pointee.entryPoints, !isFull,
      let jump = UnsafeMutablePointer<UInt8>(bitPattern: Int(state.pointee.slowValue) &- code.executableOffset)
    else { return false }
    let index = Int(pc & 0xFFF) >> 1
    let start = translate(page, PageTranslations(entryPoints), index, isGrouping: false)
    code.lead(jump, to: UInt(start))
    return true
  }

  private func interpret(_ hart: Hart, _ count: Int, _ remaining: inout Int64, untilJump: Bool = false) {
    guard count > 0 else { return }
    let before = state.pointee.retired &+ hart.trapCount
    hart.interpret(count, untilJump: untilJump)
    // A trap counts as an instruction, that a handler that traps itself can't stay for ever.
    remaining -= max(1, Int64(bitPattern: state.pointee.retired &+ hart.trapCount &- before))
  }

  /// Whether the run loop has something to do before the next instruction.
  @inline(__always)
  func mustLeave(_ hart: Hart) -> Bool { hart.hasReasonToLeave }

  /// Moves the exceptions that generated code has met from MXCSR to fflags.
  @inline(__always)
  func collectFloatingPointFlags() {
    let flags = state.pointee.guestFloatControl & 0x3F
    if flags != 0 { moveFloatingPointFlags(flags) }
  }

  @inline(never)
  private func moveFloatingPointFlags(_ flags: UInt32) {
    let guest = state.pointee.flagsOfHost[Int(flags)]
    if state.pointee.floatingPointFlags | guest != state.pointee.floatingPointFlags {
      state.pointee.floatingPointFlags |= guest
      state.pointee.mstatus |= MachineStatus.fs
    }
    state.pointee.guestFloatControl &= ~0x3F
  }

  // MARK: pages

  private func addTranslations(to page: UnsafeMutablePointer<CodePage>) -> UnsafeMutablePointer<UInt32> {
    let memory = try? hart._withUnsafeGuaranteedRef { try $0.codeArena.allocate(PageTranslations.byteCount) }
    guard let memory else { fatalError("no memory for the guest's code") }
    let translations = PageTranslations(memory, absent: backEnd.absent)
    pages.append(translations)
    page.pointee.entryPoints = translations.entryPoints
    return translations.entryPoints
  }

  package func forget(_ page: UnsafeMutablePointer<CodePage>) {
    page.pointee.isLookedUp = false
    guard let entryPoints = page.pointee.entryPoints else { return }
    forgottenPages &+= 1
    PageTranslations(entryPoints).clear(backEnd.absent)
  }

  package func prepare(_ page: UnsafeMutablePointer<CodePage>) {
    if !page.pointee.isLookedUp, isKeptShown { _ = addKeptCode(to: page) }
  }

  package func lastingContent(equalTo bytes: UnsafeRawPointer) -> UnsafeRawPointer? {
    kept?.content(equalTo: bytes)
  }

  /// Whether there was code for the page in what is kept.
  @inline(never)
  private func addKeptCode(to page: UnsafeMutablePointer<CodePage>) -> Bool {
    guard let kept, isKeptShown else { return false }
    switch kept.find(page.pointee.source) {
    case .notYet: return false
    case .nothing:
      page.pointee.isLookedUp = true
      return false
    case .found(let record):
      page.pointee.isLookedUp = true
      let translations = PageTranslations(page.pointee.entryPoints ?? addTranslations(to: page))
      guard backEnd.hasRoom(forBlocks: 1 + record.jumpCount / X86BackEnd.maximumDeferred) else { return false }
      for number in 0..<record.entryCount {
        let (index, place) = record.entry(number)
        backEnd.addBlock(translations, index, at: place)
      }
      for number in 0..<record.jumpCount {
        let (index, place) = record.jump(number)
        backEnd.addWaiting(translations, index, place)
      }
      keptPageCount += 1
      return true
    }
  }

  /// See `CodeMemory`. Only before it has run. Throws `HostError`.
  package func becomeIndependent() throws {
    // Where it stands: a copy for each of these would take a good part of a small machine's stack.
    let (front, behind, stubs) = withUnsafeMutablePointer(to: &backEnd) {
      ($0.pointee.frontBytes, $0.pointee.behindBytes, $0.pointee.stubBytes)
    }
    try code.becomeIndependent(front: front, behind: behind, stubs: stubs)
  }

  /// How much code was made here that `keepCode` would add to what the translator began with, bytes.
  package var newCodeBytes: Int {
    let kept = isKeptShown ? kept : nil
    return backEnd.codeBytes - (kept.map { $0.front + $0.behind + $0.stubs } ?? backEnd.sharedBytes)
  }

  /// Writes all code that there is to a file, for translators of later runs to begin with. While the hart doesn't run.
  /// Throws `HostError`.
  package func keepCode(at path: String) throws {
    var writer = KeptCode.Writer()
    hart._withUnsafeGuaranteedRef { hart in
      hart.forEachCodePage { page in
        guard let entryPoints = page.pointee.entryPoints else { return }
        let translations = PageTranslations(entryPoints)
        var entries: [KeptCode.Record.Pair] = []
        for index in 0..<CodePage.slotCount where entryPoints[index] != backEnd.absent {
          entries.append((index, Int(UInt(entryPoints[index]) - code.executable)))
        }
        if entries.isEmpty { return }
        var jumps: [KeptCode.Record.Pair] = []
        backEnd.forEachWaiting(translations) { jumps.append(($0, $1)) }
        writer.add(page.pointee.source, entries: entries, jumps: jumps)
      }
    }
    try writer.write(
      to: path, code, shared: backEnd.sharedBytes, front: backEnd.frontBytes, behind: backEnd.behindBytes,
      stubs: backEnd.stubBytes)
  }

  /// Begins anew with an empty code memory.
  private func flush() {
    flushCount += 1
    beginAnew()
  }

  private func beginAnew() {
    ledger?.removeAll()
    isKeptShown = false
    for page in pages { page.clear(backEnd.absent) }
    code.unsettle()
    backEnd.clear()
  }

  /// Whether another block might not fit.
  private var isFull: Bool { !backEnd.hasRoom(forBlocks: 1) }

  // MARK: what is measured

  /// What it has done since the machine was new, and what it holds now. While the hart doesn't run.
  package var metrics: TranslationMetrics {
    TranslationMetrics(
      blocks: blockCount, instructions: instructionCount, codeBytes: backEnd.codeBytes, codeLimit: code.count,
      settledBytes: code.settledBytes, keptBytes: code.shownBytes, keptPages: keptPageCount, flushes: flushCount,
      pages: pages.count, pageBytes: pages.count * PageTranslations.byteCount,
      forgottenPages: Int(forgottenPages), entries: entryCount)
  }

  /// Has the translator note what its code is made of, from now on. Before the hart runs.
  package func keepMap() -> CodeMap {
    if let map = backEnd.map { return map }
    let map = CodeMap(state)
    // It names what is made from now on.
    if isKeptShown { beginAnew() }
    backEnd.keepMap(map)
    return map
  }
}

import Hart
import RISCV

/// Translates one block of guest code: a trace of instructions of one page that begins at one place, follows jumps within
/// the page and goes on where a forward branch isn't taken. What is rare (side exits, slow paths) is emitted behind it.
///
/// The block subtracts the number of its instructions from the count of those left when it begins, and gives back what
/// it didn't execute where it is left early.
struct BlockTranslator {
  var assembler: Assembler
  let thunks: Thunks
  private let absent: UInt32

  /// An upper bound of a block's code, bytes.
  static let largestBlock = 64 << 10
  /// Guest instructions in a block at most.
  static let maximumLength = 96

  /// One instruction of the trace.
  struct Step {
    var instruction: Instruction
    /// In the page.
    var offset: Int
  }

  /// How a trace ends.
  private enum End {
    /// A jump, with its own way on, is the last step.
    case jump
    /// Goes on at this offset of the page; 4096: in the next page.
    case next(Int)
    /// The interpreter executes what stands here.
    case interpreter(Int)
  }

  let steps: UnsafeMutablePointer<Step>
  var stepCount = 0
  /// Told where the code of each instruction is; nil where nobody wants to know.
  var map: CodeMap?
  /// Blocks and guest instructions translated since the machine was new.
  private(set) var translatedBlocks = 0
  private(set) var translatedInstructions = 0
  /// What is emitted behind the block.
  let deferred: UnsafeMutablePointer<Deferred>
  var deferredCount = 0
  static let maximumDeferred = 512

  /// Jumps within pages that wait for their target's block: chains by page.
  private struct WaitingJump {
    var patch: Assembler.Patch
    var index: Int32
    var next: Int32
  }
  private let waiting: UnsafeMutablePointer<WaitingJump>
  private var waitingCount = 0
  private static let maximumWaiting = 1 << 20

  // The state of the block that is being translated.
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
  var group: AccessGroup?
  /// The guest register, one that lives in memory, whose value the step before has left in rax. It holds until the
  /// present step's first use of rax.
  var held: UInt8?
  /// The same for the next step.
  var nextHeld: UInt8?

  init(_ assembler: Assembler, _ thunks: Thunks) {
    self.assembler = assembler
    self.thunks = thunks
    absent = UInt32(truncatingIfNeeded: thunks.exitDispatch)
    steps = .allocate(capacity: Self.maximumLength + 1)
    deferred = .allocate(capacity: Self.maximumDeferred)
    waiting = .allocate(capacity: Self.maximumWaiting)
    known = .allocate(capacity: 32)
    known.initialize(repeating: .nothing, count: 32)
    translations = PageTranslations(UnsafeMutablePointer(bitPattern: 8)!)
  }

  func deallocate() {
    steps.deallocate()
    deferred.deallocate()
    waiting.deallocate()
    known.deallocate()
  }

  /// Forgets all blocks; the next begins at `cursor`.
  mutating func clear(from cursor: UnsafeMutablePointer<UInt8>) {
    assembler.cursor = cursor
    waitingCount = 0
    map?.clear()
  }

  /// Whether there is room for another block's jumps.
  var isFull: Bool { waitingCount + 2 * Self.maximumDeferred > Self.maximumWaiting }

  /// Translates the block that begins at half-word `index` of `page`, and returns its address.
  mutating func translate(
    _ page: UnsafeMutablePointer<CodePage>, _ translations: PageTranslations, _ index: Int
  ) -> UInt32 {
    self.translations = translations
    let end = trace(page, index * 2)
    deferredCount = 0
    isFloatChecked = false
    isFloatDirty = false
    boxed = 0
    group = nil
    held = nil
    known.update(repeating: .nothing, count: 32)
    let start = UInt32(truncatingIfNeeded: assembler.here)
    translations.entryPoints[index] = start
    resolve(index, start)
    map?.begin(at: assembler.here, page, offset: index * 2)
    current = 0
    if stepCount > 0 {
      assembler.arithmetic(.sub, PinnedRegisters.remaining, immediate: Int32(stepCount))
      let patch = assembler.jump(if: .negative)
      postpone(.budget(patch))
    }
    while current < stepCount {
      nextHeld = nil
      map?.note(assembler.here, offset: steps[current].offset)
      emit(steps[current])
      held = nextHeld
      current += 1
    }
    switch end {
    case .jump: break
    case .next(let offset):
      if offset < 4096 { emitJump(toOffset: offset) } else { emitFarJump(Int64(offset), isCall: false) }
    case .interpreter(let offset):
      assembler.moveImmediate(.rax, UInt64(offset))
      assembler.jump(thunks.exitInterpretOne)
    }
    map?.note(assembler.here, offset: index * 2)
    emitDeferred()
    map?.end(at: assembler.here)
    translatedBlocks += 1
    translatedInstructions += stepCount
    return start
  }

  // MARK: the trace

  /// Decodes the trace that begins at `start`.
  private mutating func trace(_ page: UnsafeMutablePointer<CodePage>, _ start: Int) -> End {
    let source = page.pointee.source
    var offset = start
    stepCount = 0
    while stepCount < Self.maximumLength {
      if offset >= 4096 { return .next(offset) }
      if stepCount > 0, translations.entryPoints[offset >> 1] != absent { return .next(offset) }
      let half = source.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
      let instruction: Instruction
      if half & 3 == 3 {
        if offset == 4094 { return .interpreter(offset) }
        instruction = Self.decoder.decode(source.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      } else {
        instruction = Self.decoder.decode(UInt32(half))
      }
      if Self.isForInterpreter(instruction) { return .interpreter(offset) }
      steps[stepCount] = Step(instruction: instruction, offset: offset)
      stepCount += 1
      switch instruction.operation {
      case .jal:
        let target = Int64(offset) + instruction.immediate
        guard instruction.rd == 0, target > Int64(offset), target < 4096 else { return .jump }
        offset = Int(target)
      case .jalr: return .jump
      case .beq, .bne, .blt, .bge, .bltu, .bgeu:
        offset += Int(instruction.length)
        if instruction.immediate <= 0 { return .next(offset) }
      default: offset += Int(instruction.length)
      }
    }
    return .next(offset)
  }

  private static let decoder = Decoder(extensions: .yadori)

  /// What ends a block because it changes what generated code relies on, or traps.
  private static func isForInterpreter(_ instruction: Instruction) -> Bool {
    switch instruction.operation {
    case .reserved, .ecall, .ebreak, .mret, .sret, .wfi, .sfence_vma, .sinval_vma, .fence_i: true
    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci: instruction.immediate == 0x180
    default: false
    }
  }

  // MARK: ways out

  /// How many instructions the block has counted and not executed when it is left before the present step.
  var uncounted: Int { stepCount - current }

  /// Jumps to a place of this page, whose block may be still to come. All instructions counted are executed.
  mutating func emitJump(toOffset offset: Int) {
    let index = offset >> 1
    let target = translations.entryPoints[index]
    if target != absent {
      assembler.jump(UInt(target))
    } else {
      let patch = assembler.jump()
      wait(patch, index)
      postpone(.link(patch, offset))
    }
  }

  /// Notes that `patch` is to be led to the block at `index` when there is one.
  mutating func wait(_ patch: Assembler.Patch, _ index: Int) {
    guard waitingCount < Self.maximumWaiting else { return }
    waiting[waitingCount] = WaitingJump(patch: patch, index: Int32(index), next: translations.waiting)
    translations.waiting = Int32(waitingCount)
    waitingCount += 1
  }

  private mutating func resolve(_ index: Int, _ start: UInt32) {
    var previous = PageTranslations.none
    var item = translations.waiting
    while item != PageTranslations.none {
      let next = waiting[Int(item)].next
      if waiting[Int(item)].index == Int32(index) {
        assembler.fill(waiting[Int(item)].patch, UInt(start))
        if previous == PageTranslations.none {
          translations.waiting = next
        } else {
          waiting[Int(previous)].next = next
        }
      } else {
        previous = item
      }
      item = next
    }
  }

  /// Looks up the page whose address is in rdx among the remembered fetch translations; leaves the entry's address in
  /// rcx. Returns the jump that is taken where it isn't there.
  private static func emitPageLookup(_ a: inout Assembler) -> Assembler.Patch {
    a.move(.rcx, .rdx, .long)
    a.shift(.right, .rcx, by: 7, .long)
    a.arithmetic(.and, .rcx, immediate: Int32(TranslationCache.fetchIndexMask) << 5, .long)
    a.arithmetic(.add, .rcx, StateLayout.fetchEntries)
    a.arithmetic(.compare, .rdx, HostAddress(.rcx, 0))
    let missing = a.jump(if: .notEqual)
    a.store(StateLayout.pageBase, .rdx)
    a.load(.rcx, HostAddress(.rcx, 16))
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
    assembler.load(.rdx, StateLayout.pageBase)
    let distance = offset & ~0xFFF
    if let short = Int32(exactly: distance) {
      assembler.arithmetic(.add, .rdx, immediate: short)
    } else {
      assembler.moveImmediate(.rax, UInt64(bitPattern: distance))
      assembler.arithmetic(.add, .rdx, .rax)
    }
    let missing = Self.emitPageLookup(&assembler)
    postpone(.farMiss(missing, inPage))
    assembler.moveImmediate(.rax, UInt64(inPage))
    assembler.load(.rcx, HostAddress(.rcx, inPage << 1), .long)
    if isCall { assembler.call(.rcx) } else { assembler.jump(.rcx) }
  }

  /// Puts the guest's return address (in ra by now) onto the host's stack.
  mutating func emitPushReturn() {
    assembler.arithmetic(.compare, .rsp, StateLayout.returnStackLimit)
    let full = assembler.jump(if: .below)
    postpone(.returnStackFull(full, assembler.here))
    assembler.push(PinnedRegisters.host(1)!)
  }

  /// Where a call comes back to: the guest's return address is on top.
  mutating func emitLanding(_ offset: Int) {
    assembler.pop(.rax)
    assembler.arithmetic(.and, .rax, immediate: -4096)
    // Behind a call at the page's end it is the next page's.
    if offset >= 4096 { assembler.arithmetic(.sub, .rax, immediate: 4096) }
    assembler.store(StateLayout.pageBase, .rax)
    if offset < 4096 { emitJump(toOffset: offset) } else { emitFarJump(Int64(offset), isCall: false) }
  }

  // MARK: what stands behind the block

  enum Deferred {
    /// The block is entered with too few instructions left.
    case budget(Assembler.Patch)
    /// A jump whose target has no block yet, all counted.
    case link(Assembler.Patch, Int)
    /// A branch out of the block: to an offset of the page (or beyond), giving back what wasn't executed.
    case side(Assembler.Patch, Int64, Int)
    case farMiss(Assembler.Patch, Int32)
    case returnStackFull(Assembler.Patch, Assembler.Label)
    /// A call of a slow path, then back.
    case slowLoad(Assembler.Patch, UInt32, HostRegister, Assembler.Label)
    /// The value to store in a register; nil: it is in memory at the address.
    case slowStore(Assembler.Patch, UInt32, HostRegister?, HostAddress, Assembler.Label)
    case prepare(Assembler.Patch, UInt32, Int, Int, Assembler.Label)
    case executeOne(Assembler.Patch, UInt32, Assembler.Label)
    /// A floating-point load's slow path: its bits go to a register in memory.
    case slowFloatLoad(Assembler.Patch, UInt32, Assembler.Label)
    /// The interpreter goes on at an offset, giving back what wasn't executed.
    case interpretOn(Assembler.Patch, Int, Int)
    /// Puts a canonical NaN into a floating-point register.
    case notANumber(Assembler.Patch, UInt8, isSingle: Bool, Assembler.Label)
  }

  mutating func postpone(_ item: Deferred) {
    // A block has a few for each instruction at most.
    precondition(deferredCount < Self.maximumDeferred)
    deferred[deferredCount] = item
    deferredCount += 1
  }

  private mutating func emitOffsetExit(_ offset: Int, _ exit: Assembler.Label) {
    assembler.moveImmediate(.rax, UInt64(bitPattern: Int64(offset)))
    assembler.jump(exit)
  }

  private mutating func emitDeferred() {
    // Items may add items.
    var index = 0
    while index < deferredCount {
      emit(deferred[index])
      index += 1
    }
  }

  private mutating func giveBack(_ count: Int) {
    if count > 0 { assembler.arithmetic(.add, PinnedRegisters.remaining, immediate: Int32(count)) }
  }

  private mutating func emit(_ item: Deferred) {
    switch item {
    case .budget(let patch):
      assembler.fillHere(patch)
      giveBack(stepCount)
      emitOffsetExit(steps[0].offset, thunks.exitBudget)
    case .link(let patch, let offset):
      assembler.fillHere(patch)
      emitOffsetExit(offset, thunks.exitDispatch)
    case .side(let patch, let offset, let count):
      assembler.fillHere(patch)
      giveBack(count)
      if offset >= 0, offset < 4096 { emitJump(toOffset: Int(offset)) } else { emitFarJump(offset, isCall: false) }
    case .farMiss(let patch, let inPage):
      assembler.fillHere(patch)
      assembler.loadAddress(.rax, HostAddress(.rdx, inPage))
      assembler.jump(thunks.exitAbsolute)
    case .returnStackFull(let patch, let back):
      assembler.fillHere(patch)
      assembler.load(.rsp, StateLayout.returnStackBase)
      assembler.jump(back)
    case .slowLoad(let patch, let site, let register, let back):
      assembler.fillHere(patch)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.slowAccess)
      if register != .rax { assembler.move(register, .rax) }
      assembler.jump(back)
    case .slowStore(let patch, let site, let register, let place, let back):
      assembler.fillHere(patch)
      if let register { assembler.move(.rdx, register) } else { assembler.load(.rdx, place) }
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.slowAccess)
      assembler.jump(back)
    case .slowFloatLoad(let patch, let site, let back):
      assembler.fillHere(patch)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.slowAccess)
      assembler.jump(back)
    case .prepare(let patch, let site, let offset, let count, let retry):
      assembler.fillHere(patch)
      // An access across the page's end doesn't match either, and never will.
      assembler.xor(.rdx, .rax)
      assembler.test(.rdx, immediate: -4096)
      let crossing = assembler.jump(if: .notEqual)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.prepareAccess)
      assembler.test(.rax, .rax, .long)
      assembler.jump(retry, if: .notEqual)
      assembler.fillHere(crossing)
      giveBack(count)
      emitOffsetExit(offset, thunks.exitInterpretOn)
    case .executeOne(let patch, let site, let back):
      assembler.fillHere(patch)
      assembler.moveImmediate(.rcx, UInt64(site))
      assembler.call(thunks.executeOne)
      assembler.jump(back)
    case .interpretOn(let patch, let offset, let count):
      assembler.fillHere(patch)
      giveBack(count)
      emitOffsetExit(offset, thunks.exitInterpretOn)
    case .notANumber(let patch, let register, let isSingle, let back):
      assembler.fillHere(patch)
      assembler.moveImmediate(.rax, isSingle ? 0xFFFF_FFFF_7FC0_0000 : 0x7FF8_0000_0000_0000)
      assembler.store(StateLayout.float(register), .rax)
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

/// Several accesses off one unchanged base register, whose page was looked up once: rdx holds the host address that
/// `low` bytes from the base register's value lie at.
struct AccessGroup {
  var base: UInt8
  var low: Int64
  /// The last step that belongs to it.
  var last: Int
}

import Hart
import RISCV

/// What a block is made of, before it is known for which host: the guest's instructions from one place on, following jumps
/// within the page and going on where a forward branch isn't taken, with what was found out about them. Each step knows
/// the registers that it reads and writes. A back end makes host code of it; see `BackEnd`.
///
/// One of these serves for all blocks, one after the other: nothing is allocated for each.
struct Trace: ~Copyable {
  /// Guest instructions in a block at most; in one that has only integer computation and accesses.
  static let maximumLength = 96
  static let maximumStraightLength = 320
  /// Of the values that registers in a block may have.
  static let rootCount = maximumStraightLength + 33

  /// One instruction of the trace.
  struct Step {
    var instruction: Instruction {
      didSet { derive() }
    }
    /// In the page.
    var offset: Int
    /// Of the operation.
    private(set) var effects: Effects = []
    /// The integer registers that it reads, a bit each, and the one that it writes; 0: none.
    private(set) var sources: UInt32 = 0
    private(set) var target: UInt8 = 0
    /// The access group it belongs to; -1: none.
    var group: Int16 = -1
    /// Where it accesses memory, in bytes from what the base register held when its group began.
    var groupOffset: Int64 = 0
    /// In a loop: the index of its `LoopAccess`; -1: none.
    var loopAccess: Int8 = -1

    init(_ instruction: Instruction, offset: Int) {
      self.instruction = instruction
      self.offset = offset
      derive()
    }

    /// The step's look-up starts from this register, too.
    mutating func alsoReads(_ register: UInt8) { sources |= 1 << UInt32(register) }

    private mutating func derive() {
      effects = instruction.operation.effects
      sources = Trace.integerSources(instruction, effects)
      target = effects.contains(.writesInteger) ? instruction.rd : 0
    }
  }

  /// How a trace ends.
  enum End {
    /// A jump, with its own way on, is the last step.
    case jump
    /// Goes on at this offset of the page; 4096: in the next page.
    case next(Int)
    /// What stands here has no host code: it is executed as the interpreter does.
    case interpreter(Int)
  }

  private let decoder = Decoder(extensions: .yadori)
  let steps: UnsafeMutablePointer<Step>
  private(set) var count = 0
  private(set) var end = End.jump
  /// Whether there are conditional branches: what stands at the end may be seldom reached.
  private(set) var hasBranches = false

  /// The accesses that share the look-up of their page; see Trace+Groups.swift.
  let groups: UnsafeMutablePointer<AccessGroup>
  var groupCount = 0
  /// By root: the group that accesses off it still join; -1: none. Of use while groups are planned.
  let openGroups: UnsafeMutablePointer<Int16>

  /// Those of a loop that are looked up before it; see Trace+Loops.swift.
  var loopAccesses = InlineArray<8, LoopAccess>(repeating: LoopAccess(base: 0))
  var loopAccessCount = 0

  /// A row of events for each step, and one for the end; see Trace+Events.swift.
  let events: UnsafeMutablePointer<Event>

  init() {
    steps = .allocate(capacity: Self.maximumStraightLength + 1)
    groups = .allocate(capacity: Self.maximumStraightLength)
    openGroups = .allocate(capacity: Self.rootCount)
    events = .allocate(capacity: (Self.maximumStraightLength + 2) * Self.eventStride)
  }

  deinit {
    steps.deallocate()
    groups.deallocate()
    openGroups.deallocate()
    events.deallocate()
  }

  /// Decodes the trace that begins at `start` of a page's bytes, and ends where there is a block already.
  ///
  /// - Parameter nextHalf: for an instruction that begins with the page's last two bytes: its other half.
  mutating func read(
    _ source: UnsafeRawPointer, from start: Int, _ nextHalf: UInt16?, until translations: PageTranslations,
    _ absent: UInt32
  ) {
    groupCount = 0
    loopAccessCount = 0
    end = follow(source, start, nextHalf, translations, absent)
  }

  private mutating func follow(
    _ source: UnsafeRawPointer, _ start: Int, _ nextHalf: UInt16?, _ translations: PageTranslations, _ absent: UInt32
  ) -> End {
    var offset = start
    count = 0
    hasBranches = false
    var limit = Self.maximumStraightLength
    while count < limit {
      if offset >= 4096 { return .next(offset) }
      if count > 0, translations.entryPoints[offset >> 1] != absent { return .next(offset) }
      let half = source.loadUnaligned(fromByteOffset: offset, as: UInt16.self)
      let instruction: Instruction
      if half & 3 == 3 {
        if offset == CodePage.lastHalf {
          // It depends on the next page, and has a block of its own.
          guard count == 0, let nextHalf else { return count == 0 ? .interpreter(offset) : .next(offset) }
          instruction = decoder.decode(UInt32(half) | UInt32(nextHalf) << 16)
        } else {
          instruction = decoder.decode(source.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }
      } else {
        instruction = decoder.decode(UInt32(half))
      }
      if Self.isForInterpreter(instruction) { return .interpreter(offset) }
      (steps + count).initialize(to: Step(instruction, offset: offset))
      // What stands behind a block must fit: these have several ways out each.
      if !steps[count].effects.isDisjoint(with: [.usesFloatingPoint, .accessesCSR]) { limit = Self.maximumLength }
      count += 1
      switch instruction.operation {
      case .jal:
        let target = Int64(offset) + instruction.immediate
        guard instruction.rd == 0, target > Int64(offset), target < 4096 else { return .jump }
        offset = Int(target)
      case .jalr: return .jump
      case .beq, .bne, .blt, .bge, .bltu, .bgeu:
        hasBranches = true
        offset += Int(instruction.length)
        if instruction.immediate <= 0 { return .next(offset) }
        limit = Self.maximumLength
      default: offset += Int(instruction.length)
      }
    }
    return .next(offset)
  }

  /// What ends a block because it changes what generated code relies on, or traps.
  private static func isForInterpreter(_ instruction: Instruction) -> Bool {
    switch instruction.operation {
    case .reserved, .ecall, .ebreak, .mret, .sret, .wfi, .sfence_vma, .sinval_vma, .fence_i: true
    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci: instruction.immediate == 0x180
    default: false
    }
  }

  /// Whether the trace ends with a branch or jump to where it begins.
  var endsAtItsBegin: Bool {
    guard count > 0 else { return false }
    let last = steps[count - 1]
    switch last.instruction.operation {
    case .beq, .bne, .blt, .bge, .bltu, .bgeu: break
    case .jal where last.instruction.rd == 0: break
    default: return false
    }
    return Int64(last.offset) + last.instruction.immediate == Int64(steps[0].offset)
  }
}

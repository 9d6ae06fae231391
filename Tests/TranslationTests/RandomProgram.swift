import RISCV

/// A generator that gives the same numbers for the same seed (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}

/// A program of random instructions in a loop: computation of all kinds on all registers, accesses around three base
/// registers, branches, calls and returns. x31 belongs to the trap handler, x30 counts the loop's turns.
struct RandomProgram {
  /// Registers that hold addresses in the data area.
  static let bases: [UInt8] = [2, 9, 20]
  private(set) var words: [UInt32] = []
  private var generator: SeededGenerator

  /// - Parameters:
  ///   - count: of random instructions in the loop's body.
  ///   - turns: of the loop, 1...2047.
  ///   - data: the middle of 64 KiB that the program may use; its low 12 bits are zero.
  init(seed: UInt64, count: Int, turns: Int64, data: UInt64) {
    generator = SeededGenerator(seed: seed)
    for base in Self.bases {
      append(.lui, rd: base, immediate: Int64(Int32(truncatingIfNeeded: data)))
      // lui extends the sign: RAM lies at 2 GiB.
      append(.slli, rd: base, rs1: base, immediate: 32)
      append(.srli, rd: base, rs1: base, immediate: 32)
    }
    append(.addi, rd: 30, rs1: 0, immediate: turns)
    let start = words.count
    while words.count < start + count { appendRandom(room: start + count - words.count) }
    append(.addi, rd: 30, rs1: 30, immediate: -1)
    // The loop may be longer than a branch reaches.
    append(.beq, rs1: 30, rs2: 0, immediate: 8)
    append(.jal, rd: 0, immediate: Int64(start - words.count) * 4)
    append(.jal, rd: 0, immediate: 0)
  }

  private mutating func append(
    _ operation: RISCV.Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, rs3: UInt8 = 0,
    roundingMode: UInt8 = 0, immediate: Int64 = 0
  ) {
    guard
      let bits = Encoder.encode(
        operation, rd: rd, rs1: rs1, rs2: rs2, rs3: rs3, roundingMode: roundingMode, immediate: immediate)
    else { return }
    words.append(bits)
  }

  /// The registers written last: compilers read most results soon.
  private var recent: [UInt8] = []
  /// Counts the turns of an inner loop.
  private var counter: UInt8?

  private mutating func source() -> UInt8 {
    let isRecent = Bool.random(using: &generator)
    if isRecent, let register = recent.randomElement(using: &generator) { return register }
    return UInt8.random(in: 0...29, using: &generator)
  }

  private mutating func destination() -> UInt8 {
    let isAgain = Int.random(in: 0..<4, using: &generator) == 0
    if isAgain, let register = recent.randomElement(using: &generator), register != counter { return register }
    while true {
      let register = UInt8.random(in: 0...29, using: &generator)
      if Self.bases.contains(register) || register == 1 || register == counter { continue }
      recent = recent.suffix(4) + [register]
      return register
    }
  }

  private static let computing: [RISCV.Operation] = RISCV.Operation.allCases.filter { operation in
    let effects = operation.effects
    if [.reserved, .jal, .jalr, .auipc, .pause, .wrs_nto, .wrs_sto, .prefetch_i, .prefetch_r, .prefetch_w].contains(
      operation)
    {
      return false
    }
    return effects.isDisjoint(with: [.branches, .endsBlock, .readsMemory, .writesMemory, .privileged, .accessesCSR])
  }

  private static let accessing: [RISCV.Operation] = [
    .lb, .lh, .lw, .ld, .lbu, .lhu, .lwu, .sb, .sh, .sw, .sd, .ld, .sd, .ld, .sd, .fld, .fsd, .flw, .fsw,
  ]
  private static let atomic: [RISCV.Operation] = RISCV.Operation.allCases.filter {
    $0.effects.isSuperset(of: [.readsMemory, .writesMemory, .writesInteger])
  }
  private static let rounds: [RISCV.Operation] = [.aes64ds, .aes64dsm, .aes64es, .aes64esm]
  private static let branching: [RISCV.Operation] = [.beq, .bne, .blt, .bge, .bltu, .bgeu]

  private mutating func appendRandom(room: Int) {
    switch Int.random(in: -16..<100, using: &generator) {
    case -16 ..< -12:
      let base = Self.bases.randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 1...5, using: &generator) { appendElement(of: base) }
    case -12 ..< -7: appendRotation()
    case -7 ..< -5: appendExtension()
    case -5 ..< -3:
      // A carry, or nearly one.
      let (left, right, sum) = (source(), source(), destination())
      append(.add, rd: sum, rs1: left, rs2: right)
      append(.sltu, rd: destination(), rs1: sum, rs2: Bool.random(using: &generator) ? left : right)
    case -3..<0:
      guard room > 60 else { return }
      appendLoop()
    case 0..<50:
      let operation = Self.computing.randomElement(using: &generator)!
      if Self.rounds.contains(operation) { return appendRounds(operation) }
      let modes: [UInt8] = [0, 0, 7, 7, 7, 1, 2, 3, 4]
      appendComputation(operation, roundingMode: modes.randomElement(using: &generator)!)
    case 50..<80:
      let base = Self.bases.randomElement(using: &generator)!
      // A run of accesses to neighbours, as compilers emit them.
      let middle = Int64.random(in: -1900...1900, using: &generator)
      let isMixed = Int.random(in: 0..<3, using: &generator) == 0
      let step = Int.random(in: 0..<4, using: &generator) == 0 ? Int64.random(in: -4...4, using: &generator) * 8 : 0
      let count = Int64.random(in: 1...(isMixed ? 12 : 5), using: &generator)
      for _ in 0..<count {
        let immediate = middle + Int64.random(in: -12...12, using: &generator) * 8
        let isAligned = Int.random(in: 0..<8, using: &generator) != 0
        // Off several registers by turns, as with structures and the stack.
        appendAccess(
          base: isMixed ? Self.bases.randomElement(using: &generator)! : base, isAligned ? immediate & ~7 : immediate)
        if step != 0 { append(.addi, rd: base, rs1: base, immediate: step) }
      }
      if step != 0 { append(.addi, rd: base, rs1: base, immediate: -step * count) }
    case 80..<84:
      let operation = Self.atomic.randomElement(using: &generator)!
      append(.addi, rd: 29, rs1: Self.bases.randomElement(using: &generator)!, immediate: 16)
      append(operation, rd: destination(), rs1: 29, rs2: source())
    case 84..<94:
      guard room > 12 else { return }
      // Over a few instructions, which follow.
      let skipped = Int64.random(in: 1...10, using: &generator)
      append(
        Self.branching.randomElement(using: &generator)!, rs1: source(), rs2: source(), immediate: 4 * (skipped + 1))
    case 94..<96:
      guard room > 12 else { return }
      append(.jal, rd: 0, immediate: 4 * Int64.random(in: 2...8, using: &generator))
    case 96..<98:
      // A call over a jump to a function of one instruction, that returns.
      append(.jal, rd: 1, immediate: 8)
      append(.jal, rd: 0, immediate: 12)
      appendComputation(.add, roundingMode: 0)
      append(.jalr, rd: 0, rs1: 1)
    case 98:
      // An indirect call, to the same.
      append(.auipc, rd: 28, immediate: 0)
      append(.jalr, rd: 1, rs1: 28, immediate: 12)
      append(.jal, rd: 0, immediate: 12)
      appendComputation(.xor, roundingMode: 0)
      append(.jalr, rd: 0, rs1: 1)
    default:
      if Bool.random(using: &generator) {
        // SUM of sstatus.
        append(.lui, rd: 27, immediate: 1 << 18)
        let operation = ([.csrrs, .csrrc] as [RISCV.Operation]).randomElement(using: &generator)!
        return append(operation, rd: destination(), rs1: 27, immediate: 0x100)
      }
      let csrs: [Int64] = [0x001, 0x003, 0x340, 0xB02]
      let isWrite = Bool.random(using: &generator)
      append(
        isWrite ? .csrrw : .csrrs, rd: destination(), rs1: isWrite ? source() : 0,
        immediate: csrs.randomElement(using: &generator)!)
    }
  }

  private mutating func appendComputation() {
    appendComputation(Self.computing.randomElement(using: &generator)!, roundingMode: 0)
  }

  /// A rotation without an instruction for it, its parts in any order, perhaps with something between them, or not quite
  /// a rotation. What it leaves in the registers may be overwritten behind it.
  private mutating func appendRotation() {
    let isWord = Bool.random(using: &generator)
    let width: Int64 = isWord ? 32 : 64
    let count = Int64.random(in: 1..<width, using: &generator)
    let (from, left, right) = (source(), destination(), destination())
    let isRight = Int.random(in: 0..<8, using: &generator) != 0
    var parts: [(RISCV.Operation, UInt8, Int64)] = [
      (isWord ? .slliw : .slli, left, count), (isWord ? .srliw : .srli, right, isRight ? width - count : 3),
    ]
    if Bool.random(using: &generator) { parts.reverse() }
    for (operation, rd, immediate) in parts {
      append(operation, rd: rd, rs1: from, immediate: immediate)
      if Int.random(in: 0..<4, using: &generator) == 0 { appendComputation() }
    }
    append(
      ([.or, .or, .xor, .add, .addw] as [RISCV.Operation]).randomElement(using: &generator)!, rd: destination(),
      rs1: left, rs2: right)
    for register in [left, right] where Bool.random(using: &generator) {
      append(.addi, rd: register, rs1: source(), immediate: 5)
    }
  }

  /// Two shifts that extend a part of a register.
  private mutating func appendExtension() {
    let counts: [Int64] = [32, 32, 48, 56, 40]
    let (left, between) = (counts.randomElement(using: &generator)!, destination())
    let right = Int.random(in: 0..<4, using: &generator) == 0 ? left - 3 : left
    append(.slli, rd: between, rs1: source(), immediate: left)
    if Int.random(in: 0..<4, using: &generator) == 0 { appendComputation() }
    let isSame = Bool.random(using: &generator)
    append(
      Bool.random(using: &generator) ? .srli : .srai, rd: isSame ? between : destination(), rs1: between,
      immediate: right)
    if Bool.random(using: &generator) { append(.addi, rd: between, rs1: 0, immediate: 1) }
  }

  /// A few turns of a loop that has one way out.
  private mutating func appendLoop() {
    let register = UInt8.random(in: 21...28, using: &generator)
    append(.addi, rd: register, rs1: 0, immediate: Int64.random(in: 1...6, using: &generator))
    counter = register
    let start = words.count
    let isLong = Int.random(in: 0..<3, using: &generator) == 0
    if isLong {
      // Pointers that move by each turn, over the ends of pages, and back again behind the loop.
      return appendStream(register)
    }
    for _ in 0..<Int.random(in: 1...30, using: &generator) {
      if Int.random(in: 0..<6, using: &generator) == 0 {
        appendAccess(
          base: Self.bases.randomElement(using: &generator)!, Int64.random(in: -100...100, using: &generator) * 8)
      } else {
        appendComputation()
      }
    }
    append(.addi, rd: register, rs1: register, immediate: -1)
    append(.bne, rs1: register, rs2: 0, immediate: Int64(start - words.count) * 4)
    counter = nil
  }

  private mutating func appendStream(_ register: UInt8) {
    let turns = Int64.random(in: 1...200, using: &generator)
    append(.addi, rd: register, rs1: 0, immediate: turns)
    let start = words.count
    var moved: [UInt8: Int64] = [:]
    for base in Self.bases.shuffled(using: &generator).prefix(Int.random(in: 1...3, using: &generator)) {
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        if Int.random(in: 0..<4, using: &generator) == 0 {
          appendElement(of: base)
        } else {
          appendAccess(base: base, Int64.random(in: -20...20, using: &generator) * 8)
        }
        if Int.random(in: 0..<3, using: &generator) == 0 { appendComputation() }
        if Int.random(in: 0..<6, using: &generator) == 0 {
          append(.bne, rs1: source(), rs2: source(), immediate: 8)
          appendComputation(.xor, roundingMode: 0)
        }
      }
      let stride = ([8, 8, 1, 24, -8, -16, 0] as [Int64]).randomElement(using: &generator)!
      if stride != 0 { append(.addi, rd: base, rs1: base, immediate: stride) }
      moved[base] = stride * turns
    }
    append(.addi, rd: register, rs1: register, immediate: -1)
    append(.bne, rs1: register, rs2: 0, immediate: Int64(start - words.count) * 4)
    counter = nil
    for (base, distance) in moved.sorted(by: { $0.key < $1.key }) {
      append(.lui, rd: register, immediate: Int64(Int32(truncatingIfNeeded: (distance + 2048) & ~4095)))
      append(.addi, rd: register, rs1: register, immediate: distance - ((distance + 2048) & ~4095))
      append(.sub, rd: base, rs1: base, rs2: register)
    }
  }

  private mutating func appendComputation(_ operation: RISCV.Operation, roundingMode: UInt8) {
    let isFloat = operation.effects.contains(.writesFloatingPoint)
    let rd = isFloat ? UInt8.random(in: 0...31, using: &generator) : destination()
    let immediates: [Int64] = [0, 1, -1, 5, 12, 31, 33, 63, 255, -2048, 2047, 0x7FFF_F000, 0x1_0000, -0x8000_0000]
    // The first immediate that the encoding takes.
    for immediate in immediates.shuffled(using: &generator) {
      let before = words.count
      append(
        operation, rd: rd, rs1: source(), rs2: source(), rs3: source(), roundingMode: roundingMode,
        immediate: immediate)
      if words.count > before { return }
    }
  }

  /// Rounds of AES on the halves of a block by turns, as programs have them.
  private mutating func appendRounds(_ operation: RISCV.Operation) {
    var (left, right) = (source(), source())
    for _ in 0..<Int.random(in: 1...3, using: &generator) {
      append(operation, rd: destination(), rs1: left, rs2: right)
      swap(&left, &right)
    }
  }

  /// An access to an element of a table near a base, whose index has a limit that can be told from how it is made.
  private mutating func appendElement(of base: UInt8) {
    let index = destination()
    switch Int.random(in: 0..<6, using: &generator) {
    case 0: append(.srli, rd: index, rs1: source(), immediate: Int64.random(in: 54...63, using: &generator))
    case 1: append(.srliw, rd: index, rs1: source(), immediate: Int64.random(in: 20...31, using: &generator))
    case 2: append(.lbu, rd: index, rs1: base, immediate: Int64.random(in: -64...64, using: &generator))
    default:
      let masks: [Int64] = [1, 7, 15, 63, 100, 255, 255, 511, 2047]
      append(.andi, rd: index, rs1: source(), immediate: masks.randomElement(using: &generator)!)
    }
    if Bool.random(using: &generator) { appendComputation() }
    var element = index
    if Bool.random(using: &generator) {
      element = destination()
      append(
        Bool.random(using: &generator) ? .slli : .slliw, rd: element, rs1: index,
        immediate: Int64.random(in: 1...3, using: &generator))
    }
    let address = destination()
    // Where the table is isn't always in the same register.
    var table = base
    if Int.random(in: 0..<3, using: &generator) == 0 {
      table = destination()
      append(.addi, rd: table, rs1: base, immediate: Int64.random(in: -16...16, using: &generator) * 8)
    }
    let sums: [RISCV.Operation] = [.add, .add, .add, .sh1add, .sh2add, .sh3add]
    let sum = sums.randomElement(using: &generator)!
    if sum == .add, Bool.random(using: &generator) {
      append(sum, rd: address, rs1: table, rs2: element)
    } else {
      append(sum, rd: address, rs1: element, rs2: table)
    }
    // What the address was made from may be gone when it is used.
    if table != base, Bool.random(using: &generator) { append(.addi, rd: table, rs1: 0, immediate: 3) }
    let middle = Int64.random(in: -30...30, using: &generator) * 8
    for _ in 0..<Int.random(in: 1...3, using: &generator) {
      let operation = Self.accessing.randomElement(using: &generator)!
      append(
        operation, rd: operation.effects.contains(.writesFloatingPoint) ? source() : destination(), rs1: address,
        rs2: source(), immediate: middle + Int64.random(in: 0...4, using: &generator) * 8)
      if Int.random(in: 0..<3, using: &generator) == 0 { appendAccess(base: base, middle) }
      if recent.last == address { break }
    }
  }

  private mutating func appendAccess(base: UInt8, _ immediate: Int64) {
    if Int.random(in: 0..<4, using: &generator) == 0 {
      // Off a register that is a known distance from the base.
      let near = destination()
      let distance = Int64.random(in: -40...40, using: &generator) * 8
      append(.addi, rd: near, rs1: base, immediate: distance)
      return appendAccess(base: near, immediate - distance)
    }
    if Int.random(in: 0..<20, using: &generator) == 0 { return append(.cbo_zero, rs1: base) }
    let operation = Self.accessing.randomElement(using: &generator)!
    append(
      operation, rd: operation.effects.contains(.writesFloatingPoint) ? source() : destination(), rs1: base,
      rs2: source(), immediate: max(-2048, min(2047, immediate)))
  }
}

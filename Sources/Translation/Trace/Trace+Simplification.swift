import RISCV

/// Instructions that together do what one could: constants and addresses in two parts, and rotations and zero extensions,
/// for which Debian's programs don't use the instructions that there are, for they are made for processors without them. The
/// trace gets that one in place of the last, and nothing in place of the others, where nobody can see what those leave in
/// their registers.
extension Trace {
  mutating func simplify() {
    if count < 2 { return }
    var writers = InlineArray<32, Int>(repeating: -1)
    for index in 0..<count {
      let i = steps[index].instruction
      switch i.operation {
      case .or, .xor, .add, .addw: simplifyRotation(index, writers[Int(i.rs1)], writers[Int(i.rs2)])
      case .srli, .srai: simplifyExtension(index, writers[Int(i.rs1)])
      case .addi, .addiw: simplifyConstant(index, writers[Int(i.rs1)])
      default: break
      }
      let target = steps[index].target
      if target != 0 { writers[Int(target)] = index }
    }
  }

  /// x << n | x >> (width - n), of which `one` and `other` are the halves.
  private mutating func simplifyRotation(_ index: Int, _ one: Int, _ other: Int) {
    guard one >= 0, other >= 0, one != other else { return }
    let i = steps[index].instruction
    let (first, second) = (min(one, other), max(one, other))
    let (a, b) = (steps[first].instruction, steps[second].instruction)
    let isLeftFirst = a.operation == .slli || a.operation == .slliw
    let (left, right) = isLeftFirst ? (a, b) : (b, a)
    let width: Int64
    switch (left.operation, right.operation) {
    case (.slliw, .srliw): width = 32
    case (.slli, .srli) where i.operation != .addw: width = 64
    default: return
    }
    let source = a.rs1
    guard left.immediate + right.immediate == width, left.immediate > 0, right.immediate > 0, source != 0,
      b.rs1 == source, a.rd != source, a.rd != b.rd
    else { return }
    for step in first + 1..<index {
      let between = steps[step]
      if step != second, between.target == source { return }
      let sources = between.sources
      if sources & 1 << UInt32(a.rd) != 0 || step > second && sources & 1 << UInt32(b.rd) != 0 { return }
      if isExit(steps[step], at: step) { return }
    }
    guard isUnseen(a.rd, after: index), isUnseen(b.rd, after: index) else { return }
    skip(first)
    skip(second)
    steps[index].instruction = replacement(of: i, width == 32 ? .roriw : .rori, source, right.immediate)
  }

  /// x << n >> m, which leaves the lower bits of x at some place.
  private mutating func simplifyExtension(_ index: Int, _ writer: Int) {
    guard writer >= 0 else { return }
    let i = steps[index].instruction
    let left = steps[writer].instruction
    guard left.operation == .slli, left.rs1 != 0 else { return }
    let operation: Operation
    var immediate: Int64 = 0
    switch (i.operation, left.immediate, i.immediate) {
    case (.srli, 32, 1...32):
      operation = .slli_uw
      immediate = 32 - i.immediate
    case (.srli, 48, 48): operation = .zext_h
    case (.srai, 48, 48): operation = .sext_h
    case (.srai, 56, 56): operation = .sext_b
    default: return
    }
    for step in writer + 1..<index {
      let between = steps[step]
      if between.target == left.rs1 || between.sources & 1 << UInt32(left.rd) != 0 { return }
      if isExit(steps[step], at: step) { return }
    }
    guard isUnseen(left.rd, after: index) else { return }
    skip(writer)
    steps[index].instruction = replacement(of: i, operation, left.rs1, immediate)
  }

  /// The upper part of a constant, or of an address, and then the lower one.
  private mutating func simplifyConstant(_ index: Int, _ writer: Int) {
    guard writer >= 0 else { return }
    let i = steps[index].instruction
    let upper = steps[writer].instruction
    guard i.rd == i.rs1, i.rd != 0, upper.rd == i.rd, upper.operation == .lui || upper.operation == .auipc else {
      return
    }
    for step in writer + 1..<index {
      if isExit(steps[step], at: step) || steps[step].sources & 1 << UInt32(i.rd) != 0 { return }
    }
    var value = upper.immediate + i.immediate
    switch (upper.operation, i.operation) {
    case (.lui, .addi): if value != Int64(Int32(truncatingIfNeeded: value)) { return }
    case (.lui, .addiw): value = Int64(Int32(truncatingIfNeeded: value))
    case (.auipc, .addi): value += Int64(steps[writer].offset - steps[index].offset)
    default: return
    }
    skip(writer)
    steps[index].instruction = replacement(of: i, upper.operation, 0, value)
  }

  /// Whether the value that a register has before `index` is overwritten there, or later before anybody can see it.
  @inline(__always)
  private func isUnseen(_ register: UInt8, after index: Int) -> Bool {
    if steps[index].target == register { return true }
    for step in index + 1..<count {
      if isExit(steps[step], at: step) || steps[step].sources & 1 << UInt32(register) != 0 { return false }
      if steps[step].target == register { return true }
    }
    return false
  }

  @inline(__always)
  private func skip(_ index: Int) {
    var nothing = replacement(of: steps[index].instruction, .addi, 0, 0)
    nothing.rd = 0
    steps[index].instruction = nothing
  }

  private func replacement(
    of i: Instruction, _ operation: Operation, _ source: UInt8, _ immediate: Int64
  ) -> Instruction {
    Instruction(operation: operation, rd: i.rd, rs1: source, immediate: immediate, length: i.length, bits: i.bits)
  }
}

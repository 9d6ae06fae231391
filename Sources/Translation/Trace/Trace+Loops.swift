import RISCV

/// Accesses of a loop off one register that each turn moves by the same distance, or doesn't change, or to elements of a
/// small table there: their page is looked up before many turns, as many as are certain to stay on it.
struct LoopAccess {
  var base: UInt8
  var isStore = false
  /// The bytes accessed in a turn, from what the base register holds at its begin: low..<high.
  var low: Int64 = .max
  var high: Int64 = .min
  /// What a turn adds to the base register.
  var stride: Int64 = 0
}

extension Trace {
  /// Bytes that a turn may access off one register, and move it by.
  private static let largestLoopSpan: Int64 = 2048
  private static let largestStride: Int64 = 256

  /// Finds out which accesses of the trace, which is a loop, can be looked up before it.
  mutating func planLoopAccesses() {
    loopAccessCount = 0
    guard count <= Self.maximumLength else { return }
    for index in 0..<count {
      steps[index].loopAccess = -1
      // What may change what may be accessed.
      let effects = steps[index].effects
      if effects.contains(.endsBlock), !effects.contains(.branches) { return }
    }
    // What a turn adds to registers that keep the same root.
    var roots = Roots()
    for index in 0..<count { roots.follow(steps[index]) }
    var strides = InlineArray<32, Int64?>(repeating: nil)
    for register in UInt8(1)..<32
    where roots[register].number == Int16(register) && roots[register].spread == 0 {
      let stride = roots[register].distance
      if abs(stride) <= Self.largestStride { strides[Int(register)] = stride }
    }
    roots = Roots()
    var indices = InlineArray<32, Int8>(repeating: -1)
    for index in 0..<count {
      let i = steps[index].instruction
      if let access = Self.plainAccess(i.operation), i.rs1 != 0, roots[i.rs1].number < 32 {
        let (root, distance, spread) = roots[i.rs1]
        if indices[Int(root)] < 0, let stride = strides[Int(root)], loopAccessCount < loopAccesses.count,
          spread + access.width <= Self.largestLoopSpan
        {
          indices[Int(root)] = Int8(loopAccessCount)
          loopAccesses[loopAccessCount] = LoopAccess(base: UInt8(root), stride: stride)
          loopAccessCount += 1
        }
        if indices[Int(root)] >= 0 {
          let number = Int(indices[Int(root)])
          let offset = i.immediate + distance
          let low = min(loopAccesses[number].low, offset)
          let high = max(loopAccesses[number].high, offset + spread + access.width)
          if high - low <= Self.largestLoopSpan {
            loopAccesses[number].low = low
            loopAccesses[number].high = high
            if access.isStore { loopAccesses[number].isStore = true }
            steps[index].loopAccess = Int8(number)
          }
        }
      }
      roots.follow(steps[index])
    }
    removeMixed()
  }

  /// All accesses of a group are looked up before the loop, or none: those in it share a look-up.
  private mutating func removeMixed() {
    var isPlain = InlineArray<8, Bool>(repeating: false)
    var changes = true
    while changes {
      changes = false
      for index in 0..<count where steps[index].group >= 0 && steps[index].loopAccess >= 0 {
        let number = Int(steps[index].loopAccess)
        if isPlain[number] { continue }
        for other in 0..<count where steps[other].group == steps[index].group && steps[other].loopAccess != number {
          isPlain[number] = true
        }
        if isPlain[number] { changes = true }
      }
      for index in 0..<count where steps[index].loopAccess >= 0 && isPlain[Int(steps[index].loopAccess)] {
        steps[index].loopAccess = -1
      }
    }
    var isAny = false
    for number in 0..<loopAccessCount {
      if isPlain[number] { loopAccesses[number].base = 0 } else { isAny = true }
    }
    if !isAny { loopAccessCount = 0 }
  }

  /// Whether there are groups that aren't looked up before the loop.
  var hasGroupsBesideLoopAccesses: Bool {
    (0..<count).contains { steps[$0].group >= 0 && steps[$0].loopAccess < 0 }
  }
}

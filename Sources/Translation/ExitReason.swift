/// Why generated code came back to the translator. pc and the count of instructions are exact in each case.
enum ExitReason: UInt32 {
  /// Go on at pc, for which there may be no code yet.
  case dispatch = 0
  /// Fewer instructions are left than the block at pc has.
  case budget = 1
  /// The instruction at pc is one for the interpreter.
  case interpretOne = 2
  /// The interpreter should get on from here, to the next jump.
  case interpretOn = 3
  /// A function that generated code called has trapped, or has seen a reason to leave.
  case left = 4
  /// The block at pc is wanted without access groups, for the jump that `slowValue` tells.
  case ungrouped = 5
}

/// What a slow path has to know about the instruction that takes it, packed into 32 bits for a register.
struct SiteDescription {
  var bits: UInt32

  /// - Parameters:
  ///   - offset: of the instruction in its page, 0...4095.
  ///   - uncounted: how many instructions, this one included, the block has counted and not yet executed.
  ///   - length: of the instruction, 2 or 4.
  init(
    offset: Int, uncounted: Int, length: UInt8, widthShift: UInt8 = 0, isSigned: Bool = false, isStore: Bool = false
  ) {
    bits =
      UInt32(offset) | UInt32(uncounted) << 12 | (length == 4 ? 1 << 24 : 0) | UInt32(widthShift) << 25
      | (isSigned ? 1 << 27 : 0) | (isStore ? 1 << 28 : 0)
  }

  init(bits: UInt32) { self.bits = bits }

  var offset: UInt64 { UInt64(bits & 0xFFF) }
  var uncounted: Int64 { Int64(bits >> 12 & 0xFFF) }
  var length: UInt64 { bits & 1 << 24 != 0 ? 4 : 2 }
  var widthShift: UInt64 { UInt64(bits >> 25 & 3) }
  var isSigned: Bool { bits & 1 << 27 != 0 }
  var isStore: Bool { bits & 1 << 28 != 0 }
}

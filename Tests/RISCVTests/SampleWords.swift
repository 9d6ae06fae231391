import RISCV

/// SplitMix64: the same words at every run.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}

/// Encodings to try things on.
enum SampleWords {
  /// All 16-bit encodings.
  static var compressed: [UInt32] { (0..<0x1_0000).filter { $0 & 3 != 3 } }

  /// Any 32-bit encodings; none of those that begin a longer one.
  static func random(_ count: Int, seed: UInt64) -> [UInt32] {
    var generator = SeededGenerator(seed: seed)
    var words: [UInt32] = []
    words.reserveCapacity(count)
    while words.count < count {
      let word = UInt32.random(in: 0...UInt32.max, using: &generator) | 3
      if word & 0x1f != 0x1f { words.append(word) }
    }
    return words
  }

  /// For each 32-bit row encodings with the operands at which mnemonics change and with random ones, reserved values of
  /// fields included.
  static func ofRows(perRow count: Int, seed: UInt64) -> [UInt32] {
    var generator = SeededGenerator(seed: seed)
    let registers: [UInt32] = [0, 1, 2, 5, 31]
    let immediates: [UInt32] = [0, 1, 0x0ff, 0x833, 0xc00, 0xc01, 0xc02, 0x003, 0xfff]
    var words: [UInt32] = []
    for row in InstructionPattern.all where row.length == 4 {
      for rd in registers {
        for rs1 in registers {
          for immediate in immediates {
            words.append(row.match | (immediate << 20 | rs1 << 15 | 7 << 12 | rd << 7) & ~row.mask)
          }
        }
      }
      for _ in 0..<count {
        var word = UInt32.random(in: 0...UInt32.max, using: &generator)
        // Operands that are 0 or equal are where aliases begin.
        switch UInt32.random(in: 0..<8, using: &generator) {
        case 0: word &= ~0xf80
        case 1: word &= ~0xf8000
        case 2: word &= ~0x1f0_0000
        case 3: word = word & ~0x1f0_0000 | (word & 0xf8000) << 5
        default: break
        }
        words.append(row.match | word & ~row.mask)
      }
    }
    return words
  }

  /// Every combination of opcode, funct3 and funct7, with the values of rs2 that are opcodes somewhere.
  static func ofOpcodes(seed: UInt64) -> [UInt32] {
    var generator = SeededGenerator(seed: seed)
    var words: [UInt32] = []
    for high in UInt32(0)..<128 {
      for funct3 in UInt32(0)..<8 {
        for opcode in UInt32(0)..<32 where opcode & 7 != 7 {
          let rs2 = UInt32.random(in: 0..<8, using: &generator)
          let registers = UInt32.random(in: 0...UInt32.max, using: &generator) & 0xf8f80
          words.append(high << 25 | rs2 << 20 | funct3 << 12 | opcode << 2 | 3 | registers)
        }
      }
    }
    // SYSTEM with funct3 0 has all 12 bits, and rd and rs1 mostly 0.
    for immediate in UInt32(0)..<4096 {
      words.append(immediate << 20 | 0x73)
      words.append(immediate << 20 | 0x73 | 5 << 15)
      words.append(immediate << 20 | 0x73 | 5 << 7)
    }
    return words
  }

  /// Reads and writes of every control and status register.
  static var controlRegisters: [UInt32] {
    (UInt32(0)..<4096).flatMap { number in
      [0x0000_2573, 0x0005_9073, 0x0005_9573, 0x0005_5073].map { number << 20 | $0 }
    }
  }
}

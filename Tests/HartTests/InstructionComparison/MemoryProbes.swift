/// Loads, stores, LR/SC and AMOs on 32 bytes around a page boundary.
enum MemoryProbes {
  /// Where the 32 bytes lie: their middle is a page boundary.
  static let blockAddress: UInt64 = 0x8100_0ff0

  static func all() -> [Probe] {
    var generator = SeededGenerator(seed: 4)
    return loadsAndStores(&generator) + compressed(&generator) + atomics(&generator)
  }

  private static func loadsAndStores(_ generator: inout SeededGenerator) -> [Probe] {
    let integer = [
      "lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "lwu": 4, "ld": 8, "sb": 1, "sh": 2, "sw": 4, "sd": 8,
    ]
    let float = ["flw": 4, "fld": 8, "fsw": 4, "fsd": 8]
    var probes: [Probe] = []
    for (table, registers) in [(integer, Probe.integerRegisters), (float, Probe.floatingPointRegisters)] {
      for (name, width) in table.sorted(by: { $0.key < $1.key }) {
        for offset in [0, 1, -1, 2047, -2048] {
          let names = Probe.integerRegisters.shuffled(using: &generator)
          let value = registers == Probe.integerRegisters ? names[1] : registers.randomElement(using: &generator)!
          probes.append(
            probe(
              "\(name) \(value), \(offset)(\(names[0]))", names[0], value, width, offset, aligned: false, &generator))
        }
      }
    }
    // A load over its own base.
    var probe = Probe("ld x5, 0(x5)", inputs: ["x5"], outputs: ["x5"], usesMemory: true)
    for offset in 0...UInt64(24) { probe.words += [blockAddress + offset] + (0..<4).map { _ in generator.next() } }
    probes.append(probe)
    return probes
  }

  private static func compressed(_ generator: inout SeededGenerator) -> [Probe] {
    var probes: [Probe] = []
    for (name, value, width) in [
      ("c.lw", "x9", 4), ("c.ld", "x10", 8), ("c.sw", "x11", 4), ("c.sd", "x12", 8), ("c.fld", "f9", 8),
      ("c.fsd", "f12", 8),
    ] {
      for offset in [0, width, 15 * width, 31 * width] {
        probes.append(
          probe("\(name) \(value), \(offset)(x15)", "x15", value, width, offset, aligned: false, &generator))
      }
    }
    for (name, value, width) in [
      ("c.lwsp", "x20", 4), ("c.ldsp", "x5", 8), ("c.swsp", "x26", 4), ("c.sdsp", "x1", 8), ("c.fldsp", "f31", 8),
      ("c.fsdsp", "f1", 8),
    ] {
      for offset in [0, width, 63 * width] {
        probes.append(probe("\(name) \(value), \(offset)(x2)", "x2", value, width, offset, aligned: false, &generator))
      }
    }
    return probes
  }

  private static func atomics(_ generator: inout SeededGenerator) -> [Probe] {
    var probes: [Probe] = []
    for (suffix, width) in [("w", 4), ("d", 8)] {
      for name in ["swap", "add", "xor", "and", "or", "min", "max", "minu", "maxu"] {
        for order in ["", ".aq", ".rl", ".aqrl"] {
          let names = Probe.integerRegisters.shuffled(using: &generator)
          let destination = ["x0", names[0], names[1], names[2]].randomElement(using: &generator)!
          let text = "amo\(name).\(suffix)\(order) \(destination), \(names[1]), (\(names[0]))"
          var probe = probe(text, names[0], names[1], width, 0, aligned: true, output: destination, &generator)
          // Extremes meet each other in memory and register.
          for left in IntegerOperands.directed {
            for right in IntegerOperands.directed where order.isEmpty {
              probe.words += [blockAddress + 8, left, 1, right, 2, 3]
            }
          }
          probes.append(probe)
        }
      }
      let reserve = "lr.\(suffix) x5, (x6)"
      let texts = [
        reserve,
        reserve + "\nsc.\(suffix) x5, x7, (x6)",
        reserve + "\nsc.\(suffix) x7, x7, (x6)\nsc.\(suffix) x5, x7, (x6)",  // the second must fail
        "lr.\(suffix).aqrl x5, (x6)\nxori x6, x6, 8\nsc.\(suffix).rl x5, x7, (x6)",  // of another address
        reserve + "\nadd x7, x7, x5\nsc.\(suffix) x5, x7, (x6)",
      ]
      for text in texts { probes.append(probe(text, "x6", "x7", width, 0, aligned: true, output: "x5", &generator)) }
    }
    return probes
  }

  /// An access of `width` bytes at `offset` from `base`, everywhere in the block.
  private static func probe(
    _ text: String, _ base: String, _ value: String, _ width: Int, _ offset: Int, aligned: Bool, output: String? = nil,
    _ generator: inout SeededGenerator
  ) -> Probe {
    var probe = Probe(text, inputs: [base, value], outputs: [output ?? value], usesMemory: true)
    for position in stride(from: 0, through: 32 - width, by: aligned ? width : 1) {
      for _ in 0..<max(4, randomCaseCount / 100) {
        probe.words += [blockAddress + UInt64(position) &- UInt64(bitPattern: Int64(offset))]
        probe.words += [IntegerOperands.random(&generator)] + (0..<4).map { _ in generator.next() }
      }
    }
    return probe
  }
}

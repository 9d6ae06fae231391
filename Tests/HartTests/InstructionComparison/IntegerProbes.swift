/// The integer instructions of I, M, Zba, Zbb, Zbc, Zbs, Zbkb, Zbkx and Zkn, and what jumps.
enum IntegerProbes {
  static let twoOperands = [
    "add", "sub", "sll", "slt", "sltu", "xor", "srl", "sra", "or", "and", "addw", "subw", "sllw", "srlw", "sraw",
    "mul", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu", "mulw", "divw", "divuw", "remw", "remuw",
    "sh1add", "sh2add", "sh3add", "add.uw", "sh1add.uw", "sh2add.uw", "sh3add.uw",
    "andn", "orn", "xnor", "max", "maxu", "min", "minu", "rol", "ror", "rolw", "rorw",
    "clmul", "clmulh", "clmulr", "bclr", "bext", "binv", "bset",
    "pack", "packh", "packw", "xperm4", "xperm8", "aes64ds", "aes64dsm", "aes64es", "aes64esm", "aes64ks2",
  ]
  static let oneOperand = [
    "clz", "ctz", "cpop", "clzw", "cpopw", "sext.b", "sext.h", "zext.h", "orc.b", "rev8",
    "brev8", "aes64im", "sha256sig0", "sha256sig1", "sha256sum0", "sha256sum1", "sha512sig0", "sha512sig1",
    "sha512sum0", "sha512sum1",
  ]
  static let immediates = ["addi", "slti", "sltiu", "xori", "ori", "andi", "addiw"]
  static let shifts64 = ["slli", "srli", "srai", "rori", "slli.uw", "bclri", "bexti", "binvi", "bseti"]
  static let shifts32 = ["slliw", "srliw", "sraiw", "roriw"]
  static let branches = ["beq", "bne", "blt", "bge", "bltu", "bgeu"]

  static func all() -> [Probe] {
    var generator = SeededGenerator(seed: 1)
    var probes: [Probe] = []
    for name in twoOperands { probes += twoOperandProbes(&generator) { "\(name) \($0), \($1), \($2)" } }
    for name in oneOperand { probes += oneOperandProbes(&generator) { "\(name) \($0), \($1)" } }
    for name in immediates {
      for value in [-2048, -1, 0, 1, 2047, Int.random(in: -2048...2047, using: &generator)] {
        probes += oneOperandProbes(&generator) { "\(name) \($0), \($1), \(value)" }
      }
    }
    for round in 0...10 { probes += oneOperandProbes(&generator) { "aes64ks1i \($0), \($1), \(round)" } }
    for (names, width) in [(shifts64, 64), (shifts32, 32)] {
      for name in names {
        for amount in [0, 1, 7, 31, width - 1, width / 2] {
          probes += oneOperandProbes(&generator) { "\(name) \($0), \($1), \(amount)" }
        }
      }
    }
    for name in branches {
      probes += twoOperandProbes(&generator) { "li \($0), 1\n\(name) \($1), \($2), 2f\nli \($0), 2\n2:" }
      probes += twoOperandProbes(&generator) {
        "li \($0), 1\nj 3f\n2: li \($0), 3\nj 4f\n3: \(name) \($1), \($2), 2b\nli \($0), 2\n4:"
      }
    }
    probes += jumps(&generator)
    return probes
  }

  /// With distinct registers and all directed operands, then with registers that coincide and x0.
  static func twoOperandProbes(
    _ generator: inout SeededGenerator, _ text: (_ d: String, _ a: String, _ b: String) -> String
  ) -> [Probe] {
    let names = Probe.integerRegisters.shuffled(using: &generator)
    let (d, a, b) = (names[0], names[1], names[2])
    // x0 and coinciding registers don't go with sequences that write the destination first.
    let isSequence = text(d, a, b).contains("\n")
    let choices =
      [(d, a, b)] + (isSequence ? [] : [(a, a, b), (b, a, b), (a, a, a), ("x0", a, b), (d, "x0", b), (d, a, "x0")])
    return choices.enumerated().map { index, choice in
      var probe = Probe(
        text(choice.0, choice.1, choice.2), inputs: [choice.1, choice.2, choice.0], outputs: [choice.0])
      if choice.0 == choice.1 || choice.0 == choice.2 || choice.0 == "x0" {
        probe = Probe(text(choice.0, choice.1, choice.2), inputs: [choice.1, choice.2], outputs: [choice.0, choice.2])
      }
      func add(_ first: UInt64, _ second: UInt64, _ old: UInt64) {
        probe.words += [first, second, old].prefix(probe.inputs.count)
      }
      if index == 0 {
        for first in IntegerOperands.directed {
          for second in IntegerOperands.directed { add(first, second, generator.next()) }
        }
      }
      for _ in 0..<(index == 0 ? randomCaseCount : 20) {
        add(IntegerOperands.random(&generator), IntegerOperands.random(&generator), generator.next())
      }
      return probe
    }
  }

  static func oneOperandProbes(
    _ generator: inout SeededGenerator, registers: [String] = Probe.integerRegisters,
    _ text: (_ d: String, _ a: String) -> String
  ) -> [Probe] {
    let names = registers.shuffled(using: &generator)
    let (d, a) = (names[0], names[1])
    return [(d, a), (a, a), ("x0", a), (d, "x0")].enumerated().map { index, choice in
      var probe = Probe(text(choice.0, choice.1), inputs: [choice.1], outputs: [choice.0])
      if index == 0 { probe.words = IntegerOperands.directed }
      for _ in 0..<(index == 0 ? randomCaseCount / 4 : 10) { probe.words.append(IntegerOperands.random(&generator)) }
      return probe
    }
  }

  private static func jumps(_ generator: inout SeededGenerator) -> [Probe] {
    let names = Probe.integerRegisters.shuffled(using: &generator)
    let (d, e, a) = (names[0], names[1], names[2])
    let texts = [
      "li \(e), 1\njal \(d), 2f\nli \(e), 2\n2:",
      "li \(e), 1\njal x0, 2f\nli \(e), 2\n2: mv \(d), x0",
      "la \(e), 2f\njalr \(d), 0(\(e))\nli \(e), 2\n2:",
      // The lowest bit of the target is cleared.
      "la \(e), 2f\njalr \(d), 1(\(e))\nli \(e), 2\n2:",
      "la \(e), 2f + 2048\njalr \(e), -2048(\(e))\nli \(e), 2\n2: mv \(d), x0",
      "lui \(d), 0\nlui \(e), 0x7ffff", "lui \(d), 0x80000\nlui \(e), 0xfffff",
      "lui \(d), 0x12345\nlui x0, 0xfffff\nmv \(e), x0",
      "auipc \(d), 0\nauipc \(e), 0x7ffff", "auipc \(d), 0x80000\nauipc \(e), 0xfffff",
    ]
    return texts.map { text in
      var probe = Probe(text, inputs: [a], outputs: [d, e])
      probe.words = [0, 1]
      return probe
    }
  }
}

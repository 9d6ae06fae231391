/// The C extension's computations and jumps; its loads and stores stand with the others.
enum CompressedProbes {
  static func all() -> [Probe] {
    var generator = SeededGenerator(seed: 2)
    var probes: [Probe] = []
    for name in ["c.sub", "c.xor", "c.or", "c.and", "c.subw", "c.addw"] {
      let names = Probe.compressedRegisters.shuffled(using: &generator)
      probes.append(pair("\(name) \(names[0]), \(names[1])", names[0], names[1], &generator))
      probes.append(pair("\(name) \(names[0]), \(names[0])", names[0], names[0], &generator))
    }
    for name in ["c.mv", "c.add"] {
      let names = Probe.integerRegisters.shuffled(using: &generator)
      probes.append(pair("\(name) \(names[0]), \(names[1])", names[0], names[1], &generator))
    }
    for value in [-32, -1, 1, 31] {
      let name = Probe.integerRegisters.randomElement(using: &generator)!
      for instruction in ["c.addi", "c.li", "c.addiw"] {
        probes.append(single("\(instruction) \(name), \(value)", name, &generator))
      }
      let short = Probe.compressedRegisters.randomElement(using: &generator)!
      probes.append(single("c.andi \(short), \(value)", short, &generator))
    }
    for value in ["1", "31", "0xfffe0", "0xfffff"] { probes.append(single("c.lui x5, \(value)", "x5", &generator)) }
    for amount in [1, 31, 32, 63] {
      probes.append(single("c.slli x7, \(amount)", "x7", &generator))
      for instruction in ["c.srli", "c.srai"] {
        probes.append(single("\(instruction) x9, \(amount)", "x9", &generator))
      }
    }
    for value in [-512, -16, 16, 496] { probes.append(single("c.addi16sp x2, \(value)", "x2", &generator)) }
    for value in [4, 8, 64, 512, 1020] {
      var probe = Probe("c.addi4spn x12, x2, \(value)", inputs: ["x2"], outputs: ["x12", "x2"])
      probe.words = IntegerOperands.directed
      probes.append(probe)
    }
    for instruction in ["c.beqz", "c.bnez"] {
      probes.append(
        single("c.mv x8, x9\n\(instruction) x9, 2f\nc.addi x8, 5\n2: c.addi x8, 1", "x9", &generator, output: "x8"))
    }
    let texts = [
      "c.nop\nc.j 2f\nli x9, 1\n2:", "la x8, 2f\nc.jr x8\nli x9, 1\n2:", "la x1, 2f\nc.jalr x1\nli x9, 1\n2: mv x9, x1",
    ]
    for text in texts { probes.append(single(text, "x9", &generator)) }
    return probes
  }

  private static func single(
    _ text: String, _ input: String, _ generator: inout SeededGenerator, output: String? = nil
  ) -> Probe {
    var probe = Probe(text, inputs: [input], outputs: [output ?? input])
    probe.words = IntegerOperands.directed
    for _ in 0..<randomCaseCount / 8 { probe.words.append(IntegerOperands.random(&generator)) }
    return probe
  }

  private static func pair(
    _ text: String, _ first: String, _ second: String, _ generator: inout SeededGenerator
  ) -> Probe {
    var probe = Probe(text, inputs: [first, second], outputs: [first, second])
    for left in IntegerOperands.directed { for right in IntegerOperands.directed { probe.words += [left, right] } }
    for _ in 0..<randomCaseCount / 4 {
      probe.words += [IntegerOperands.random(&generator), IntegerOperands.random(&generator)]
    }
    return probe
  }
}

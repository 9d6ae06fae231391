/// The F and D extensions: every operand crossed with every rounding mode, flags set and clear before.
enum FloatingPointProbes {
  static func all() -> [Probe] {
    var generator = SeededGenerator(seed: 3)
    return computations("s", .single, &generator) + computations("d", .double, &generator)
      + conversions(&generator) + control(&generator)
  }

  private static func computations(
    _ format: String, _ operands: FloatingPointOperands, _ generator: inout SeededGenerator
  ) -> [Probe] {
    var probes: [Probe] = []
    for name in ["fadd", "fsub", "fmul", "fdiv"] {
      for mode in ["dyn", "rne", "rtz", "rdn", "rup", "rmm"] {
        probes.append(
          probe(2, operands, everyMode: mode == "dyn", &generator) { d, s in
            "\(name).\(format) \(d), \(s[0]), \(s[1]), \(mode)"
          })
      }
    }
    for mode in ["dyn", "rtz", "rmm"] {
      probes.append(
        probe(1, operands, everyMode: true, &generator) { d, s in "fsqrt.\(format) \(d), \(s[0]), \(mode)" })
    }
    for name in ["fmadd", "fmsub", "fnmadd", "fnmsub"] {
      for mode in ["dyn", "rup"] {
        probes.append(
          probe(3, operands, everyMode: false, &generator) { d, s in
            "\(name).\(format) \(d), \(s[0]), \(s[1]), \(s[2]), \(mode)"
          })
      }
    }
    for name in ["fmin", "fmax", "fsgnj", "fsgnjn", "fsgnjx"] {
      probes.append(
        probe(2, operands, everyMode: false, &generator) { d, s in "\(name).\(format) \(d), \(s[0]), \(s[1])" })
    }
    for name in ["feq", "flt", "fle"] {
      probes.append(
        probe(2, operands, toInteger: true, everyMode: false, &generator) { d, s in
          "\(name).\(format) \(d), \(s[0]), \(s[1])"
        })
    }
    for text in ["fclass.\(format)", format == "s" ? "fmv.x.w" : "fmv.x.d"] {
      probes.append(
        probe(1, operands, toInteger: true, everyMode: false, &generator) { d, s in "\(text) \(d), \(s[0])" })
    }
    for integer in ["w", "wu", "l", "lu"] {
      for mode in ["dyn", "rtz", "rne", "rmm"] {
        probes.append(
          probe(1, operands, toInteger: true, everyMode: mode == "dyn", &generator) { d, s in
            "fcvt.\(integer).\(format) \(d), \(s[0]), \(mode)"
          })
      }
    }
    return probes
  }

  private static func conversions(_ generator: inout SeededGenerator) -> [Probe] {
    var probes: [Probe] = []
    for mode in ["dyn", "rtz", "rup"] {
      probes.append(probe(1, .double, everyMode: true, &generator) { d, s in "fcvt.s.d \(d), \(s[0]), \(mode)" })
    }
    probes.append(probe(1, .single, everyMode: false, &generator) { d, s in "fcvt.d.s \(d), \(s[0])" })
    var texts = ["fmv.w.x", "fmv.d.x", "fcvt.d.w", "fcvt.d.wu"].map { ($0, "") }
    for name in ["fcvt.s.w", "fcvt.s.wu", "fcvt.s.l", "fcvt.s.lu", "fcvt.d.l", "fcvt.d.lu"] {
      for mode in [", dyn", ", rne", ", rdn", ", rmm"] { texts.append((name, mode)) }
    }
    for (name, mode) in texts {
      let d = Probe.floatingPointRegisters.randomElement(using: &generator)!
      let a = Probe.integerRegisters.randomElement(using: &generator)!
      var probe = Probe("\(name) \(d), \(a)\(mode)", inputs: [a], outputs: [d], usesControl: true)
      for value in IntegerOperands.directed + nearHalves {
        for frm in UInt64(0)..<5 { probe.words += [value, frm << 5] }
      }
      for _ in 0..<randomCaseCount { probe.words += [IntegerOperands.random(&generator), fcsr(&generator)] }
      probes.append(probe)
    }
    return probes
  }

  /// Reads and writes of fflags, frm and fcsr.
  private static func control(_ generator: inout SeededGenerator) -> [Probe] {
    var probes: [Probe] = []
    for csr in ["fflags", "frm", "fcsr"] {
      for instruction in ["csrrw", "csrrs", "csrrc"] {
        var probe = Probe("\(instruction) x5, \(csr), x6", inputs: ["x6"], outputs: ["x5"], usesControl: true)
        var immediate = Probe("\(instruction)i x5, \(csr), 21", inputs: ["x6"], outputs: ["x5"], usesControl: true)
        for value in IntegerOperands.directed {
          probe.words += [value, generator.next() & 0xff]
          immediate.words += [value, generator.next() & 0xff]
        }
        probes += [probe, immediate]
      }
    }
    return probes
  }

  /// Integers whose last kept place, in single or double precision, is decided by a tie or nearly one.
  private static let nearHalves: [UInt64] = [24, 25, 31, 53, 54, 62, 63].flatMap { top -> [UInt64] in
    let low = UInt64(1) << (top > 53 ? top - 53 : top > 24 ? top - 24 : 0)
    let value = UInt64(1) << UInt64(top)
    return [value + low, value + low - 1, value + low + 1, value + 3 * low, value - 1, 0 &- value &- low]
  }

  /// A random rounding mode, with NX alone, other flags, or none set.
  private static func fcsr(_ generator: inout SeededGenerator) -> UInt64 {
    let frm = UInt64.random(in: 0..<5, using: &generator)
    return frm << 5 | [0, 1, 0x1f, generator.next() & 0x1f].randomElement(using: &generator)!
  }

  /// `sources` operands from floating-point registers, crossed.
  private static func probe(
    _ sources: Int, _ operands: FloatingPointOperands, toInteger: Bool = false, everyMode: Bool,
    _ generator: inout SeededGenerator, _ text: (_ d: String, _ s: [String]) -> String
  ) -> Probe {
    var names = Probe.floatingPointRegisters.shuffled(using: &generator)
    let d = toInteger ? Probe.integerRegisters.randomElement(using: &generator)! : names.removeLast()
    let s = Array(names.prefix(sources))
    var probe = Probe(text(d, s), inputs: s, outputs: [d], usesControl: true)
    let upper: UInt64 = operands.width == 32 ? 0xffff_ffff_0000_0000 : 0
    func add(_ values: [UInt64], _ fcsr: UInt64) { probe.words += values.map { $0 | upper } + [fcsr] }

    let directed = sources == 3 ? operands.essential : operands.directed
    var crossed: [[UInt64]] = [[]]
    for _ in 0..<sources { crossed = crossed.flatMap { prefix in directed.map { prefix + [$0] } } }
    for (index, values) in crossed.enumerated() {
      if everyMode {
        // NX set beforehand lets the host do the work: both ways, then.
        for frm in UInt64(0)..<5 { add(values, frm << 5 | UInt64(index & 1)) }
        if index & 1 == 0 { add(values, 1) }
      } else {
        #if DEBUG
          if sources == 3 && index % 7 != 0 { continue }
        #endif
        add(values, fcsr(&generator))
      }
    }
    for _ in 0..<randomCaseCount { add(operands.random(sources, &generator), fcsr(&generator)) }
    if operands.width == 32 {
      // Not boxed: counts as the canonical NaN.
      for _ in 0..<20 {
        probe.words += (0..<sources).map { _ in generator.next() } + [fcsr(&generator)]
      }
    }
    return probe
  }
}

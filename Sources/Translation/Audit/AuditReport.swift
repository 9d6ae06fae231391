import Hart
import RISCV

/// Describes where the interpreter and the translator went apart.
struct AuditReport {
  /// An instruction that was executed.
  struct Step {
    var pc: UInt64
    var physical: UInt64?
    /// Nil where its fetch faults.
    var bits: UInt32?
  }

  private let interpreted: HartState
  private let translated: HartState
  private let memory: [String]
  /// The last instructions before the difference, the oldest first: from the beginning of `blocks`, if there are any.
  private(set) var trace: [Step] = []
  /// The host code that the difference shows behind.
  private var blocks: [TranslatedBlock] = []

  /// `pages` are those that the interpreter changed; RAM holds what the translator has left.
  init(interpreted: HartState, translated: HartState, pages: ArraySlice<Rehearsal.Page>) {
    self.interpreted = interpreted
    self.translated = translated
    memory = Self.memoryDifferences(pages)
  }

  /// Takes the instructions before the difference. The host code is the longest block that begins among them and ends
  /// with them; where there is none, the last that begins there.
  mutating func setTrace(_ steps: [Step], _ ledger: BlockLedger) {
    let found = steps.enumerated().map { index, step in
      (index: index, blocks: step.physical.map(ledger.blocks(at:)) ?? [])
    }
    let guess =
      found.first { item in item.blocks.contains { item.index + $0.instructionCount == steps.count } }
      ?? found.last { !$0.blocks.isEmpty }
    blocks = guess?.blocks ?? []
    trace = Array(steps.dropFirst(guess?.index ?? max(0, steps.count - 16)))
  }

  private static let largestWordCount = 32

  private static func memoryDifferences(_ pages: ArraySlice<Rehearsal.Page>) -> [String] {
    var lines: [String] = []
    for page in pages {
      for offset in stride(from: 0, to: 4096, by: 8) {
        let expected = page.after.load(fromByteOffset: offset, as: UInt64.self)
        let actual = page.host.load(fromByteOffset: offset, as: UInt64.self)
        guard expected != actual else { continue }
        guard lines.count < largestWordCount else { return lines + ["* and more words of memory"] }
        lines.append(row("[\(hexadecimal(page.physical &+ UInt64(offset)))]", nil, expected, actual))
      }
    }
    return lines
  }

  private static func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

  private static func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(1, width - text.count))
  }

  private static func row(_ name: String, _ old: UInt64?, _ expected: UInt64, _ actual: UInt64) -> String {
    padded((expected == actual ? "  " : "* ") + name, 22) + padded(old.map(hexadecimal) ?? "", 20)
      + padded(hexadecimal(expected), 20) + hexadecimal(actual)
  }

  /// `before` is the state at the beginning of the trace.
  func text(before: HartState) -> String {
    var lines = [
      "the translator differs from the interpreter before pc \(Self.hexadecimal(interpreted.pc))"
        + " (instruction \(interpreted.retired))"
    ]
    lines += ["", "guest code, in the order in which it was executed:"]
    for step in trace {
      let bits = step.bits ?? 0
      let text = step.bits.map { Disassembler().text($0, at: step.pc) } ?? "(no instruction can be fetched)"
      let digits = String(bits, radix: 16)
      let width = bits & 3 == 3 ? 8 : 4
      lines.append(
        "  " + Self.padded(Self.hexadecimal(step.pc), 20)
          + Self.padded(String(repeating: "0", count: width - min(width, digits.count)) + digits, 10) + text)
    }
    lines += [
      "",
      Self.padded("  state", 22) + Self.padded("before", 20) + Self.padded("interpreter", 20)
        + "translator",
    ]
    let (interpreted, translated) = (interpreted.visibleValues, translated.visibleValues)
    for (index, old) in before.visibleValues.enumerated() {
      let (expected, actual) = (interpreted[index].value, translated[index].value)
      // Integer registers are always of interest, the others where something happened.
      guard old.name.hasPrefix("x") || old.value != expected || expected != actual else { continue }
      lines.append(Self.row(old.name, old.value, expected, actual))
    }
    lines += memory
    // The code of before a change isn't of interest, but of the block with and the one without access groups both are.
    for block in blocks.suffix(2) { lines += HostCode.description(block) }
    return lines.joined(separator: "\n")
  }
}

import Foundation
import HostSystem

/// Host code for people to read.
enum HostCode {
  /// A block's bytes and, where the host has objdump, its instructions.
  static func description(_ block: TranslatedBlock) -> [String] {
    var lines = [
      "",
      "host code of the block of \(block.instructionCount) instructions that begins there, at 0x\(String(block.start, radix: 16))"
        + " (llvm-mc --disassemble --triple=x86_64 reads these lines):",
    ]
    let digits = block.code.map { "0x" + ($0 < 16 ? "0" : "") + String($0, radix: 16) }
    for start in stride(from: 0, to: digits.count, by: 16) {
      lines.append(digits[start..<min(start + 16, digits.count)].joined(separator: " "))
    }
    let instructions = disassembly(block)
    return instructions.isEmpty ? lines : lines + ["", "the same, by objdump:"] + instructions
  }

  /// Empty where there is no objdump that knows x86-64.
  private static func disassembly(_ block: TranslatedBlock) -> [String] {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-code-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: file) }
    guard (try? Data(block.code).write(to: file)) != nil,
      let outcome = try? Subprocess.runAndWait(
        "objdump",
        [
          "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn",
          "--adjust-vma=0x\(String(block.start, radix: 16))", file.path,
        ]), outcome.succeeded
    else { return [] }
    return String(decoding: outcome.output, as: UTF8.self).split(separator: "\n")
      .drop { !$0.hasPrefix("0") }.dropFirst().map(String.init)
  }
}

import ArgumentParser
import Board
import Foundation
import RISCV

/// `yadori disassemble FILE`.
struct DisassembleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disassemble", abstract: "Lists the instructions of an ELF file, or of plain bytes.")

  @Argument(help: "An ELF executable for RISC-V, or any file with --raw.")
  var file: String

  @Flag(help: "Take the file for plain code, whatever it is.")
  var raw = false

  @Option(help: "Where the first byte of plain code lies.")
  var address: Address = Address(value: 0)

  @Flag(help: "Write real instructions instead of the usual aliases (addi zero, zero, 0x0 for nop).")
  var noAliases = false

  struct Address: ExpressibleByArgument {
    let value: UInt64
    init(value: UInt64) { self.value = value }
    init?(argument: String) {
      let isHexadecimal = argument.hasPrefix("0x")
      guard let value = UInt64(isHexadecimal ? String(argument.dropFirst(2)) : argument, radix: isHexadecimal ? 16 : 10)
      else { return nil }
      self.value = value
    }
    var defaultValueDescription: String { "0x" + String(value, radix: 16) }
  }

  func run() throws {
    let data: Data
    do {
      data = try Data(contentsOf: URL(fileURLWithPath: file), options: .mappedIfSafe)
    } catch {
      throw CommandFailure(.noInput, "can't read '\(file)'; check the name and its permissions")
    }
    let disassembler = Disassembler(aliases: !noAliases)
    if raw || !ELFFile.isELF(data) {
      guard raw else {
        throw CommandFailure(.data, "'\(file)' isn't an ELF file; use --raw to disassemble plain code")
      }
      list(disassembler, [UInt8](data), at: address.value)
      return
    }
    let program = try ELFFile(data, name: file)
    for segment in program.segments where segment.isExecutable {
      list(disassembler, [UInt8](program.contents(of: segment)), at: segment.virtualAddress)
    }
  }

  private func list(_ disassembler: Disassembler, _ bytes: [UInt8], at address: UInt64) {
    var output = ""
    for line in disassembler.lines(bytes, at: address) {
      let bits = String(line.bits, radix: 16)
      let digits = String(repeating: "0", count: max(0, line.length * 2 - bits.count)) + bits
      let place = String(line.address, radix: 16)
      output +=
        "\(String(repeating: " ", count: max(0, 10 - place.count)))\(place): \(digits.padding(to: 8))  \(line.text)\n"
      if output.utf8.count > 1 << 16 {
        FileHandle.standardOutput.write(Data(output.utf8))
        output = ""
      }
    }
    FileHandle.standardOutput.write(Data(output.utf8))
  }
}

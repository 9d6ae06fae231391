import Foundation

/// Raw code for 0x8000_0000, wrapped in the smallest ELF file.
enum BareProgram {
  /// Mixes registers and memory for 20,480 rounds of ten instructions.
  static let rounds: [UInt32] = [
    0x0000_5337,  // lui   t1, 5           t1 = 20480 rounds
    0x0000_1397,  // auipc t2, 1           t2 = scratch memory
    0x0000_0513,  // li    a0, 0
    0x0065_0533,  // add   a0, a0, t1
    0x00D5_1593,  // slli  a1, a0, 13
    0x00B5_4533,  // xor   a0, a0, a1
    0x0075_5593,  // srli  a1, a0, 7
    0x00B5_4533,  // xor   a0, a0, a1
    0x00A3_B023,  // sd    a0, 0(t2)
    0x0003_B583,  // ld    a1, 0(t2)
    0x00B5_0533,  // add   a0, a0, a1
    0xFFF3_0313,  // addi  t1, t1, -1
    0xFC03_1EE3,  // bnez  t1, -36
  ]
  /// Ends with the low bits of their checksum, by the test finisher.
  static let end: [UInt32] = [
    0x03F5_7513,  // andi  a0, a0, 63
    0x0015_6513,  // ori   a0, a0, 1
    0x0105_1513,  // slli  a0, a0, 16
    0x0000_3637,  // lui   a2, 3
    0x3336_0613,  // addi  a2, a2, 0x333
    0x00C5_6533,  // or    a0, a0, a2
    0x0010_05B7,  // lui   a1, 0x100
    0x00A5_A023,  // sw    a0, 0(a1)
    0x0000_006F,  // j     .
  ]

  /// Writes it into the folder, and returns its path.
  static func write(_ code: [UInt32], to folder: URL) throws -> String {
    var file = Data([0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8))
    func append<Value: FixedWidthInteger>(_ value: Value) {
      withUnsafeBytes(of: value.littleEndian) { file.append(contentsOf: $0) }
    }
    append(UInt16(2))
    append(UInt16(243))
    append(UInt32(1))
    append(UInt64(0x8000_0000))
    append(UInt64(64))
    append(UInt64(0))
    append(UInt32(0))
    for value in [64, 56, 1, 64, 0, 0] as [UInt16] { append(value) }
    append(UInt32(1))
    append(UInt32(7))
    for value in [120, 0x8000_0000, 0x8000_0000, UInt64(code.count * 4), UInt64(code.count * 4), 4] as [UInt64] {
      append(value)
    }
    for word in code { append(word) }
    let path = folder.appendingPathComponent("program.elf").path
    try file.write(to: URL(fileURLWithPath: path))
    return path
  }
}

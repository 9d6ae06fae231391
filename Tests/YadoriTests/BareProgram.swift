import Foundation

/// Raw code for 0x8000_0000, wrapped in the smallest ELF file.
enum BareProgram {
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

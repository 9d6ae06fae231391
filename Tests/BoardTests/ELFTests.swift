import Board
import Foundation
import Testing

/// Builds small ELF files, byte by byte.
struct ELFBuilder {
  var machine: UInt16 = 243
  var fileClass: UInt8 = 2
  var type: UInt16 = 2
  var entry: UInt64 = 0x8000_0000
  var segments: [(physical: UInt64, virtual: UInt64, bytes: [UInt8], memorySize: UInt64)] = []
  var symbols: [(name: String, value: UInt64)] = []

  init(code: [UInt8] = [], at address: UInt64 = 0x8000_0000, memorySize: UInt64? = nil) {
    entry = address
    if !code.isEmpty { segments = [(address, address, code, memorySize ?? UInt64(code.count))] }
  }

  init(instructions: [UInt32], at address: UInt64 = 0x8000_0000, memorySize: UInt64? = nil) {
    self.init(
      code: instructions.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }, at: address,
      memorySize: memorySize)
  }

  func build() -> Data {
    var headers: [UInt8] = []
    var payload: [UInt8] = []
    let payloadStart = 64 + 56 * segments.count
    for segment in segments {
      headers += little(UInt32(1)) + little(UInt32(7)) + little(UInt64(payloadStart + payload.count))
      headers += little(segment.virtual) + little(segment.physical) + little(UInt64(segment.bytes.count))
      headers += little(segment.memorySize) + little(UInt64(4096))
      payload += segment.bytes
    }
    var strings: [UInt8] = [0]
    var table = [UInt8](repeating: 0, count: 24)
    for symbol in symbols {
      table += little(UInt32(strings.count)) + [0x10, 0] + little(UInt16(1)) + little(symbol.value) + little(UInt64(8))
      strings += Array(symbol.name.utf8) + [0]
    }
    let tableStart = payloadStart + payload.count
    let stringsStart = tableStart + table.count
    let sectionsStart = stringsStart + strings.count
    func section(_ type: UInt32, _ offset: Int, _ size: Int, link: UInt32, entry: UInt64) -> [UInt8] {
      little(UInt32(0)) + little(type) + little(UInt64(0)) + little(UInt64(0)) + little(UInt64(offset))
        + little(UInt64(size)) + little(link) + little(UInt32(0)) + little(UInt64(8)) + little(entry)
    }
    let sections =
      section(0, 0, 0, link: 0, entry: 0) + section(2, tableStart, table.count, link: 2, entry: 24)
      + section(3, stringsStart, strings.count, link: 0, entry: 0)
    var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, fileClass, 1, 1] + [UInt8](repeating: 0, count: 9)
    file += little(type) + little(machine) + little(UInt32(1)) + little(entry) + little(UInt64(64))
    file += little(UInt64(sectionsStart)) + little(UInt32(0)) + little(UInt16(64)) + little(UInt16(56))
    file += little(UInt16(segments.count)) + little(UInt16(64)) + little(UInt16(3)) + little(UInt16(2))
    return Data(file + headers + payload + table + strings + sections)
  }

  private func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}

@Suite("ELF files") struct ELFTests {
  private func message(_ data: Data) -> String {
    do {
      _ = try ELFFile(data, name: "kernel.elf")
      return "accepted"
    } catch { return "\(error)" }
  }

  @Test func readsSegmentsAndSymbols() throws {
    var builder = ELFBuilder(code: [1, 2, 3, 4], memorySize: 4096)
    builder.symbols = [("begin", 0x8000_0000), ("tohost", 0x8000_1000), ("tohost2", 7)]
    let file = try ELFFile(builder.build(), name: "test.elf")
    #expect(file.entry == 0x8000_0000)
    #expect(file.segments.map(\.memorySize) == [4096])
    #expect(Array(file.contents(of: file.segments[0])) == [1, 2, 3, 4])
    #expect(file.symbol("tohost") == 0x8000_1000)
    #expect(file.symbol("fromhost") == nil)
    #expect(file.symbol("toho") == nil)
  }

  @Test func saysWhatIsWrong() {
    var builder = ELFBuilder(code: [1, 2, 3, 4])
    builder.machine = 62
    #expect(message(builder.build()).contains("another architecture (x86-64)"))
    builder.machine = 183
    #expect(message(builder.build()).contains("another architecture (aarch64)"))
    builder.machine = 243
    builder.fileClass = 1
    #expect(message(builder.build()).contains("32-bit"))
    builder.fileClass = 2
    builder.type = 1
    #expect(message(builder.build()).contains("not an executable"))
    #expect(message(ELFBuilder().build()).contains("nothing to load"))
    #expect(message(Data("hello".utf8)).contains("not an ELF file"))
    #expect(message(Data()).contains("not an ELF file"))
    builder = ELFBuilder(code: [1, 2, 3, 4], memorySize: 2)
    #expect(message(builder.build()).contains("larger in the file"))
    builder = ELFBuilder(code: [1], at: .max - 3, memorySize: 100)
    #expect(message(builder.build()).contains("wraps around"))
  }

  @Test func truncationAndDamageNeverTrap() {
    var builder = ELFBuilder(code: [UInt8](repeating: 7, count: 64), memorySize: 100)
    builder.symbols = [("tohost", 0x8000_1000)]
    let good = [UInt8](builder.build())
    for length in 0..<(64 + 56 + 64) {
      #expect(throws: BootError.self) { try ELFFile(Data(good.prefix(length)), name: "cut.elf") }
    }
    for index in good.indices {
      for value in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] {
        var bad = good
        bad[index] = value
        guard let file = try? ELFFile(Data(bad), name: "bad.elf") else { continue }
        _ = file.symbol("tohost")
        for segment in file.segments { _ = file.contents(of: segment) }
      }
    }
  }
}

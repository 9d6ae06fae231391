import Bus
import Hart
import RISCV
import Testing
import Translation

/// The bits of an instruction that has an encoding.
func encode(
  _ operation: RISCV.Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, _ immediate: Int64 = 0
) -> UInt32 {
  Encoder.encode(operation, rd: rd, rs1: rs1, rs2: rs2, immediate: immediate)!
}

/// A hart with 16 MiB of RAM at 0x8000_0000 and no devices, run by the engine under test or by the interpreter.
final class TranslationHarness {
  static let base: UInt64 = 0x8000_0000
  static let data: UInt64 = 0x8010_0000
  static let handler: UInt64 = 0x8020_0000
  let memory: GuestMemory
  let addressSpace: AddressSpace
  let hart: Hart

  init(_ engine: EngineChoice, isAlone: Bool = true) throws {
    memory = try GuestMemory(base: PhysicalAddress(Self.base), size: 16 << 20)
    addressSpace = AddressSpace(memory: memory)
    var configuration = HartConfiguration()
    configuration.isAlone = isAlone
    hart = Hart(identifier: 0, addressSpace: addressSpace, clock: GuestClock(), configuration: configuration)
    try EngineChoice.install(engine, on: [hart])
    #expect(hart.start(at: Self.base, privilege: .machine, argument: 0))
    // The first turn takes the start.
    _ = hart.run(limit: 0)
    // Traps go on behind the instruction; x31 is the handler's.
    hart.writeCSR(0x305, Self.handler)
    place(
      [
        Encoder.encode(.csrrs, rd: 31, immediate: 0x341)!, Encoder.encode(.addi, rd: 31, rs1: 31, immediate: 4)!,
        Encoder.encode(.csrrw, rs1: 31, immediate: 0x341)!, Encoder.encode(.mret)!,
      ], at: Self.handler)
    // Floating point on.
    hart.writeCSR(0x300, 1 << 13)
  }

  func place(_ instructions: [UInt32], at address: UInt64 = TranslationHarness.base) {
    for (index, bits) in instructions.enumerated() {
      #expect(memory.store(bits, at: PhysicalAddress(address + UInt64(index) * 4)))
    }
  }

  /// Goes on in S-mode with a page table (Sv39) that maps RAM where it is, in pages of 4 KiB.
  func enterSupervisorMode() {
    let tables = Self.base + (12 << 20)
    let pages = (12 << 20) / 4096
    #expect(memory.store(((tables + 4096) >> 12) << 10 | 1, at: PhysicalAddress(tables + 2 * 8)))
    for table in 0..<UInt64((pages + 511) / 512) {
      let address = tables + 8192 + table * 4096
      #expect(memory.store((address >> 12) << 10 | 1, at: PhysicalAddress(tables + 4096 + table * 8)))
      for index in 0..<UInt64(512) {
        let page = Self.base + (table * 512 + index) * 4096
        #expect(memory.store((page >> 12) << 10 | 0xCF, at: PhysicalAddress(address + index * 8)))
      }
    }
    // CBO.ZERO is for everybody.
    hart.writeCSR(0x30A, 1 << 7)
    hart.writeCSR(0x10A, 1 << 7)
    hart.writeCSR(0x3A0, 0x1F)
    hart.writeCSR(0x3B0, ~0)
    hart.writeCSR(0x180, 8 << 60 | tables / 4096)
    hart.privilege = .supervisor
  }

  /// Everything that a program can have changed, a line each.
  func description(dataPages: Int = 16) -> [String] {
    var lines = ["pc \(String(hart.pc, radix: 16)) retired \(hart.retiredInstructions)"]
    for index in 0..<32 { lines.append("x\(index) \(String(hart[x: index], radix: 16))") }
    for index in 0..<32 { lines.append("f\(index) \(String(hart[f: index], radix: 16))") }
    for number in [0x003, 0x300, 0x340, 0x341, 0x342, 0x343] {
      lines.append("csr \(String(number, radix: 16)) \(String(hart.readCSR(number)!, radix: 16))")
    }
    let start = Self.data - UInt64(dataPages) * 2048
    for address in stride(from: start, to: start + UInt64(dataPages) * 4096, by: 8) {
      let value = memory.load(PhysicalAddress(address), as: UInt64.self)!
      if value != 0 { lines.append("\(String(address, radix: 16)): \(String(value, radix: 16))") }
    }
    return lines
  }
}

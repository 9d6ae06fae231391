import Board
import Bus
import Foundation
import Testing
import Translation

/// The ways in which bare programs print and end.
@Suite("Bare programs") struct ProgramEndTests {
  private static let toHost: UInt64 = 0x8000_1000
  private static let fromHost: UInt64 = 0x8000_1040
  private static let block: UInt64 = 0x8000_2000
  private static let symbols: [(String, UInt64)] = [
    ("tohost", toHost), ("fromhost", fromHost), ("begin_signature", block), ("end_signature", block + 12),
  ]

  private func board(_ body: (inout TestAssembler) -> Void) throws -> BoardUnderTest {
    try BoardUnderTest(
      BootDescription(firmware: .none, kernel: .program(body, symbols: ProgramEndTests.symbols)))
  }

  @Test(arguments: [(0x5555, 0), (0x9_3333, 9)] as [(UInt64, Int)])
  func byTheFinisher(command: UInt64, code: Int) throws {
    let machine = try board { assembler in
      assembler.store(command, at: 0x10_0000, as: .sw)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: code))
    #expect(machine.board.exitStatus == code)
  }

  @Test func byAnAuditThatFindsADifference() throws {
    let machine = try BoardUnderTest(
      BootDescription(firmware: .none, kernel: .program({ $0.halt() }))
    ) { $0.engine = .audit(threshold: 1) }
    let audit = try #require(machine.board.harts[0].engine as? AuditEngine)
    audit.fault = { $0.pointee.x[7] = 1 }
    guard case .failed(let reason) = machine.run() else {
      Issue.record("the machine went on")
      return
    }
    #expect(reason.contains("* x7"))
  }

  @Test(arguments: [(1, 0), (15, 7)] as [(UInt64, Int)])
  func byHTIF(word: UInt64, code: Int) throws {
    let machine = try board { assembler in
      assembler.store(word, at: ProgramEndTests.toHost)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: code))
  }

  @Test func byHTIFInHalves() throws {
    let whole = try board { assembler in
      assembler.store(11, at: ProgramEndTests.toHost, as: .sw)
      assembler.store(0, at: ProgramEndTests.toHost + 4, as: .sw)
      assembler.halt()
    }
    #expect(whole.run() == .shutdown(code: 5))
    let lowerOnly = try board { assembler in
      assembler.store(11, at: ProgramEndTests.toHost, as: .sw)
      assembler.store(11, at: ProgramEndTests.toHost, as: .sw)
      assembler.halt()
    }
    #expect(lowerOnly.run() == .shutdown(code: 5))
  }

  @Test func htifPrints() throws {
    let machine = try board { assembler in
      for byte in "Hi".utf8 { assembler.store(0x0101 << 48 | UInt64(byte), at: ProgramEndTests.toHost) }
      // A proxied write(1, text, 3), then an odd exit.
      let text = ProgramEndTests.block + 0x100
      for (index, word) in [64, 1, text, 3].enumerated() {
        assembler.store(word, at: ProgramEndTests.block + 8 * UInt64(index))
      }
      assembler.store(0x21_6F79, at: text)
      assembler.store(ProgramEndTests.block, at: ProgramEndTests.toHost)
      assembler.store(1, at: ProgramEndTests.toHost)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: 0))
    #expect(machine.console.output == "Hiyo!")
    #expect(machine.load(ProgramEndTests.block) == 3)
    #expect(machine.load(ProgramEndTests.fromHost) == 1)
  }

  @Test func wildHTIFIsHarmless() throws {
    for word in [0x1234_5678, 0x7F_FFFF_FFFE, 0x0102 << 48, 0xFFFF << 48 | 2, ProgramEndTests.block] as [UInt64] {
      let machine = try board { assembler in
        for (index, value) in [64, 1, 0x10, UInt64.max].enumerated() {
          assembler.store(value, at: ProgramEndTests.block + 8 * UInt64(index))
        }
        assembler.store(word, at: ProgramEndTests.toHost)
        assembler.store(3, at: ProgramEndTests.toHost)
        assembler.halt()
      }
      #expect(machine.run() == .shutdown(code: 1))
      #expect(machine.console.output.isEmpty)
    }
  }

  @Test(arguments: [0x18, 0x20] as [UInt64])
  func bySemihosting(operation: UInt64) throws {
    let machine = try board { assembler in
      assembler.store(0x2_0026, at: ProgramEndTests.block)
      assembler.store(42, at: ProgramEndTests.block + 8)
      assembler.semihost(operation, ProgramEndTests.block)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: 42))
  }

  @Test func semihostingPrints() throws {
    let machine = try board { assembler in
      let block = ProgramEndTests.block
      let text = block + 0x100
      assembler.store(0x0A_6F6C_6C65_48, at: text)
      assembler.semihost(0x04, text)
      assembler.semihost(0x03, text)
      // open(":tt", "w"), then write to what it gave.
      assembler.store(0x74743A, at: text + 16)
      for (index, word) in [text + 16, 4, 3].enumerated() { assembler.store(word, at: block + 8 * UInt64(index)) }
      assembler.semihost(0x01, block)
      assembler.li(TestAssembler.t0, block)
      assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a0)
      assembler.store(text, at: block + 8)
      assembler.store(4, at: block + 16)
      assembler.semihost(0x05, block)
      assembler.li(TestAssembler.t0, block + 24)
      assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a0)
      assembler.semihost(0x18, 0x2_0026)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: 0))
    #expect(machine.console.output == "Hello\nHHell")
    #expect(machine.load(ProgramEndTests.block) == 2)
    #expect(machine.load(ProgramEndTests.block + 24) == 0)
  }

  @Test func semihostingSurvivesWildParameters() throws {
    for parameter in [0, 8, 0x7FFF_FFFF_FFF8, .max, 0x80FF_FFFC, 0x1_0000_0000] as [UInt64] {
      let machine = try board { assembler in
        for operation in 0...0x32 as ClosedRange<UInt64> where operation != 0x18 && operation != 0x20 {
          assembler.semihost(operation, parameter)
        }
        assembler.semihost(0x18, parameter)
        assembler.halt()
      }
      #expect(machine.run() == .shutdown(code: 1))
    }
  }

  @Test func theSignatureIsWrittenAsWords() throws {
    let machine = try board { assembler in
      assembler.store(0x1111_2222_DEAD_BEEF, at: ProgramEndTests.block)
      assembler.store(0x5, at: ProgramEndTests.block + 8)
      assembler.store(1, at: ProgramEndTests.toHost)
      assembler.halt()
    }
    #expect(machine.run() == .shutdown(code: 0))
    #expect(try machine.board.signature() == "deadbeef\n11112222\n00000005\n")
    let unsigned = try BoardUnderTest(BootDescription(firmware: .none, kernel: .program { $0.halt() }))
    #expect(throws: BootError.self) { try unsigned.board.signature() }
  }

  @Test func aRebootBeginsAnew() throws {
    let machine = try board { assembler in
      let counter: UInt64 = 0x8080_0000
      assembler.li(TestAssembler.t2, counter)
      assembler.emit(.ld, rd: TestAssembler.a2, rs1: TestAssembler.t2)
      assembler.emit(.addi, rd: TestAssembler.a2, rs1: TestAssembler.a2, immediate: 1)
      assembler.emit(.sd, rs1: TestAssembler.t2, rs2: TestAssembler.a2)
      assembler.store(0x7777, at: 0x10_0000, as: .sw)
      assembler.halt()
    }
    #expect(machine.run() == .reboot)
    machine.board.reset()
    #expect(machine.board.powerEvent == nil)
    #expect(machine.run() == .reboot)
    #expect(machine.load(0x8080_0000) == 2)
  }

  @Test func allHartsBeginAtTheResetVector() throws {
    let machine = try BoardUnderTest(
      BootDescription(
        firmware: .none,
        kernel: .program { assembler in
          assembler.emit(.slli, rd: TestAssembler.t0, rs1: TestAssembler.a0, immediate: 3)
          assembler.li(TestAssembler.t1, ProgramEndTests.block)
          assembler.emit(.add, rd: TestAssembler.t0, rs1: TestAssembler.t0, rs2: TestAssembler.t1)
          assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a1)
          assembler.halt()
        }), harts: 3)
    for hart in machine.board.harts { #expect(hart.run(limit: 40) == .instructionLimit || hart.pc != 0) }
    let trees = (0..<3).map { machine.load(ProgramEndTests.block + 8 * UInt64($0)) }
    #expect(Set(trees).count == 1)
    let magic = trees[0].flatMap { $0 }.flatMap { machine.board.memory.load(PhysicalAddress($0), as: UInt32.self) }
    #expect(magic == UInt32(0xD00D_FEED).byteSwapped)
  }
}

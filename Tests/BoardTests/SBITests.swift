import Board
import Bus
import Foundation
import Hart
import Testing

@Suite("SBI") struct SBITests {
  private enum Extension {
    static let base: UInt64 = 0x10
    static let time: UInt64 = 0x5449_4D45
    static let interrupt: UInt64 = 0x73_5049
    static let fence: UInt64 = 0x5246_4E43
    static let hart: UInt64 = 0x48_534D
    static let reset: UInt64 = 0x5352_5354
    static let console: UInt64 = 0x4442_434E
  }

  private static let notSupported: Int64 = -2
  private static let invalidParameter: Int64 = -3
  private static let invalidAddress: Int64 = -5
  private static let alreadyAvailable: Int64 = -6
  private static let text: UInt64 = 0x8080_0000
  private static let loop: UInt64 = 0x8020_0000

  let machine: BoardUnderTest

  init() throws {
    // An endless loop, which the tests run a few rounds of.
    let kernel = BootFile(name: "kernel", contents: Data([0x6F, 0, 0, 0]))
    machine = try BoardUnderTest(BootDescription(kernel: kernel), harts: 3)
    _ = machine.board.harts[0].run(limit: 1)
  }

  @Test func baseTellsWhatThereIs() {
    #expect(machine.sbi(Extension.base, 0) == (0, 2 << 24))
    #expect(machine.sbi(Extension.base, 1) == (0, 0x59_4452))
    for offered in [
      Extension.base, Extension.time, Extension.interrupt, Extension.fence, Extension.hart, Extension.reset,
      Extension.console, 0, 8,
    ] {
      #expect(machine.sbi(Extension.base, 3, offered) == (0, 1))
    }
    // PMU, SUSP, and nonsense.
    for missing in [0x50_4D55, 0x5355_5350, 9, .max] as [UInt64] {
      #expect(machine.sbi(Extension.base, 3, missing) == (0, 0))
      #expect(machine.sbi(missing, 0).error == SBITests.notSupported)
    }
    #expect(machine.sbi(Extension.base, 7).error == SBITests.notSupported)
  }

  @Test func timersAndInterruptsBecomePending() {
    let harts = machine.board.harts
    #expect(machine.sbi(Extension.time, 0, 0).error == 0)
    #expect((harts[0].readCSR(0x344) ?? 0) & 1 << 5 != 0)
    #expect(machine.sbi(Extension.time, 0, .max).error == 0)
    #expect((harts[0].readCSR(0x344) ?? 0) & 1 << 5 == 0)
    func pending() -> [Bool] { harts.map { ($0.readCSR(0x344) ?? 0) & 2 != 0 } }
    #expect(machine.sbi(Extension.interrupt, 0, 0b10, 1).error == 0)
    #expect(pending() == [false, false, true])
    #expect(machine.sbi(Extension.interrupt, 0, 0b1000, 0).error == SBITests.invalidParameter)
    #expect(machine.sbi(Extension.interrupt, 0, 1, 3).error == SBITests.invalidParameter)
    #expect(machine.sbi(Extension.interrupt, 0, 0, .max).error == 0)
    #expect(pending() == [true, true, true])
    #expect(machine.sbi(3, 0).error == 0)
    #expect(pending() == [false, true, true])
  }

  @Test func fencesAreDone() {
    #expect(machine.sbi(Extension.fence, 0, 0b111, 0).error == 0)
    #expect(machine.sbi(Extension.fence, 1, 1, 0, 0x1000, 0x2000).error == 0)
    #expect(machine.sbi(Extension.fence, 1, 0, .max, 0, .max).error == 0)
    #expect(machine.sbi(Extension.fence, 2, 0, .max, .max, .max, 7).error == 0)
    #expect(machine.sbi(Extension.fence, 3, 0, .max).error == SBITests.notSupported)
    #expect(machine.sbi(Extension.fence, 0, 0, 64).error == SBITests.invalidParameter)
  }

  @Test func hartsStartAndStop() throws {
    let harts = machine.board.harts
    #expect(machine.sbi(Extension.hart, 2, 1) == (0, 1))
    #expect(machine.sbi(Extension.hart, 0, 3, SBITests.loop, 0).error == SBITests.invalidParameter)
    #expect(machine.sbi(Extension.hart, 0, 1, 0x1000, 0).error == SBITests.invalidAddress)
    #expect(machine.sbi(Extension.hart, 0, 0, SBITests.loop, 0).error == SBITests.alreadyAvailable)
    #expect(machine.sbi(Extension.hart, 0, 1, SBITests.loop, 0x1234).error == 0)
    #expect(machine.sbi(Extension.hart, 2, 1) == (0, 0))
    #expect(harts[1].run(limit: 2) == .instructionLimit)
    #expect(harts[1].pc == SBITests.loop)
    #expect(harts[1].privilege == .supervisor)
    #expect(harts[1][x: 10] == 1)
    #expect(harts[1][x: 11] == 0x1234)
    _ = machine.sbi(Extension.hart, 1, hart: 1)
    #expect(harts[1].lifecycle == .stopped)
    #expect(machine.sbi(Extension.hart, 3, 1).error == SBITests.invalidParameter)
    #expect(machine.sbi(Extension.hart, 3, 0x1000_0000).error == SBITests.notSupported)
    #expect(machine.sbi(Extension.hart, 3, 0x8000_0000, 0, 0).error == SBITests.invalidAddress)
  }

  @Test func theConsoleMovesBytes() {
    machine.store("Hello", at: SBITests.text)
    #expect(machine.sbi(Extension.console, 0, 5, SBITests.text, 0) == (0, 5))
    #expect(machine.sbi(Extension.console, 2, UInt64(UInt8(ascii: "!"))).error == 0)
    _ = machine.sbi(1, 0, 0x1_0A)
    #expect(machine.console.output == "Hello!\n")
    machine.board.uart.write(offset: 2, width: 1, value: 1)
    machine.console.type("abc")
    #expect(machine.sbi(2, 0).error == Int64(UInt8(ascii: "a")))
    #expect(machine.sbi(Extension.console, 1, 10, SBITests.text, 0) == (0, 2))
    #expect(machine.load(SBITests.text).map { $0 & 0xFF_FFFF } == 0x6C_6362)
    #expect(machine.sbi(Extension.console, 1, 10, SBITests.text, 0) == (0, 0))
    #expect(machine.sbi(2, 0).error == -1)
    for (count, low, high) in [(5, SBITests.text, 1), (5, 0x1000, 0), (.max, SBITests.text, 0), (1, .max, 0)]
      as [(UInt64, UInt64, UInt64)]
    {
      #expect(machine.sbi(Extension.console, 0, count, low, high).error == SBITests.invalidParameter)
      #expect(machine.sbi(Extension.console, 1, count, low, high).error == SBITests.invalidParameter)
    }
  }

  @Test func resetEndsTheMachine() throws {
    #expect(machine.sbi(Extension.reset, 0, 3, 0).error == SBITests.invalidParameter)
    #expect(machine.sbi(Extension.reset, 0, 0xF000_0000, 0).error == SBITests.notSupported)
    #expect(machine.sbi(Extension.reset, 0, 0, 2).error == SBITests.invalidParameter)
    #expect(machine.board.powerEvent == nil)
    #expect(machine.sbi(Extension.reset, 0, 2, 0).error == 0)
    #expect(machine.board.powerEvent == .reboot)
    // The first event counts.
    _ = machine.sbi(8, 0)
    #expect(machine.board.powerEvent == .reboot)
    machine.board.reset()
    _ = machine.sbi(Extension.reset, 0, 0, 1)
    #expect(machine.board.powerEvent == .shutdown(code: 1))
  }

  @Test func legacyMasksLieInMemory() {
    _ = machine.board.memory.store(UInt64(0b110), at: PhysicalAddress(SBITests.text))
    #expect(machine.sbi(4, 0, SBITests.text).error == 0)
    #expect(machine.board.harts.map { ($0.readCSR(0x344) ?? 0) & 2 != 0 } == [false, true, true])
    #expect(machine.sbi(4, 0, 0x10).error == SBITests.invalidAddress)
    #expect(machine.sbi(5, 0, 0).error == 0)
    #expect(machine.sbi(6, 0, SBITests.text, 0, .max).error == 0)
    #expect(machine.sbi(7, 0, .max).error == SBITests.invalidAddress)
  }

  /// The values come from the guest: none of them may end the process.
  @Test func anyCallIsAnswered() {
    let values: [UInt64] = [0, 1, 4095, 0x8000_0000, 0x80FF_FFFF, 1 << 63, .max]
    let extensions: [UInt64] =
      Array(0...0x11) + [
        Extension.time, Extension.interrupt, Extension.fence, Extension.console, Extension.hart, Extension.reset,
      ]
    for identifier in extensions {
      for function in 0...8 as ClosedRange<UInt64> where identifier != Extension.hart || function == 2 {
        for first in values {
          for second in values { _ = machine.sbi(identifier, function, first, second, first ^ second, second) }
        }
      }
    }
  }
}

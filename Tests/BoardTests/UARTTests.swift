import Board
import Bus
import HostSystem
import Testing

@Suite("UART") struct UARTTests {
  let console = MemoryConsole()
  let interrupt = RecordedLine()
  let loop: EventLoop
  let uart: UART16550

  init() throws {
    loop = try EventLoop()
    uart = UART16550(backend: console, loop: loop)
    uart.interrupt = interrupt.line
    try uart.start()
  }

  private enum Register {
    static let data: UInt64 = 0
    static let interruptEnable: UInt64 = 1
    static let interruptIdentification: UInt64 = 2
    static let lineControl: UInt64 = 3
    static let modemControl: UInt64 = 4
    static let lineStatus: UInt64 = 5
    static let modemStatus: UInt64 = 6
    static let scratch: UInt64 = 7
  }

  @Test func writtenBytesReachTheConsole() {
    for byte in "Hello\n".utf8 {
      #expect(uart.read8(Register.lineStatus) & 0x60 == 0x60)
      uart.write8(Register.data, byte)
    }
    #expect(console.output == "Hello\n")
  }

  @Test func divisorLatchHidesDataAndInterruptEnable() {
    uart.write8(Register.lineControl, 0x83)
    uart.write8(Register.data, 0x34)
    uart.write8(Register.interruptEnable, 0x12)
    #expect(uart.read8(Register.data) == 0x34)
    #expect(uart.read8(Register.interruptEnable) == 0x12)
    uart.write8(Register.lineControl, 0x03)
    #expect(uart.read8(Register.interruptEnable) == 0)
    #expect(console.output.isEmpty)
    uart.write8(Register.scratch, 0xA5)
    #expect(uart.read8(Register.scratch) == 0xA5)
  }

  @Test func inputWaitsInTheFIFOAndTheConsoleKeepsTheRest() {
    uart.write8(2, 0x01)
    #expect(uart.read8(2) == 0xC1)
    console.type("0123456789abcdefXYZ")
    #expect(console.waitingCount == 3)
    var read = ""
    while uart.read8(Register.lineStatus) & 1 != 0 {
      read.unicodeScalars.append(UnicodeScalar(uart.read8(Register.data)))
      loop.turn(maximumWait: 0)
    }
    #expect(read == "0123456789abcdefXYZ")
  }

  @Test func withoutFIFOOneByteWaits() {
    console.type("ab")
    #expect(console.waitingCount == 1)
    #expect(uart.read8(Register.data) == UInt8(ascii: "a"))
    #expect(uart.read8(Register.lineStatus) & 1 == 0)
    loop.turn(maximumWait: 0)
    #expect(uart.read8(Register.data) == UInt8(ascii: "b"))
  }

  @Test func receivingInterruptsAtTheTriggerAndBelowItAsTimeout() {
    uart.write8(2, 0x41)
    uart.write8(Register.interruptEnable, 1)
    #expect(!interrupt.level)
    console.type("abc")
    #expect(interrupt.level)
    #expect(uart.read8(2) == 0xCC)
    console.type("d")
    #expect(uart.read8(2) == 0xC4)
    for _ in 0..<4 { _ = uart.read8(Register.data) }
    #expect(!interrupt.level)
    #expect(uart.read8(2) == 0xC1)
  }

  @Test func anEmptyTransmitterInterruptsUntilTheGuestLearnsOfIt() {
    uart.write8(Register.interruptEnable, 2)
    #expect(interrupt.level)
    #expect(uart.read8(2) == 0x02)
    #expect(!interrupt.level)
    #expect(uart.read8(2) == 0x01)
    uart.write8(Register.data, 0x41)
    #expect(interrupt.level)
    uart.write8(Register.interruptEnable, 0)
    #expect(!interrupt.level)
    uart.write8(Register.interruptEnable, 2)
    #expect(interrupt.level)
  }

  /// As guests do that never read the identification register.
  @Test func anUnreadTransmitterInterruptDoesNotStorm() {
    let output = RecordedLine()
    let plic = PLIC(outputs: [output.line])
    uart.interrupt = plic.line(10, claimed: { [uart] in uart.interruptWasClaimed() })
    plic.write32(4 * 10, 1)
    plic.write32(0x2000, 1 << 10)
    uart.write8(2, 0x01)
    uart.write8(Register.interruptEnable, 3)
    #expect(plic.read32(0x20_0004) == 10)
    // An event while the last one is being served interrupts again, once.
    uart.write8(Register.data, 0x41)
    plic.write32(0x20_0004, 10)
    #expect(output.level)
    #expect(plic.read32(0x20_0004) == 10)
    plic.write32(0x20_0004, 10)
    #expect(!output.level)
    #expect(uart.read8(2) == 0xC2)
    #expect(uart.read8(2) == 0xC1)
    // Received bytes stay a level.
    console.type("x")
    #expect(plic.read32(0x20_0004) == 10)
    plic.write32(0x20_0004, 10)
    #expect(output.level)
  }

  @Test func loopbackJoinsTheEnds() {
    uart.write8(Register.modemControl, 0x10 | 0x0A)
    #expect(uart.read8(Register.modemStatus) & 0xF0 == 0x90)
    uart.write8(Register.data, 0x55)
    #expect(console.output.isEmpty)
    #expect(uart.read8(Register.data) == 0x55)
    uart.write8(Register.modemControl, 0x0B)
    #expect(uart.read8(Register.modemStatus) & 0xF0 == 0xB0)
  }

  @Test func modemStatusTellsChangesOnce() {
    uart.write8(Register.interruptEnable, 8)
    uart.write8(Register.modemControl, 0x10)
    #expect(interrupt.level)
    #expect(uart.read8(2) == 0x00)
    #expect(uart.read8(Register.modemStatus) & 0x0F == 0x0B)
    #expect(!interrupt.level)
    #expect(uart.read8(Register.modemStatus) & 0x0F == 0)
  }

  @Test func aBreakIsSeenWithItsByte() {
    uart.write8(2, 0x01)
    uart.write8(Register.interruptEnable, 4)
    uart.receiveBreak()
    #expect(interrupt.level)
    #expect(uart.read8(2) == 0xC6)
    #expect(uart.read8(Register.lineStatus) == 0x71)
    #expect(uart.read8(Register.lineStatus) == 0x61)
    #expect(uart.read8(Register.data) == 0)
    #expect(!interrupt.level)
  }

  @Test func theOtherConsolesShareTheLine() {
    uart.write8(2, 0x01)
    console.type("hello")
    #expect(uart.takeReceived(2) == Array("he".utf8))
    #expect(uart.takeReceived(100) == Array("llo".utf8))
    #expect(uart.takeReceived(1).isEmpty)
  }

  @Test func stateIsTakenBack() throws {
    uart.write8(2, 0x01)
    uart.write8(Register.interruptEnable, 1)
    console.type("xy")
    let saved = try uart.encodedState()
    let line = RecordedLine()
    let other = UART16550(backend: nil, loop: loop)
    other.interrupt = line.line
    try other.restoreEncodedState(saved)
    #expect(line.level)
    #expect(other.read8(Register.data) == UInt8(ascii: "x"))
  }
}

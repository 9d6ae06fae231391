import Board
import Bus
import Testing

@Suite("PLIC") struct PLICTests {
  let machine = RecordedLine()
  let supervisor = RecordedLine()
  let plic: PLIC

  private let enableM: UInt64 = 0x2000
  private let enableS: UInt64 = 0x2080
  private let thresholdS: UInt64 = 0x20_1000
  private let claimM: UInt64 = 0x20_0004
  private let claimS: UInt64 = 0x20_1004

  init() { plic = PLIC(outputs: [machine.line, supervisor.line]) }

  @Test func aSourceReachesTheContextThatEnabledIt() {
    plic.write32(4 * 10, 1)
    plic.write32(enableS, 1 << 10)
    plic.line(10).set(true)
    #expect(supervisor.level)
    #expect(!machine.level)
    #expect(plic.read32(0x1000) == 1 << 10)
    #expect(plic.read32(claimS) == 10)
    #expect(!supervisor.level)
    #expect(plic.read32(0x1000) == 0)
    #expect(plic.read32(claimS) == 0)
  }

  @Test func aHighLevelIsPendingAgainAfterCompletion() {
    plic.write32(4 * 3, 1)
    plic.write32(enableS, 1 << 3)
    let line = plic.line(3)
    line.set(true)
    #expect(plic.read32(claimS) == 3)
    // The level falls and rises while it is served: still one request at a time.
    line.set(false)
    line.set(true)
    #expect(!supervisor.level)
    plic.write32(claimS, 3)
    #expect(supervisor.level)
    #expect(plic.read32(claimS) == 3)
    line.set(false)
    plic.write32(claimS, 3)
    #expect(!supervisor.level)
    #expect(plic.read32(claimS) == 0)
  }

  @Test func aRequestStaysPendingWhenTheDeviceLetsGo() {
    plic.write32(4 * 5, 1)
    plic.write32(enableS, 1 << 5)
    plic.line(5).set(true)
    plic.line(5).set(false)
    #expect(supervisor.level)
    #expect(plic.read32(claimS) == 5)
  }

  @Test func prioritiesThenNumbersDecide() {
    for (source, priority) in [(7, 2), (8, 5), (9, 5), (40, 1)] as [(Int, UInt32)] {
      plic.write32(UInt64(4 * source), priority)
      plic.line(source).set(true)
    }
    plic.write32(enableS, 0xFFFF_FFFF)
    plic.write32(enableS + 4, 0xFFFF_FFFF)
    #expect((0..<5).map { _ in plic.read32(claimS) } == [8, 9, 7, 40, 0])
  }

  @Test func theThresholdMasksButDoesNotHinderClaims() {
    plic.write32(4 * 1, 3)
    plic.write32(enableS, 2)
    plic.write32(thresholdS, 3)
    plic.line(1).set(true)
    #expect(!supervisor.level)
    plic.write32(thresholdS, 2)
    #expect(supervisor.level)
    plic.write32(thresholdS, 7)
    #expect(plic.read32(claimS) == 1)
  }

  @Test func priorityZeroNeverInterrupts() {
    plic.write32(enableS, 2)
    plic.line(1).set(true)
    #expect(!supervisor.level)
    #expect(plic.read32(claimS) == 0)
  }

  @Test func completionByAContextWithoutTheSourceIsIgnored() {
    plic.write32(4 * 6, 1)
    plic.write32(enableS, 1 << 6)
    plic.line(6).set(true)
    #expect(plic.read32(claimS) == 6)
    plic.write32(claimM, 6)
    #expect(!supervisor.level)
    plic.write32(claimS, 6)
    #expect(supervisor.level)
  }

  @Test func sourceZeroAndThoseBeyondTheLastDoNotExist() {
    for word in 0..<4 { plic.write32(enableM + UInt64(4 * word), 0xFFFF_FFFF) }
    #expect(plic.read32(enableM) == 0xFFFF_FFFE)
    #expect(plic.read32(enableM + 12) == 1)
    plic.write32(0, 7)
    #expect(plic.read32(0) == 0)
    plic.write32(4 * 96, 0xFF)
    #expect(plic.read32(4 * 96) == 7)
    plic.write32(4 * 97, 7)
    #expect(plic.read32(4 * 97) == 0)
  }

  @Test func wildAccessesAreHarmless() {
    for offset in [0x1010, 0x1FFC, 0x2100, 0x1F_FFFC, 0x20_2000, 0x20_2004, 0x5F_FFFC, 0x2001] as [UInt64] {
      for width in [1, 2, 4, 8] {
        plic.write(offset: offset, width: width, value: .max)
        #expect(plic.read(offset: offset, width: width) == 0)
      }
    }
    for id in [0, 97, 0xFFFF_FFFF] as [UInt32] { plic.write32(claimM, id) }
  }

  @Test func stateIsTakenBackWithItsOutputs() throws {
    plic.write32(4 * 10, 1)
    plic.write32(enableS, 1 << 10)
    plic.line(10).set(true)
    let saved = try plic.encodedState()
    let output = RecordedLine()
    let other = PLIC(outputs: [InterruptLine.unconnected, output.line])
    try other.restoreEncodedState(saved)
    #expect(output.level)
    #expect(other.read32(claimS) == 10)
    #expect(throws: StateError.self) { try PLIC(outputs: []).restoreEncodedState(saved) }
  }
}

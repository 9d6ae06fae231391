import Bus
import Hart
import HostSystem
import RISCV
import Testing
import Translation

/// The audit finds what is different, and nothing else.
@Suite struct AuditTests {
  private let harness: TranslationHarness
  private let audit: AuditEngine

  init() throws {
    harness = try TranslationHarness(.audit(threshold: 1))
    audit = try #require(harness.hart.engine as? AuditEngine)
  }

  /// x5 counts the turns of a loop that keeps the count in memory.
  private func placeLoop() {
    harness.hart[x: 2] = TranslationHarness.data
    harness.place([
      encode(.addi, rd: 5, rs1: 5, 1), encode(.add, rd: 6, rs1: 6, rs2: 5), encode(.sd, rs1: 2, rs2: 5, 8),
      encode(.jal, -12),
    ])
  }

  @Test func programsThatAreExecutedAlikeGoOn() {
    placeLoop()
    #expect(harness.hart.run(limit: 100_000) == .instructionLimit)
    #expect(harness.hart[x: 5] == 25_000)
    #expect(harness.memory.load(PhysicalAddress(TranslationHarness.data + 8), as: UInt64.self) == 25_000)
    #expect(audit.difference == nil)
    #expect(audit.auditedCount == 100_000)
  }

  @Test func aWrongRegisterIsFound() throws {
    placeLoop()
    audit.fault = { state in if state.pointee.x[5] >= 5000 { state.pointee.x[6] ^= 0x10 } }
    #expect(harness.hart.run(limit: 100_000) == .paused)
    let report = try #require(audit.difference)
    // The first instruction after which it shows, with both values.
    #expect(report.contains("before pc 0x80000004 (instruction 19997)"))
    let sum = UInt64(4999 * 5000 / 2)
    let line = report.split(separator: "\n").first { $0.hasPrefix("* x6") }
    let values = try #require(line).split(separator: " ").suffix(2).map(String.init)
    #expect(values == ["0x" + String(sum, radix: 16), "0x" + String(sum ^ 0x10, radix: 16)])
    #expect(report.contains("addi t0, t0, 0x1"))
    #expect(report.contains("host code of the block of 4 instructions"))
  }

  @Test func aWrongStoreIsFound() throws {
    placeLoop()
    let place = PhysicalAddress(TranslationHarness.data + 8)
    audit.fault = { [memory = harness.memory] state in
      if state.pointee.x[5] >= 5000 { _ = memory.store(UInt64(7), at: place) }
    }
    #expect(harness.hart.run(limit: 100_000) == .paused)
    let report = try #require(audit.difference)
    #expect(report.contains("* [0x80100008]"))
    #expect(report.contains("0x1387") && report.contains("0x7"))
  }

  @Test func aDifferenceThatDoesNotShowAgainIsLeft() {
    placeLoop()
    var isLeft = false
    audit.fault = { state in
      guard !isLeft, state.pointee.x[5] >= 5000 else { return }
      isLeft = true
      state.pointee.x[6] = 0
    }
    #expect(harness.hart.run(limit: 100_000) == .instructionLimit)
    #expect(audit.difference == nil)
    #expect(audit.unconfirmedCount == 1)
    #expect(harness.hart[x: 6] == 25_000 * 25_001 / 2)
  }

  @Test func deviceRegistersAreReachedOnce() throws {
    let device = CountingDevice()
    harness.addressSpace.attach(device, at: PhysicalAddress(0x1000_0000), size: 0x1000)
    harness.hart[x: 2] = 0x1000_0000
    harness.hart[x: 9] = TranslationHarness.data
    // Each turn reads a register that counts, stores what it saw, and adds to memory and to another register.
    harness.place([
      encode(.lw, rd: 5, rs1: 2), encode(.sd, rs1: 9, rs2: 5), encode(.amoadd_d, rd: 6, rs1: 9, rs2: 5),
      encode(.sw, rs1: 2, rs2: 5, 4), encode(.csrrs, rd: 7, 0xC01), encode(.jal, -20),
    ])
    #expect(harness.hart.run(limit: 6000) == .instructionLimit)
    #expect(audit.difference == nil)
    #expect(device.reads == 1000)
    #expect(device.written == Array(1...1000))
    #expect(harness.memory.load(PhysicalAddress(TranslationHarness.data), as: UInt64.self) == 2000)
  }

  @Test func severalHartsAreRefused() throws {
    let memory = try GuestMemory(base: PhysicalAddress(TranslationHarness.base), size: 1 << 20)
    let harts = (0..<2).map {
      Hart(
        identifier: $0, addressSpace: AddressSpace(memory: memory), clock: GuestClock(),
        configuration: HartConfiguration())
    }
    #expect { try EngineChoice.install(.audit(threshold: 1), on: harts) } throws: {
      ($0 as? HostError)?.message.contains("one hart") == true
    }
  }
}

/// A register that counts how often it was read, and one that keeps what is written.
private final class CountingDevice: BusDevice {
  private(set) var reads: UInt64 = 0
  private(set) var written: [UInt64] = []

  func read(offset: UInt64, width: Int) -> UInt64 {
    reads += 1
    return reads
  }

  func write(offset: UInt64, width: Int, value: UInt64) { written.append(value) }
}

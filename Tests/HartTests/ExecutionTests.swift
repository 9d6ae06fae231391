import Bus
import Foundation
import Hart
import HostSystem
import RISCV
import Synchronization
import Testing

private func encode(
  _ operation: RISCV.Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, _ immediate: Int64 = 0
) -> UInt32 {
  Encoder.encode(operation, rd: rd, rs1: rs1, rs2: rs2, immediate: immediate)!
}

/// What a hart does between instructions: traps, interrupts, fences, code that changes, saved states.
@Suite struct ExecutionTests {
  let base = HartHarness.base

  @Test func anIllegalInstructionTrapsWithItsBits() throws {
    let harness = try HartHarness()
    harness.hart.writeCSR(0x305, base + 0x100)
    harness.place([0xFFFF_FFFF])
    harness.place([encode(.addi, rd: 5, 1)], at: base + 0x100)
    harness.step(1)
    #expect(harness.csr(0x342) == 2)
    #expect(harness.csr(0x343) == 0xFFFF_FFFF)
    #expect(harness.csr(0x341) == base)
    #expect(harness.hart[x: 5] == 1)
    #expect(harness.hart.retiredInstructions == 1)
  }

  @Test func anInstructionThatEndsAStretchCountsOnce() throws {
    let harness = try HartHarness()
    harness.place([encode(.wfi)])
    harness.step(1)
    #expect(harness.hart.retiredInstructions == 1)
    #expect(harness.hart.pc == base + 4)
  }

  @Test func delegatedTrapsGoToSupervisorMode() throws {
    let harness = try HartHarness()
    let hart = harness.hart
    hart.writeCSR(0x3A0, 0x1F)
    hart.writeCSR(0x3B0, ~0)
    hart.writeCSR(0x302, 1 << 8)
    hart.writeCSR(0x105, base + 0x200)
    harness.place([encode(.ecall)])
    harness.place([encode(.addi, rd: 6, 2)], at: base + 0x200)
    hart.privilege = .user
    hart.pc = base
    harness.step(1)
    #expect(hart.privilege == .supervisor)
    #expect(harness.csr(0x142) == 8)
    #expect(harness.csr(0x141) == base)
    #expect(hart[x: 6] == 2)
  }

  @Test func vectoredInterruptsGoToTheirPlaceInTheTable() throws {
    let harness = try HartHarness()
    harness.hart.writeCSR(0x305, base + 0x101)
    harness.hart.writeCSR(0x304, 1 << 3)
    harness.hart.writeCSR(0x300, 1 << 3)
    harness.place([encode(.addi, rd: 7, 3)], at: base + 0x100 + 4 * 3)
    harness.hart.setInterrupt(.machineSoftware, true)
    harness.step(1)
    #expect(harness.hart[x: 7] == 3)
    #expect(harness.csr(0x342) == (UInt64(1) << 63 | 3))
    #expect(harness.csr(0x300) & 1 << 3 == 0)
  }

  @Test func instructionsMayStraddlePages() throws {
    let harness = try HartHarness()
    // c.nop up to the last half-word of the page, then a 32-bit instruction across the border.
    harness.hart.pc = base + 0xFFC
    #expect(harness.memory.store(UInt16(1), at: PhysicalAddress(base + 0xFFC)))
    harness.place([encode(.addi, rd: 5, 77), encode(.addi, rd: 6, 78)], at: base + 0xFFE)
    harness.step(3)
    #expect(harness.hart[x: 5] == 77)
    #expect(harness.hart[x: 6] == 78)
    #expect(harness.hart.pc == base + 0x1006)
  }

  @Test func changedCodeIsSeenAfterFenceI() throws {
    let harness = try HartHarness()
    // The instruction at +12 is replaced by the one that x5 holds, then reached through a fence.
    harness.hart[x: 10] = base + 12
    harness.hart[x: 5] = UInt64(encode(.addi, rd: 6, 2))
    harness.place([
      encode(.jal, rd: 0, 12), encode(.sw, rs1: 10, rs2: 5), encode(.fence_i),
      encode(.addi, rd: 6, 1), encode(.jal, rd: 0, -12),
    ])
    harness.step(2)
    #expect(harness.hart[x: 6] == 1)
    harness.step(4)
    #expect(harness.hart[x: 6] == 2)
  }

  @Test func misalignedAccessesWorkAcrossPages() throws {
    let harness = try HartHarness()
    harness.hart[x: 10] = base + 0x1FFD
    harness.hart[x: 5] = 0x1122_3344_5566_7788
    harness.place([encode(.sd, rs1: 10, rs2: 5), encode(.ld, rd: 6, rs1: 10), encode(.lhu, rd: 7, rs1: 10, 2)])
    harness.step(3)
    #expect(harness.hart[x: 6] == 0x1122_3344_5566_7788)
    #expect(harness.hart[x: 7] == 0x5566)
  }

  @Test func aStoreConditionalNeedsItsReservation() throws {
    let harness = try HartHarness()
    let cell = base + 0x1000
    harness.hart[x: 10] = cell
    harness.hart[x: 5] = 9
    harness.place([
      encode(.sc_d, rd: 6, rs1: 10, rs2: 5), encode(.lr_d, rd: 7, rs1: 10), encode(.sc_d, rd: 8, rs1: 10, rs2: 5),
      encode(.lr_d, rd: 7, rs1: 10), encode(.sd, rs1: 10, rs2: 0), encode(.sc_d, rd: 9, rs1: 10, rs2: 5),
    ])
    harness.step(6)
    #expect(harness.hart[x: 6] == 1)
    #expect(harness.hart[x: 8] == 0)
    #expect(harness.hart[x: 7] == 9)
    #expect(harness.hart[x: 9] == 1)
    #expect(harness.load(cell) == 0)
  }

  @Test func anInterruptWakesAWaitingHart() throws {
    let harness = try HartHarness()
    harness.place([encode(.wfi), encode(.addi, rd: 5, 5), encode(.jal, rd: 0, 0)])
    harness.hart.writeCSR(0x304, 1 << 3)
    let hart = harness.hart
    let thread = HostThread(name: "hart") { _ = hart.run(limit: 3) }
    // Interrupts are masked in mstatus, so the hart goes on after WFI.
    hart.setInterrupt(.machineSoftware, true)
    thread.join()
    #expect(hart[x: 5] == 5)
  }

  @Test func aWaitingHartCanBePaused() throws {
    let harness = try HartHarness()
    harness.place([encode(.wfi)])
    let hart = harness.hart
    let exit = Mutex<Hart.Exit?>(nil)
    let thread = HostThread(name: "hart") {
      let result = hart.run()
      exit.withLock { $0 = result }
    }
    hart.requestPause()
    thread.join()
    #expect(exit.withLock { $0 } == .paused)
  }

  @Test func remoteFencesReachRunningAndSleepingHarts() throws {
    let harness = try HartHarness()
    harness.place([encode(.jal, rd: 0, 0)])
    harness.place([encode(.wfi), encode(.jal, rd: 0, -4)], at: base + 0x100)
    func makeHart(_ identifier: Int, at address: UInt64) -> Hart {
      let hart = Hart(
        identifier: identifier, addressSpace: harness.hart.addressSpace, clock: harness.hart.clock,
        configuration: harness.hart.configuration)
      #expect(hart.start(at: address, privilege: .machine, argument: 0))
      return hart
    }
    let others = [makeHart(1, at: base), makeHart(2, at: base + 0x100)]
    let threads = others.map { hart in HostThread(name: "hart") { _ = hart.run() } }
    // Fences must reach harts that run: wait until they do.
    while others.contains(where: { $0.retiredInstructions == 0 }) { HostThread.yield() }
    for _ in 0..<100 {
      harness.hart.fence(.instruction, on: others + [harness.hart])
      harness.hart.fence(.addresses(start: base, size: 4096, asid: nil), on: others)
    }
    for hart in others { hart.requestPause() }
    for thread in threads { thread.join() }
    #expect(others[0].pc == base)
  }

  @Test func parallelAtomicsLoseNothing() throws {
    let harness = try HartHarness()
    let rounds: UInt64 = 50_000
    // x11 rounds of amoadd.d x0, x5, (x10) and of an LR/SC increment at x12.
    harness.place([
      encode(.amoadd_d, rd: 0, rs1: 10, rs2: 5),
      encode(.lr_d, rd: 6, rs1: 12), encode(.addi, rd: 6, rs1: 6, 1), encode(.sc_d, rd: 7, rs1: 12, rs2: 6),
      encode(.bne, rs1: 7, rs2: 0, -12),
      encode(.addi, rd: 11, rs1: 11, -1), encode(.bne, rs1: 11, rs2: 0, -24),
      encode(.jal, rd: 0, 0),
    ])
    let harts = (0..<2).map { identifier in
      let hart = Hart(
        identifier: identifier, addressSpace: harness.hart.addressSpace, clock: harness.hart.clock,
        configuration: harness.hart.configuration)
      #expect(hart.start(at: base, privilege: .machine, argument: 0))
      _ = hart.run(limit: 0)
      hart[x: 5] = 1
      hart[x: 10] = base + 0x1000
      hart[x: 12] = base + 0x1008
      hart[x: 11] = rounds
      return hart
    }
    let threads = harts.map { hart in
      HostThread(name: "hart") { while hart[x: 11] != 0 { _ = hart.run(limit: 10_000) } }
    }
    for thread in threads { thread.join() }
    #expect(harness.load(base + 0x1000) == 2 * rounds)
    #expect(harness.load(base + 0x1008) == 2 * rounds)
  }

  @Test func aSavedHartGoesOnLikeOneThatWasNot() throws {
    // A loop that mixes its registers; cut in the middle, moved to another hart, it must end alike.
    let code = [
      encode(.addi, rd: 5, rs1: 5, 3), encode(.xor, rd: 6, rs1: 6, rs2: 5), encode(.slli, rd: 7, rs1: 6, 1),
      encode(.mul, rd: 8, rs1: 7, rs2: 5), encode(.jal, rd: 0, -16),
    ]
    let whole = try HartHarness()
    whole.place(code)
    whole.step(1_000)
    let first = try HartHarness()
    first.place(code)
    first.step(333)
    let second = try HartHarness()
    second.place(code)
    try second.hart.restoreEncodedState(first.hart.encodedState())
    second.step(667)
    #expect(second.hart.pc == whole.hart.pc)
    #expect((0..<32).allSatisfy { second.hart[x: $0] == whole.hart[x: $0] })
    #expect(second.hart.retiredInstructions == 1_000)
  }

  @Test func floatingPointIsIllegalWhileOff() throws {
    let harness = try HartHarness()
    harness.hart.writeCSR(0x305, base + 0x100)
    harness.place([encode(.fmv_d_x, rd: 1, rs1: 5)])
    harness.place([encode(.addi, rd: 5, 1)], at: base + 0x100)
    harness.step(1)
    #expect(harness.csr(0x342) == 2)
  }
}

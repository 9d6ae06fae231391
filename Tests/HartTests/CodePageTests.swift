import Bus
import Hart
import Testing

/// When a hart looks at changed code again (Unprivileged Architecture, Zifencei).
@Suite struct CodePageTests {
  /// Executes addi x7, x0, 1, lets `change` make it addi x7, x0, 2, executes `fence`, then that.
  private func expectSeen(
    _ harness: HartHarness, after fence: UInt32 = 0x0000_100F, _ change: (UInt64, UInt32) throws -> Void
  ) throws {
    let program = HartHarness.base + 0x1000
    // A jump to itself follows.
    harness.place([0x0010_0393, 0x0000_006F], at: program)
    harness.hart.pc = program
    harness.step(1)
    #expect(harness.hart[x: 7] == 1)
    try change(program, 0x0020_0393)
    harness.place([fence])
    harness.hart.pc = HartHarness.base
    harness.step(1)
    harness.hart.pc = program
    harness.step(1)
    #expect(harness.hart[x: 7] == 2)
  }

  /// FENCE.I, and SFENCE.VMA of everything: systems that give a page to another program run the latter, if nothing else.
  @Test(arguments: [UInt32(0x0000_100F), 0x1200_0073], [false, true])
  func changedCodeIsSeenAfterTheFence(fence: UInt32, isAlone: Bool) throws {
    let harness = try HartHarness(isAlone: isAlone)
    try expectSeen(harness, after: fence) { harness.place([$1], at: $0) }
  }

  /// What devices write they may write in any way, and tell the memory.
  @Test(arguments: [false, true])
  func codeThatADeviceWroteIsSeenAfterTheFence(isNoted: Bool) throws {
    let harness = try HartHarness()
    try expectSeen(harness) { program, instruction in
      let bytes = try #require(harness.memory.bytes(at: PhysicalAddress(program), count: 4))
      bytes.storeBytes(of: instruction, as: UInt32.self)
      if isNoted { harness.memory.noteWrite(of: bytes) } else { harness.memory.noteWriteAnywhere() }
    }
  }

  /// The page is stored to through one translation, again and again: longer than it takes to forget them all.
  @Test(arguments: [false, true])
  func codeStoredThroughARememberedTranslationIsSeen(isAlone: Bool) throws {
    let harness = try HartHarness(isAlone: isAlone)
    let hart = harness.hart
    hart[x: 6] = HartHarness.base
    hart[x: 8] = 1 << 20
    // Each turn adds one to the immediate of the addi at 16: lw, addw, sw, fence.i, addi x5, x0, 0, j -20.
    harness.place([0x0103_2383, 0x0083_83BB, 0x0073_2823, 0x0000_100F, 0x0000_0293, 0xFEDF_F06F])
    for turn in 1...5000 {
      harness.step(6)
      #expect(hart[x: 5] & 0xFFF == UInt64(turn & 0xFFF))
    }
  }
}

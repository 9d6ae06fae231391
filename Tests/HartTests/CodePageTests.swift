import Bus
import Hart
import Testing

/// When a hart looks at changed code again (Unprivileged Architecture, Zifencei).
@Suite struct CodePageTests {
  /// FENCE.I, and SFENCE.VMA of everything: systems that give a page to another program run the latter, if nothing else.
  @Test(arguments: [UInt32(0x0000_100F), 0x1200_0073])
  func changedCodeIsSeenAfterTheFence(fence: UInt32) throws {
    let harness = try HartHarness()
    let program = HartHarness.base + 0x1000
    // addi x7, x0, 1; then a jump to where it began.
    harness.place([0x0010_0393, 0x0000_006F], at: program)
    harness.hart.pc = program
    harness.step(1)
    #expect(harness.hart[x: 7] == 1)
    // addi x7, x0, 2
    harness.place([0x0020_0393], at: program)
    harness.place([fence])
    harness.hart.pc = HartHarness.base
    harness.step(1)
    harness.hart.pc = program
    harness.step(1)
    #expect(harness.hart[x: 7] == 2)
  }
}

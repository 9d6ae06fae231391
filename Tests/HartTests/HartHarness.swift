import Bus
import Hart
import RISCV
import Testing

/// A hart with 16 MiB of RAM at 0x8000_0000 and no devices, for tests that place code and tables by hand.
final class HartHarness {
  static let base: UInt64 = 0x8000_0000
  let memory: GuestMemory
  let hart: Hart

  init(isAlone: Bool = true) throws {
    memory = try GuestMemory(base: PhysicalAddress(Self.base), size: 16 << 20)
    var configuration = HartConfiguration()
    configuration.isAlone = isAlone
    hart = Hart(
      identifier: 0, addressSpace: AddressSpace(memory: memory), clock: GuestClock(), configuration: configuration)
    #expect(hart.start(at: Self.base, privilege: .machine, argument: 0))
    // The first turn takes the start.
    _ = hart.run(limit: 0)
  }

  /// Puts instructions at `address`.
  func place(_ instructions: [UInt32], at address: UInt64 = HartHarness.base) {
    for (index, bits) in instructions.enumerated() {
      #expect(memory.store(bits, at: PhysicalAddress(address + UInt64(index) * 4)))
    }
  }

  func store(_ value: UInt64, at address: UInt64) { #expect(memory.store(value, at: PhysicalAddress(address))) }
  func load(_ address: UInt64) -> UInt64 { memory.load(PhysicalAddress(address), as: UInt64.self) ?? 0 }

  /// Executes `count` instructions; those that trap don't count, so a trap ends the run a little later.
  func step(_ count: UInt64) { _ = hart.run(limit: count) }

  func csr(_ number: Int) -> UInt64 { hart.readCSR(number)! }
}

import Bus
import Testing

/// Remembers the last write and answers with the offset.
private final class Probe: BusDevice {
  var written: (offset: UInt64, width: Int, value: UInt64)?
  func read(offset: UInt64, width: Int) -> UInt64 { offset }
  func write(offset: UInt64, width: Int, value: UInt64) { written = (offset, width, value) }
}

struct AddressSpaceTests {
  let space: AddressSpace
  private let device = Probe()
  static let ram: UInt64 = 0x8000_0000
  static let elsewhere: [(UInt64, Int)] = [
    (0x0FFF_FFFF, 1), (0x0FFF_FFFE, 4), (0x1000_0100, 1), (0x1000_00FE, 4), (0x1000_00F9, 8), (0, 8), (.max, 1),
    (.max, 8), (ram - 4, 8), (ram + 0x1FFC, 8), (ram + 0x2000, 1),
  ]

  init() throws {
    space = AddressSpace(memory: try GuestMemory(base: PhysicalAddress(AddressSpaceTests.ram), size: 0x2000))
    space.attach(device, at: PhysicalAddress(0x1000_0000), size: 0x100)
  }

  @Test(arguments: [1, 2, 4, 8])
  func memoryInEachWidth(width: Int) {
    let value: UInt64 = 0x8877_6655_4433_2211
    let mask = UInt64.max >> UInt64(64 - 8 * width)
    let address = PhysicalAddress(AddressSpaceTests.ram + 0x10)
    #expect(space.write(address, width: 8, value: 0))
    #expect(space.write(address, width: width, value: value))
    #expect(space.read(address, width: width) == value & mask)
    #expect(space.read(address, width: 8) == value & mask)
  }

  @Test func aDeviceSeesOffsets() throws {
    #expect(space.read(PhysicalAddress(0x1000_0000), width: 4) == 0)
    #expect(space.read(PhysicalAddress(0x1000_00FC), width: 4) == 0xFC)
    #expect(space.write(PhysicalAddress(0x1000_0010), width: 2, value: 0xFFFF_1234))
    let written = try #require(device.written)
    #expect(written.offset == 0x10 && written.width == 2)
  }

  @Test(arguments: elsewhere)
  func nothingAnswersElsewhere(address: UInt64, width: Int) {
    #expect(space.read(PhysicalAddress(address), width: width) == nil)
    #expect(!space.write(PhysicalAddress(address), width: width, value: .max))
    #expect(device.written == nil)
  }

  @Test func anEarlierWindowHidesALaterOne() {
    let other = Probe()
    space.attach(other, at: PhysicalAddress(0x1000_00F0), size: 0x100)
    #expect(space.read(PhysicalAddress(0x1000_00F0), width: 1) == 0xF0)
    #expect(space.read(PhysicalAddress(0x1000_0100), width: 1) == 0x10)
    space.detach(device)
    #expect(space.read(PhysicalAddress(0x1000_00F0), width: 1) == 0)
    #expect(space.read(PhysicalAddress(0x1000_0000), width: 1) == nil)
  }

  @Test func aWindowAtTheTopOfTheAddressSpaceDoesNotWrap() {
    let top = Probe()
    space.attach(top, at: PhysicalAddress(.max - 7), size: 8)
    #expect(space.read(PhysicalAddress(.max - 7), width: 8) == 0)
    #expect(space.read(PhysicalAddress(.max), width: 1) == 7)
    #expect(space.read(PhysicalAddress(.max), width: 2) == nil)
    #expect(space.read(PhysicalAddress(0), width: 1) == nil)
  }
}

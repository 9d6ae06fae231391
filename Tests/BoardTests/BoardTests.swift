import Board
import Bus
import Foundation
import Hart
import Testing
import Virtio

@Suite("Board") struct BoardTests {
  private static let idle = BootDescription(kernel: BootFile(name: "kernel", contents: Data([0x6F, 0, 0, 0])))

  private func read(_ board: Board, _ address: UInt64) -> UInt64? {
    board.addressSpace.read(PhysicalAddress(address), width: 4)
  }

  @Test func devicesAnswerAtTheirAddresses() throws {
    let board = try BoardUnderTest(BoardTests.idle) { $0.devices = [VirtioEntropy()] }.board
    #expect(read(board, 0x1000_1000) == 0x7472_6976)
    #expect(read(board, 0x1000_1008) == 4)
    #expect(read(board, 0x1000_2000) == 0x7472_6976)
    #expect(read(board, 0x1000_2008) == 0)
    #expect(read(board, 0x3000_0000) == 0x0008_1B36)
    #expect(read(board, 0x3000_8000) == 0xFFFF_FFFF)
    #expect(read(board, 0x4000_0000) == 0xFFFF_FFFF)
    #expect(read(board, 0x2000_0000) == 0xFFFF_FFFF)
    #expect(board.addressSpace.read(PhysicalAddress(0x1000_0005), width: 1) == 0x60)
    #expect(read(board, 0x50_0000) == nil)
    #expect(read(board, 0x8100_0000) == nil)
  }

  @Test func nothingOfABoardStaysBehind() throws {
    var machine: BoardUnderTest? = try BoardUnderTest(BoardTests.idle) { $0.devices = [VirtioEntropy()] }
    weak let board = machine?.board
    weak let hart = machine?.board.harts[0]
    weak let memory = machine?.board.memory
    _ = machine?.run(limit: 100)
    #expect(memory != nil)
    machine = nil
    #expect(board == nil)
    #expect(hart == nil)
    #expect(memory == nil)
  }

  @Test func pciDevicesAnswerInTheirSlots() throws {
    let board = try BoardUnderTest(BoardTests.idle) { configuration in
      configuration.devices = [VirtioEntropy()]
      configuration.transport = .pci
    }.board
    #expect(read(board, 0x3000_8000) == 0x1044_1AF4)
    #expect(read(board, 0x1000_1008) == 0)
    let tree = try DeviceTree(
      flattened: Data(
        try #require(
          board.memory.bytes(at: PhysicalAddress(deviceTreeAddress(board)), count: 16384))))
    #expect(tree["/soc/virtio_mmio@10001000"] == nil)
    #expect(tree["/soc/pci@30000000"] != nil)
  }

  private func deviceTreeAddress(_ board: Board) -> UInt64 {
    _ = board.harts[0].run(limit: 1)
    return board.harts[0][x: 11]
  }

  @Test func tooManyDevicesAreRefused() {
    #expect(throws: BootError.self) {
      try BoardUnderTest(BoardTests.idle) { $0.devices = (0..<9).map { _ in VirtioEntropy() } }
    }
  }

  @Test func interruptsReachTheHarts() throws {
    let board = try BoardUnderTest(BoardTests.idle, harts: 2).board
    func pending(_ hart: Int, _ bit: UInt64) -> Bool { (board.harts[hart].readCSR(0x344) ?? 0) >> bit & 1 != 0 }
    func write(_ address: UInt64, _ value: UInt64) {
      #expect(board.addressSpace.write(PhysicalAddress(address), width: 4, value: value))
    }
    write(0x0C00_0000 + 4 * 10, 1)
    // Hart 1's S-mode context is number 3.
    write(0x0C00_2000 + 0x80 * 3, 1 << 10)
    _ = board.addressSpace.write(PhysicalAddress(0x1000_0001), width: 1, value: 2)
    #expect(!pending(0, 9) && !pending(0, 11) && pending(1, 9) && !pending(1, 11))
    write(0x200_0004, 1)
    #expect(pending(1, 3) && !pending(0, 3))
    _ = board.addressSpace.write(PhysicalAddress(0x200_4000), width: 8, value: 0)
    #expect(pending(0, 7) && !pending(1, 7))
  }

  @Test(arguments: [BoardConfiguration.Transport.mmio, .pci])
  func savedStateIsTakenBackByAnotherBoard(transport: BoardConfiguration.Transport) throws {
    func make() throws -> Board {
      try BoardUnderTest(BoardTests.idle, harts: 2) { configuration in
        configuration.devices = [VirtioEntropy()]
        configuration.transport = transport
      }.board
    }
    let first = try make()
    _ = first.harts[0].run(limit: 10)
    _ = first.addressSpace.write(PhysicalAddress(0x1000_0007), width: 1, value: 0x77)
    _ = first.addressSpace.write(PhysicalAddress(0x0C00_0004), width: 4, value: 5)
    let states = try first.stateKeepers.map { try $0.encodedState() }
    #expect(Set(states.map(\.identifier)).count == states.count)
    let second = try make()
    for (keeper, state) in zip(second.stateKeepers, states) { try keeper.restoreEncodedState(state) }
    #expect(second.addressSpace.read(PhysicalAddress(0x1000_0007), width: 1) == 0x77)
    #expect(read(second, 0x0C00_0004) == 5)
    #expect(second.harts[0].retiredInstructions == 10)
    #expect(try second.stateKeepers.map { try $0.encodedState().identifier } == states.map(\.identifier))
  }

  /// A guest may access any register of any device with any width and value.
  @Test func wildAccessesHarmNobody() throws {
    let board = try BoardUnderTest(BoardTests.idle) { $0.devices = [VirtioEntropy()] }.board
    board.onPowerEvent = { _ in }
    var generator = SystemRandomNumberGenerator()
    let bases: [UInt64] = [
      0x1000, 0x10_0000, 0x10_1000, 0x200_0000, 0x200_4000, 0x200_BFF8, 0x300_0000, 0xC00_0000, 0xC00_2000, 0xC20_0000,
      0x1000_0000, 0x1000_1000, 0x1000_2000, 0x2000_0000, 0x21FF_F000, 0x2200_0000, 0x3000_0000, 0x3000_8000,
      0x4000_0000, 0x7FFF_F000, 0x4_0000_0000,
    ]
    for _ in 0..<200_000 {
      let address = PhysicalAddress(
        bases.randomElement(using: &generator)! + .random(in: 0..<0x1000, using: &generator))
      let width = [1, 2, 4, 8].randomElement(using: &generator)!
      if Bool.random(using: &generator) {
        _ = board.addressSpace.read(address, width: width)
      } else {
        _ = board.addressSpace.write(address, width: width, value: .random(in: 0...UInt64.max, using: &generator))
      }
    }
  }
}

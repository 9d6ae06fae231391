import Board
import Bus
import Console
import Foundation
import Hart
import RISCV
import Synchronization

extension BootFile {
  init(_ name: String, _ builder: ELFBuilder) { self.init(name: name, contents: builder.build()) }

  static func program(
    _ body: (inout TestAssembler) -> Void, symbols: [(String, UInt64)] = [], at address: UInt64 = 0x8000_0000
  )
    -> BootFile
  {
    var assembler = TestAssembler()
    body(&assembler)
    var builder = ELFBuilder(instructions: assembler.words, at: address, memorySize: 0x1_0000)
    builder.symbols = symbols.map { (name: $0.0, value: $0.1) }
    return BootFile("test.elf", builder)
  }
}

/// A board whose single hart runs on the test's own thread.
final class BoardUnderTest {
  let board: Board
  let console = MemoryConsole()

  init(
    _ boot: BootDescription, harts: Int = 1, memorySize: UInt64 = 16 << 20,
    change: (inout BoardConfiguration) -> Void = { _ in }
  )
    throws
  {
    var configuration = BoardConfiguration(hartCount: harts, memorySize: memorySize, boot: boot, console: console)
    change(&configuration)
    board = try Board(configuration)
    try board.uart.start()
    board.boot()
  }

  /// The console holds the UART, and that the harts, until it is stopped.
  deinit { board.uart.stop() }

  /// Runs hart 0 until the guest ends or `limit` instructions have retired; returns how it ended.
  func run(limit: UInt64 = 100_000) -> PowerEvent? {
    while board.powerEvent == nil, board.harts[0].run(limit: limit) == .paused, board.powerEvent == nil {}
    return board.powerEvent
  }

  /// Makes an SBI call on `hart` as if the guest had; returns error and value.
  func sbi(_ identifier: UInt64, _ function: UInt64, _ arguments: UInt64..., hart: Int = 0) -> (
    error: Int64, value: UInt64
  ) {
    let hart = board.harts[hart]
    hart[x: 17] = identifier
    hart[x: 16] = function
    for index in 0..<6 { hart[x: 10 + index] = index < arguments.count ? arguments[index] : 0 }
    guard board.supervisorCall(hart) else { return (.min, 0) }
    return (Int64(bitPattern: hart[x: 10]), hart[x: 11])
  }

  func load(_ address: UInt64) -> UInt64? { board.memory.load(PhysicalAddress(address), as: UInt64.self) }

  func store(_ text: String, at address: UInt64) {
    Array(text.utf8).withUnsafeBytes { _ = board.memory.copy($0, to: PhysicalAddress(address)) }
  }
}

import Bus
import Foundation
import Hart
import Testing

/// The programs of `Guests/` on a hart with just the devices they use.
@Suite(.enabled(if: HostTool.clang.exists && HostTool.objcopy.exists, "needs clang and llvm-objcopy in PATH"))
struct GuestProgramTests {
  private static let directory = Result<URL, any Error>(catching: {
    let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let directory = package.appendingPathComponent(".build/guests")
    try HostTool.shell.run([package.appendingPathComponent("Guests/build").path, directory.path])
    return directory
  })

  @Test(
    arguments: [
      ("end-finisher", ProgramEnd.finisher(0x5555)), ("end-finisher-7", .finisher(7 << 16 | 0x3333)),
      ("end-htif", .hostTarget(1)), ("end-htif-7", .hostTarget(7 << 1 | 1)),
      ("end-semihosting", .semihosting(0x18, 0x20026, 0)), ("end-semihosting-7", .semihosting(0x18, 0x20026, 7)),
      ("end-sbi", .supervisor(0x5352_5354, 0, 0, 0)), ("end-sbi-7", .supervisor(0x5352_5354, 0, 0, 1)),
    ])
  func programsEndInTheirWay(_ name: String, _ end: ProgramEnd) throws {
    #expect(try GuestProgramMachine(Self.directory.get(), name).run(limit: 1000) == end)
  }

  @Test func helloIsPrinted() throws {
    let machine = try GuestProgramMachine(Self.directory.get(), "hello-uart")
    #expect(machine.run(limit: 10_000) == .finisher(0x5555))
    #expect(machine.printed == "Hello from a RISC-V guest.\n")
  }

  @Test func embeddedSwiftRuns() throws {
    let directory = try Self.directory.get()
    guard FileManager.default.fileExists(atPath: directory.appendingPathComponent("primes.elf").path) else { return }
    let machine = try GuestProgramMachine(directory, "primes")
    #expect(machine.run(limit: 50_000_000) == .finisher(0x5555))
    let line = "primes below 100000: 9592, the last 99991, sum of reciprocals in millionths 2705272\n"
    #expect(machine.printed == line)
  }
}

/// How a program asked to end.
enum ProgramEnd: Equatable, Sendable {
  case finisher(UInt64)
  case hostTarget(UInt64)
  case semihosting(_ operation: UInt64, _ reason: UInt64, _ code: UInt64)
  case supervisor(_ extension: UInt64, _ function: UInt64, _ type: UInt64, _ reason: UInt64)
}

/// A hart, RAM, a UART that is always ready, and the test finisher.
private final class GuestProgramMachine: HartEnvironment, BusDevice, @unchecked Sendable {
  private let memory: GuestMemory
  private let hart: Hart
  private var output: [UInt8] = []
  private var end: ProgramEnd?

  init(_ directory: URL, _ name: String) throws {
    let base = PhysicalAddress(0x8000_0000)
    memory = try GuestMemory(base: base, size: 256 << 20)
    let space = AddressSpace(memory: memory)
    hart = Hart(identifier: 0, addressSpace: space, clock: GuestClock(), configuration: HartConfiguration())
    space.attach(self, at: PhysicalAddress(0x1000_0000), size: 0x100)
    let finisher = Finisher()
    finisher.machine = self
    space.attach(finisher, at: PhysicalAddress(0x10_0000), size: 0x1000)
    hart.environment = self

    let program = directory.appendingPathComponent("\(name).elf")
    let image = directory.appendingPathComponent("\(name).bin")
    let symbols = image.appendingPathExtension("symbols")
    try HostTool.objcopy.run(["-O", "binary", program.path, image.path])
    try HostTool.nm.run([program.path], output: symbols)
    guard try Data(contentsOf: image).withUnsafeBytes({ memory.copy($0, to: base) }) else {
      throw HostTool.Failure(description: "\(name) doesn't fit into memory")
    }
    for line in try String(contentsOf: symbols, encoding: .utf8).split(separator: "\n") where line.hasSuffix(" tohost")
    {
      let address = UInt64(line.prefix(16), radix: 16)!
      hart.watchedRange = address..<address + 8
    }
    _ = hart.start(at: base.rawValue, privilege: .machine, argument: 0)
  }

  var printed: String { String(decoding: output, as: UTF8.self) }

  func run(limit: UInt64) -> ProgramEnd? {
    _ = hart.run(limit: limit)
    return end
  }

  private func finish(_ end: ProgramEnd) {
    if self.end == nil { self.end = end }
    hart.requestPause()
  }

  func supervisorCall(_ hart: Hart) -> Bool {
    finish(.supervisor(hart[x: 17], hart[x: 16], hart[x: 10], hart[x: 11]))
    return true
  }

  func semihostingCall(_ hart: Hart) -> Bool {
    let parameters = PhysicalAddress(hart[x: 11])
    let reason = memory.load(parameters, as: UInt64.self) ?? .max
    finish(.semihosting(hart[x: 10], reason, memory.load(parameters + 8, as: UInt64.self) ?? .max))
    return true
  }

  func watchedStore(_ hart: Hart, at address: PhysicalAddress, width: Int, value: UInt64) { finish(.hostTarget(value)) }

  func read(offset: UInt64, width: Int) -> UInt64 { offset == 5 ? 0x60 : 0 }
  func write(offset: UInt64, width: Int, value: UInt64) {
    if offset == 0 { output.append(UInt8(truncatingIfNeeded: value)) }
  }

  private final class Finisher: BusDevice {
    weak var machine: GuestProgramMachine?
    func read(offset: UInt64, width: Int) -> UInt64 { 0 }
    func write(offset: UInt64, width: Int, value: UInt64) { machine?.finish(.finisher(value)) }
  }
}

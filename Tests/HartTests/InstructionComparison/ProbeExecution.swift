import Bus
import Foundation
import Hart
import HostSystem

extension ProbeProgram {
  /// Results of all cases as QEMU's user-mode emulation gives them.
  func resultsOfQEMU() throws -> [UInt64] {
    let inputFile = executable.appendingPathExtension("in")
    let outputFile = executable.appendingPathExtension("out")
    try input.write(to: inputFile)
    try HostTool.qemu.run(
      [
        "-cpu",
        "rv64,zba=true,zbb=true,zbc=true,zbs=true,zbkb=true,zbkx=true,zknd=true,zkne=true,zknh=true",
        executable.path,
      ], input: inputFile, output: outputFile)
    return try words(Data(contentsOf: outputFile))
  }

  /// Results of all cases as our hart gives them.
  func resultsOfHart() throws -> [UInt64] {
    let base = PhysicalAddress(Self.codeAddress)
    let memory = try GuestMemory(base: base, size: Self.memoryEnd - Self.codeAddress)
    let calls = ProgramSystemCalls(memory: memory, input: input)
    guard try code().withUnsafeBytes({ memory.copy($0, to: base) }) else {
      throw HostTool.Failure(description: "the probes don't fit into memory")
    }
    let hart = Hart(
      identifier: 0, addressSpace: AddressSpace(memory: memory), clock: GuestClock(), configuration: HartConfiguration()
    )
    hart.environment = calls
    // Floating point on; all of memory open to S-mode; traps to a place where they are noticed.
    _ = hart.start(at: entryAddress, privilege: .supervisor, argument: 0)
    _ = hart.writeCSR(0x300, 1 << 13)
    _ = hart.writeCSR(0x3b0, .max)
    _ = hart.writeCSR(0x3a0, 0x1f)
    _ = hart.writeCSR(0x305, trapAddress)
    while hart.run(limit: 1_000_000) == .instructionLimit {
      if hart.pc == trapAddress {
        let cause = hart.readCSR(0x342) ?? 0
        let address = String(hart.readCSR(0x341) ?? 0, radix: 16)
        let value = String(hart.readCSR(0x343) ?? 0, radix: 16)
        throw HostTool.Failure(
          description: "a trap (mcause \(cause), mtval 0x\(value)) at 0x\(address) of \(executable.path)")
      }
    }
    guard calls.status == 0 else {
      throw HostTool.Failure(description: "the program ended with \(calls.status.map(String.init) ?? "no exit")")
    }
    return try words(calls.output)
  }

  private func words(_ data: Data) throws -> [UInt64] {
    guard data.count == outputCount else {
      throw HostTool.Failure(description: "\(data.count) bytes of results instead of \(outputCount)")
    }
    return data.withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
  }
}

/// read, write and exit, as the Linux kernel would serve them, for a program that runs on a hart in S-mode.
private final class ProgramSystemCalls: HartEnvironment, @unchecked Sendable {
  private let memory: GuestMemory
  private var input: Data
  private(set) var output = Data()
  private(set) var status: UInt64?

  init(memory: GuestMemory, input: Data) {
    self.memory = memory
    self.input = input
  }

  func supervisorCall(_ hart: Hart) -> Bool {
    let address = PhysicalAddress(hart[x: 11])
    let count = hart[x: 12]
    switch hart[x: 17] {
    case 63:
      let piece = input.prefix(Int(truncatingIfNeeded: count))
      input = input.dropFirst(piece.count)
      hart[x: 10] = piece.withUnsafeBytes { memory.copy($0, to: address) } ? UInt64(piece.count) : .max
    case 64:
      guard let bytes = memory.bytes(at: address, count: count) else { return false }
      output.append(contentsOf: UnsafeRawBufferPointer(bytes))
      hart[x: 10] = count
    case 93:
      status = hart[x: 10]
      hart.requestPause()
    default: return false
    }
    return true
  }

  func semihostingCall(_ hart: Hart) -> Bool { false }
  func watchedStore(_ hart: Hart, at address: PhysicalAddress, width: Int, value: UInt64) {}
}

import Bus
import Hart
import HostSystem
import Synchronization

/// Semihosting for bare programs (RISC-V Semihosting 1.0; Arm Semihosting 3.0): ending with a code, the console and the
/// clocks. Of files there are only the console (":tt") and the feature bits; the host's own stay out of reach.
final class Semihosting: Sendable {
  private enum Operation {
    static let open: UInt64 = 0x01, close: UInt64 = 0x02, writeCharacter: UInt64 = 0x03, writeString: UInt64 = 0x04
    static let write: UInt64 = 0x05, read: UInt64 = 0x06, readCharacter: UInt64 = 0x07, isError: UInt64 = 0x08
    static let isTerminal: UInt64 = 0x09, seek: UInt64 = 0x0A, length: UInt64 = 0x0C, clock: UInt64 = 0x10
    static let time: UInt64 = 0x11, errorNumber: UInt64 = 0x13, commandLine: UInt64 = 0x15, exit: UInt64 = 0x18
    static let exitExtended: UInt64 = 0x20, elapsed: UInt64 = 0x30, tickFrequency: UInt64 = 0x31
  }

  private enum Handle {
    static let input: UInt64 = 1, output: UInt64 = 2, error: UInt64 = 3, features: UInt64 = 4
    static let console: ClosedRange<UInt64> = 1...3
  }

  /// "SHFB", then: SYS_EXIT_EXTENDED is there, and standard error apart from standard output.
  private static let features: [UInt8] = [0x53, 0x48, 0x46, 0x42, 0x03]
  private static let applicationExit: UInt64 = 0x2_0026
  private static let failure = UInt64.max
  private static let badDescriptor: UInt64 = 9
  private static let noEntry: UInt64 = 2

  private struct State {
    var errorNumber: UInt64 = 0
    var featuresPosition = 0
  }

  private let memory: GuestMemory
  private let console: UART16550
  private let clock: GuestClock
  private let wallClock: @Sendable () -> UInt64
  private let power: @Sendable (PowerEvent) -> Void
  private let state = Mutex(State())

  init(
    memory: GuestMemory, console: UART16550, clock: GuestClock, wallClock: @escaping @Sendable () -> UInt64,
    power: @escaping @Sendable (PowerEvent) -> Void
  ) {
    self.memory = memory
    self.console = console
    self.clock = clock
    self.wallClock = wallClock
    self.power = power
  }

  /// Serves the call in a0 (operation) and a1 (parameter, mostly the address of a block of them).
  func call(_ hart: Hart) { hart[x: 10] = serve(hart, operation: hart[x: 10], parameter: hart[x: 11]) }

  private func serve(_ hart: Hart, operation: UInt64, parameter: UInt64) -> UInt64 {
    func argument(_ index: UInt64) -> UInt64 { word(hart, parameter &+ 8 &* index) ?? 0 }
    switch operation {
    case Operation.open: return open(hart, name: argument(0), mode: argument(1), length: argument(2))
    case Operation.close:
      return (Handle.input...Handle.features).contains(argument(0)) ? 0 : fail(Semihosting.badDescriptor)
    case Operation.writeCharacter: write(bytes(hart, parameter, count: 1))
    case Operation.writeString: writeString(hart, parameter)
    case Operation.write:
      guard Handle.console.contains(argument(0)) else { return argument(2) }
      return argument(2) &- transferAll(hart, argument(1), count: argument(2)) { write([UInt8]($0)) }
    case Operation.read: return read(hart, handle: argument(0), address: argument(1), count: argument(2))
    case Operation.readCharacter: return console.takeReceived(1).first.map(UInt64.init) ?? Semihosting.failure
    case Operation.isError: return Int64(bitPattern: argument(0)) < 0 ? 1 : 0
    case Operation.isTerminal: return Handle.console.contains(argument(0)) ? 1 : 0
    case Operation.seek:
      guard argument(0) == Handle.features, argument(1) <= UInt64(Semihosting.features.count) else {
        return Semihosting.failure
      }
      state.withLock { $0.featuresPosition = Int(argument(1)) }
      return 0
    case Operation.length: return argument(0) == Handle.features ? UInt64(Semihosting.features.count) : 0
    case Operation.clock: return clock.ticks() / (GuestClock.frequency / 100)
    case Operation.time: return wallClock() / 1_000_000_000
    case Operation.errorNumber: return state.withLock { $0.errorNumber }
    case Operation.commandLine: return store(hart, argument(0), 0, width: 1) ? 0 : Semihosting.failure
    case Operation.exit where parameter == Semihosting.applicationExit: power(.shutdown(code: 0))
    case Operation.exit, Operation.exitExtended:
      let code = Int(truncatingIfNeeded: argument(1) & 0xFFFF_FFFF)
      power(.shutdown(code: argument(0) == Semihosting.applicationExit ? code : 1))
    case Operation.elapsed: return store(hart, parameter, clock.ticks(), width: 8) ? 0 : Semihosting.failure
    case Operation.tickFrequency: return GuestClock.frequency
    default: return Semihosting.failure
    }
    return 0
  }

  private func fail(_ errorNumber: UInt64) -> UInt64 {
    state.withLock { $0.errorNumber = errorNumber }
    return Semihosting.failure
  }

  private func open(_ hart: Hart, name: UInt64, mode: UInt64, length: UInt64) -> UInt64 {
    guard length <= 64 else { return fail(Semihosting.noEntry) }
    switch String(decoding: bytes(hart, name, count: length), as: UTF8.self) {
    case ":tt": return mode < 4 ? Handle.input : mode < 8 ? Handle.output : Handle.error
    case ":semihosting-features":
      state.withLock { $0.featuresPosition = 0 }
      return Handle.features
    default: return fail(Semihosting.noEntry)
    }
  }

  /// Returns how many bytes were not read.
  private func read(_ hart: Hart, handle: UInt64, address: UInt64, count: UInt64) -> UInt64 {
    let source: [UInt8]
    switch handle {
    case Handle.input: source = console.takeReceived(Int(clamping: min(count, 4096)))
    case Handle.features:
      source = state.withLock { state in
        let rest = Semihosting.features.dropFirst(state.featuresPosition).prefix(Int(clamping: count))
        state.featuresPosition += rest.count
        return Array(rest)
      }
    default: return count
    }
    for (index, byte) in source.enumerated() {
      guard store(hart, address &+ UInt64(index), UInt64(byte), width: 1) else { return count - UInt64(index) }
    }
    return count - UInt64(source.count)
  }

  // MARK: the guest's memory, by virtual addresses

  private func write(_ bytes: [UInt8]) { bytes.withUnsafeBytes { console.transmit($0) } }

  private func writeString(_ hart: Hart, _ address: UInt64) {
    // A string without an end stops at the next hole in memory, or here.
    _ = transfer(hart, address, count: 1 << 20) { part in
      let text = part.prefix { $0 != 0 }
      write([UInt8](text))
      return text.count == part.count
    }
  }

  private func bytes(_ hart: Hart, _ address: UInt64, count: UInt64) -> [UInt8] {
    var result: [UInt8] = []
    _ = transferAll(hart, address, count: min(count, 4096)) { result.append(contentsOf: $0) }
    return result
  }

  private func transferAll(
    _ hart: Hart, _ address: UInt64, count: UInt64, _ body: (UnsafeMutableRawBufferPointer) -> Void
  ) -> UInt64 {
    transfer(hart, address, count: count) {
      body($0)
      return true
    }
  }

  /// Calls `body` with the memory of each page in turn, while it returns true. Returns how many bytes it was given.
  private func transfer(
    _ hart: Hart, _ address: UInt64, count: UInt64, _ body: (UnsafeMutableRawBufferPointer) -> Bool
  ) -> UInt64 {
    var done: UInt64 = 0
    while done < count {
      let next = address &+ done
      let part = min(count - done, 4096 - next % 4096)
      guard let physical = hart.physicalAddress(ofVirtual: next), let bytes = memory.bytes(at: physical, count: part)
      else { break }
      done += part
      let goesOn = body(bytes)
      memory.noteWrite(of: bytes)
      if !goesOn { break }
    }
    return done
  }

  private func word(_ hart: Hart, _ address: UInt64) -> UInt64? {
    let bytes = bytes(hart, address, count: 8)
    guard bytes.count == 8 else { return nil }
    return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private func store(_ hart: Hart, _ address: UInt64, _ value: UInt64, width: UInt64) -> Bool {
    var rest = value
    return transferAll(hart, address, count: width) { part in
      for index in part.indices {
        part[index] = UInt8(truncatingIfNeeded: rest)
        rest >>= 8
      }
    } == width
  }
}

import Bus
import Hart
import Synchronization

/// The host-target interface of Berkeley's simulators, by which bare programs end and print: a word that the program
/// stores at its symbol `tohost`, and the answer at `fromhost`.
///
/// The word's top byte is a device, the next a command. Device 0: an odd payload ends the program with payload >> 1 as
/// its code, an even one is the address of a proxied system call (exit and write are served). Device 1, command 1
/// prints a byte.
final class HostTargetInterface: Sendable {
  private enum SystemCall {
    static let write: UInt64 = 64
    static let exit: UInt64 = 93
    static let badDescriptor = UInt64(bitPattern: -9)
    static let fault = UInt64(bitPattern: -14)
    static let notImplemented = UInt64(bitPattern: -38)
  }

  private let toHost: UInt64
  private let fromHost: UInt64?
  private let memory: GuestMemory
  private let output: @Sendable (UnsafeRawBufferPointer) -> Void
  private let power: @Sendable (PowerEvent) -> Void
  /// A store of the lower half was seen whose upper half may follow.
  private let lowerHalfStored = Mutex(false)

  /// Nil when the program has no symbol `tohost` in RAM.
  init?(
    program: ELFFile, memory: GuestMemory, output: @escaping @Sendable (UnsafeRawBufferPointer) -> Void,
    power: @escaping @Sendable (PowerEvent) -> Void
  ) {
    guard let toHost = program.symbol("tohost"), toHost % 8 == 0,
      memory.bytes(at: PhysicalAddress(toHost), count: 8) != nil
    else { return nil }
    self.toHost = toHost
    fromHost = program.symbol("fromhost")
    self.memory = memory
    self.output = output
    self.power = power
  }

  /// The stores to hear of.
  var watchedRange: Range<UInt64> { toHost..<toHost + 8 }

  func stored(at address: PhysicalAddress, width: Int) {
    let offset = address.rawValue &- toHost
    guard offset < 8 else { return }
    // 32-bit stores come as two halves, lower first; some programs store only the lower one, again and again.
    let isWhole = lowerHalfStored.withLock { lowerHalfStored in
      guard width < 8, offset < 4, !lowerHalfStored else {
        lowerHalfStored = false
        return true
      }
      lowerHalfStored = true
      return false
    }
    guard isWhole, let word = memory.load(PhysicalAddress(toHost), as: UInt64.self), word != 0 else { return }
    let payload = word & 0xFFFF_FFFF_FFFF
    switch (word >> 56, word >> 48 & 0xFF) {
    case (0, 0) where payload & 1 != 0: power(.shutdown(code: Int(payload >> 1)))
    case (0, 0):
      serveSystemCall(at: payload)
      acknowledge(answer: 1)
    case (1, 1):
      withUnsafeBytes(of: UInt8(truncatingIfNeeded: payload)) { output($0) }
      acknowledge(answer: nil)
    default: acknowledge(answer: nil)
    }
  }

  private func acknowledge(answer: UInt64?) {
    _ = memory.store(UInt64(0), at: PhysicalAddress(toHost))
    if let answer, let fromHost { _ = memory.store(answer, at: PhysicalAddress(fromHost)) }
  }

  /// Eight words in memory: the call's number and arguments; its result replaces the number.
  private func serveSystemCall(at address: UInt64) {
    func word(_ index: UInt64) -> UInt64? { memory.load(PhysicalAddress(address &+ 8 &* index), as: UInt64.self) }
    guard let number = word(0), let first = word(1), let second = word(2), let third = word(3) else { return }
    var result = SystemCall.notImplemented
    switch number {
    case SystemCall.exit: return power(.shutdown(code: Int(first & 0xFF)))
    case SystemCall.write where first != 1 && first != 2: result = SystemCall.badDescriptor
    case SystemCall.write:
      if let bytes = memory.bytes(at: PhysicalAddress(second), count: third) {
        output(UnsafeRawBufferPointer(bytes))
        result = third
      } else {
        result = SystemCall.fault
      }
    default: break
    }
    _ = memory.store(result, at: PhysicalAddress(address))
  }
}

import Bus
import Synchronization

/// Tells the guest that it goes on from a saved state that others may go on from, too: 16 bytes that differ each time, and
/// an interrupt when they have changed. Guests make their random numbers anew then (Linux, drivers/virt/vmgenid.c and
/// Documentation/devicetree/bindings/rng/microsoft,vmgenid.yaml).
public final class GenerationIdentifier: BusDevice, @unchecked Sendable {
  static let byteCount: UInt64 = 16

  private let interrupt: InterruptLine
  private let words: Mutex<[UInt64]>

  public init(interrupt: InterruptLine) {
    self.interrupt = interrupt
    words = Mutex(Self.newWords())
  }

  private static func newWords() -> [UInt64] { [.random(in: 0 ... .max), .random(in: 0 ... .max)] }

  /// Takes a new identifier, and tells the guest. After the interrupt controller's state is restored.
  public func renew() {
    words.withLock { $0 = Self.newWords() }
    interrupt.set(true)
    interrupt.set(false)
  }

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset < Self.byteCount else { return 0 }
    let word = words.withLock { $0[Int(offset / 8)] } >> (offset % 8 * 8)
    return width >= 8 ? word : word & (1 << (UInt64(width) * 8) - 1)
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {}
}

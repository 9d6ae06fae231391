extension UART16550 {
  /// The registers, and what each access to them does.
  public struct State: Codable {
    static let fifoCapacity = 16
    /// A received break: byte 0 with the mark above it.
    static let breakMark: UInt16 = 0x100

    var interruptEnable: UInt8 = 0
    var fifoControl: UInt8 = 0
    var lineControl: UInt8 = 0
    var modemControl: UInt8 = 0
    var modemStatusDelta: UInt8 = 0
    var scratch: UInt8 = 0
    var divisor: UInt16 = 12
    /// Received bytes, the oldest first; bit 8 marks a break.
    var received: [UInt16] = []
    var hasOverrun = false
    /// Set when the transmitter becomes empty, cleared when the guest learns of it.
    var hasTransmitterNews = false { didSet { isTransmitterNewsClaimed = false } }
    /// Some guests (xv6 before 2023) take the transmitter's interrupt and never read the register that ends it; on QEMU
    /// each such event interrupts once. So the wire falls when the interrupt is claimed, until the next event.
    var isTransmitterNewsClaimed = false
    /// The console was told that there is no room.
    var hasRefusedInput = false

    private enum InterruptEnable {
      static let received: UInt8 = 1
      static let transmitterEmpty: UInt8 = 2
      static let lineStatus: UInt8 = 4
      static let modemStatus: UInt8 = 8
    }

    private enum LineStatus {
      static let dataReady: UInt8 = 0x01
      static let overrun: UInt8 = 0x02
      static let breakReceived: UInt8 = 0x10
      static let transmitterEmpty: UInt8 = 0x60
    }

    private static let divisorLatchAccess: UInt8 = 0x80
    private static let loopback: UInt8 = 0x10
    private static let fifoEnabled: UInt8 = 1

    var isFIFOEnabled: Bool { fifoControl & State.fifoEnabled != 0 }
    var receiveCapacity: Int { isFIFOEnabled ? State.fifoCapacity : 1 }
    private var receiveTrigger: Int { isFIFOEnabled ? [1, 4, 8, 14][Int(fifoControl >> 6)] : 1 }
    private var isDivisorVisible: Bool { lineControl & State.divisorLatchAccess != 0 }
    private var isBreakNext: Bool { (received.first ?? 0) & State.breakMark != 0 }

    /// The interrupt identification of the most urgent cause, nil for none (PC16550D, table III).
    var interruptCause: UInt8? {
      if interruptEnable & InterruptEnable.lineStatus != 0, hasOverrun || isBreakNext { return 0x06 }
      if interruptEnable & InterruptEnable.received != 0, !received.isEmpty {
        return received.count >= receiveTrigger ? 0x04 : 0x0C
      }
      if interruptEnable & InterruptEnable.transmitterEmpty != 0, hasTransmitterNews { return 0x02 }
      if modemStatusInterrupts { return 0x00 }
      return nil
    }

    /// What the interrupt wire stands at.
    var drivesInterrupt: Bool {
      guard let cause = interruptCause else { return false }
      return cause != 0x02 || !isTransmitterNewsClaimed || modemStatusInterrupts
    }

    private var modemStatusInterrupts: Bool {
      interruptEnable & InterruptEnable.modemStatus != 0 && modemStatusDelta != 0
    }

    /// CTS, DSR, RI and DCD: a terminal that is there and ready, or the guest's own outputs in loopback.
    private var modemLines: UInt8 {
      guard modemControl & State.loopback != 0 else { return 0xB0 }
      let control = modemControl
      return (control & 2) << 3 | (control & 1) << 5 | (control & 4) << 4 | (control & 8) << 4
    }

    /// True once after the console was refused and the receiver is empty again.
    mutating func takeRefusal() -> Bool {
      guard hasRefusedInput, received.isEmpty else { return false }
      hasRefusedInput = false
      return true
    }

    mutating func read(_ register: Int) -> UInt8 {
      switch register {
      case 0:
        if isDivisorVisible { return UInt8(truncatingIfNeeded: divisor) }
        return received.isEmpty ? 0 : UInt8(truncatingIfNeeded: received.removeFirst())
      case 1: return isDivisorVisible ? UInt8(truncatingIfNeeded: divisor >> 8) : interruptEnable
      case 2:
        let cause = interruptCause
        if cause == 0x02 { hasTransmitterNews = false }
        return (cause ?? 0x01) | (isFIFOEnabled ? 0xC0 : 0)
      case 3: return lineControl
      case 4: return modemControl
      case 5:
        var status = LineStatus.transmitterEmpty
        if !received.isEmpty { status |= LineStatus.dataReady }
        if hasOverrun { status |= LineStatus.overrun }
        if isBreakNext {
          status |= LineStatus.breakReceived
          received[0] &= ~State.breakMark
        }
        hasOverrun = false
        return status
      case 6:
        defer { modemStatusDelta = 0 }
        return modemLines | modemStatusDelta
      default: return scratch
      }
    }

    /// Returns a byte that leaves for the console.
    mutating func write(_ register: Int, _ value: UInt8) -> UInt8? {
      switch register {
      case 0:
        if isDivisorVisible {
          divisor = divisor & 0xFF00 | UInt16(value)
          return nil
        }
        hasTransmitterNews = true
        guard modemControl & State.loopback != 0 else { return value }
        if received.count < receiveCapacity { received.append(UInt16(value)) } else { hasOverrun = true }
      case 1:
        if isDivisorVisible {
          divisor = divisor & 0x00FF | UInt16(value) << 8
          return nil
        }
        // Enabling the interrupt of an empty transmitter raises it (PC16550D, 8.6.2).
        if value & ~interruptEnable & InterruptEnable.transmitterEmpty != 0 { hasTransmitterNews = true }
        interruptEnable = value & 0x0F
      case 2:
        // Switching the FIFO on or off empties it, as bit 1 does.
        if (value ^ fifoControl) & State.fifoEnabled != 0 || value & 0x02 != 0 { received.removeAll() }
        fifoControl = value & 0xC9
      case 3: lineControl = value
      case 4:
        let before = modemLines
        modemControl = value & 0x1F
        let changed = before ^ modemLines
        modemStatusDelta |= (changed & 0xB0) >> 4
        // The ring indicator counts when it falls.
        if changed & before & 0x40 != 0 { modemStatusDelta |= 0x04 }
      case 7: scratch = value
      default: break
      }
      return nil
    }
  }
}

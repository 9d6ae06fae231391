import Bus
import Console
import HostSystem
import Synchronization

/// A National Semiconductor 16550A (PC16550D data sheet): eight byte-wide registers, 16-byte receive FIFO. A byte
/// written leaves for the console at once, so the transmitter is always empty; characters have no duration, and the
/// receive timeout of the FIFO is over as soon as fewer bytes than its trigger level wait.
public final class UART16550: BusDevice, StateKeeper, @unchecked Sendable {
  public static let stateVersion = 1
  public let stateIdentifier = "uart"

  /// Clock of the baud rate generator in Hz, as the device tree gives it.
  public static let clockFrequency: UInt32 = 3_686_400

  private let backend: (any ConsoleBackend)?
  private let loop: EventLoop
  /// Set before anything happens on the line.
  public var interrupt = InterruptLine.unconnected
  private let state = Mutex(State())

  public init(backend: (any ConsoleBackend)?, loop: EventLoop) {
    self.backend = backend
    self.loop = loop
  }

  /// Connects the console. On the loop's thread, or before it starts.
  public func start() throws {
    try backend?.start(on: loop, input: { [weak self] in self?.receive($0) ?? $0.count }, resize: { _, _ in })
  }

  /// Lets go of the console. On the loop's thread.
  public func stop() { backend?.stop() }

  // MARK: the console's side

  /// Bytes typed for the guest; returns how many it took.
  public func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
    state.withLock { state in
      let room = max(0, state.receiveCapacity - state.received.count)
      let taken = min(room, bytes.count)
      for byte in bytes.prefix(taken) { state.received.append(UInt16(byte)) }
      if taken < bytes.count { state.hasRefusedInput = true }
      update(&state)
      return taken
    }
  }

  /// A break on the line: the guest sees a zero byte marked as a break.
  public func receiveBreak() {
    state.withLock { state in
      if state.received.count >= state.receiveCapacity {
        state.hasOverrun = true
      } else {
        state.received.append(State.breakMark)
      }
      update(&state)
    }
  }

  /// Output that doesn't come through the registers: the SBI's and semihosting's consoles share the line.
  public func transmit(_ bytes: UnsafeRawBufferPointer) { backend?.write(bytes) }

  /// Takes at most `count` received bytes past the registers, for the SBI's console.
  public func takeReceived(_ count: Int) -> [UInt8] {
    let (bytes, hasRoom) = state.withLock { state in
      let taken = min(max(0, count), state.received.count)
      let bytes = state.received.prefix(taken).map { UInt8(truncatingIfNeeded: $0) }
      state.received.removeFirst(taken)
      update(&state)
      return (bytes, state.takeRefusal())
    }
    if hasRoom { askForInput() }
    return bytes
  }

  private func askForInput() {
    guard let backend else { return }
    loop.perform { backend.guestHasRoom() }
  }

  // MARK: registers

  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset < 8 else { return 0 }
    let (value, hasRoom) = state.withLock { state in
      let value = state.read(Int(offset))
      update(&state)
      return (value, state.takeRefusal())
    }
    if hasRoom { askForInput() }
    return UInt64(value)
  }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset < 8 else { return }
    let byte = UInt8(truncatingIfNeeded: value)
    let (output, hasRoom) = state.withLock { state in
      let output = state.write(Int(offset), byte)
      update(&state)
      return (output, state.takeRefusal())
    }
    if let output { withUnsafeBytes(of: output) { transmit($0) } }
    if hasRoom { askForInput() }
  }

  private func update(_ state: inout State) { interrupt.set(state.drivesInterrupt) }

  /// The interrupt controller has given the interrupt to a hart.
  public func interruptWasClaimed() {
    state.withLock { state in
      state.isTransmitterNewsClaimed = true
      update(&state)
    }
  }

  public func reset() {
    let hasRoom = state.withLock { state in
      let refused = state.hasRefusedInput
      state = State()
      update(&state)
      return refused
    }
    if hasRoom { askForInput() }
  }

  public func saveState() -> State { state.withLock { $0 } }

  public func restoreState(_ saved: State) throws {
    guard saved.received.count <= State.fifoCapacity else { throw StateError("the saved UART holds too many bytes") }
    state.withLock { state in
      state = saved
      // Input that was refused in another process is that process's.
      state.hasRefusedInput = true
      update(&state)
    }
  }
}

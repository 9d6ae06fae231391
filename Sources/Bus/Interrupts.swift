/// One level-triggered interrupt wire from a device to an interrupt controller. May be driven from any thread.
public struct InterruptLine: Sendable {
  private let drive: @Sendable (Bool) -> Void

  public init(_ drive: @escaping @Sendable (Bool) -> Void) { self.drive = drive }

  /// Sets the wire's level: true while the device wants attention.
  public func set(_ level: Bool) { drive(level) }

  /// A wire that leads nowhere.
  public static let unconnected = InterruptLine { _ in }
}

/// Sends a message-signalled interrupt: `data` is written to the bus at `address` (PCI 3.0, 6.8). Any thread.
public typealias MessageInterruptSender = @Sendable (_ address: PhysicalAddress, _ data: UInt32) -> Void

/// What a console did since its machine was made, over all ports.
public struct ConsoleMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var bytesIn: UInt64 = 0
  public var bytesOut: UInt64 = 0
  /// Times that the guest had no room for input.
  public var inputStalls: UInt64 = 0
  public init() {}
}

extension VirtioConsole {
  /// Any thread.
  public var metrics: ConsoleMetrics { counters.withLock { $0 } }
}

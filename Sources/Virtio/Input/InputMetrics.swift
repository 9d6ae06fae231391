/// What an input device did since its machine was made.
public struct InputMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var presses: UInt64 = 0
  public init() {}
}

extension VirtioInput {
  /// Any thread.
  public var metrics: InputMetrics { counters.withLock { $0 } }
}

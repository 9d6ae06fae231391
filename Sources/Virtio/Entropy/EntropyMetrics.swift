/// What an entropy device did since its machine was made.
public struct EntropyMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var requests: UInt64 = 0
  public var bytes: UInt64 = 0
  public init() {}
}

extension VirtioEntropy {
  /// Any thread.
  public var metrics: EntropyMetrics { counters.withLock { $0 } }
}

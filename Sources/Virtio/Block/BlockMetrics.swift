/// What a disk did since its machine was made.
public struct BlockMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var reads: UInt64 = 0
  public var writes: UInt64 = 0
  public var flushes: UInt64 = 0
  public var discards: UInt64 = 0
  public var zeroedRanges: UInt64 = 0
  public var bytesRead: UInt64 = 0
  public var bytesWritten: UInt64 = 0
  /// Requests answered with an error, whosever fault it was.
  public var errors: UInt64 = 0
  public init() {}
}

extension VirtioBlock {
  /// Any thread.
  public var metrics: BlockMetrics { counters.withLock { $0 } }
}

/// What a network card did since its machine was made.
public struct NetMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var framesTransmitted: UInt64 = 0
  public var bytesTransmitted: UInt64 = 0
  public var framesReceived: UInt64 = 0
  public var bytesReceived: UInt64 = 0
  /// Frames of the guest that weren't what their header said, or too large.
  public var transmitErrors: UInt64 = 0
  /// Frames for the guest that it didn't want, or couldn't ever take.
  public var framesDropped: UInt64 = 0
  /// Times that the guest had no receive buffers.
  public var receiveStalls: UInt64 = 0
  public var controlErrors: UInt64 = 0
  public init() {}
}

extension VirtioNet {
  /// Any thread.
  public var metrics: NetMetrics { counters.withLock { $0 } }
}

/// What a socket device did since its machine was made.
public struct SocketMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  /// Connections that came about, in either direction.
  public var connections: UInt64 = 0
  public var bytesTransmitted: UInt64 = 0
  public var bytesReceived: UInt64 = 0
  public init() {}
}

extension VirtioSocket {
  /// Any thread.
  public var metrics: SocketMetrics { counters.withLock { $0 } }
}

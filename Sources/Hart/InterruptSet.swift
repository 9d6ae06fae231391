/// Interrupt bits, as they stand in mip and mie (Privileged Architecture, 3.1.9).
public struct InterruptSet: OptionSet, Hashable, Codable, Sendable {
  public let rawValue: UInt64
  @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  public static let supervisorSoftware = InterruptSet(rawValue: 1 << 1)
  public static let machineSoftware = InterruptSet(rawValue: 1 << 3)
  public static let supervisorTimer = InterruptSet(rawValue: 1 << 5)
  public static let machineTimer = InterruptSet(rawValue: 1 << 7)
  public static let supervisorExternal = InterruptSet(rawValue: 1 << 9)
  public static let machineExternal = InterruptSet(rawValue: 1 << 11)
}

/// Privilege modes, by their encoding (Privileged Architecture, 1.2).
public enum Privilege: UInt8, Codable, Sendable {
  case user = 0
  case supervisor = 1
  case machine = 3
}

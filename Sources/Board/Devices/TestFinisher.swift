import Bus

/// How a guest ends or restarts its machine.
public enum PowerEvent: Equatable, Sendable {
  /// The guest switched itself off. The code is 0 for success, else the guest's own error number.
  case shutdown(code: Int)
  case reboot
  /// The machine can't go on.
  case failed(String)
}

/// SiFive's test finisher: a word written to it ends or restarts the machine. Also Linux's syscon-poweroff and
/// syscon-reboot.
public final class TestFinisher: BusDevice {
  /// Written in the low half word.
  public enum Command {
    public static let fail: UInt32 = 0x3333
    public static let pass: UInt32 = 0x5555
    public static let reset: UInt32 = 0x7777
  }

  private let power: (PowerEvent) -> Void

  public init(power: @escaping (PowerEvent) -> Void) { self.power = power }

  public func read(offset: UInt64, width: Int) -> UInt64 { 0 }

  public func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset == 0 else { return }
    let value = UInt32(truncatingIfNeeded: value)
    switch value & 0xFFFF {
    case Command.pass: power(.shutdown(code: 0))
    case Command.fail: power(.shutdown(code: Int(value >> 16)))
    case Command.reset: power(.reboot)
    default: break
    }
  }
}

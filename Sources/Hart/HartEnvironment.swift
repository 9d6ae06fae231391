import Bus

/// What a hart asks of the machine around it. Called on the hart's own thread, between two instructions, with the
/// hart's registers exact; pc is that of the instruction that asks.
public protocol HartEnvironment: AnyObject, Sendable {
  /// An ECALL from S-mode (the SBI). True: it was served, results stand in the registers, and execution goes on after
  /// the ECALL. False: it traps as on hardware (firmware in M-mode serves it).
  func supervisorCall(_ hart: Hart) -> Bool

  /// An EBREAK framed by the semihosting marker instructions (RISC-V Semihosting, 2). True: served, execution goes on
  /// after the EBREAK. False: it traps as a breakpoint.
  func semihostingCall(_ hart: Hart) -> Bool

  /// A store to the watched range (HTIF) has just been done.
  func watchedStore(_ hart: Hart, at address: PhysicalAddress, width: Int, value: UInt64)

  /// The hart's engine can't go on, for this reason. The hart has been asked to pause.
  func engineFailed(_ hart: Hart, _ reason: String)
}

extension HartEnvironment {
  public func engineFailed(_ hart: Hart, _ reason: String) {}
}

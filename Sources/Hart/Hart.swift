import Bus
import HostSystem
import Synchronization

/// One hardware thread: its architectural state and the loop that runs it. A hart runs on one host thread; what other
/// threads may call is said beside each method.
public final class Hart: @unchecked Sendable {
  /// mhartid.
  public let identifier: Int
  public let addressSpace: AddressSpace
  public let clock: GuestClock
  public weak var environment: (any HartEnvironment)?

  /// Why `run` came back.
  public enum Exit: Equatable, Sendable {
    /// `requestPause` was called. The hart stands between two instructions.
    case paused
    /// The instruction limit given to `run` was reached.
    case instructionLimit
  }

  /// SBI hart state (SBI 2.0, chapter 9). A hart is created stopped.
  public enum Lifecycle: Int, Codable, Sendable {
    case started = 0
    case stopped = 1
    case suspended = 4
  }

  public init(identifier: Int, addressSpace: AddressSpace, clock: GuestClock, configuration: HartConfiguration) {
    fatalError()
  }

  // MARK: the hart's own thread, or while it doesn't run

  /// An integer register; writes to x0 are ignored.
  public subscript(x register: Int) -> UInt64 {
    get { fatalError() }
    set { fatalError() }
  }

  public var pc: UInt64 {
    get { fatalError() }
    set { fatalError() }
  }

  public var privilege: Privilege {
    get { fatalError() }
    set { fatalError() }
  }

  /// Number of instructions retired since the machine was new.
  public var retiredInstructions: UInt64 { fatalError() }

  /// Reads and writes a CSR by number, without a privilege check: for firmware-like set-up, the debugger and tests.
  /// Nil or false: the hart has no such CSR.
  public func readCSR(_ number: Int) -> UInt64? { fatalError() }
  public func writeCSR(_ number: Int, _ value: UInt64) -> Bool { fatalError() }

  /// stimecmp (Sstc), in clock ticks; what SBI set_timer sets. Writing it clears or sets the pending timer interrupt
  /// as the time demands.
  public var supervisorTimeCompare: UInt64 {
    get { fatalError() }
    set { fatalError() }
  }

  /// Where the guest's virtual address lies, as a load in the hart's present mode would see it; nil where it faults.
  public func physicalAddress(ofVirtual address: UInt64) -> PhysicalAddress? { fatalError() }

  /// The range of physical addresses whose stores are reported to `environment` (HTIF's tohost and fromhost): it must
  /// lie in one page. Set before the hart runs.
  public var watchedRange: Range<UInt64>? = nil

  // MARK: any thread

  /// Drives interrupt-pending bits of mip from outside (CLINT, PLIC, SBI) and wakes the hart from WFI.
  public func setInterrupt(_ bits: InterruptSet, _ level: Bool) { fatalError() }

  /// mtimecmp of the CLINT, in clock ticks: machineTimer is pending while the clock stands at or above it.
  public var machineTimeCompare: UInt64 {
    get { fatalError() }
    set { fatalError() }
  }

  public var lifecycle: Lifecycle { fatalError() }

  /// Starts a stopped hart at `address` in `privilege` with a0 = its identifier and a1 = `argument`, translation off and
  /// supervisor interrupts disabled (SBI 2.0, 9.1). False when it isn't stopped.
  public func start(at address: UInt64, privilege: Privilege, argument: UInt64) -> Bool { fatalError() }

  /// What a remote fence asks for (SBI 2.0, chapter 8).
  public enum Fence: Sendable {
    case instruction
    /// Translations of `[start, start + size)`; `size` 0 or all ones: the whole address space. `asid` nil: of all.
    case addresses(start: UInt64, size: UInt64, asid: UInt64?)
  }

  /// Has `targets` execute a fence before their next instruction, and returns when it is certain that they will. Called
  /// on the thread of `self`, which may be among the targets.
  public func fence(_ kind: Fence, on targets: [Hart]) { fatalError() }

  // MARK: lifecycle, on the hart's own thread (from SBI calls)

  /// SBI hart_stop: the hart stands still until `start`.
  public func stop() { fatalError() }

  /// SBI hart_suspend: waits until an enabled interrupt is pending, then goes on after the call (retentive), or begins
  /// anew as `start` would (non-retentive, `resume` given).
  public func suspend(resume: (address: UInt64, argument: UInt64)?) { fatalError() }

  // MARK: running

  /// Runs guest code on the calling thread until a pause is requested or `limit` more instructions have retired. A
  /// hart that is stopped or waits for an interrupt sleeps in here.
  public func run(limit: UInt64? = nil) -> Exit { fatalError() }

  /// Makes `run` return `.paused` soon; a later `run` returns at once until `clearPause`. Any thread.
  public func requestPause() { fatalError() }
  public func clearPause() { fatalError() }
}

/// What the hart implements and which of it is switched on; see `RISCV` for names.
public struct HartConfiguration: Codable, Hashable, Sendable {
  /// The highest translation mode: 39, 48 or 57.
  public var virtualAddressBits: Int

  public init(virtualAddressBits: Int = 57) { self.virtualAddressBits = virtualAddressBits }
}

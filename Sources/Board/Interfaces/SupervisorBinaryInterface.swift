import Bus
import Hart

/// The SBI built into the monitor (RISC-V Supervisor Binary Interface Specification 2.0): what firmware would do in
/// M-mode, done here. Extensions BASE, TIME, IPI, RFENCE, HSM, SRST and DBCN, and the legacy calls.
struct SupervisorBinaryInterface {
  /// Extension identifiers. The rest of SBI 2.0 (PMU, SUSP, CPPC, NACL, STA) isn't offered.
  enum Extension {
    static let legacy: ClosedRange<UInt64> = 0x00...0x08
    static let base: UInt64 = 0x10
    static let time: UInt64 = 0x5449_4D45
    static let interProcessorInterrupt: UInt64 = 0x0073_5049
    static let remoteFence: UInt64 = 0x5246_4E43
    static let hartState: UInt64 = 0x0048_534D
    static let systemReset: UInt64 = 0x5352_5354
    static let debugConsole: UInt64 = 0x4442_434E
    static let all: Set<UInt64> = [
      base, time, interProcessorInterrupt, remoteFence, hartState, systemReset, debugConsole,
    ]
  }

  /// Standard errors (SBI 2.0, table 1).
  enum Failure: Int64, Error {
    case failed = -1
    case notSupported = -2
    case invalidParameter = -3
    case denied = -4
    case invalidAddress = -5
    case alreadyAvailable = -6
  }

  /// SBI 2.0.
  static let specificationVersion: UInt64 = 2 << 24
  /// "YDR" in ASCII; not among the registered implementations.
  static let implementationIdentifier: UInt64 = 0x0059_4452
  static let implementationVersion: UInt64 = 1

  let harts: [Hart]
  let memory: GuestMemory
  let console: UART16550
  let power: (PowerEvent) -> Void
  /// Everything but a shutdown or reboot is left to the guest's own M-mode code.
  var servesResetOnly = false

  /// Serves the call that stands in the hart's registers. False: it is for somebody else.
  func call(_ hart: Hart) -> Bool {
    let identifier = hart[x: 17]
    if servesResetOnly, identifier != Extension.systemReset || hart[x: 16] != 0 { return false }
    serve(hart, identifier)
    return true
  }

  private func serve(_ hart: Hart, _ identifier: UInt64) {
    if Extension.legacy.contains(identifier) {
      hart[x: 10] = legacy(hart, identifier)
      return
    }
    do {
      // A hart that begins anew has its registers already.
      guard let value = try dispatch(hart, identifier, function: hart[x: 16]) else { return }
      hart[x: 10] = 0
      hart[x: 11] = value
    } catch {
      hart[x: 10] = UInt64(bitPattern: error.rawValue)
      hart[x: 11] = 0
    }
  }

  /// The call's value; nil when the hart doesn't return from the call.
  private func dispatch(_ hart: Hart, _ identifier: UInt64, function: UInt64) throws(Failure) -> UInt64? {
    switch identifier {
    case Extension.base: return try base(hart, function)
    case Extension.time:
      guard function == 0 else { throw .notSupported }
      hart.supervisorTimeCompare = hart[x: 10]
      return 0
    case Extension.interProcessorInterrupt:
      guard function == 0 else { throw .notSupported }
      sendInterrupt(to: try targets(mask: hart[x: 10], base: hart[x: 11]))
      return 0
    case Extension.remoteFence: return try remoteFence(hart, function)
    case Extension.hartState: return try hartState(hart, function)
    case Extension.systemReset: return try systemReset(hart, function)
    case Extension.debugConsole: return try debugConsole(hart, function)
    default: throw .notSupported
    }
  }

  // MARK: BASE (chapter 4)

  private func base(_ hart: Hart, _ function: UInt64) throws(Failure) -> UInt64 {
    switch function {
    case 0: return SupervisorBinaryInterface.specificationVersion
    case 1: return SupervisorBinaryInterface.implementationIdentifier
    case 2: return SupervisorBinaryInterface.implementationVersion
    case 3:
      let probed = hart[x: 10]
      return Extension.all.contains(probed) || Extension.legacy.contains(probed) ? 1 : 0
    case 4: return hart.readCSR(0xF11) ?? 0
    case 5: return hart.readCSR(0xF12) ?? 0
    case 6: return hart.readCSR(0xF13) ?? 0
    default: throw .notSupported
    }
  }

  // MARK: harts

  /// The harts that a mask means; base -1 means all (chapter 3).
  private func targets(mask: UInt64, base: UInt64) throws(Failure) -> [Hart] {
    if base == .max { return harts }
    guard base < UInt64(harts.count) else { throw .invalidParameter }
    var targets: [Hart] = []
    var rest = mask
    while rest != 0 {
      let index = base + UInt64(rest.trailingZeroBitCount)
      guard index < UInt64(harts.count) else { throw .invalidParameter }
      targets.append(harts[Int(index)])
      rest &= rest - 1
    }
    return targets
  }

  private func sendInterrupt(to targets: [Hart]) {
    for target in targets { target.setInterrupt(.supervisorSoftware, true) }
  }

  /// RFENCE (chapter 8). Fences of a hypervisor's guests aren't there, nor is the hypervisor extension.
  private func remoteFence(_ hart: Hart, _ function: UInt64) throws(Failure) -> UInt64 {
    guard function <= 2 else { throw .notSupported }
    let targets = try targets(mask: hart[x: 10], base: hart[x: 11])
    let (start, size) = (hart[x: 12], hart[x: 13])
    switch function {
    case 0: hart.fence(.instruction, on: targets)
    case 1: hart.fence(.addresses(start: start, size: size, asid: nil), on: targets)
    default: hart.fence(.addresses(start: start, size: size, asid: hart[x: 14]), on: targets)
    }
    return 0
  }

  /// HSM (chapter 9).
  private func hartState(_ hart: Hart, _ function: UInt64) throws(Failure) -> UInt64? {
    switch function {
    case 0:
      let target = try self.hart(numbered: hart[x: 10])
      let address = hart[x: 11]
      guard memory.bytes(at: PhysicalAddress(address), count: 4) != nil else { throw .invalidAddress }
      guard target.start(at: address, privilege: .supervisor, argument: hart[x: 12]) else { throw .alreadyAvailable }
      return 0
    case 1:
      hart.stop()
      return nil
    case 2: return UInt64(try self.hart(numbered: hart[x: 10]).lifecycle.rawValue)
    case 3: return try suspend(hart)
    default: throw .notSupported
    }
  }

  private func hart(numbered number: UInt64) throws(Failure) -> Hart {
    guard number < UInt64(harts.count) else { throw .invalidParameter }
    return harts[Int(number)]
  }

  /// The default suspend types only: 0 retentive, 0x80000000 not (table 7).
  private func suspend(_ hart: Hart) throws(Failure) -> UInt64? {
    switch hart[x: 10] & 0xFFFF_FFFF {
    case 0:
      hart.suspend(resume: nil)
      return 0
    case 0x8000_0000:
      let address = hart[x: 11]
      guard memory.bytes(at: PhysicalAddress(address), count: 4) != nil else { throw .invalidAddress }
      hart.suspend(resume: (address, hart[x: 12]))
      return nil
    case 0x1000_0000...0x7FFF_FFFF, 0x9000_0000...0xFFFF_FFFF: throw .notSupported
    default: throw .invalidParameter
    }
  }

  // MARK: SRST (chapter 10)

  private func systemReset(_ hart: Hart, _ function: UInt64) throws(Failure) -> UInt64 {
    guard function == 0 else { throw .notSupported }
    let (kind, reason) = (hart[x: 10] & 0xFFFF_FFFF, hart[x: 11] & 0xFFFF_FFFF)
    // Reasons above 1 are left to implementations and platforms, and there is no meaning for them here.
    guard reason <= 1 || reason >= 0xE000_0000 else { throw .invalidParameter }
    switch kind {
    case 0: power(.shutdown(code: reason == 0 ? 0 : 1))
    case 1, 2: power(.reboot)
    case 0xF000_0000...: throw .notSupported
    default: throw .invalidParameter
    }
    return 0
  }

  // MARK: DBCN (chapter 12)

  private func debugConsole(_ hart: Hart, _ function: UInt64) throws(Failure) -> UInt64 {
    switch function {
    case 0:
      let bytes = try consoleBuffer(hart)
      console.transmit(UnsafeRawBufferPointer(bytes))
      return UInt64(bytes.count)
    case 1:
      let buffer = try consoleBuffer(hart)
      let received = console.takeReceived(buffer.count)
      let filled = UnsafeMutableRawBufferPointer(rebasing: buffer[..<received.count])
      filled.copyBytes(from: received)
      memory.noteWrite(of: filled)
      return UInt64(received.count)
    case 2:
      withUnsafeBytes(of: UInt8(truncatingIfNeeded: hart[x: 10])) { console.transmit($0) }
      return 0
    default: throw .notSupported
    }
  }

  /// The guest's buffer: length, and physical address in two halves.
  private func consoleBuffer(_ hart: Hart) throws(Failure) -> UnsafeMutableRawBufferPointer {
    // Longer writes are done in part, as the call allows.
    let count = min(hart[x: 10], 1 << 20)
    guard hart[x: 12] == 0, memory.bytes(at: PhysicalAddress(hart[x: 11]), count: hart[x: 10]) != nil,
      let bytes = memory.bytes(at: PhysicalAddress(hart[x: 11]), count: count)
    else { throw .invalidParameter }
    return bytes
  }

  // MARK: legacy (chapter 5)

  /// Returns a0.
  private func legacy(_ hart: Hart, _ identifier: UInt64) -> UInt64 {
    switch identifier {
    case 0x00: hart.supervisorTimeCompare = hart[x: 10]
    case 0x01: withUnsafeBytes(of: UInt8(truncatingIfNeeded: hart[x: 10])) { console.transmit($0) }
    case 0x02: return console.takeReceived(1).first.map(UInt64.init) ?? .max
    case 0x03:
      hart.setInterrupt(.supervisorSoftware, false)
    case 0x04:
      guard let targets = legacyTargets(hart) else { return failure(.invalidAddress) }
      sendInterrupt(to: targets)
    case 0x05...0x07:
      guard let targets = legacyTargets(hart) else { return failure(.invalidAddress) }
      let (start, size) = (hart[x: 11], hart[x: 12])
      switch identifier {
      case 0x05: hart.fence(.instruction, on: targets)
      case 0x06: hart.fence(.addresses(start: start, size: size, asid: nil), on: targets)
      default: hart.fence(.addresses(start: start, size: size, asid: hart[x: 13]), on: targets)
      }
    default: power(.shutdown(code: 0))
    }
    return 0
  }

  private func failure(_ failure: Failure) -> UInt64 { UInt64(bitPattern: failure.rawValue) }

  /// The mask lies at a virtual address, 64 harts a word; address 0 means all. Nil: the address faults.
  private func legacyTargets(_ hart: Hart) -> [Hart]? {
    guard hart[x: 10] != 0 else { return harts }
    var targets: [Hart] = []
    for word in 0..<(harts.count + 63) / 64 {
      guard let address = hart.physicalAddress(ofVirtual: hart[x: 10] &+ UInt64(word * 8)),
        let mask = memory.load(address, as: UInt64.self)
      else { return nil }
      targets += harts[(word * 64)...].prefix(64).enumerated().filter { mask >> UInt64($0.offset) & 1 != 0 }
        .map(\.element)
    }
    return targets
  }
}

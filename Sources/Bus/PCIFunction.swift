/// A base address register that a PCI function asks for (PCI 3.0, 6.2.5).
public struct PCIBaseAddressRegister: Sendable {
  /// Register number, 0 to 5. A 64-bit register takes the next number too.
  public let index: Int
  /// Bytes, a power of two, at least 16.
  public let size: UInt64
  public let is64Bit: Bool
  public let isPrefetchable: Bool

  public init(index: Int, size: UInt64, is64Bit: Bool = true, isPrefetchable: Bool = false) {
    self.index = index
    self.size = size
    self.is64Bit = is64Bit
    self.isPrefetchable = isPrefetchable
  }
}

/// One PCI function: the device's side. The host bridge (in Board) owns the standard header (command, status, base
/// address registers, interrupt line) and routes accesses; the function owns its capabilities and register windows.
/// Called on hart threads, several at once.
public protocol PCIFunction: AnyObject {
  var vendorIdentifier: UInt16 { get }
  var deviceIdentifier: UInt16 { get }
  var revision: UInt8 { get }
  /// Class, subclass and programming interface, as 0xCCSSPP.
  var classCode: UInt32 { get }
  var subsystemVendorIdentifier: UInt16 { get }
  var subsystemIdentifier: UInt16 { get }
  var baseAddressRegisters: [PCIBaseAddressRegister] { get }
  /// Offset of the first capability in configuration space (0x40 or above), 0 without any.
  var capabilityPointer: UInt8 { get }

  /// Configuration space from 0x40 on (capabilities). `width` is 1, 2 or 4.
  func readConfiguration(offset: UInt64, width: Int) -> UInt32
  func writeConfiguration(offset: UInt64, width: Int, value: UInt32)

  /// A register window; `offset` is relative to the base address register `bar`.
  func read(bar: Int, offset: UInt64, width: Int) -> UInt64
  func write(bar: Int, offset: UInt64, width: Int, value: UInt64)

  /// Command register bit 2: whether the function may read and write RAM and send messages.
  func setBusMaster(_ enabled: Bool)
}

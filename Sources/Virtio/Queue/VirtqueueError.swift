import Bus

/// What a driver did with a queue that the specification forbids. The device that finds it stops and asks for a reset
/// (virtio 1.2, 2.1.2).
public enum VirtqueueError: Error, Equatable, Sendable, CustomStringConvertible {
  case sizeInvalid(UInt16)
  case ringMisaligned(PhysicalAddress)
  case ringOutsideMemory(PhysicalAddress)
  case availableIndexJumped(from: UInt16, to: UInt16)
  case descriptorOutOfRange(UInt16)
  case chainTooLong
  case chainTooLarge
  case bufferOutsideMemory(PhysicalAddress, count: UInt32)
  case indirectNotNegotiated
  case nestedIndirect
  case indirectWithNext
  case indirectTableInvalid(PhysicalAddress, count: UInt32)
  case readableAfterWritable
  case requestMalformed(String)

  public var description: String {
    switch self {
    case .sizeInvalid(let size): "queue size \(size) isn't a power of two within the maximum"
    case .ringMisaligned(let address): "the ring at \(address) is misaligned"
    case .ringOutsideMemory(let address): "the ring at \(address) lies outside RAM"
    case .availableIndexJumped(let from, let to): "the available index jumped from \(from) to \(to)"
    case .descriptorOutOfRange(let index): "descriptor \(index) is beyond the table"
    case .chainTooLong: "a descriptor chain is longer than the queue, or a loop"
    case .chainTooLarge: "a descriptor chain has more than 4 GiB"
    case .bufferOutsideMemory(let address, let count): "the buffer of \(count) bytes at \(address) lies outside RAM"
    case .indirectNotNegotiated: "an indirect descriptor without VIRTIO_F_INDIRECT_DESC"
    case .nestedIndirect: "an indirect descriptor within an indirect table"
    case .indirectWithNext: "an indirect descriptor with a next one"
    case .indirectTableInvalid(let address, let count): "the indirect table of \(count) bytes at \(address) is invalid"
    case .readableAfterWritable: "a device-readable descriptor after a device-writable one"
    case .requestMalformed(let what): what
    }
  }
}

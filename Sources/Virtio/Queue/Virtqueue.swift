import Bus
import Synchronization

/// The device's side of one split virtqueue (virtio 1.2, 2.7). Used on the I/O thread only, while the guest's harts
/// change the ring on theirs.
///
/// Nothing that lies in guest memory is trusted: each value is read once and checked before it is used. What the
/// specification forbids is thrown as `VirtqueueError`; the queue isn't usable afterwards.
public final class Virtqueue {
  /// Where the driver put the three parts, and how large they are (2.7.1).
  public struct Layout: Equatable, Codable, Sendable {
    public var size: UInt16
    public var descriptors: PhysicalAddress
    public var available: PhysicalAddress
    public var used: PhysicalAddress

    public init(size: UInt16, descriptors: PhysicalAddress, available: PhysicalAddress, used: PhysicalAddress) {
      self.size = size
      self.descriptors = descriptors
      self.available = available
      self.used = used
    }
  }

  /// Where the device stands in the rings; the rest of a queue's state lies in guest memory.
  public struct Position: Equatable, Codable, Sendable {
    /// The available index up to which chains were taken.
    public var nextAvailable: UInt16 = 0
    /// The used index.
    public var nextUsed: UInt16 = 0
    /// The used index at the last decision about an interrupt.
    public var signalled: UInt16 = 0
    public init() {}
  }

  public let index: Int
  public let layout: Layout
  public private(set) var position: Position

  private let memory: GuestMemory
  private let allowsIndirect: Bool
  private let usesEventIndex: Bool
  private let longestChain: Int
  private let mask: UInt16
  // The rings are checked once, here; RAM stays where it is as long as the machine lives.
  private let descriptors: UnsafeRawBufferPointer
  private let available: UnsafeMutableRawPointer
  private let used: UnsafeMutableRawPointer

  /// Throws when the size isn't a power of two up to `maximumSize`, or a part is misaligned or outside RAM.
  public init(
    index: Int, layout: Layout, maximumSize: UInt16, features: UInt64, memory: GuestMemory,
    position: Position = Position()
  ) throws(VirtqueueError) {
    let size = layout.size
    guard size > 0, size & (size - 1) == 0, size <= maximumSize else { throw .sizeInvalid(size) }
    func part(_ address: PhysicalAddress, _ count: Int, alignment: UInt64) throws(VirtqueueError)
      -> UnsafeMutableRawBufferPointer
    {
      guard address.rawValue % alignment == 0 else { throw .ringMisaligned(address) }
      guard let bytes = memory.bytes(at: address, count: UInt64(count)) else { throw .ringOutsideMemory(address) }
      return bytes
    }
    descriptors = UnsafeRawBufferPointer(try part(layout.descriptors, 16 * Int(size), alignment: 16))
    available = try part(layout.available, 6 + 2 * Int(size), alignment: 2).baseAddress!
    used = try part(layout.used, 6 + 8 * Int(size), alignment: 4).baseAddress!
    self.index = index
    self.layout = layout
    self.position = position
    self.memory = memory
    mask = size - 1
    allowsIndirect = features & VirtioFeature.ringIndirectDescriptors != 0
    usesEventIndex = features & VirtioFeature.ringEventIndex != 0
    // Linux bounds chains in indirect tables by the device's limits, not by the size it chose for the queue.
    longestChain = Int(maximumSize)
  }

  // MARK: Fields of the rings. Atomic, since the guest's harts use them at the same time.

  private func field(_ base: UnsafeMutableRawPointer, _ offset: Int) -> UnsafeMutablePointer<Atomic<UInt16>> {
    (base + offset).assumingMemoryBound(to: Atomic<UInt16>.self)
  }
  private var availableFlags: UInt16 { UInt16(littleEndian: field(available, 0).pointee.load(ordering: .relaxed)) }
  private var availableIndex: UInt16 { UInt16(littleEndian: field(available, 2).pointee.load(ordering: .acquiring)) }
  private var usedEvent: UInt16 {
    UInt16(littleEndian: field(available, 4 + 2 * Int(layout.size)).pointee.load(ordering: .relaxed))
  }
  private func setUsedFlags(_ value: UInt16) { field(used, 0).pointee.store(value.littleEndian, ordering: .relaxed) }
  private func setAvailableEvent(_ value: UInt16) {
    field(used, 4 + 8 * Int(layout.size)).pointee.store(value.littleEndian, ordering: .relaxed)
  }

  // MARK: Taking chains

  /// Whether a chain waits to be taken.
  public var hasAvailable: Bool { availableIndex != position.nextAvailable }

  /// Takes the next chain. False: none waits.
  public func pop(into chain: inout DescriptorChain) throws(VirtqueueError) -> Bool {
    let next = position.nextAvailable
    let newest = availableIndex
    let waiting = newest &- next
    guard waiting != 0 else { return false }
    guard waiting <= layout.size else { throw .availableIndexJumped(from: next, to: newest) }
    let head = UInt16(littleEndian: field(available, 4 + 2 * Int(next & mask)).pointee.load(ordering: .relaxed))
    try walk(from: head, into: &chain)
    position.nextAvailable = next &+ 1
    return true
  }

  /// Undoes the last `count` calls of `pop`: these chains will be taken again.
  public func putBack(_ count: Int) { position.nextAvailable &-= UInt16(truncatingIfNeeded: count) }

  /// A chain that was taken and hasn't been given back, once more.
  public func take(_ head: UInt16, into chain: inout DescriptorChain) throws(VirtqueueError) {
    try walk(from: head, into: &chain)
  }

  private struct Descriptor {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
    let address: PhysicalAddress
    let count: UInt32
    let flags: UInt16
    let next: UInt16
  }

  /// Not inlined: each field is read exactly once, so that what was checked is what is used.
  @inline(never)
  private func descriptor(_ number: UInt16, of table: UnsafeRawBufferPointer) -> Descriptor? {
    let offset = 16 * Int(number)
    guard offset + 16 <= table.count else { return nil }
    return Descriptor(
      address: PhysicalAddress(UInt64(littleEndian: table.loadUnaligned(fromByteOffset: offset, as: UInt64.self))),
      count: UInt32(littleEndian: table.loadUnaligned(fromByteOffset: offset + 8, as: UInt32.self)),
      flags: UInt16(littleEndian: table.loadUnaligned(fromByteOffset: offset + 12, as: UInt16.self)),
      next: UInt16(littleEndian: table.loadUnaligned(fromByteOffset: offset + 14, as: UInt16.self)))
  }

  private func walk(from head: UInt16, into chain: inout DescriptorChain) throws(VirtqueueError) {
    chain.removeAll()
    chain.head = head
    var table = descriptors
    var number = head
    var isIndirect = false
    // A loop is a chain that doesn't end within the longest one allowed.
    var stepsLeft = Int(layout.size)
    while true {
      guard let descriptor = descriptor(number, of: table) else { throw .descriptorOutOfRange(number) }
      guard stepsLeft > 0 else { throw .chainTooLong }
      stepsLeft -= 1
      if descriptor.flags & Descriptor.indirect != 0 {
        guard allowsIndirect else { throw .indirectNotNegotiated }
        guard !isIndirect else { throw .nestedIndirect }
        guard descriptor.flags & Descriptor.next == 0 else { throw .indirectWithNext }
        guard descriptor.count > 0, descriptor.count % 16 == 0,
          let bytes = memory.bytes(at: descriptor.address, count: UInt64(descriptor.count))
        else { throw .indirectTableInvalid(descriptor.address, count: descriptor.count) }
        table = UnsafeRawBufferPointer(bytes)
        number = 0
        isIndirect = true
        stepsLeft = longestChain - (Int(layout.size) - stepsLeft - 1)
        continue
      }
      try append(descriptor, to: &chain)
      guard descriptor.flags & Descriptor.next != 0 else { break }
      number = descriptor.next
    }
    guard chain.readableCount + chain.writableCount <= Int(UInt32.max) else { throw .chainTooLarge }
  }

  private func append(_ descriptor: Descriptor, to chain: inout DescriptorChain) throws(VirtqueueError) {
    guard let bytes = memory.bytes(at: descriptor.address, count: UInt64(descriptor.count)) else {
      throw .bufferOutsideMemory(descriptor.address, count: descriptor.count)
    }
    if descriptor.flags & Descriptor.write != 0 {
      if !bytes.isEmpty { chain.writable.append(bytes) }
      chain.writableCount += bytes.count
    } else {
      guard chain.writable.isEmpty else { throw .readableAfterWritable }
      if !bytes.isEmpty { chain.readable.append(UnsafeRawBufferPointer(bytes)) }
      chain.readableCount += bytes.count
    }
  }

  // MARK: Giving chains back

  /// Gives a chain back, of which the first `written` writable bytes were written. With `publish` false the driver
  /// doesn't see it before the next one that is published.
  public func push(head: UInt16, written: UInt32, publish: Bool = true, notesWrites: Bool = true) {
    // Whatever `written` says: a request that failed may have been carried out in part.
    if notesWrites { noteWritten(head) }
    let element = used + 4 + 8 * Int(position.nextUsed & mask)
    element.storeBytes(of: UInt32(head).littleEndian, as: UInt32.self)
    element.storeBytes(of: written.littleEndian, toByteOffset: 4, as: UInt32.self)
    position.nextUsed &+= 1
    if publish { field(used, 2).pointee.store(position.nextUsed.littleEndian, ordering: .releasing) }
  }

  /// Tells the memory that the writable parts of a chain may have been written.
  private func noteWritten(_ head: UInt16) {
    var table = descriptors
    var number = head
    // The driver may have changed it meanwhile; then it is the only one to suffer.
    for _ in 0...longestChain {
      guard let descriptor = descriptor(number, of: table),
        let bytes = memory.bytes(at: descriptor.address, count: UInt64(descriptor.count))
      else { return }
      if descriptor.flags & Descriptor.indirect != 0 {
        table = UnsafeRawBufferPointer(bytes)
        number = 0
        continue
      }
      if descriptor.flags & Descriptor.write != 0 { memory.noteWrite(of: bytes) }
      guard descriptor.flags & Descriptor.next != 0 else { return }
      number = descriptor.next
    }
  }

  /// Whether the driver wants an interrupt for what was published since this was asked last (2.7.7).
  public func takeInterruptRequest() -> Bool {
    let before = position.signalled
    let now = position.nextUsed
    guard now != before else { return false }
    position.signalled = now
    // The driver writes used_event, then looks at the used index once more; without a full fence between our write of
    // the one and our read of the other, both sides could miss each other.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if usesEventIndex { return (now &- usedEvent &- 1) < (now &- before) }
    return availableFlags & 1 == 0
  }

  // MARK: Notifications from the driver

  /// Tells the driver that it needn't notify. A hint: notifications may come all the same.
  public func suppressNotifications() {
    // With the event index, leaving the event where it is does the same.
    if !usesEventIndex { setUsedFlags(1) }
  }

  /// Asks the driver to notify when it adds chains. Returns how many wait already, for which no notification comes.
  public func resumeNotifications() -> UInt16 {
    // The event is the newest index, not the next one to take: chains that are too few for the device's purpose may
    // wait, and the driver notifies only when it passes the event.
    if usesEventIndex { setAvailableEvent(availableIndex) } else { setUsedFlags(0) }
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    return availableIndex &- position.nextAvailable
  }
}

import Bus
import Glibc
import HostSystem
import Virtio

/// What a driver sees of a transport.
protocol DriverTransport: AnyObject {
  var status: UInt8 { get set }
  var deviceType: UInt32 { get }
  func deviceFeatures() -> UInt64
  func setDriverFeatures(_ features: UInt64)
  func maximumSize(queue: Int) -> Int
  func enable(queue: Int, _ layout: Virtqueue.Layout)
  func isEnabled(queue: Int) -> Bool
  func reset(queue: Int)
  func notify(queue: Int)
  func readConfiguration(_ offset: UInt64, width: Int) -> UInt64
  func writeConfiguration(_ offset: UInt64, width: Int, _ value: UInt64)
  func configurationGeneration() -> UInt64
  /// Interrupt causes since the last call: 1 used buffers, 2 configuration.
  func takeInterrupts() -> UInt32
}

/// A level wire as an interrupt controller sees it.
final class Wire: @unchecked Sendable {
  private(set) var level = false
  private(set) var rises = 0
  var line: InterruptLine {
    InterruptLine { [self] level in
      if level, !self.level { rises += 1 }
      self.level = level
    }
  }
}

enum TransportKind: CaseIterable { case mmio, pci }

/// Little-endian bytes.
func bytes<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
  withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// The guest's memory and what of it the driver uses.
final class DriverMemory {
  let memory: GuestMemory
  private var nextFree: UInt64

  init(_ memory: GuestMemory) {
    self.memory = memory
    nextFree = memory.base.rawValue
  }

  /// Guest memory that nothing else uses.
  func allocate(_ count: Int, alignment: UInt64 = 16) -> PhysicalAddress {
    nextFree = (nextFree + alignment - 1) / alignment * alignment
    defer { nextFree += UInt64(count) }
    precondition(nextFree + UInt64(count) <= memory.base.rawValue + memory.size, "the test's guest memory is full")
    return PhysicalAddress(nextFree)
  }

  func put(_ bytes: [UInt8]) -> PhysicalAddress {
    let address = allocate(bytes.count)
    _ = bytes.withUnsafeBytes { memory.copy($0, to: address) }
    return address
  }
}

/// What guest memory held, to show that a device wrote nowhere else.
struct MemoryWatch {
  private let memory: GuestMemory
  private let before: [UInt8]

  init(_ memory: GuestMemory) {
    self.memory = memory
    before = Array(memory.bytes(at: memory.base, count: memory.size)!)
  }

  /// The addresses outside `allowed` whose bytes have changed since.
  func changes(outside allowed: [Range<UInt64>] = []) -> [String] {
    let now = memory.bytes(at: memory.base, count: memory.size)!
    var found: [String] = []
    before.withUnsafeBytes { before in
      for page in stride(from: 0, to: before.count, by: 4096)
      where memcmp(before.baseAddress! + page, now.baseAddress! + page, 4096) != 0 {
        for offset in page..<page + 4096 where before[offset] != now[offset] {
          let address = memory.base.rawValue + UInt64(offset)
          if !allowed.contains(where: { $0.contains(address) }) { found.append(String(address, radix: 16)) }
        }
      }
    }
    return found
  }
}

/// A virtio driver with its rings and buffers in guest memory, as a guest would have them.
final class TestDriver {
  static let base: UInt64 = 0x8000_0000

  let arena: DriverMemory
  let loop: EventLoop
  let transport: any DriverTransport
  private(set) var features: UInt64 = 0
  private(set) var queues: [Int: DriverQueue] = [:]

  init(arena: DriverMemory, loop: EventLoop, transport: any DriverTransport) {
    self.arena = arena
    self.loop = loop
    self.transport = transport
  }

  /// The driver of an earlier machine, which goes on with another device behind `transport`.
  init(continuing earlier: TestDriver, loop: EventLoop, transport: any DriverTransport) {
    arena = earlier.arena
    self.loop = loop
    self.transport = transport
    features = earlier.features
    queues = earlier.queues.mapValues { DriverQueue(continuing: $0, loop: loop, transport: transport) }
  }

  var memory: GuestMemory { arena.memory }

  static func memory(size: UInt64 = 4 << 20) throws -> GuestMemory {
    try GuestMemory(base: PhysicalAddress(base), size: size)
  }

  func allocate(_ count: Int, alignment: UInt64 = 16) -> PhysicalAddress {
    arena.allocate(count, alignment: alignment)
  }

  func put(_ bytes: [UInt8]) -> PhysicalAddress { arena.put(bytes) }

  func get(_ address: PhysicalAddress, _ count: Int) -> [UInt8] {
    Array(memory.bytes(at: address, count: UInt64(count))!)
  }

  /// Lets the I/O thread's work happen: on this thread, or on its own where it runs.
  func run() { loop.settle() }

  /// Resets and negotiates: all that the device offers, but for `refusing`. False: the device didn't accept.
  @discardableResult
  func negotiate(refusing: UInt64 = 0, adding: UInt64 = 0) -> Bool {
    transport.status = 0
    transport.status = 1
    transport.status = 3
    features = transport.deviceFeatures() & ~refusing | adding
    transport.setDriverFeatures(features)
    transport.status = 11
    return transport.status & 8 != 0
  }

  /// A queue in guest memory that the device isn't told of yet.
  func prepareQueue(_ index: Int, size: Int? = nil) -> DriverQueue {
    DriverQueue(self, index: index, size: size ?? min(64, transport.maximumSize(queue: index)))
  }

  @discardableResult
  func makeQueue(_ index: Int, size: Int? = nil) -> DriverQueue {
    let queue = prepareQueue(index, size: size)
    queues[index] = queue
    transport.enable(queue: index, queue.layout)
    return queue
  }

  func setDriverOK() {
    transport.status = 15
    run()
  }

  /// Negotiates and sets up the given queues.
  func start(queues: [Int], refusing: UInt64 = 0) {
    negotiate(refusing: refusing)
    for index in queues { makeQueue(index) }
    setDriverOK()
  }

  subscript(_ index: Int) -> DriverQueue { queues[index]! }

  var needsReset: Bool { transport.status & 64 != 0 }
}

/// The driver's side of a split ring.
final class DriverQueue {
  struct Used: Equatable {
    var head: UInt16
    var written: UInt32
  }

  let arena: DriverMemory
  let loop: EventLoop
  /// Holds the device too: a test may use a queue after its last use of the driver.
  let transport: any DriverTransport
  let index: Int
  let size: Int
  let layout: Virtqueue.Layout
  private var free: [UInt16]
  private var chains: [UInt16: [UInt16]] = [:]
  private(set) var availableIndex: UInt16 = 0
  private var seenUsed: UInt16 = 0

  init(_ driver: TestDriver, index: Int, size: Int) {
    arena = driver.arena
    loop = driver.loop
    transport = driver.transport
    self.index = index
    self.size = size
    layout = Virtqueue.Layout(
      size: UInt16(size), descriptors: driver.allocate(16 * size, alignment: 16),
      available: driver.allocate(6 + 2 * size, alignment: 2), used: driver.allocate(6 + 8 * size, alignment: 4))
    free = (0..<UInt16(size)).reversed()
  }

  init(continuing earlier: DriverQueue, loop: EventLoop, transport: any DriverTransport) {
    arena = earlier.arena
    self.loop = loop
    self.transport = transport
    index = earlier.index
    size = earlier.size
    layout = earlier.layout
    free = earlier.free
    chains = earlier.chains
    availableIndex = earlier.availableIndex
    seenUsed = earlier.seenUsed
  }

  private var memory: GuestMemory { arena.memory }

  /// Descriptors that no chain uses.
  var freeCount: Int { free.count }

  /// Where the device may write without being given a buffer.
  var usedRing: Range<UInt64> {
    layout.used.rawValue..<layout.used.rawValue + UInt64(6 + 8 * size)
  }

  func setDescriptor(_ number: UInt16, address: PhysicalAddress, count: UInt32, flags: UInt16, next: UInt16 = 0) {
    setDescriptor(
      at: layout.descriptors + 16 * UInt64(number), address: address, count: count, flags: flags, next: next)
  }

  func setDescriptor(
    at place: PhysicalAddress, address: PhysicalAddress, count: UInt32, flags: UInt16, next: UInt16 = 0
  ) {
    _ = memory.store(address.rawValue, at: place)
    _ = memory.store(count, at: place + 8)
    _ = memory.store(flags, at: place + 12)
    _ = memory.store(next, at: place + 14)
  }

  struct Buffer {
    var address: PhysicalAddress
    var count: Int
    var isWritable: Bool

    var range: Range<UInt64> { address.rawValue..<address.rawValue + UInt64(count) }
  }

  func readable(_ bytes: [UInt8]) -> Buffer {
    Buffer(address: arena.put(bytes), count: bytes.count, isWritable: false)
  }

  func writable(_ count: Int) -> Buffer {
    Buffer(address: arena.allocate(count), count: count, isWritable: true)
  }

  /// Puts a chain into the ring without notifying.
  @discardableResult
  func add(_ buffers: [Buffer], indirect: Bool = false) -> UInt16 {
    var head: UInt16
    if indirect {
      let table = arena.allocate(16 * buffers.count)
      for (number, buffer) in buffers.enumerated() {
        let last = number == buffers.count - 1
        setDescriptor(
          at: table + 16 * UInt64(number), address: buffer.address, count: UInt32(buffer.count),
          flags: (buffer.isWritable ? 2 : 0) | (last ? 0 : 1), next: UInt16(last ? 0 : number + 1))
      }
      head = free.removeLast()
      chains[head] = [head]
      setDescriptor(head, address: table, count: UInt32(16 * buffers.count), flags: 4)
    } else {
      let numbers = buffers.map { _ in free.removeLast() }
      for (position, buffer) in buffers.enumerated() {
        let last = position == buffers.count - 1
        setDescriptor(
          numbers[position], address: buffer.address, count: UInt32(buffer.count),
          flags: (buffer.isWritable ? 2 : 0) | (last ? 0 : 1), next: last ? 0 : numbers[position + 1])
      }
      head = numbers[0]
      chains[head] = numbers
    }
    offer(head)
    return head
  }

  /// Makes the chain that starts at `head` available.
  func offer(_ head: UInt16) {
    _ = memory.store(head, at: layout.available + 4 + 2 * UInt64(availableIndex % UInt16(size)))
    setAvailableIndex(availableIndex &+ 1)
  }

  func setAvailableIndex(_ value: UInt16) {
    availableIndex = value
    _ = memory.store(value, at: layout.available + 2)
  }

  func setAvailableFlags(_ value: UInt16) { _ = memory.store(value, at: layout.available) }
  func setUsedEvent(_ value: UInt16) { _ = memory.store(value, at: layout.available + 4 + 2 * UInt64(size)) }
  var usedFlags: UInt16 { memory.load(layout.used, as: UInt16.self)! }
  var availableEvent: UInt16 { memory.load(layout.used + 4 + 8 * UInt64(size), as: UInt16.self)! }
  var usedIndex: UInt16 { memory.load(layout.used + 2, as: UInt16.self)! }

  func notify() {
    transport.notify(queue: index)
    loop.settle()
  }

  /// The chains that the device gave back since the last call.
  func takeUsed() -> [Used] {
    var result: [Used] = []
    while seenUsed != usedIndex {
      let element = layout.used + 4 + 8 * UInt64(seenUsed % UInt16(size))
      let head = UInt16(memory.load(element, as: UInt32.self)!)
      result.append(Used(head: head, written: memory.load(element + 4, as: UInt32.self)!))
      free += (chains.removeValue(forKey: head) ?? []).reversed()
      seenUsed &+= 1
    }
    return result
  }

  /// Sends one chain through the queue and returns how many bytes the device wrote; nil: it didn't give it back.
  func transact(_ buffers: [Buffer], indirect: Bool = false) -> UInt32? {
    add(buffers, indirect: indirect)
    notify()
    return takeUsed().first?.written
  }
}

extension EventLoop {
  /// Has done what was asked of the loop before, and what that asked for in turn, a few times over.
  func settle() {
    for _ in 0..<8 {
      if isCurrentOrIdle { turn(maximumWait: 0) } else { performAndWait {} }
    }
  }
}

/// Reproducible random numbers (SplitMix64), so that a failing run can be repeated from its seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }
}

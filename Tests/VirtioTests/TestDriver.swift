import Bus
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

/// A virtio driver with its rings and buffers in guest memory, as a guest would have them.
final class TestDriver {
  static let base: UInt64 = 0x8000_0000
  static let ringFeatures: UInt64 =
    VirtioFeature.version1 | VirtioFeature.ringIndirectDescriptors | VirtioFeature.ringEventIndex

  let memory: GuestMemory
  let loop: EventLoop
  let transport: any DriverTransport
  private(set) var features: UInt64 = 0
  private var nextFree: UInt64
  private(set) var queues: [Int: DriverQueue] = [:]

  init(memory: GuestMemory, loop: EventLoop, transport: any DriverTransport, firstFree: UInt64 = TestDriver.base) {
    self.memory = memory
    self.loop = loop
    self.transport = transport
    nextFree = firstFree
  }

  static func memory(size: UInt64 = 4 << 20) throws -> GuestMemory {
    try GuestMemory(base: PhysicalAddress(base), size: size)
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

  func get(_ address: PhysicalAddress, _ count: Int) -> [UInt8] {
    Array(memory.bytes(at: address, count: UInt64(count))!)
  }

  /// Lets the I/O thread's work happen, on this thread.
  func run() { for _ in 0..<8 { loop.turn(maximumWait: 0) } }

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

  @discardableResult
  func makeQueue(_ index: Int, size: Int? = nil) -> DriverQueue {
    let queue = DriverQueue(self, index: index, size: size ?? min(64, transport.maximumSize(queue: index)))
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

  unowned let driver: TestDriver
  let index: Int
  let size: Int
  let layout: Virtqueue.Layout
  private var free: [UInt16]
  private var chains: [UInt16: [UInt16]] = [:]
  private(set) var availableIndex: UInt16 = 0
  private var seenUsed: UInt16 = 0

  init(_ driver: TestDriver, index: Int, size: Int) {
    self.driver = driver
    self.index = index
    self.size = size
    layout = Virtqueue.Layout(
      size: UInt16(size), descriptors: driver.allocate(16 * size, alignment: 16),
      available: driver.allocate(6 + 2 * size, alignment: 2), used: driver.allocate(6 + 8 * size, alignment: 4))
    free = (0..<UInt16(size)).reversed()
  }

  private var memory: GuestMemory { driver.memory }

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
  }

  func readable(_ bytes: [UInt8]) -> Buffer {
    Buffer(address: driver.put(bytes), count: bytes.count, isWritable: false)
  }

  func writable(_ count: Int) -> Buffer {
    Buffer(address: driver.allocate(count), count: count, isWritable: true)
  }

  /// Puts a chain into the ring without notifying.
  @discardableResult
  func add(_ buffers: [Buffer], indirect: Bool = false) -> UInt16 {
    var head: UInt16
    if indirect {
      let table = driver.allocate(16 * buffers.count)
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
    driver.transport.notify(queue: index)
    driver.run()
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

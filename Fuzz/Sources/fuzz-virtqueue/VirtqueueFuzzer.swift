import Bus
import FuzzSupport
import Glibc
import HostSystem
import Virtio

// An input is a program for a driver, and the memory that it finds:
//   1 byte   device (2 bits), transport, whether the driver starts well
//   8 bytes  features that it refuses
//   1 byte   number of steps, then the steps (see `Machine.step`)
//   the rest lies at the start of RAM, where the queues are: queue N's descriptors at N * 1024, its available ring
//            512 bytes later, its used ring 256 bytes after that; buffers anywhere

@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutableRawPointer?, _ arguments: UnsafeMutableRawPointer?) -> Int32 {
  var seeds: [[UInt8]] = []
  for device: UInt8 in 0..<4 {
    for transport: UInt8 in 0..<2 {
      for isIndirect in [false, true] {
        let start = device | transport << 2 | 1 << 3
        let steps: [[UInt8]] = [[0, 0], [0, 1], [0, 2], [0, 3], [1], [2, 60], [1], [5, 1], [0, 1], [1]]
        seeds.append(
          [start] + little(UInt64(0)) + [UInt8(steps.count)] + steps.joined()
            + memory(of: device, isIndirect: isIndirect))
      }
    }
  }
  writeSeeds(seeds)
  return 0
}

/// A request that makes sense in each of the first queues.
private func memory(of device: UInt8, isIndirect: Bool) -> [UInt8] {
  var ram = [UInt8](repeating: 0, count: 8192)
  func put(_ bytes: [UInt8], at offset: Int) { ram.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
  func descriptor(_ address: Int, _ count: Int, _ flags: Int, _ next: Int) -> [UInt8] {
    little(Machine.base + UInt64(address)) + little(UInt32(count)) + little(UInt16(flags)) + little(UInt16(next))
  }
  for queue in 0..<4 {
    let request = 4096 + queue * 1024
    var chain = descriptor(request, 16, 1, 1) + descriptor(request + 64, 512, 3, 2)
    chain += descriptor(request + 600, 1, 2, 0)
    switch (device, queue) {
    case (1, 1), (2, 1), (2, 3): chain = descriptor(request, 72, 0, 0)
    case (1, 2): chain = descriptor(request, 3, 1, 1) + descriptor(request + 64, 1, 2, 0)
    case (1, _), (2, _), (3, _): chain = descriptor(request, 600, 2, 0)
    default: break
    }
    if isIndirect {
      put(chain, at: request + 700)
      put(descriptor(request + 700, chain.count, 4, 0), at: queue * 1024)
    } else {
      put(chain, at: queue * 1024)
    }
    put(little(UInt16(0)) + little(UInt16(1)), at: queue * 1024 + 512)
    if device == 2, queue == 3 { put(little(UInt32(0)) + little(UInt16(0)) + little(UInt16(1)), at: request) }
  }
  return ram
}

/// Whatever the driver does, the process stays up, and after a reset the device works.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer?, _ size: Int) -> Int32 {
  var input = Input(UnsafeRawBufferPointer(start: data, count: size))
  let choice = input.byte()
  let machine = Machine(device: choice & 3, isPCI: choice & 4 != 0)
  let refused = input.number(8)
  let steps = Int(input.byte())
  var program: [Machine.Step] = []
  for _ in 0..<steps { program.append(Machine.Step(&input)) }
  machine.fill(input.take(Int(machine.memory.size)))
  if choice & 8 != 0 { machine.start(refusing: refused) }
  for step in program { machine.run(step) }
  machine.turn()
  machine.expectWorks()
  return 0
}

/// One device, with RAM and a driver.
final class Machine {
  static let base: UInt64 = 0x8000_0000
  static let queueSize: UInt16 = 16

  let memory: GuestMemory
  private let loop: EventLoop
  private let device: any VirtioDevice
  private let keeper: any StateKeeper
  private let mmio: VirtioMMIO?
  private let pci: VirtioPCI?
  private let disk = MemoryDisk()
  private let network = MemoryNetwork()
  private let terminals = [MemoryTerminal(), MemoryTerminal()]

  init(device kind: UInt8, isPCI: Bool) {
    memory = try! GuestMemory(base: PhysicalAddress(Self.base), size: 64 << 10)
    loop = try! EventLoop()
    switch kind {
    case 0: device = VirtioBlock(storage: disk, queueCount: 2, queueSize: 32)
    case 1:
      device = VirtioNet(backend: network, mac: MACAddress("52:54:00:12:34:56")!, queuePairs: 1, queueSize: 32)
    case 2: device = VirtioConsole(ports: terminals.map { .init(backend: $0, name: "port") }, queueSize: 32)
    default: device = VirtioEntropy { $0.initializeMemory(as: UInt8.self, repeating: 0x5a) }
    }
    if isPCI {
      let function = VirtioPCI(
        device: device, memory: memory, loop: loop, interrupt: .unconnected, messages: { _, _ in }, identifier: "fuzz")
      function.setBusMaster(true)
      (pci, mmio, keeper) = (function, nil, function)
    } else {
      let window = VirtioMMIO(device: device, memory: memory, loop: loop, interrupt: .unconnected, identifier: "fuzz")
      (pci, mmio, keeper) = (nil, window, window)
    }
  }

  func fill(_ bytes: [UInt8]) { bytes.withUnsafeBytes { _ = memory.copy($0, to: memory.base) } }

  func turn() { for _ in 0..<4 { loop.turn(maximumWait: 0) } }

  // MARK: Registers

  private func readStatus() -> UInt8 {
    UInt8(truncatingIfNeeded: mmio?.read(offset: 0x70, width: 4) ?? pci!.read(bar: 0, offset: 0x14, width: 1))
  }

  private func writeStatus(_ value: UInt8) {
    mmio?.write(offset: 0x70, width: 4, value: UInt64(value))
    pci?.write(bar: 0, offset: 0x14, width: 1, value: UInt64(value))
  }

  private func notify(_ queue: Int) {
    mmio?.write(offset: 0x50, width: 4, value: UInt64(queue))
    pci?.write(bar: 0, offset: 0x3000 + 4 * UInt64(queue), width: 2, value: UInt64(queue))
  }

  /// Negotiates and enables every queue, as a good driver does.
  func start(refusing refused: UInt64 = 0) {
    writeStatus(0)
    writeStatus(3)
    for half: UInt64 in 0..<2 {
      if let mmio {
        mmio.write(offset: 0x14, width: 4, value: half)
        mmio.write(offset: 0x24, width: 4, value: half)
        let offered = mmio.read(offset: 0x10, width: 4)
        mmio.write(offset: 0x20, width: 4, value: offered & ~(refused >> (32 * half)))
      }
      if let pci {
        pci.write(bar: 0, offset: 0, width: 4, value: half)
        pci.write(bar: 0, offset: 8, width: 4, value: half)
        let offered = pci.read(bar: 0, offset: 4, width: 4)
        pci.write(bar: 0, offset: 12, width: 4, value: offered & ~(refused >> (32 * half)))
      }
    }
    writeStatus(11)
    for index in device.queueMaximumSizes.indices {
      let start = Self.base + UInt64(index) * 1024
      let parts = [start, start + 512, start + 768]
      if let mmio {
        mmio.write(offset: 0x30, width: 4, value: UInt64(index))
        mmio.write(offset: 0x38, width: 4, value: UInt64(Self.queueSize))
        for (number, part) in parts.enumerated() {
          mmio.write(offset: 0x80 + 16 * UInt64(number), width: 4, value: part)
          mmio.write(offset: 0x84 + 16 * UInt64(number), width: 4, value: 0)
        }
        mmio.write(offset: 0x44, width: 4, value: 1)
      }
      if let pci {
        pci.write(bar: 0, offset: 0x16, width: 2, value: UInt64(index))
        pci.write(bar: 0, offset: 0x18, width: 2, value: UInt64(Self.queueSize))
        for (number, part) in parts.enumerated() {
          pci.write(bar: 0, offset: 0x20 + 8 * UInt64(number), width: 8, value: part)
        }
        pci.write(bar: 0, offset: 0x1c, width: 2, value: 1)
      }
    }
    writeStatus(15)
    turn()
  }

  // MARK: Steps

  enum Step {
    case notify(Int)
    case turn
    case input(Int)
    case write(window: UInt8, offset: UInt16, width: Int, value: UInt64)
    case read(window: UInt8, offset: UInt16, width: Int)
    case store(offset: UInt16, value: UInt16)
    case restore
    case start

    init(_ input: inout Input) {
      func width() -> Int { 1 << Int(input.byte() & 3) }
      switch input.byte() % 8 {
      case 0: self = .notify(Int(input.byte() & 7))
      case 1: self = .turn
      case 2: self = .input(Int(input.byte()) * 16)
      case 3:
        let (window, offset, width) = (input.byte(), UInt16(input.number(2)), width())
        self = .write(window: window, offset: offset, width: width, value: input.number(width))
      case 4: self = .read(window: input.byte(), offset: UInt16(input.number(2)), width: width())
      case 5: self = .store(offset: UInt16(input.number(2)), value: UInt16(input.number(2)))
      case 6: self = .restore
      default: self = .start
      }
    }
  }

  func run(_ step: Step) {
    switch step {
    case .notify(let queue): notify(queue)
    case .turn: turn()
    case .input(let count):
      let bytes = [UInt8](repeating: 0xff, count: count)
      network.deliver(bytes)
      for terminal in terminals { terminal.type(bytes) }
    case .write(let window, let offset, let width, let value):
      let offset = UInt64(offset)
      mmio?.write(offset: min(offset % VirtioMMIO.windowSize, 0x200 - UInt64(width)), width: width, value: value)
      guard let pci else { return }
      switch window % 4 {
      case 0: pci.write(bar: 2, offset: offset % 0xff8, width: width, value: value)
      case 1:
        let (offset, width) = (0x40 + offset % 0xc0, min(width, 4))
        pci.writeConfiguration(offset: offset, width: width, value: UInt32(truncatingIfNeeded: value))
      case 2: pci.setBusMaster(value & 1 != 0)
      default: pci.write(bar: 0, offset: offset % 0x3ff8, width: width, value: value)
      }
    case .read(let window, let offset, let width):
      let offset = UInt64(offset)
      _ = mmio?.read(offset: min(offset % VirtioMMIO.windowSize, 0x200 - UInt64(width)), width: width)
      guard let pci else { return }
      switch window % 3 {
      case 0: _ = pci.read(bar: 2, offset: offset % 0xff8, width: width)
      case 1: _ = pci.readConfiguration(offset: 0x40 + offset % 0xc0, width: min(width, 4))
      default: _ = pci.read(bar: 0, offset: offset % 0x3ff8, width: width)
      }
    case .store(let offset, let value): _ = memory.store(value, at: memory.base + UInt64(offset))
    case .restore:
      // A state may be refused: the driver may have set up queues that the device hasn't looked at yet.
      guard let state = try? keeper.encodedState() else { fatalError("the state can't be saved") }
      do { try keeper.restoreEncodedState(state) } catch { precondition(error is StateError) }
    case .start: start()
    }
  }

  // MARK: Afterwards

  /// A good driver's first request is served.
  func expectWorks() {
    pci?.setBusMaster(true)
    writeStatus(0)
    precondition(readStatus() == 0)
    memset(memory.host, 0, Int(memory.size))
    let isTransmit = device.deviceType == VirtioDeviceType.net || device.deviceType == VirtioDeviceType.console
    let queue = isTransmit ? 1 : 0
    let (rings, request) = (queue * 1024, 32768)
    var chain: [(offset: Int, count: Int, flags: Int)] = [(request, 72, 0)]
    if device.deviceType == VirtioDeviceType.block { chain = [(request, 16, 0), (request + 64, 513, 2)] }
    if device.deviceType == VirtioDeviceType.entropy { chain = [(request, 8, 2)] }
    for (number, part) in chain.enumerated() {
      let isLast = number == chain.count - 1
      store(little(Self.base + UInt64(part.offset)) + little(UInt32(part.count)), at: rings + 16 * number)
      store(little(UInt16(part.flags | (isLast ? 0 : 1))) + little(UInt16(number + 1)), at: rings + 16 * number + 12)
    }
    store(little(UInt16(0)) + little(UInt16(1)), at: rings + 512)
    start()
    notify(queue)
    turn()
    precondition(readStatus() == 15)
    precondition(memory.load(memory.base + UInt64(rings + 768 + 2), as: UInt16.self) == 1)
    if device.deviceType == VirtioDeviceType.block {
      precondition(memory.host.load(fromByteOffset: request + 64 + 512, as: UInt8.self) == 0)
    }
  }

  private func store(_ bytes: [UInt8], at offset: Int) {
    bytes.withUnsafeBytes { _ = memory.copy($0, to: memory.base + UInt64(offset)) }
  }
}

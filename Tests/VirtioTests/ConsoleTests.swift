import Testing
import Virtio

@Suite struct ConsoleTests {
  @Test(arguments: TransportKind.allCases)
  func carriesBytesBothWays(kind: TransportKind) throws {
    let terminal = FakeConsole()
    let rig = try Rig(kind, VirtioConsole(backend: terminal))
    rig.driver.start(queues: [0, 1])
    let (input, output) = (rig.driver[0], rig.driver[1])
    #expect(rig.driver.features & 2 == 0)
    #expect(output.transact([output.readable(Array("hello, ".utf8)), output.readable(Array("world".utf8))]) == 0)
    #expect(terminal.takeOutput() == "hello, world")

    let buffer = input.writable(16)
    input.add([buffer])
    input.notify()
    terminal.type("ls\n")
    #expect(input.takeUsed().map(\.written) == [3])
    #expect(rig.driver.get(buffer.address, 3) == Array("ls\n".utf8))
    #expect(rig.driver.transport.takeInterrupts() == 1)
  }

  @Test func inputWaitsForRoom() throws {
    let terminal = FakeConsole()
    let device = VirtioConsole(backend: terminal)
    let rig = try Rig(.mmio, device)
    rig.driver.start(queues: [0, 1])
    terminal.type("early ")
    let input = rig.driver[0]
    #expect(terminal.waiting.count == 6)
    let buffers = [input.writable(4), input.writable(4)]
    input.add([buffers[0]])
    input.add([buffers[1]])
    input.notify()
    #expect(input.takeUsed().map(\.written) == [4, 2])
    #expect(terminal.waiting.isEmpty)
    #expect(buffers.flatMap { rig.driver.get($0.address, 4) }.prefix(6) == Array("early ".utf8)[...])
    terminal.type("more")
    #expect(terminal.waiting.count == 4)
    // Without anything waiting, a notification asks the backend for nothing.
    let offers = terminal.roomOffers
    input.add([input.writable(64)])
    input.notify()
    #expect(terminal.waiting.isEmpty && terminal.roomOffers == offers + 1)
    input.add([input.writable(64)])
    input.notify()
    #expect(terminal.roomOffers == offers + 1)
  }

  @Test func sizeIsInTheConfiguration() throws {
    let terminal = FakeConsole(size: (80, 25))
    let rig = try Rig(.mmio, VirtioConsole(backend: terminal))
    rig.driver.start(queues: [0, 1])
    let transport = rig.driver.transport
    #expect(transport.readConfiguration(0, width: 2) == 80 && transport.readConfiguration(2, width: 2) == 25)
    _ = transport.takeInterrupts()
    let generation = transport.configurationGeneration()
    terminal.resize?(132, 43)
    #expect(transport.readConfiguration(0, width: 4) == 132 | 43 << 16)
    #expect(transport.configurationGeneration() != generation)
    #expect(transport.takeInterrupts() == 2)
    terminal.resize?(132, 43)
    #expect(transport.takeInterrupts() == 0)
    terminal.resize?(-1, 1 << 40)
    #expect(transport.readConfiguration(0, width: 4) == 0xffff_0000)
  }

  @Test func emergencyWriteNeedsNoQueue() throws {
    let terminal = FakeConsole()
    let rig = try Rig(.mmio, VirtioConsole(backend: terminal))
    for character in "panic".utf8 { rig.driver.transport.writeConfiguration(8, width: 4, UInt64(character)) }
    #expect(terminal.takeOutput() == "panic")
  }

  /// A console with three ports and a driver for all of them.
  struct Multiport {
    let terminals = [FakeConsole(size: (80, 25)), FakeConsole(), FakeConsole(size: (100, 30))]
    let rig: Rig
    var driver: TestDriver { rig.driver }

    init() throws {
      rig = try Rig(
        .mmio,
        VirtioConsole(ports: [
          .init(backend: terminals[0]), .init(backend: terminals[1], name: "agent"),
          .init(backend: terminals[2], name: "second", isConsole: true),
        ]))
      driver.start(queues: Array(0..<8))
      #expect(driver.features & 2 != 0)
      #expect(driver.transport.readConfiguration(4, width: 4) == 3)
    }

    func send(_ port: UInt32, _ event: UInt16, _ value: UInt16) {
      let queue = driver[3]
      #expect(queue.transact([queue.readable(bytes(port) + bytes(event) + bytes(value))]) == 0)
    }

    /// Messages that the device sends into `count` buffers.
    func messages(_ count: Int) -> [[UInt8]] {
      let queue = driver[2]
      let buffers = (0..<count).map { _ in queue.writable(64) }
      let heads = buffers.map { queue.add([$0]) }
      queue.notify()
      return queue.takeUsed().map { used in
        driver.get(buffers[heads.firstIndex(of: used.head)!].address, Int(used.written))
      }
    }

    func message(_ port: UInt32, _ event: UInt16, _ value: UInt16, _ data: [UInt8] = []) -> [UInt8] {
      bytes(port) + bytes(event) + bytes(value) + data
    }
  }

  @Test func portsAreAnnouncedAndOpened() throws {
    let console = try Multiport()
    console.send(0, 0, 1)
    #expect(console.messages(4) == [0, 1, 2].map { console.message($0, 1, 0) })
    console.send(0, 3, 1)
    let size0 = bytes(UInt16(80)) + bytes(UInt16(25))
    // One buffer is left from before; three messages come.
    #expect(
      console.driver[2].takeUsed().count == 1)
    #expect(console.messages(4) == [console.message(0, 6, 1), console.message(0, 5, 0, size0)])
    console.send(1, 3, 1)
    console.send(2, 3, 1)
    _ = console.driver[2].takeUsed()
    let rest = console.messages(8)
    #expect(rest.contains(console.message(2, 7, 1, Array("second".utf8))))
    #expect(rest.contains(console.message(2, 5, 0, bytes(UInt16(100)) + bytes(UInt16(30)))))

    // Nothing goes to a port before a program has it open.
    let input = console.driver[4]
    let buffer = input.writable(32)
    input.add([buffer])
    input.notify()
    console.terminals[1].type("ping")
    #expect(console.terminals[1].waiting.count == 4)
    console.send(1, 6, 1)
    #expect(console.terminals[1].waiting.isEmpty)
    #expect(console.driver.get(buffer.address, 4) == Array("ping".utf8))
    let output = console.driver[5]
    #expect(output.transact([output.readable(Array("pong".utf8))]) == 0)
    #expect(console.terminals[1].takeOutput() == "pong")
    #expect(console.terminals[0].takeOutput().isEmpty)
    console.send(1, 6, 0)
    input.add([input.writable(32)])
    input.notify()
    console.terminals[1].type("late")
    #expect(console.terminals[1].waiting.count == 4)
  }

  @Test func onlyTheLastSizeWaitsForTheDriver() throws {
    let console = try Multiport()
    console.send(0, 3, 1)
    for columns in 1...500 { console.terminals[0].resize?(columns, 20) }
    let messages = console.messages(8)
    #expect(messages.filter { $0[4] == 5 } == [console.message(0, 5, 0, bytes(UInt16(500)) + bytes(UInt16(20)))])
  }

  @Test func controlMessagesWithoutBuffersForAnswersDontPileUp() throws {
    let console = try Multiport()
    let queue = console.driver[3]
    let request = queue.readable(console.message(0, 0, 1))
    var taken = 0
    for _ in 0..<20 {
      for _ in 0..<32 where !console.driver.needsReset { queue.add([request]) }
      queue.notify()
      let used = queue.takeUsed().count
      taken += used
      if used < 32 { break }
    }
    // 256 messages may wait, three come of each request.
    #expect((80...90).contains(taken))
    #expect(console.messages(60).count == 60)
    console.driver.run()
    #expect(!console.driver.needsReset)
    #expect(queue.takeUsed().count > 0)
  }

  @Test func nonsenseFromTheDriverIsIgnoredOrStopsTheDevice() throws {
    let console = try Multiport()
    console.send(99, 3, 1)
    console.send(.max, 6, 1)
    console.send(0, 77, 1)
    #expect(!console.driver.needsReset)
    #expect(console.driver[3].transact([console.driver[3].readable([1, 2, 3])]) == nil)
    #expect(console.driver.needsReset)
  }
}

import Bus
import Testing
import Virtio

/// MSI-X (PCI 3.0, 6.8.2) as a driver uses it.
@Suite struct MessageInterruptTests {
  typealias Setup = BlockTests.Setup
  typealias Message = MessageLog.Message

  /// A disk with two queues, each with a vector of its own: 0 for the configuration, then one for each queue.
  struct Vectors {
    let setup: Setup
    let pci: PCIDriver

    init() throws {
      setup = try Setup(.pci, queues: 2)
      pci = try #require(setup.rig.pci)
      assign()
      pci.setMessageControl(enabled: true)
    }

    func assign() {
      for vector in 0..<3 { pci.setVector(vector, address: Self.address(vector), data: UInt32(0x40 + vector)) }
      #expect(pci.setConfigurationVector(0) == 0)
      #expect(pci.setVector(ofQueue: 0, 1) == 1)
      #expect(pci.setVector(ofQueue: 1, 2) == 2)
    }

    static func address(_ vector: Int) -> UInt64 { 0xff_2800_0000 + UInt64(vector) * 4096 }
    static func message(_ vector: Int) -> Message { Message(address: address(vector), data: UInt32(0x40 + vector)) }

    /// A request, of whose end the driver wants to hear.
    func flush(queue: Int = 0) {
      setup.driver[queue].setUsedEvent(setup.driver[queue].usedIndex)
      #expect(setup.request(4, queue: queue).status == 0)
    }
  }

  @Test func eachQueueHasItsMessage() throws {
    let vectors = try Vectors()
    vectors.flush(queue: 0)
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
    vectors.flush(queue: 1)
    #expect(vectors.pci.messages.take() == [Vectors.message(2)])
    // The wire stays low, and its status clear.
    #expect(!vectors.setup.rig.wire.level && vectors.pci.read(3, 0, 1) == 0)
    // A crime is told by the configuration's vector.
    vectors.setup.driver[0].offer(999)
    vectors.setup.driver[0].notify()
    #expect(vectors.setup.driver.needsReset)
    #expect(vectors.pci.messages.take() == [Vectors.message(0)])
  }

  @Test func withoutMessagesTheWireIsUsed() throws {
    let vectors = try Vectors()
    vectors.pci.setMessageControl(enabled: false)
    vectors.flush()
    #expect(vectors.pci.messages.take().isEmpty)
    #expect(vectors.setup.rig.wire.level)
    // Switched over, the wire falls; switched back, what wasn't read is still there.
    vectors.pci.setMessageControl(enabled: true)
    #expect(!vectors.setup.rig.wire.level)
    vectors.pci.setMessageControl(enabled: false)
    #expect(vectors.setup.rig.wire.level)
    #expect(vectors.pci.takeInterrupts() == 1)
    #expect(!vectors.setup.rig.wire.level)
  }

  @Test func maskedVectorWaits() throws {
    let vectors = try Vectors()
    vectors.pci.setMasked(1, true)
    vectors.flush()
    vectors.flush()
    #expect(vectors.pci.messages.take().isEmpty)
    #expect(vectors.pci.pendingVectors == 1 << 1)
    vectors.flush(queue: 1)
    #expect(vectors.pci.messages.take() == [Vectors.message(2)])
    vectors.pci.setMasked(1, false)
    // Once, however often it was wanted.
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
    #expect(vectors.pci.pendingVectors == 0)
  }

  @Test func maskedFunctionWaits() throws {
    let vectors = try Vectors()
    vectors.pci.setMessageControl(enabled: true, masked: true)
    vectors.flush(queue: 1)
    vectors.flush(queue: 0)
    #expect(vectors.pci.messages.take().isEmpty && vectors.pci.pendingVectors == 0b110)
    vectors.pci.setMasked(2, true)
    vectors.pci.setMessageControl(enabled: true)
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
    #expect(vectors.pci.pendingVectors == 0b100)
    vectors.pci.setMasked(2, false)
    #expect(vectors.pci.messages.take() == [Vectors.message(2)])
  }

  @Test func messageThatWaitsGoesWhereTheTableSaysThen() throws {
    let vectors = try Vectors()
    vectors.pci.setMasked(1, true)
    vectors.flush()
    vectors.pci.setVector(1, address: 0x1_2345_6788, data: 77, masked: true)
    #expect(vectors.pci.messages.take().isEmpty)
    vectors.pci.setMasked(1, false)
    #expect(vectors.pci.messages.take() == [Message(address: 0x1_2345_6788, data: 77)])
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Message(address: 0x1_2345_6788, data: 77)])
  }

  @Test func messagesGoToWholeWords() throws {
    let vectors = try Vectors()
    vectors.pci.setVector(1, address: 0xabcd_ef03, data: 5)
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Message(address: 0xabcd_ef00, data: 5)])
  }

  @Test func queueMayChangeItsVector() throws {
    let vectors = try Vectors()
    #expect(vectors.pci.setVector(ofQueue: 0, 2) == 2)
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Vectors.message(2)])
    // Two may share one; none is possible too.
    #expect(vectors.pci.setVector(ofQueue: 1, 2) == 2)
    vectors.flush(queue: 1)
    #expect(vectors.pci.messages.take() == [Vectors.message(2)])
    #expect(vectors.pci.setVector(ofQueue: 0, 0xffff) == 0xffff)
    vectors.flush()
    #expect(vectors.pci.messages.take().isEmpty && vectors.pci.pendingVectors == 0)
  }

  @Test func vectorThatDoesntExistReadsBackAsNone() throws {
    let vectors = try Vectors()
    for vector: UInt16 in [3, 4, 64, 2047, 0x8000, 0xfffe] {
      #expect(vectors.pci.setVector(ofQueue: 0, vector) == 0xffff)
      #expect(vectors.pci.setConfigurationVector(vector) == 0xffff)
    }
    // A queue that doesn't exist has none.
    #expect(vectors.pci.setVector(ofQueue: 2, 1) == 0xffff)
    #expect(vectors.pci.setVector(ofQueue: 0xffff, 1) == 0xffff)
    vectors.flush()
    #expect(vectors.pci.messages.take().isEmpty)
    #expect(vectors.pci.setVector(ofQueue: 0, 1) == 1)
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
  }

  @Test func resetForgetsVectorsAndWhatWaits() throws {
    let vectors = try Vectors()
    vectors.pci.setMasked(1, true)
    vectors.flush()
    #expect(vectors.pci.pendingVectors == 2)
    vectors.pci.status = 0
    #expect(vectors.pci.pendingVectors == 0)
    #expect(vectors.pci.setConfigurationVector(0xffff) == 0xffff)
    vectors.pci.setMasked(1, false)
    #expect(vectors.pci.messages.take().isEmpty)
    // The table is the function's and stays; queues have to be given their vectors again.
    vectors.setup.driver.start(queues: [0, 1])
    vectors.flush()
    #expect(vectors.pci.messages.take().isEmpty)
    #expect(vectors.pci.setVector(ofQueue: 0, 1) == 1)
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
  }

  @Test func functionWithoutBusMasterSendsNothing() throws {
    let vectors = try Vectors()
    let queue = vectors.setup.driver[0]
    queue.add([queue.readable(vectors.setup.header(4)), queue.writable(1)])
    vectors.pci.setMasked(1, true)
    queue.notify()
    vectors.pci.function.setBusMaster(false)
    vectors.pci.setMasked(1, false)
    #expect(vectors.pci.messages.take().isEmpty && vectors.pci.pendingVectors == 2)
    vectors.pci.function.setBusMaster(true)
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
  }

  @Test func eventIndexHoldsMessagesBack() throws {
    let vectors = try Vectors()
    let queue = vectors.setup.driver[0]
    // Wanted only when the third request is done.
    queue.setUsedEvent(2)
    for _ in 0..<2 { #expect(vectors.setup.request(4).status == 0) }
    #expect(vectors.pci.messages.take().isEmpty)
    #expect(vectors.setup.request(4).status == 0)
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
  }

  @Test func tableIsReadAsItWasWritten() throws {
    let vectors = try Vectors()
    let function = vectors.pci.function
    let control = function.readConfiguration(offset: vectors.pci.messageCapability + 2, width: 2)
    #expect(control == 0x8002)
    // The table's size and the bits beyond can't be written.
    function.writeConfiguration(offset: vectors.pci.messageCapability + 2, width: 2, value: 0xffff)
    #expect(function.readConfiguration(offset: vectors.pci.messageCapability + 2, width: 2) == 0xc002)
    #expect(function.read(bar: 2, offset: 16, width: 8) == Vectors.address(1))
    #expect(function.read(bar: 2, offset: 24, width: 8) == 0x41)
    // Beyond the table, of other widths, misaligned: nothing.
    for (offset, width) in [(48, 4), (48, 8), (0x7f8, 8), (16, 1), (16, 2), (17, 4), (20, 8), (0x808, 8), (0xff8, 8)] {
      function.write(bar: 2, offset: UInt64(offset), width: width, value: .max)
      #expect(function.read(bar: 2, offset: UInt64(offset), width: width) == 0)
    }
    // Pending bits are the device's.
    function.write(bar: 2, offset: 0x800, width: 8, value: .max)
    #expect(vectors.pci.pendingVectors == 0)
    vectors.pci.setMessageControl(enabled: true)
    #expect(vectors.pci.messages.take().isEmpty)
    vectors.flush()
    #expect(vectors.pci.messages.take() == [Vectors.message(1)])
  }

  /// The way of firmware that has no windows mapped.
  @Test func windowsAreReachedThroughConfigurationSpace() throws {
    let setup = try Setup(.pci)
    let pci = try #require(setup.rig.pci)
    let capability = pci.accessCapability
    func select(bar: UInt32, offset: UInt32, length: UInt32) {
      pci.function.writeConfiguration(offset: capability + 4, width: 1, value: bar)
      pci.function.writeConfiguration(offset: capability + 8, width: 4, value: offset)
      pci.function.writeConfiguration(offset: capability + 12, width: 4, value: length)
    }
    func data() -> UInt32 { pci.function.readConfiguration(offset: capability + 16, width: 4) }
    select(bar: 0, offset: 0x14, length: 1)
    #expect(data() == 15)
    select(bar: 0, offset: 0x2000, length: 4)
    #expect(data() == 256)
    select(bar: 0, offset: 0x14, length: 1)
    pci.function.writeConfiguration(offset: capability + 16, width: 4, value: 0)
    #expect(pci.status == 0)
    for (bar, offset, length) in [
      (1, 0, 4), (0, 0x4000, 4), (0, 0x3fff, 2), (0, 0xffff_ffff, 4), (0, 0xffff_fffc, 4), (0, 0, 3), (0, 0, 0),
      (0, 2, 4), (255, 0, 4), (0, 0, 0xffff_ffff), (2, 0xfff, 4),
    ] as [(UInt32, UInt32, UInt32)] {
      select(bar: bar, offset: offset, length: length)
      #expect(data() == 0)
      pci.function.writeConfiguration(offset: capability + 16, width: 4, value: .max)
    }
    setup.driver.start(queues: [0])
    #expect(setup.request(4).status == 0)
  }
}

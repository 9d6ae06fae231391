import Bus
import Foundation
import Testing
import Virtio

@Suite struct BalloonTests {
  private static let pages = 64

  /// A guest with some pages of its own, none of them zero.
  private func setUp(_ kind: TransportKind, queue: Int) throws -> (Rig, VirtioBalloon, PhysicalAddress) {
    let device = VirtioBalloon()
    let rig = try Rig(kind, device)
    rig.driver.start(queues: [0, 1, queue])
    let area = rig.driver.allocate(Self.pages * 4096, alignment: 4096)
    let bytes = [UInt8](repeating: 0xA5, count: Self.pages * 4096)
    #expect(bytes.withUnsafeBytes { rig.driver.memory.copy($0, to: area) })
    return (rig, device, area)
  }

  /// Which of the pages read as zero.
  private func empty(_ rig: Rig, _ area: PhysicalAddress) -> [Int] {
    (0..<Self.pages).filter { page in rig.driver.get(area + UInt64(page * 4096), 4096).allSatisfy { $0 == 0 } }
  }

  @Test(arguments: TransportKind.allCases)
  func pagesGoAndComeBack(kind: TransportKind) throws {
    let (rig, device, area) = try setUp(kind, queue: 2)
    #expect(rig.driver.transport.deviceType == 5)
    device.setTarget(5 * 4096 + 17)
    rig.driver.run()
    #expect(rig.driver.transport.takeInterrupts() & 2 != 0)
    #expect(rig.driver.transport.readConfiguration(0, width: 4) == 5)
    let first = UInt32(area.rawValue / 4096)
    // From the last one on, as Linux gives them, then others, one of them beyond all memory.
    let numbers: [UInt32] = [first + 9, first + 8, first + 7, first + 20, first + 21, .max, first + 40]
    let queue = rig.driver[0]
    queue.add([queue.readable(numbers.flatMap { bytes($0) } + [1, 2])])
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [0])
    #expect(empty(rig, area) == [7, 8, 9, 20, 21, 40])
    rig.driver.transport.writeConfiguration(4, width: 4, 5)
    #expect(device.actual == 5 * 4096 && device.metrics.releasedBytes == 6 * 4096)
    // The guest has it again when it writes there.
    #expect(rig.driver.memory.store(UInt64(7), at: area + 7 * 4096))
    rig.driver[1].add([rig.driver[1].readable(bytes(first + 7))])
    rig.driver[1].notify()
    #expect(rig.driver[1].takeUsed().count == 1 && empty(rig, area) == [8, 9, 20, 21, 40])
    rig.driver.transport.status = 0
    rig.driver.run()
    #expect(device.actual == 0)
  }

  /// On the queue that the specification has for it, and on the one that Linux has.
  @Test(arguments: [2, 4])
  func freePagesAreReported(queue index: Int) throws {
    let (rig, device, area) = try setUp(.mmio, queue: index)
    let queue = rig.driver[index]
    let parts = [(4, 8), (30, 2)].map { first, count in
      DriverQueue.Buffer(address: area + UInt64(first * 4096), count: count * 4096, isWritable: true)
    }
    queue.add(parts)
    queue.notify()
    #expect(queue.takeUsed().map(\.written) == [0])
    #expect(empty(rig, area) == Array(4..<12) + [30, 31])
    #expect(device.metrics.releasedBytes == 10 * 4096)
    // Parts of pages stay.
    queue.add([DriverQueue.Buffer(address: area + 100, count: 8000, isWritable: true)])
    queue.notify()
    #expect(empty(rig, area) == Array(4..<12) + [30, 31])
    queue.add([DriverQueue.Buffer(address: PhysicalAddress(0x1000), count: 4096, isWritable: true)])
    queue.notify()
    #expect(rig.driver.needsReset)
  }

  @Test func aSavedBalloonIsAsLarge() throws {
    let (rig, device, _) = try setUp(.mmio, queue: 2)
    device.setTarget(1 << 20)
    rig.driver.transport.writeConfiguration(4, width: 4, 200)
    let other = VirtioBalloon()
    let next = try Rig(.mmio, other, continuing: rig)
    try next.keeper.restoreEncodedState(rig.keeper.encodedState())
    #expect(other.actual == 200 * 4096 && next.driver.transport.readConfiguration(0, width: 4) == 256)
  }
}

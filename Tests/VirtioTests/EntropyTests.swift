import Testing
import Virtio

@Suite struct EntropyTests {
  @Test(arguments: TransportKind.allCases)
  func fillsBuffers(kind: TransportKind) throws {
    var next: UInt8 = 0
    let device = VirtioEntropy { buffer in
      for index in buffer.indices {
        buffer[index] = next
        next &+= 1
      }
    }
    let rig = try Rig(kind, device)
    rig.driver.start(queues: [0])
    let queue = rig.driver[0]
    #expect(rig.driver.transport.deviceType == 4)
    let parts = [queue.writable(10), queue.writable(300)]
    #expect(queue.transact(parts) == 310)
    #expect(rig.driver.get(parts[0].address, 10) == Array(0..<10))
    #expect(rig.driver.get(parts[1].address, 300).first == 10)
    #expect(
      device.metrics
        == { () -> EntropyMetrics in
          var metrics = EntropyMetrics()
          metrics.notifications = 1
          metrics.requests = 1
          metrics.bytes = 310
          return metrics
        }())
  }

  @Test func hostSourceFillsEverything() {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1000, alignment: 1)
    defer { buffer.deallocate() }
    buffer.initializeMemory(as: UInt8.self, repeating: 0)
    VirtioEntropy.hostSource(buffer)
    // 1000 random bytes with a run of 100 zeroes don't occur.
    for start in stride(from: 0, to: 1000, by: 100) { #expect(buffer[start..<start + 100].contains { $0 != 0 }) }
  }

  @Test func oneRequestIsntAnsweredWithoutEnd() throws {
    let device = VirtioEntropy { _ in }
    let rig = try Rig(.mmio, device)
    rig.driver.start(queues: [0])
    #expect(rig.driver[0].transact([rig.driver[0].writable(1 << 20)]) == 65536)
  }
}

import Testing
import Virtio

@Suite struct InputTests {
  /// virtio 1.2, 5.8.5.2.
  @Test(arguments: TransportKind.allCases)
  func saysWhatItIs(kind: TransportKind) throws {
    let device = VirtioInput()
    let rig = try Rig(kind, device)
    #expect(rig.driver.transport.deviceType == 18)
    func select(_ selection: UInt64, _ subselection: UInt64) -> [UInt8] {
      device.configurationWritten(offset: 0, width: 1, value: selection)
      device.configurationWritten(offset: 1, width: 1, value: subselection)
      let size = device.configuration.read(offset: 2, width: 1)
      return (0..<size).map { UInt8(device.configuration.read(offset: 8 + $0, width: 1)) }
    }
    #expect(String(decoding: select(1, 0), as: UTF8.self).contains("power button"))
    // Keys: KEY_POWER, 116, and no other.
    #expect(select(0x11, 1) == [UInt8](repeating: 0, count: 14) + [0x10])
    #expect(select(0x11, 3).isEmpty && select(0x12, 0).isEmpty && select(0xFF, 0xFF).isEmpty)
  }

  @Test(arguments: TransportKind.allCases)
  func aPressIsTakenWhenThereIsRoom(kind: TransportKind) throws {
    let device = VirtioInput()
    let rig = try Rig(kind, device)
    rig.driver.start(queues: [0, 1])
    device.pressPowerButton()
    let queue = rig.driver[0]
    var events: [[UInt8]] = []
    for _ in 0..<4 {
      let part = queue.writable(8)
      #expect(queue.transact([part]) == 8)
      events.append(rig.driver.get(part.address, 8))
    }
    #expect(
      events == [
        [1, 0, 116, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 116, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
      ])
    #expect(device.metrics.presses == 1)
  }

  @Test func aGuestThatTakesNothingKeepsNothing() throws {
    let device = VirtioInput()
    let rig = try Rig(.mmio, device)
    rig.driver.start(queues: [0, 1])
    for _ in 0..<1000 { device.pressPowerButton() }
    #expect(device.metrics.presses == 16)
  }
}

import Board
import Bus
import Foundation
import HostSystem
import Synchronization
import Testing

@Suite("CLINT") struct CLINTTests {
  @Test func registersReachTheirHarts() {
    let clock = GuestClock(start: 0x1_0000_0000)
    let software = [RecordedLine(), RecordedLine()]
    let compare = Mutex([UInt64](repeating: .max, count: 2))
    let clint = CLINT(
      targets: (0..<2).map { hart in
        CLINT.Target(
          softwareInterrupt: software[hart].line, timeCompare: { compare.withLock { $0[hart] } },
          setTimeCompare: { value in compare.withLock { $0[hart] = value } })
      }, clock: clock)
    clint.write32(4, 0xFFFF_FFFF)
    #expect(software.map(\.level) == [false, true])
    #expect(clint.read32(4) == 1)
    clint.write32(4, 0)
    #expect(!software[1].level)
    clint.write(offset: 0x4008, width: 8, value: 0x1122_3344_5566_7788)
    #expect(compare.withLock { $0 } == [.max, 0x1122_3344_5566_7788])
    clint.write32(0x4000, 5)
    clint.write32(0x4004, 6)
    #expect(clint.read(offset: 0x4000, width: 8) == 0x6_0000_0005)
    #expect(clint.read32(0x4004) == 6)
    #expect(clint.read32(0xBFFC) == 1)
    clint.write(offset: 0xBFF8, width: 8, value: 1 << 40)
    #expect(clock.ticks() >= 1 << 40)
    #expect(clint.read(offset: 0xBFF8, width: 8) >= 1 << 40)
    for offset in [8, 0x3FF8, 0x4010, 0xBFF0, 0xC000, 0x1] as [UInt64] {
      clint.write(offset: offset, width: 4, value: .max)
      _ = clint.read(offset: offset, width: 8)
    }
  }
}

@Suite("Test finisher") struct TestFinisherTests {
  @Test(
    arguments: [
      (0x5555, PowerEvent.shutdown(code: 0)), (0x3333, .shutdown(code: 0)), (0x2A_3333, .shutdown(code: 42)),
      (0x7777, .reboot), (0x1234, nil),
    ] as [(UInt32, PowerEvent?)])
  func commandsEndTheMachine(command: UInt32, expected: PowerEvent?) {
    var seen: PowerEvent?
    let finisher = TestFinisher { seen = $0 }
    finisher.write32(0, command)
    #expect(seen == expected)
  }
}

@Suite("RTC") struct GoldfishRTCTests {
  private func nanoseconds(_ rtc: GoldfishRTC) -> UInt64 { UInt64(rtc.read32(0)) | UInt64(rtc.read32(4)) << 32 }

  @Test func tellsAndTakesTheTime() throws {
    let wall = Atomic<UInt64>(0x1234_FFFF_FFFF)
    let rtc = GoldfishRTC(
      wallClock: { wall.load(ordering: .relaxed) }, loop: try EventLoop(), interrupt: .unconnected)
    #expect(rtc.read32(0) == 0xFFFF_FFFF)
    // The upper half belongs to the lower one that was read, even when time goes on.
    wall.store(0x1235_0000_0000, ordering: .relaxed)
    #expect(rtc.read32(4) == 0x1234)
    rtc.write32(4, 0x99)
    rtc.write32(0, 0x42)
    #expect(nanoseconds(rtc) == 0x99_0000_0042)
    wall.store(0x1235_0000_0001, ordering: .relaxed)
    #expect(nanoseconds(rtc) == 0x99_0000_0043)
  }

  @Test func theAlarmRings() throws {
    let wall = Atomic<UInt64>(1000)
    let line = RecordedLine()
    let loop = try EventLoop()
    let rtc = GoldfishRTC(wallClock: { wall.load(ordering: .relaxed) }, loop: loop, interrupt: line.line)
    rtc.write32(0x10, 1)
    rtc.write32(0x0C, 0)
    rtc.write32(0x08, 2000)
    #expect(rtc.read32(0x18) == 1)
    loop.turn(maximumWait: 0)
    #expect(!line.level)
    wall.store(2000, ordering: .relaxed)
    while !line.level { loop.turn(maximumWait: 1) }
    #expect(rtc.read32(0x18) == 0)
    rtc.write32(0x1C, 1)
    #expect(!line.level)
    // An alarm in the past rings at once; a cleared one doesn't.
    rtc.write32(0x08, 1)
    #expect(line.level)
  }
}

@Suite("Flash") struct CFIFlashTests {
  @Test func answersTheQuery() throws {
    let flash = try CFIFlash(identifier: "flash0")
    flash.write32(0x55 * 4, 0x0098_0098)
    #expect((0x10...0x12).map { flash.read32(UInt64($0) * 4) } == [0x0051_0051, 0x0052_0052, 0x0059_0059])
    #expect(flash.read32(0x27 * 4) == 24 << 16 | 24)
    #expect(flash.read8(0x10 * 4) == 0x51)
    #expect(flash.read8(0x10 * 4 + 1) == 0)
    flash.write32(0, 0x0090_0090)
    #expect(flash.read32(0) == 0x0089_0089)
    flash.write32(0, 0x00FF_00FF)
    #expect(flash.read32(0) == 0xFFFF_FFFF)
  }

  @Test func programsAndErases() throws {
    let stored = Mutex<[(UInt64, Int)]>([])
    let flash = try CFIFlash(identifier: "flash0", contents: Data([1, 2, 3, 4])) { offset, bytes in
      stored.withLock { $0.append((offset, bytes.count)) }
      return true
    }
    #expect(flash.read32(0) == 0x0403_0201)
    #expect(flash.read32(4) == 0xFFFF_FFFF)
    flash.write32(8, 0x0040_0040)
    flash.write32(8, 0xF0F0_1234)
    #expect(flash.read32(8) == 0x0080_0080)
    flash.write32(0, 0x00FF_00FF)
    #expect(flash.read32(8) == 0xF0F0_1234)
    // Programming only clears bits.
    flash.write32(8, 0x0010_0010)
    flash.write32(8, 0x0FFF_FFFF)
    flash.write32(0, 0x00FF_00FF)
    #expect(flash.read32(8) == 0x00F0_1234)
    flash.write32(0x4_0000, 0x00E8_00E8)
    flash.write32(0x4_0000, 0x0003_0003)
    for word in 0..<4 { flash.write32(0x4_0000 + UInt64(word) * 4, UInt32(word)) }
    flash.write32(0x4_0000, 0x00D0_00D0)
    #expect(flash.read32(0) == 0x0080_0080)
    flash.write32(0, 0x00FF_00FF)
    #expect((0..<5).map { flash.read32(0x4_0000 + UInt64($0) * 4) } == [0, 1, 2, 3, 0xFFFF_FFFF])
    flash.write32(8, 0x0020_0020)
    flash.write32(8, 0x00D0_00D0)
    flash.write32(0, 0x00FF_00FF)
    #expect(flash.read32(8) == 0xFFFF_FFFF)
    #expect(flash.read32(0x4_000C) == 3)
    #expect(stored.withLock { $0.map(\.1) } == [4, 4, 16, CFIFlash.blockSize])
  }

  @Test func aFileTakesTheChanges() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("flash-\(UUID().uuidString).img").path
    try Data(repeating: 0xFF, count: CFIFlash.blockSize).write(to: URL(fileURLWithPath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    do {
      let file = try FlashFile(path: path, isReadOnly: false)
      #expect(throws: HostError.self) { try FlashFile(path: path, isReadOnly: false) }
      let flash = try CFIFlash(identifier: "flash1", contents: file.image.contents, store: file.image.store)
      flash.write32(0x10, 0x40)
      flash.write32(0x10, 0x1234_5678)
      #expect(flash.read32(0) == 0x0080_0080)
      // Beyond the file there is nothing to keep it.
      flash.write32(UInt64(CFIFlash.blockSize), 0x40)
      flash.write32(UInt64(CFIFlash.blockSize), 0)
      #expect(flash.read32(0) & 0x10 != 0)
    }
    let contents = try Data(contentsOf: URL(fileURLWithPath: path))
    #expect(contents.count == CFIFlash.blockSize)
    #expect(Array(contents[0x10..<0x14]) == [0x78, 0x56, 0x34, 0x12])
    let file = try FlashFile(path: path, isReadOnly: true)
    let flash = try CFIFlash(identifier: "flash0", contents: file.image.contents, isReadOnly: true)
    flash.write32(0x10, 0x40)
    flash.write32(0x10, 0)
    #expect(flash.read32(0) & 0x10 != 0)
    flash.write32(0, 0xFF)
    #expect(flash.read32(0x10) == 0x1234_5678)
  }

  @Test func refusesWhatMakesNoSense() throws {
    let flash = try CFIFlash(identifier: "flash0")
    flash.write32(0, 0xE8)
    flash.write32(0, 0xFFFF)
    #expect(flash.read32(0) & 0x30 != 0)
    flash.write32(0, 0x50)
    flash.write32(0, 0x70)
    #expect(flash.read32(0) == 0x0080_0080)
    // A buffer that crosses into another block.
    flash.write32(0x3_FFFC, 0xE8)
    flash.write32(0x3_FFFC, 1)
    flash.write32(0x3_FFFC, 0)
    flash.write32(0x4_0000, 0)
    flash.write32(0x3_FFFC, 0xD0)
    #expect(flash.read32(0) & 0x10 != 0)
    #expect(throws: BootError.self) { try CFIFlash(identifier: "flash0", contents: Data(count: 33 << 20)) }
  }

  @Test func stateIsTakenBack() throws {
    let flash = try CFIFlash(identifier: "flash0")
    flash.write32(CFIFlash.lastWord, 0x40)
    flash.write32(CFIFlash.lastWord, 0x1234_5678)
    let other = try CFIFlash(identifier: "flash0")
    try other.restoreEncodedState(flash.encodedState())
    #expect(other.read32(0) == 0x0080_0080)
    other.write32(0, 0xFF)
    #expect(other.read32(CFIFlash.lastWord) == 0x1234_5678)
  }
}

extension CFIFlash {
  static var lastWord: UInt64 { UInt64(byteCount) - 4 }
}

@Suite("Generation identifier") struct GenerationIdentifierTests {
  @Test func changesAndTellsTheGuest() throws {
    let line = RecordedLine()
    let identifier = GenerationIdentifier(interrupt: line.line)
    func bytes() -> [UInt64] { (0..<16).map { identifier.read(offset: $0, width: 1) } }
    let first = bytes()
    let words = [0, 8].map { identifier.read(offset: $0, width: 8) }
    #expect(first == (0..<16).map { words[$0 / 8] >> UInt64($0 % 8 * 8) & 0xFF })
    #expect(identifier.read(offset: 4, width: 4) == words[0] >> 32)
    #expect(identifier.read(offset: 16, width: 8) == 0)
    identifier.write(offset: 0, width: 8, value: ~words[0])
    #expect(bytes() == first && line.rises == 0)
    identifier.renew()
    #expect(bytes() != first)
    #expect(line.rises == 1 && !line.level)
  }
}

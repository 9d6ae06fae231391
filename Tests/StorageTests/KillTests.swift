import Foundation
import Storage
import Testing

/// A process that writes is killed with SIGKILL at random moments, again and again, on the same image.
@Suite struct KillTests {
  let folder = try! ImageFolder()

  private static var torture: String {
    // Built beside the test bundle.
    Bundle.main.bundleURL.appendingPathComponent("storage-torture").path
  }

  /// What each sector may hold: what the last reported flush covers, or anything asked for after it.
  private struct Knowledge {
    var possible: [Set<UInt64>]
    /// The latest request for each sector since the last flush, with what a discard leaves open.
    var latest: [Set<UInt64>]

    init(sectors: Int) {
      possible = Array(repeating: [0], count: sectors)
      latest = possible
    }

    mutating func note(_ kind: UInt64, _ first: Int, _ count: Int, _ stamp: UInt64) {
      switch kind {
      case 1: for sector in first..<(first + count) { possible[sector].insert(stamp); latest[sector] = [stamp] }
      case 2: for sector in first..<(first + count) { possible[sector].insert(0); latest[sector].insert(0) }
      default: possible = latest
      }
    }
  }

  @Test(arguments: [(DiskFormat.qcow2, 65536), (.qcow2, 4096), (.qcow2, 512), (.raw, 0)])
  func acknowledgedDataSurvives(format: DiskFormat, clusterSize: Int) throws {
    let image = folder["image"]
    let sectors = 16384
    try DiskImage.create(
      path: image, format: format, size: UInt64(sectors * 512),
      options: .init(clusterSize: format == .raw ? 65536 : clusterSize))
    var knowledge = Knowledge(sectors: sectors)
    var random = SeededGenerator(seed: 41)
    var flushes = 0
    for round in 1...25 {
      let process = Process()
      process.executableURL = URL(fileURLWithPath: KillTests.torture)
      process.arguments = [image, "\(round)"]
      let pipe = Pipe()
      process.standardOutput = pipe
      try process.run()
      // The moment of death: some time after this many bytes of records.
      let enough = 32 * Int.random(in: 1...150, using: &random)
      var records: [UInt8] = []
      while records.count < enough {
        let more = pipe.fileHandleForReading.availableData
        try #require(!more.isEmpty, "storage-torture ended by itself")
        records += more
      }
      for _ in 0..<Int.random(in: 0..<20000, using: &random) { _ = random.next() }
      kill(process.processIdentifier, SIGKILL)
      records += pipe.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      #expect(process.terminationReason == .uncaughtSignal)

      records.withUnsafeBytes { bytes in
        for start in stride(from: 0, to: bytes.count - 31, by: 32) {
          let words = (0..<4).map { bytes.loadUnaligned(fromByteOffset: start + $0 * 8, as: UInt64.self) }
          if words[0] == 3 { flushes += 1 }
          knowledge.note(words[0], Int(words[1]), Int(words[2]), words[3])
        }
      }
      if format == .qcow2 { try folder.check(image) }
      let disk = try DiskImage.open(path: image, readOnly: true, format: format)
      let content = try disk.allBytes()
      try disk.close()
      var wrong: [Int] = []
      content.withUnsafeBytes { bytes in
        for sector in 0..<sectors {
          let words = bytes[(sector * 512)..<(sector * 512 + 512)].bindMemory(to: UInt64.self)
          if !words.allSatisfy({ $0 == words[0] }) || !knowledge.possible[sector].contains(words[0]) {
            wrong.append(sector)
          }
          // It is known now, and nobody writes until the next round.
          knowledge.possible[sector] = [words[0]]
          knowledge.latest[sector] = [words[0]]
        }
      }
      #expect(wrong.isEmpty, "round \(round): sectors \(wrong.prefix(10)) hold what they can't")
    }
    #expect(flushes > 100)
  }
}

import Foundation
import Storage
import Testing

/// What the file is when the process or the host dies between any two writes.
@Suite struct CrashOrderTests {
  let folder = try! ImageFolder()

  private enum Event {
    case write(UInt64, [UInt8])
    case hole(UInt64, UInt64)
    case synchronize
    /// The disk's content at a flush that was reported; `Event`s before it can't be lost.
    case acknowledged([UInt64])
    /// Sectors that were asked to hold another stamp from here on.
    case issued(Range<Int>, UInt64)
  }

  private static let sectors = 2048

  /// Runs random operations and returns all that happened, in order. Each sector holds a stamp, 0 when zeroed.
  private func history(clusterSize: Int, tableMemory: Int, seed: UInt64, image: String) throws -> [Event] {
    var events: [Event] = []
    let file = try DiskFile(path: image, readOnly: false)
    file.witness = { change in
      switch change {
      case .write(let offset, let pieces): events.append(.write(offset, pieces.flatMap { Array($0) }))
      case .hole(let offset, let count), .zeroes(let offset, let count): events.append(.hole(offset, count))
      case .synchronize: events.append(.synchronize)
      }
    }
    let disk = try Qcow2Disk(file, tableMemory: tableMemory)
    var random = SeededGenerator(seed: seed)
    var stamps = [UInt64](repeating: 0, count: CrashOrderTests.sectors)
    for stamp in 1...150 as ClosedRange<UInt64> {
      let count = Int.random(in: 1...(stamp % 3 == 0 ? 300 : 20), using: &random)
      let first = Int.random(in: 0...(CrashOrderTests.sectors - count), using: &random)
      let range = first..<(first + count)
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<6:
        events.append(.issued(range, stamp))
        let bytes = [UInt64](repeating: stamp, count: count * 64)
        try bytes.withUnsafeBytes { try disk.write(at: UInt64(first * 512), from: $0) }
        stamps.replaceSubrange(range, with: repeatElement(stamp, count: count))
      case 6:
        events.append(.issued(range, 0))
        try disk.writeZeroes(at: UInt64(first * 512), count: UInt64(count * 512), mayUnmap: stamp % 2 == 0)
        stamps.replaceSubrange(range, with: repeatElement(0, count: count))
      case 7:
        events.append(.issued(range, 0))
        try disk.discard(at: UInt64(first * 512), count: UInt64(count * 512))
        stamps = try self.stamps(disk)
      default:
        try disk.flush()
        events.append(.acknowledged(stamps))
      }
    }
    try disk.close()
    return events
  }

  private func stamps(_ disk: any BlockStorage) throws -> [UInt64] {
    let bytes = try disk.allBytes()
    return bytes.withUnsafeBytes { all in
      (0..<CrashOrderTests.sectors).map { sector in
        let words = all[(sector * 512)..<(sector * 512 + 512)].bindMemory(to: UInt64.self)
        #expect(words.allSatisfy { $0 == words[0] }, "sector \(sector) is torn")
        return words[0]
      }
    }
  }

  /// What a crash may leave in each sector.
  private struct Expectation {
    var acknowledged = [UInt64](repeating: 0, count: CrashOrderTests.sectors)
    var since: [Set<UInt64>] = Array(repeating: [], count: CrashOrderTests.sectors)

    mutating func note(_ event: Event) {
      switch event {
      case .acknowledged(let stamps):
        acknowledged = stamps
        since = Array(repeating: [], count: CrashOrderTests.sectors)
      case .issued(let range, let stamp): for sector in range { since[sector].insert(stamp) }
      default: break
      }
    }

    func allows(_ stamps: [UInt64]) -> Bool {
      stamps.indices.allSatisfy { stamps[$0] == acknowledged[$0] || since[$0].contains(stamps[$0]) }
    }
  }

  /// Applies part of an event to a copy: whole sectors of it, those for which `keeps` says so.
  private func apply(_ event: Event, to handle: FileHandle, keeps: (Int) -> Bool = { _ in true }) throws {
    switch event {
    case .write(let offset, let bytes):
      var position = 0
      while position < bytes.count {
        // A write takes effect sector by sector.
        let sector = (Int(offset) + position) / 512
        let end = min(bytes.count, (sector + 1) * 512 - Int(offset))
        if keeps(sector) {
          try handle.seek(toOffset: offset + UInt64(position))
          try handle.write(contentsOf: bytes[position..<end])
        }
        position = end
      }
    case .hole(let offset, let count):
      let end = min(try handle.seekToEnd(), offset + count)
      guard offset < end else { return }
      try handle.seek(toOffset: offset)
      try handle.write(contentsOf: [UInt8](repeating: 0, count: Int(end - offset)))
    default: break
    }
  }

  private func examine(_ image: String, _ expectation: Expectation, _ place: String) throws {
    do { try folder.check(image) } catch { Issue.record("\(place): \(error)") }
    let disk = try DiskImage.open(path: image, readOnly: true)
    let allowed = try expectation.allows(stamps(disk))
    #expect(allowed, "\(place): a sector holds what it can't")
    try disk.close()
  }

  static let layouts =
    [(512, 0, 21), (4096, 0, 22), (4096, 32 << 20, 23), (65536, 32 << 20, 24)] as [(Int, Int, UInt64)]

  @Test(arguments: layouts)
  func everyPrefixOfTheWritesIsSound(clusterSize: Int, tableMemory: Int, seed: UInt64) throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(
      path: image, format: .qcow2, size: UInt64(CrashOrderTests.sectors * 512), options: .init(clusterSize: clusterSize)
    )
    try folder.copy(image, to: folder["dead.qcow2"])
    let events = try history(clusterSize: clusterSize, tableMemory: tableMemory, seed: seed, image: image)
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: folder["dead.qcow2"]))
    var expectation = Expectation()
    var changes = 0
    for (index, event) in events.enumerated() {
      // A process that dies in a write may have done its beginning.
      if case .write(_, let bytes) = event, bytes.count > 512, index % 3 == 0 {
        var left = bytes.count / 1024
        try apply(event, to: handle) { _ in
          left -= 1
          return left >= 0
        }
      } else {
        try apply(event, to: handle)
      }
      expectation.note(event)
      if case .write = event { changes += 1 }
      if case .hole = event { changes += 1 }
      if changes % 4 == 0 || index > events.count - 10 {
        try examine(folder["dead.qcow2"], expectation, "seed \(seed), after event \(index)")
      }
      try apply(event, to: handle)
    }
    #expect(changes > 100)
  }

  @Test(arguments: layouts)
  func everySelectionOfUnsynchronisedWritesIsSound(clusterSize: Int, tableMemory: Int, seed: UInt64) throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(
      path: image, format: .qcow2, size: UInt64(CrashOrderTests.sectors * 512), options: .init(clusterSize: clusterSize)
    )
    let stable = folder["stable.qcow2"]
    try folder.copy(image, to: stable)
    let events = try history(clusterSize: clusterSize, tableMemory: tableMemory, seed: seed &+ 100, image: image)
    var random = SeededGenerator(seed: seed)
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: stable))
    var expectation = Expectation()
    var pending: [Event] = []
    var crashes = 0
    for (index, event) in events.enumerated() {
      expectation.note(event)
      switch event {
      case .write, .hole: pending.append(event)
      case .synchronize:
        // The host dies before this completes: any part of what is pending may have reached its disk.
        for _ in 0..<2 {
          let dead = folder["dead.qcow2"]
          try folder.copy(stable, to: dead)
          let copy = try FileHandle(forUpdating: URL(fileURLWithPath: dead))
          for change in pending where Int.random(in: 0..<3, using: &random) > 0 {
            let wholly = Bool.random(using: &random)
            let salt = random.next()
            try apply(change, to: copy) { sector in
              wholly || (UInt64(sector) &* 0x9E37_79B9_7F4A_7C15 ^ salt) & 1 << 40 != 0
            }
          }
          try copy.close()
          try examine(dead, expectation, "seed \(seed), host dead at event \(index)")
          crashes += 1
        }
        for change in pending { try apply(change, to: handle) }
        pending = []
      default: break
      }
    }
    #expect(crashes > 20)
  }

  @Test func aFullHostDiskLeavesTheImageSoundAndUsable() throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 4 << 20, options: .init(clusterSize: 4096))
    let file = try DiskFile(path: image, readOnly: false)
    var random = SeededGenerator(seed: 31)
    var isFull = false
    file.witness = { change in
      if isFull, case .write = change, Int.random(in: 0..<3, using: &random) == 0 {
        throw StorageError(.noSpace, "no space is left for \(image); free some on the disk that holds it")
      }
    }
    let disk = try Qcow2Disk(file, tableMemory: 32 << 20)
    var choice = SeededGenerator(seed: 32)
    var model = [UInt8](repeating: 0, count: 4 << 20)
    var refusals = 0
    for round in 0..<300 {
      isFull = round % 3 != 0
      let offset = Int.random(in: 0..<(8192 - 64), using: &choice) * 512
      let bytes = choice.bytes(512 * 64)
      do {
        try disk.write(bytes, at: UInt64(offset))
        model.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
        if round % 5 == 0 { try disk.flush() }
      } catch let error as StorageError where error.code == .noSpace {
        refusals += 1
        model.replaceSubrange(
          offset..<(offset + bytes.count), with: try disk.bytes(at: UInt64(offset), count: bytes.count))
      } catch let error as StorageError {
        // The header's write failed: nothing is written any more, and the file stays as it was.
        #expect(error.code == .hostFailure)
        break
      }
    }
    #expect(refusals > 0)
    #expect(try disk.allBytes() == model)
    isFull = false
    try? disk.close()
    try folder.check(image)
  }

  @Test func afterAFailedFlushNothingIsWritten() throws {
    let image = folder["image.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 1 << 20)
    let file = try DiskFile(path: image, readOnly: false)
    var fails = false
    var writes = 0
    file.witness = { change in
      switch change {
      case .synchronize where fails: throw StorageError(.hostFailure, "can't flush \(image): Input/output error")
      case .write: writes += 1
      default: break
      }
    }
    let disk = try Qcow2Disk(file, tableMemory: 32 << 20)
    try disk.write([UInt8](repeating: 1, count: 4096), at: 0)
    fails = true
    #expect(storageError { try disk.flush() }?.code == .hostFailure)
    let before = writes
    fails = false
    #expect(storageError { try disk.write([UInt8](repeating: 2, count: 4096), at: 0) }?.code == .hostFailure)
    #expect(storageError { try disk.flush() }?.message.contains(image) == true)
    #expect(writes == before)
    #expect(storageError { try disk.close() } != nil)
    try folder.check(image)
  }
}

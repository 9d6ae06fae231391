import Images
import Testing

/// The cpio archives that kernels unpack (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
@Suite struct InitialRamdiskTests {
  struct Entry: Equatable {
    var mode: UInt32
    var links: UInt32
    var device: [UInt32]
    var content: [UInt8]
  }

  /// Reads as the kernel does: headers of hex digits, names and contents on multiples of four.
  private func entries(_ bytes: [UInt8]) throws -> [(String, Entry)] {
    var found: [(String, Entry)] = []
    var position = 0
    while true {
      try #require(position % 4 == 0 && position + 110 <= bytes.count)
      try #require(bytes[position..<(position + 6)].elementsEqual("070701".utf8))
      let fields = try (0..<13).map { index -> UInt32 in
        let start = position + 6 + index * 8
        return try #require(UInt32(String(decoding: bytes[start..<(start + 8)], as: UTF8.self), radix: 16))
      }
      let nameStart = position + 110
      let nameEnd = nameStart + Int(fields[11])
      try #require(bytes[nameEnd - 1] == 0)
      let name = String(decoding: bytes[nameStart..<(nameEnd - 1)], as: UTF8.self)
      let start = (nameEnd + 3) & ~3
      let end = start + Int(fields[6])
      if name == "TRAILER!!!" {
        #expect(bytes[end...].allSatisfy { $0 == 0 })
        #expect(bytes.count % 512 == 0)
        return found
      }
      let entry = Entry(
        mode: fields[1], links: fields[4], device: [fields[9], fields[10]], content: Array(bytes[start..<end]))
      found.append((name, entry))
      position = (end + 3) & ~3
    }
  }

  @Test func writesWhatTheKernelReads() throws {
    let sink = MemorySink()
    let writer = InitialRamdiskWriter(sink)
    try writer.add(directory: "dev")
    try writer.add(characterDevice: "dev/console", major: 5, minor: 1)
    try writer.add(file: "usr/lib/deep/file", mode: 0o755, content: noise(1001))
    try writer.add(file: "usr/lib/empty", content: [])
    try writer.add(symbolicLink: "bin/sh", to: "busybox")
    try writer.finish()
    let found = try entries(sink.bytes)
    // Folders once each, before what is in them.
    #expect(
      found.map(\.0) == [
        "dev", "dev/console", "usr", "usr/lib", "usr/lib/deep", "usr/lib/deep/file", "usr/lib/empty", "bin", "bin/sh",
      ])
    let byName = Dictionary(uniqueKeysWithValues: found)
    #expect(byName["dev"] == Entry(mode: 0o040755, links: 2, device: [0, 0], content: []))
    #expect(byName["dev/console"] == Entry(mode: 0o020600, links: 1, device: [5, 1], content: []))
    #expect(byName["usr/lib/deep/file"] == Entry(mode: 0o100755, links: 1, device: [0, 0], content: noise(1001)))
    #expect(byName["usr/lib/empty"] == Entry(mode: 0o100644, links: 1, device: [0, 0], content: []))
    #expect(byName["bin/sh"] == Entry(mode: 0o120777, links: 1, device: [0, 0], content: Array("busybox".utf8)))
  }

  @Test func everyEntryHasItsOwnInode() throws {
    let sink = MemorySink()
    let writer = InitialRamdiskWriter(sink)
    for name in ["a", "b", "c"] { try writer.add(file: name, content: [1]) }
    try writer.finish()
    // Equal inodes would be hard links to the kernel.
    let inodes = [0, 116, 232].map { String(decoding: sink.bytes[($0 + 6)..<($0 + 14)], as: UTF8.self) }
    #expect(Set(inodes).count == 3)
  }
}

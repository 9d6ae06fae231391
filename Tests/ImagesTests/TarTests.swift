import Foundation
import Images
import Testing

@Suite struct TarTests {
  let scratch = Scratch()

  /// One header block, made without the program's own writer, and what follows it.
  struct Block {
    var name = "file"
    var size = "00000000000"
    var type: Character = "0"
    var link = ""
    var prefix = ""
    var content: [UInt8] = []
    var sumIsRight = true
    /// Bytes put over the block before its sum is made.
    var patches: [(Int, [UInt8])] = []

    var bytes: [UInt8] {
      var block = [UInt8](repeating: 0, count: 512)
      func put(_ text: String, _ offset: Int) {
        block.replaceSubrange(offset..<(offset + text.utf8.count), with: text.utf8)
      }
      put(name, 0)
      put("0000644\0", 100)
      put("0000000\0", 108)
      put("0000000\0", 116)
      put(size, 124)
      put("00000000000", 136)
      put(String(type), 156)
      put(link, 157)
      put("ustar\u{0}00", 257)
      put(prefix, 345)
      for (offset, bytes) in patches { block.replaceSubrange(offset..<(offset + bytes.count), with: bytes) }
      put("        ", 148)
      let sum = block.reduce(0) { $0 + Int($1) } + (sumIsRight ? 0 : 1)
      put(String(format: "%06o\u{0} ", sum), 148)
      return block + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }
  }

  private func size(_ count: Int) -> String { String(format: "%011o", count) }
  private static let end = [UInt8](repeating: 0, count: 1024)

  private func entries(_ bytes: [UInt8]) throws -> [(TarEntry, [UInt8])] {
    let reader = TarReader(MemorySource(bytes), name: "archive")
    var found: [(TarEntry, [UInt8])] = []
    while let entry = try reader.next() {
      found.append((entry, try reader.contentSource.readAll(limit: 1 << 24, of: entry.path)))
    }
    return found
  }

  private static let sample: [(TarEntry, [UInt8])] = [
    (TarEntry(path: "folder", kind: .directory, mode: 0o755), []),
    (
      TarEntry(path: "folder/file", kind: .file, mode: 0o4755, user: 1000, group: 42, modified: 1_700_000_000),
      noise(700)
    ),
    (TarEntry(path: "folder/empty", kind: .file, mode: 0o600), []),
    (TarEntry(path: "folder/second", kind: .hardLink("folder/file"), mode: 0o644), []),
    (TarEntry(path: "link", kind: .symbolicLink("/etc/../somewhere"), mode: 0o777), []),
    (TarEntry(path: "long/" + String(repeating: "n", count: 200), kind: .file, mode: 0o644), noise(512)),
    (TarEntry(path: "l", kind: .symbolicLink(String(repeating: "t", count: 150)), mode: 0o777), []),
    (TarEntry(path: "名前", kind: .file, mode: 0o644), [1]),
    (TarEntry(path: "console", kind: .characterDevice(major: 5, minor: 1), mode: 0o600), []),
    (TarEntry(path: "disk", kind: .blockDevice(major: 254, minor: 0), mode: 0o660), []),
    (TarEntry(path: "pipe", kind: .namedPipe, mode: 0o644), []),
  ]

  private func archive(_ entries: [(TarEntry, [UInt8])]) throws -> [UInt8] {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for (entry, content) in entries { try writer.add(entry, content: content) }
    try writer.finish()
    return sink.bytes
  }

  @Test func readsWhatItWrites() throws {
    let bytes = try archive(Self.sample)
    #expect(bytes.count % 512 == 0)
    let found = try entries(bytes)
    try #require(found.count == Self.sample.count)
    for ((entry, content), (wanted, data)) in zip(found, Self.sample) {
      var expected = wanted
      expected.byteCount = UInt64(data.count)
      #expect(entry == expected)
      #expect(content == data, "\(entry.path)")
    }
  }

  @Test func theHostsTarReadsIt() throws {
    let path = try scratch.put(try archive(Self.sample.filter { $0.0.kind != .namedPipe }), at: "a.tar")
    let list = try filter("tar", "-tvf", path, "--numeric-owner", input: [])
    let text = String(decoding: list, as: UTF8.self)
    #expect(text.contains("-rwsr-xr-x 1000/42"))
    #expect(text.contains("-> /etc/../somewhere"))
    #expect(text.contains(String(repeating: "n", count: 200)))
    #expect(text.contains("crw-------") && text.contains(" 5,1 "))
    #expect(try filter("tar", "-xOf", path, "./folder/file", input: []) == noise(700))
  }

  @Test(arguments: ["gnu", "pax", "ustar"])
  func readsTheHostsTar(format: String) throws {
    let long = String(repeating: "a", count: 90)
    let names = ["plain", "\(long)/\(long.prefix(60))"] + (format == "ustar" ? [] : ["\(long)/\(long)/\(long)", "é"])
    for name in names { try scratch.put(Array(name.utf8), at: "in/" + name) }
    try FileManager.default.createSymbolicLink(atPath: scratch["in/link"], withDestinationPath: "plain")
    let bytes = try filter("tar", "-C", scratch["in"], "--format=\(format)", "-cf", "-", ".", input: [])
    let found = try entries(bytes)
    for name in names { #expect(found.contains { $0.0.path == name && $0.1 == Array(name.utf8) }, "\(name)") }
    #expect(found.contains { $0.0.kind == .symbolicLink("plain") && $0.0.path == "link" })
  }

  @Test func aPrefixIsPartOfTheName() throws {
    #expect(try entries(Block(name: "name", prefix: "some/folder").bytes).map(\.0.path) == ["some/folder/name"])
  }

  @Test(arguments: ["../escape", "a/../../escape", "a/..", "/..", "./.."])
  func pathsThatLeaveTheRootAreRefused(path: String) {
    imageError(.corrupt, says: "archive", "leaves the root") { _ = try entries(Block(name: path).bytes) }
    imageError(.corrupt, says: "archive", "leaves the root") {
      _ = try entries(Block(name: "a", type: "1", link: path).bytes)
    }
    let long = Block(name: "x", size: size(path.utf8.count), type: "L", content: Array(path.utf8)).bytes
    imageError(.corrupt, says: "leaves the root") { _ = try entries(long + Block().bytes) }
    let record = " path=\(path)\n"
    let text = "\(record.utf8.count + 2)" + record
    let pax = Block(name: "x", size: size(text.utf8.count), type: "x", content: Array(text.utf8)).bytes
    imageError(.corrupt, says: "leaves the root") { _ = try entries(pax + Block().bytes) }
  }

  @Test func absolutePathsAreBelowTheRoot() throws {
    #expect(try entries(Block(name: "/etc//./passwd").bytes).map(\.0.path) == ["etc/passwd"])
  }

  @Test(arguments: [
    Block(name: ""), Block(name: "a", type: "1", link: ""), Block(name: "a", type: "2", link: ""),
    Block(name: "a", type: "Z"), Block(sumIsRight: false), Block(size: "zzzzzzzzzzz"), Block(size: "99999999999"),
    Block(size: "77777777777777"), Block(patches: [(124, [0x80, 0, 0, 0, 0xFF] + [UInt8](repeating: 0xFF, count: 7))]),
    Block(patches: [(124, [UInt8](repeating: 0xFF, count: 12))]), Block(patches: [(0, [0xFF, 0xFE])]),
  ])
  func damagedHeadersAreRefused(block: Block) {
    imageError(.corrupt, says: "archive") { _ = try entries(block.bytes) }
  }

  @Test(arguments: [
    "7 path=", "9 path=ab", "4 a\n", "99 path=a\n", "path=a\n", "-5 path=a\n", " path=a\n",
    "99999999999999999999 path=a\n", "11 size=-1\n", "12 size=1x2\n", "23 uid=999999999999999\n", "6 a=b\n7 path",
  ])
  func damagedExtendedHeadersAreRefused(text: String) {
    let pax = Block(name: "x", size: size(text.utf8.count), type: "x", content: Array(text.utf8)).bytes
    imageError(.corrupt, says: "archive") { _ = try entries(pax + Block().bytes) }
  }

  @Test func namesOfAbsurdLengthAreRefused() {
    for type in ["L", "K", "x", "g"] as [Character] {
      imageError(.corrupt, says: "a name of 1073741823 bytes") {
        _ = try entries(Block(size: "07777777777", type: type).bytes)
      }
    }
  }

  @Test func everyTruncationIsFound() throws {
    let bytes = try archive([(TarEntry(path: "a", kind: .file, mode: 0o644), noise(700))])
    // 512 of header, 1024 of content, 1024 of end.
    for count in 1..<(512 + 1024) where count % 37 == 0 || count % 512 == 511 || count % 512 == 1 || count == 512 {
      imageError(.corrupt, says: "archive") {
        let reader = TarReader(MemorySource(Array(bytes[..<count])), name: "archive")
        while try reader.next() != nil {}
      }
    }
    #expect(try entries(bytes).count == 1)
  }
}

extension TarTests.Block: CustomTestStringConvertible {
  var testDescription: String { "\(name) \(size) \(type)" }
}

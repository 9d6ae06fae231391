import Images
import Testing

/// `ar` archives and Debian packages (deb(5)).
@Suite struct PackageFileTests {
  static func ar(_ members: [(String, [UInt8])]) -> [UInt8] {
    var bytes = Array("!<arch>\n".utf8)
    for (name, content) in members {
      func field(_ text: String, _ count: Int) -> String {
        text + String(repeating: " ", count: count - text.utf8.count)
      }
      let header = field(name, 16) + field("0", 12) + field("0", 6) + field("0", 6) + field("100644", 8)
      bytes += Array((header + field("\(content.count)", 10) + "`\n").utf8) + content
      if content.count % 2 == 1 { bytes.append(0x0A) }
    }
    return bytes
  }

  static func tar(_ files: [(String, String)]) throws -> [UInt8] {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for (path, text) in files {
      try writer.add(TarEntry(path: path, kind: .file, mode: 0o644), content: Array(text.utf8))
    }
    try writer.finish()
    return sink.bytes
  }

  static let control = "Package: hello\nVersion: 1\nArchitecture: riscv64\n"

  static func package(files: [(String, String)] = [("usr/bin/hello", "hello\n")]) throws -> [UInt8] {
    ar([
      ("debian-binary", Array("2.0\n".utf8)),
      ("control.tar", try tar([("control", control), ("postinst", "#!/bin/sh")])),
      ("data.tar", try tar(files)),
    ])
  }

  private func open(_ bytes: [UInt8]) throws -> DebianPackageFile {
    try DebianPackageFile(MemorySource(bytes), name: "hello.deb")
  }

  /// Reads the package to its end.
  private func paths(_ bytes: [UInt8]) throws -> [String] {
    let package = try open(bytes)
    var paths: [String] = []
    while let entry = try package.data.next() { paths.append(entry.path) }
    return paths
  }

  @Test func readsMembers() throws {
    let reader = try ArReader(MemorySource(Self.ar([("a/", [1, 2, 3]), ("b", []), ("c", [4])])), name: "archive")
    var found: [String: [UInt8]] = [:]
    while let (member, body) = try reader.next() { found[member.name] = try body.readAll(limit: 10, of: "member") }
    #expect(found == ["a": [1, 2, 3], "b": [], "c": [4]])
    // Members that nobody read are skipped.
    let second = try ArReader(MemorySource(Self.ar([("a", noise(99_999)), ("b", [7])])), name: "archive")
    _ = try second.next()
    #expect(try second.next()?.1.readAll(limit: 10, of: "b") == [7])
  }

  @Test func hostileMembersAreRefused() throws {
    imageError(.corrupt, says: "archive", "no ar archive") {
      _ = try ArReader(MemorySource(Array("!<arch>?".utf8)), name: "archive")
    }
    imageError(.corrupt, says: "archive is cut short") {
      _ = try ArReader(MemorySource(Array("!<ar".utf8)), name: "archive")
    }
    var bytes = Self.ar([("a", [1, 2])])
    for (offset, text) in [(8 + 48, "-1        "), (8 + 48, "0x10      "), (8 + 48, "          "), (8 + 58, "xx")] {
      var damaged = bytes
      damaged.replaceSubrange(offset..<(offset + text.utf8.count), with: text.utf8)
      let reader = try ArReader(MemorySource(damaged), name: "archive")
      imageError(.corrupt, says: "archive", "damaged") { _ = try reader.next() }
    }
    bytes.replaceSubrange((8 + 48)..<(8 + 58), with: "9999999999".utf8)
    let reader = try ArReader(MemorySource(bytes), name: "archive")
    imageError(.corrupt, says: "archive is cut short") {
      while let (_, body) = try reader.next() { _ = try body.readAll(limit: 1 << 20, of: "member") }
    }
  }

  @Test func readsPackages() throws {
    let package = try open(try Self.package())
    #expect(package.control["Package"] == "hello")
    #expect(package.controlText("postinst") == "#!/bin/sh")
    #expect(package.controlText("prerm") == nil)
    #expect(try package.data.next()?.path == "usr/bin/hello")
    #expect(try package.data.contentSource.readAll(limit: 100, of: "hello") == Array("hello\n".utf8))
    #expect(try package.data.next() == nil)
  }

  @Test(arguments: [("xz", "xz"), ("gzip", "gz"), ("zstd", "zst")])
  func readsCompressedPackages(program: String, suffix: String) throws {
    let text = noise(20_000).map { String($0) }.joined()
    let control = try filter(program, "-c", input: try Self.tar([("control", Self.control)]))
    let data = try filter(program, "-c", input: try Self.tar([("etc/file", text)]))
    let bytes = Self.ar([
      ("debian-binary", Array("2.0\n".utf8)), ("_ignored", [1]), ("control.tar.\(suffix)", control),
      ("data.tar.\(suffix)", data),
    ])
    #expect(try paths(bytes) == ["etc/file"])
    for count in [bytes.count - data.count / 2, bytes.count - data.count - 30, 100, 20, 3] {
      imageError(.corrupt, says: "hello.deb") { _ = try paths(Array(bytes[..<count])) }
    }
  }

  @Test func otherFilesAreRefused() throws {
    let version = ("debian-binary", Array("2.0\n".utf8))
    let control = ("control.tar", try Self.tar([("control", Self.control)]))
    let data = ("data.tar", try Self.tar([]))
    for (members, why) in [
      ([("debian-binary", Array("3.0\n".utf8)), control, data], "format 2"), ([control, data], "format 2"),
      ([], "format 2"), ([version, data], "no control file"), ([version, control], "no data archive"),
      ([version, ("surprise", []), control, data], "surprise"),
      ([version, ("control.tar.bz2", []), data], "control.tar.bz2"),
      ([version, ("control.tar", try Self.tar([("sub/control", "x")])), data], "sub/control"),
      ([version, ("control.tar", try Self.tar([("control", "")])), data], "no control file"),
      ([("debian-binary", noise(1000)), control, data], "hello.deb"),
    ] as [([(String, [UInt8])], String)] {
      imageError(.corrupt, says: "hello.deb", why) { _ = try open(Self.ar(members)) }
    }
  }
}

@Suite struct DecompressionTests {
  private func decompressed(_ bytes: [UInt8], limit: Int = 1 << 24) throws -> [UInt8] {
    try decompress(bytes, limit: limit, name: "data")
  }

  @Test(arguments: ["xz", "gzip", "zstd"])
  func agreesWithTheHostsPrograms(program: String) throws {
    for content in [[], [1], noise(300_000), [UInt8](repeating: 7, count: 3_000_000)] {
      #expect(try decompressed(try filter(program, "-c", input: content)) == content)
    }
  }

  @Test(arguments: ["xz", "gzip", "zstd"])
  func damageIsFound(program: String) throws {
    let bytes = try filter(program, "-c", input: noise(20_000))
    for count in [7, 20, bytes.count / 2, bytes.count - 1] {
      imageError(.corrupt, says: "data", "fetch it again") { _ = try decompressed(Array(bytes[..<count])) }
    }
    var damaged = bytes
    damaged[bytes.count / 2] ^= 1
    if program != "gzip" { damaged[20] ^= 1 }
    imageError(.corrupt, says: "data") { _ = try decompressed(damaged) }
  }

  @Test(arguments: ["xz", "gzip", "zstd"])
  func absurdSizesAreRefused(program: String) throws {
    let bomb = try filter(program, "-c", input: [UInt8](repeating: 0, count: 1 << 24))
    imageError(.corrupt, says: "data is larger than 65536 bytes") { _ = try decompressed(bomb, limit: 1 << 16) }
  }

  @Test func theHostsZstdReadsWhatIsCompressed() throws {
    for content in [[], noise(300_000), [UInt8](repeating: 7, count: 3_000_000)] {
      let sink = MemorySink()
      let compressor = try ZstandardSink(sink)
      for start in stride(from: 0, to: content.count, by: 70_000) {
        try compressor.write(Array(content[start..<min(start + 70_000, content.count)]))
      }
      try compressor.finish()
      #expect(try filter("zstd", "-dc", input: sink.bytes) == content)
      #expect(sink.bytes.count < max(content.count, 100) + 1000)
    }
  }
}

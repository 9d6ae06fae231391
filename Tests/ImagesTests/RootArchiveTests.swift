import Images
import Testing

/// The root file system that packages make together.
@Suite struct RootArchiveTests {
  private func package(_ name: String, _ entries: [TarEntry], replaces: String? = nil) throws -> DebianPackageFile {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for entry in entries {
      try writer.add(entry, content: entry.kind == .file ? Array("of \(name)".utf8) : [])
    }
    try writer.finish()
    let control = "Package: \(name)\nVersion: 1\n" + (replaces.map { "Replaces: \($0)\n" } ?? "")
    let bytes = PackageFileTests.ar([
      ("debian-binary", Array("2.0\n".utf8)), ("control.tar", try PackageFileTests.tar([("control", control)])),
      ("data.tar", sink.bytes),
    ])
    return try DebianPackageFile(MemorySource(bytes), name: "\(name).deb")
  }

  private func file(_ path: String) -> TarEntry { TarEntry(path: path, kind: .file, mode: 0o644) }
  private func folder(_ path: String) -> TarEntry { TarEntry(path: path, kind: .directory, mode: 0o755) }
  private func link(_ path: String, _ target: String) -> TarEntry {
    TarEntry(path: path, kind: .symbolicLink(target), mode: 0o777)
  }

  /// The paths and contents of the archive that these packages make.
  private func root(_ packages: DebianPackageFile...) throws -> [(entry: TarEntry, text: String)] {
    let sink = MemorySink()
    let archive = RootArchive(sink, task: ImageTask())
    for package in packages { try archive.add(package, isAutomatic: false) }
    try archive.finish()
    let reader = TarReader(MemorySource(sink.bytes), name: "root")
    var found: [(TarEntry, String)] = []
    while let entry = try reader.next() {
      let text = try reader.contentSource.readAll(limit: 1 << 20, of: "root")
      found.append((entry, String(decoding: text, as: UTF8.self)))
    }
    return found
  }

  @Test func pathsGoThroughNoLinks() throws {
    let found = try root(
      try package("base", [folder("usr"), folder("usr/lib"), link("lib", "usr/lib")]),
      try package("kernel", [folder("lib"), folder("lib/modules"), file("lib/modules/a.ko")]))
    #expect(found.contains { $0.entry.path == "usr/lib/modules/a.ko" && $0.text == "of kernel" })
    #expect(!found.contains { $0.entry.path.hasPrefix("lib/") })
  }

  @Test(arguments: ["/etc", "../../../etc", "/../../etc", "./../etc/."])
  func linksDoNotLeadOutside(target: String) throws {
    let found = try root(
      try package("hostile", [link("data", target), file("data/passwd"), file("data/sub/shadow")]))
    #expect(found.contains { $0.entry.path == "etc/passwd" })
    #expect(found.contains { $0.entry.path == "etc/sub/shadow" })
    for (entry, _) in found { #expect(!entry.path.split(separator: "/").contains("..")) }
  }

  @Test func circlesOfLinksAreRefused() throws {
    let hostile = try package("hostile", [link("a", "b"), link("b", "a"), file("a/x")])
    imageError(.corrupt, says: "/a/x", "circles") { _ = try root(hostile) }
  }

  @Test func filesBelowFilesAreRefused() throws {
    let hostile = try package("hostile", [file("a"), file("a/b")])
    imageError(.corrupt, says: "/a/b", "/a") { _ = try root(hostile) }
  }

  @Test func twoPackagesWithOneFile() throws {
    imageError(.corrupt, says: "second has /bin/tool", "a file of first") {
      _ = try root(try package("first", [file("bin/tool")]), try package("second", [file("bin/tool")]))
    }
    let found = try root(
      try package("first", [file("bin/tool")]), try package("second", [file("bin/tool")], replaces: "first (<< 2)"))
    #expect(found.last { $0.entry.path == "bin/tool" }?.text == "of second")
    // The order doesn't matter.
    let other = try root(
      try package("second", [file("bin/tool")], replaces: "first (<< 2)"), try package("first", [file("bin/tool")]))
    #expect(other.filter { $0.entry.path == "bin/tool" }.map(\.text) == ["of second"])
    imageError(.corrupt, says: "bin/tool") {
      _ = try root(
        try package("first", [file("bin/tool")]), try package("second", [file("bin/tool")], replaces: "first (<< 1)"))
    }
  }

  @Test func dpkgKnowsThePackages() throws {
    let found = try root(try package("hello", [folder("usr"), file("usr/hello"), file("usr/share/doc/hello/changes")]))
    let status = try #require(found.first { $0.entry.path == "var/lib/dpkg/status" }?.text)
    #expect(status.contains("Package: hello\n") && status.contains("Status: install ok unpacked"))
    let list = try #require(found.first { $0.entry.path == "var/lib/dpkg/info/hello.list" }?.text)
    #expect(list == "/.\n/usr\n/usr/hello\n/usr/share/doc/hello/changes\n")
    // Documentation is left out.
    #expect(!found.contains { $0.entry.path.hasSuffix("changes") })
  }
}

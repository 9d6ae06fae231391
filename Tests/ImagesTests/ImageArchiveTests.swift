import Foundation
import HTTPTestServer
import HostSystem
import Images
import Storage
import Testing

/// Images as single files: exported, and pulled from a server or a file.
@Suite struct ImageArchiveTests {
  let scratch = Scratch()
  var store: ImageStore { ImageStore(folder: URL(fileURLWithPath: scratch["images"])) }

  @discardableResult
  private func pull(_ source: String, name: String? = nil, sha256 checksum: String? = nil) throws -> ImageStore.Image {
    try store.pull(source, name: name, sha256: checksum, environment: ["XDG_CACHE_HOME": scratch["cache"]])
  }

  /// Nothing of an image, nor of one on its way.
  private func expectEmptyStore(_ location: SourceLocation = #_sourceLocation) {
    #expect(scratch.names(in: "images").isEmpty, sourceLocation: location)
  }

  private func content(_ image: ImageStore.Image, _ name: String) -> [UInt8]? {
    scratch.bytes("images/\(image.manifest.name)/\(name)")
  }

  /// A qcow2 disk with something in it.
  private func disk(backing: String? = nil) throws -> [UInt8] {
    let path = scratch["made-\(UUID().uuidString).qcow2"]
    try DiskImage.create(path: path, format: .qcow2, size: 1 << 20, backing: backing.map { ($0, .raw) })
    let disk = try DiskImage.open(path: path)
    try noise(4096).withUnsafeBytes { try disk.write(at: 8192, from: $0) }
    try disk.close()
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
  }

  @Test(arguments: ["out.tar", "out.tar.zst"])
  func whatIsExportedCanBePulled(name: String) throws {
    let raw = noise(1000) + [UInt8](repeating: 0, count: 4 << 20 - 1000)
    let sample = SampleImage(disk: ("disk.raw", "raw", 4 << 20, raw))
    try sample.install(in: store)
    let archive = scratch[name]
    try store.export("sample", to: archive)
    // The host's programs read it, too.
    let list = String(decoding: try filter("tar", "-tf", archive, input: []), as: UTF8.self)
    #expect(list == "./manifest.json\n./kernel\n./initrd\n./disk.raw\n")
    if name.hasSuffix(".zst") { #expect(try #require(scratch.bytes(name)).count < 1 << 20) }
    let image = try pull(archive, name: "copy")
    var expected = try store.find("sample").manifest
    expected.name = "copy"
    #expect(image.manifest == expected)
    #expect(try store.find("copy").manifest == expected)
    for (name, bytes) in sample.files { #expect(content(image, name) == bytes) }
    #expect(image.allocatedByteCount < 1 << 20)
    imageError(.usage, says: archive, "already") { try store.export("sample", to: archive) }
  }

  @Test func exportMeasuresTheDiskAnew() throws {
    let bytes = try disk()
    try SampleImage(disk: ("disk.qcow2", "qcow2", 1 << 20, [1, 2, 3])).install(in: store)
    try scratch.put(bytes, at: "images/sample/disk.qcow2")
    try store.export("sample", to: scratch["out.tar"])
    #expect(try pull(scratch["out.tar"], name: "copy").manifest.disk?.file.sha256 == sha256(bytes))
  }

  @Test func whatCanNotBeExported() throws {
    try SampleImage(disk: ("disk.qcow2", "qcow2", 1 << 20, try disk())).install(in: store)
    imageError(.usage, says: "out.zip", ".tar.zst") { try store.export("sample", to: scratch["out.zip"]) }
    imageError(.notFound, says: "sampel", "did you mean sample?") { try store.export("sampel", to: scratch["a.tar"]) }
    imageError(.inputOutput, says: scratch["nowhere/a.tar"]) {
      try store.export("sample", to: scratch["nowhere/a.tar"])
    }
    // A machine that writes to it.
    let writer = try DiskImage.open(path: scratch["images/sample/disk.qcow2"])
    #expect(throws: StorageError.self) { try store.export("sample", to: scratch["a.tar"]) }
    try writer.close()
    // A disk that is only the difference to another file.
    try scratch.put(noise(1 << 20), at: "base.raw")
    try scratch.put(try disk(backing: scratch["base.raw"]), at: "images/sample/disk.qcow2")
    imageError(.usage, says: "disk.qcow2", "base.raw") { try store.export("sample", to: scratch["a.tar"]) }
    // A kernel that somebody changed.
    try scratch.put(noise(5000, seed: 9), at: "images/sample/kernel")
    imageError(.corrupt, says: "images/sample/kernel") { try store.export("sample", to: scratch["a.tar"]) }
    #expect(!scratch.names().contains { $0.hasSuffix(".tar") || $0.hasSuffix(".partial") })
  }

  @Test(arguments: ["", "folder/"], ["", "xz", "gzip", "zstd"])
  func archivesOfOtherProgramsAreTaken(folder: String, program: String) throws {
    let sample = SampleImage(disk: ("disk.qcow2", "qcow2", 1 << 20, try disk()))
    let readme = (TarEntry(path: folder + "README", kind: .file, mode: 0o644), Array("not named\n".utf8))
    let plain = sample.archive(folder: folder, adding: [readme])
    try scratch.put(program.isEmpty ? plain : try filter(program, "-c", input: plain), at: "archive")
    let image = try pull(scratch["archive"])
    #expect(image.manifest.name == "sample")
    for (name, bytes) in sample.files { #expect(content(image, name) == bytes) }
    #expect(content(image, "README") == nil)
  }

  @Test func fetchesFromAServer() throws {
    let bytes = SampleImage().archive()
    var page = HTTPTestServer.Page(bytes)
    page.cuts = [30_000]
    let server = try HTTPTestServer(["/images/sample.tar": page])
    let url = "\(server.address)/images/sample.tar"
    let image = try pull(url)
    #expect(image.manifest.name == "sample")
    #expect(server.requests == [.init("/images/sample.tar"), .init("/images/sample.tar", from: 30_000)])
    // Without a checksum nobody knows whether the server has the same file still.
    #expect(scratch.names(in: "cache").filter { $0.contains("url-") }.isEmpty)
    server.forgetRequests()
    imageError(.usage, says: "there is an image sample already", "--name") { try pull(url) }
    imageError(.usage, says: "there is an image sample already") { try pull(url, name: "sample") }
    #expect(server.requests == [.init("/images/sample.tar")])
  }

  @Test func aKnownChecksumIsFetchedOnce() throws {
    let bytes = SampleImage().archive()
    let server = try HTTPTestServer(["/sample.tar": .init(bytes)])
    let url = "\(server.address)/sample.tar"
    try pull(url, sha256: sha256(bytes).uppercased())
    server.forgetRequests()
    try pull(url, name: "again", sha256: sha256(bytes))
    #expect(server.requests.isEmpty)
    #expect(store.list().map(\.manifest.name) == ["again", "sample"])
  }

  @Test func aWrongChecksumIsRefused() throws {
    let bytes = SampleImage().archive()
    let server = try HTTPTestServer(["/sample.tar": .init(bytes)])
    let other = sha256([])
    imageError(.corrupt, says: "\(server.address)/sample.tar has the SHA-256 \(sha256(bytes))", "--sha256") {
      try pull("\(server.address)/sample.tar", sha256: other)
    }
    #expect(server.requests.count == 1)
    try scratch.put(bytes, at: "sample.tar")
    imageError(.corrupt, says: "sample.tar has the SHA-256 \(sha256(bytes))", "--sha256") {
      try pull(scratch["sample.tar"], sha256: other)
    }
    for text in ["", "abc", String(repeating: "g", count: 64), other + "0"] {
      imageError(.usage, says: "--sha256", "64 hex digits") { try pull(scratch["sample.tar"], sha256: text) }
    }
    expectEmptyStore()
    #expect(!scratch.names(in: "cache").contains { $0.contains(other) })
  }

  @Test func sourcesThatCanNotBe() throws {
    imageError(.usage, says: "ftp://host/x", "http or https") { try pull("ftp://host/x") }
    imageError(.usage, says: "file://host/x") { try pull("file://host/x") }
    imageError(.notFound, says: "/nowhere/x.tar") { try pull("/nowhere/x.tar") }
    imageError(.notFound, says: "/nowhere/x.tar") { try pull("file:///nowhere/x.tar") }
    imageError(.notFound, says: scratch.path) { try pull(scratch.path) }
    imageError(.usage, says: "\"Bad Name\"") { try pull("/nowhere/x.tar", name: "Bad Name") }
    let server = try HTTPTestServer()
    imageError(.notFound, says: "\(server.address)/x.tar isn't there; check the URL") {
      try pull("\(server.address)/x.tar")
    }
    expectEmptyStore()
  }

  /// Pulls an archive, which must be refused and leave nothing.
  private func expectRefusal(
    _ bytes: [UInt8], says words: String..., location: SourceLocation = #_sourceLocation
  ) throws {
    let path = try scratch.put(bytes, at: "hostile.tar")
    do {
      try pull(path)
      Issue.record("no error", sourceLocation: location)
    } catch let error as ImageError {
      #expect(error.code == .corrupt, "\(error)", sourceLocation: location)
      for word in [path] + words where !word.isEmpty {
        #expect(error.message.contains(word), "\(error)", sourceLocation: location)
      }
      #expect(!error.message.contains("\n") && !error.message.contains("/.new-"), "\(error)", sourceLocation: location)
    }
    expectEmptyStore(location)
  }

  @Test func otherFilesAreRefused() throws {
    for bytes in [[], [1], noise(10_000), try disk(), Array("<html></html>".utf8)] {
      try expectRefusal(bytes, says: "yadori image export")
    }
    let sink = MemorySink()
    let writer = TarWriter(sink)
    try writer.add(TarEntry(path: "a/b/manifest.json", kind: .file, mode: 0o644), content: [])
    try writer.finish()
    try expectRefusal(sink.bytes, says: "no manifest.json")
  }

  @Test func hostileEntriesAreRefused() throws {
    let sample = SampleImage()
    let victim = try scratch.put("safe", at: "victim")
    for entry in [
      TarEntry(path: "kernel", kind: .symbolicLink(victim), mode: 0o777),
      TarEntry(path: "link", kind: .symbolicLink("/"), mode: 0o777),
      TarEntry(path: "initrd", kind: .hardLink("victim"), mode: 0o644),
      TarEntry(path: "kernel", kind: .namedPipe, mode: 0o644),
      TarEntry(path: "kernel", kind: .characterDevice(major: 1, minor: 3), mode: 0o644),
    ] { try expectRefusal(sample.archive(adding: [(entry, [])]), says: entry.path, "neither a file nor a folder") }
    for path in ["../victim", "a/../../../victim"] {
      let sink = MemorySink()
      try sink.write(TarTests.Block(name: path, size: "00000000003", content: [1, 2, 3]).bytes)
      try expectRefusal(sink.bytes + sample.archive(), says: "")
    }
    #expect(scratch.bytes("victim") == Array("safe".utf8))
  }

  @Test func hostileManifestsAreRefused() throws {
    func expect(_ word: String, _ change: (inout SampleImage) -> Void) throws {
      var sample = SampleImage(disk: ("disk.raw", "raw", 512, [UInt8](repeating: 1, count: 512)))
      change(&sample)
      try expectRefusal(sample.archive(), says: word)
    }
    try expect("architecture is x86_64") { $0.manifest["architecture"] = "x86_64" }
    try expect("formatVersion is 7") { $0.manifest["formatVersion"] = 7 }
    try expect("../../../victim") { $0.manifest["kernel"] = SampleImage.file("../../../victim", [1]) }
    try expect("--name") { $0.manifest["name"] = "../../victim" }
    try expect("commandLine is missing") { $0.manifest["commandLine"] = nil }
    try expect("wrong checksum for kernel") {
      $0.manifest["kernel"] = ["name": "kernel", "byteCount": 5000, "sha256": sha256([])] as [String: Any]
    }
    try expect("5000 bytes of kernel") {
      $0.manifest["kernel"] = ["name": "kernel", "byteCount": UInt64(1) << 62, "sha256": ""] as [String: Any]
    }
    try expect("lacks the file other") { $0.manifest["kernel"] = SampleImage.file("other", [1]) }
    try expect("raw disk") { sample in
      var disk = sample.manifest["disk"] as! [String: Any]
      disk["virtualByteCount"] = 1 << 40
      sample.manifest["disk"] = disk
    }
  }

  @Test func hostileDisksAreRefused() throws {
    func expect(_ word: String, size: Int = 1 << 20, _ content: [UInt8]) throws {
      try expectRefusal(SampleImage(disk: ("disk.qcow2", "qcow2", size, content)).archive(), says: word, "disk")
    }
    // It would show the guest a file of the host.
    let secret = try scratch.put(noise(1 << 20), at: "secret")
    try expect("stands on another file", try disk(backing: secret))
    try expect("another format or size", noise(4096))
    try expect("another format or size", size: 2 << 20, try disk())
    try expect("can't be used", Array(try disk()[..<80]))
  }

  @Test func damageIsFound() throws {
    let bytes = SampleImage().archive()
    for count in [bytes.count - 1024 - 512, bytes.count / 2, 5000, 600] {
      try expectRefusal(Array(bytes[..<count]), says: "")
    }
    var damaged = bytes
    damaged[1024] ^= 1
    try expectRefusal(damaged, says: "wrong checksum for kernel")
    let compressed = try filter("zstd", "-c", input: bytes)
    try expectRefusal(Array(compressed[..<(compressed.count / 2)]), says: "")
  }

  @Test func stopsWhenAsked() throws {
    try scratch.put(SampleImage().archive(), at: "sample.tar")
    let task = ImageTask()
    task.cancel()
    imageError(.cancelled) { _ = try store.pull(scratch["sample.tar"], task: task) }
    expectEmptyStore()
  }
}

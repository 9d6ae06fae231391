import Foundation
import Images
import Testing

@Suite struct ImageManifestTests {
  private func parse(_ change: (inout SampleImage) -> Void = { _ in }) throws -> ImageManifest {
    var sample = SampleImage(disk: ("disk.qcow2", "qcow2", 1 << 20, [1, 2, 3]))
    change(&sample)
    return try ImageManifest.parse(Data(sample.manifestBytes), path: "manifest.json")
  }

  @Test func readsWhatItWrites() throws {
    let manifest = try parse()
    #expect(manifest.name == "sample")
    #expect(manifest.files.map(\.name) == ["kernel", "initrd", "disk.qcow2"])
    #expect(manifest.disk?.virtualByteCount == 1 << 20)
    #expect(manifest.packages.map { "\($0.name) \($0.version)" } == ["bash 5.2-1"])
    let text = try manifest.serialized()
    #expect(try ImageManifest.parse(text, path: "manifest.json") == manifest)
    // A person can read it.
    #expect(String(decoding: text, as: UTF8.self).contains("\n  \"name\" : \"sample\",\n"))
  }

  @Test func otherVersionsAndMachinesAreRefused() {
    imageError(.corrupt, says: "manifest.json", "formatVersion is 2") {
      // Another version may lack what this one has.
      _ = try parse {
        $0.manifest["formatVersion"] = 2
        $0.manifest["kernel"] = nil
      }
    }
    imageError(.corrupt, says: "manifest.json", "architecture is aarch64") {
      _ = try parse { $0.manifest["architecture"] = "aarch64" }
    }
  }

  @Test func saysWhichFieldIsWrong() {
    imageError(.corrupt, says: "the field commandLine is missing") {
      _ = try parse { $0.manifest["commandLine"] = nil }
    }
    imageError(.corrupt, says: "the field kernel.byteCount is of another type") {
      _ = try parse { $0.manifest["kernel"] = ["name": "kernel", "byteCount": "many", "sha256": ""] as [String: Any] }
    }
    imageError(.corrupt, says: "the field disk.format isn't valid") {
      _ = try parse { sample in
        var disk = sample.manifest["disk"] as! [String: Any]
        disk["format"] = "vmdk"
        sample.manifest["disk"] = disk
      }
    }
    for text in ["", "{", "[]", "null", "\u{0}", "{}"] {
      imageError(.corrupt, says: "manifest.json") {
        _ = try ImageManifest.parse(Data(text.utf8), path: "manifest.json")
      }
    }
  }

  @Test(arguments: [
    "", ".", "..", "../kernel", "/etc/passwd", "sub/kernel", ".hidden", "manifest.json", "a b", "a\u{1B}[2J", "a\n",
    "initrd",
  ])
  func hostileFileNamesAreRefused(name: String) {
    imageError(.corrupt, says: "manifest.json") {
      _ = try parse { $0.manifest["kernel"] = SampleImage.file(name, []) }
    }
  }

  @Test(arguments: ["name", "distribution", "version", "variant", "created", "commandLine", "hostname", "mirror"])
  func textsCanNotDriveATerminal(field: String) {
    let error = imageError(.corrupt, says: "control character") {
      _ = try parse { $0.manifest[field] = "x\u{1B}[2Jy" }
    }
    #expect(error?.message.contains("\u{1B}") == false)
  }
}

@Suite struct ImageStoreTests {
  let scratch = Scratch()
  var store: ImageStore { ImageStore(folder: URL(fileURLWithPath: scratch["images"])) }

  @Test func listsFindsAndRemoves() throws {
    #expect(store.list().isEmpty)
    try SampleImage(name: "two").install(in: store)
    try SampleImage(name: "one").install(in: store)
    try scratch.put("x", at: "images/broken/manifest.json")
    try scratch.put("x", at: "images/.new-x/manifest.json")
    #expect(store.list().map(\.manifest.name) == ["one", "two"])
    #expect(try store.find("one").kernel.path == scratch["images/one/kernel"])
    imageError(.notFound, says: "no image tw;", "did you mean two?") { _ = try store.find("tw") }
    imageError(.corrupt, says: "images/broken/manifest.json") { _ = try store.find("broken") }
    try store.remove("one")
    #expect(store.list().map(\.manifest.name) == ["two"])
    imageError(.notFound, says: "no image one") { try store.remove("one") }
  }

  @Test(arguments: ["../two", "", "..", ".hidden", "UPPER", "a/b", "a b", String(repeating: "x", count: 65)])
  func namesThatCanNotBe(name: String) {
    imageError(.usage, says: "can't name an image") { _ = try store.find(name) }
    imageError(.usage, says: "can't name an image") { try store.remove(name) }
    imageError(.usage, says: "can't name an image") { _ = try store.makeWorkFolder(for: name) }
  }

  @Test func cutFilesAreFound() throws {
    try SampleImage(name: "one").install(in: store)
    try scratch.put([1], at: "images/one/kernel")
    imageError(.corrupt, says: "images/one/kernel", "build the image again") { _ = try store.find("one") }
    try FileManager.default.removeItem(atPath: scratch["images/one/kernel"])
    imageError(.corrupt, says: "images/one/kernel") { _ = try store.find("one") }
  }

  @Test func addsInOneStep() throws {
    let manifest = try ImageManifest.parse(Data(SampleImage(name: "one").manifestBytes), path: "m")
    let work = try store.makeWorkFolder(for: "one")
    #expect(store.list().isEmpty)
    _ = try store.add(work, manifest: manifest, replacing: false)
    #expect(store.list().map(\.manifest) == [manifest])
    let second = try store.makeWorkFolder(for: "one")
    imageError(.usage, says: "there is an image one already") {
      _ = try store.add(second, manifest: manifest, replacing: false)
    }
    var other = manifest
    other.version = "13.2"
    _ = try store.add(second, manifest: other, replacing: true)
    #expect(store.list().map(\.manifest.version) == ["13.2"])
    #expect(scratch.names(in: "images") == ["one", "one/manifest.json"])
  }

  @Test func foldersOfKilledBuildsGo() throws {
    // No process has this number (Linux: at most 2^22).
    try scratch.put("x", at: "images/.new-one-5000000-abcdefgh/kernel")
    try scratch.put("x", at: "images/.new-one-\(getpid())-abcdefgh/kernel")
    _ = try store.makeWorkFolder(for: "two")
    #expect(!FileManager.default.fileExists(atPath: scratch["images/.new-one-5000000-abcdefgh"]))
    #expect(FileManager.default.fileExists(atPath: scratch["images/.new-one-\(getpid())-abcdefgh"]))
  }

  @Test func itsPlaceFollowsTheEnvironment() {
    func place(_ environment: [String: String]) -> String { ImageStore.standardFolder(environment: environment).path }
    #expect(place(["YADORI_HOME": "/y", "HOME": "/h"]) == "/y/images")
    #expect(place(["XDG_DATA_HOME": "/d", "HOME": "/h"]) == "/d/yadori/images")
    #expect(place(["XDG_DATA_HOME": "relative", "HOME": "/h"]) == "/h/.local/share/yadori/images")
  }
}

@Suite struct FileSinkTests {
  let scratch = Scratch()

  @Test func holesReadAsWhatWasWritten() throws {
    let content =
      noise(100_000) + [UInt8](repeating: 0, count: 3 << 20) + noise(1) + [UInt8](repeating: 0, count: 1 << 20)
    let sink = try FileSink(path: scratch["file"], leavesHoles: true)
    for start in stride(from: 0, to: content.count, by: 300_001) {
      try sink.write(Array(content[start..<min(start + 300_001, content.count)]))
    }
    #expect(try sink.finish() == sha256(content))
    #expect(sink.byteCount == UInt64(content.count))
    #expect(scratch.bytes("file") == content)
    var status = stat()
    #expect(stat(scratch["file"], &status) == 0)
    #expect(status.st_blocks * 512 < 1 << 20)
  }

  @Test func refusalsOfTheHostAreSaid() throws {
    imageError(.inputOutput, says: "can't create /nowhere/file") { _ = try FileSink(path: "/nowhere/file") }
    let sink = try FileSink(path: "/dev/full")
    imageError(.inputOutput, says: "can't write /dev/full", "the disk is full", "free some space") {
      try sink.write([1, 2, 3])
      try sink.finish()
    }
  }
}

import Foundation
import HostSystem
import Testing

@Suite struct ConfinedFolderTests {
  private let place = TemporaryFolder()

  private func write(_ text: String, to folder: ConfinedFolder, _ name: String) throws {
    try folder.makeFile(name, mode: 0o640, modified: 1_000_000) { file in
      #expect(Glibc.write(file, text, text.utf8.count) == text.utf8.count)
    }
  }

  @Test func makesATree() throws {
    let folder = try ConfinedFolder(path: place.path)
    try folder.makeFolder("a", mode: 0o755)
    try folder.makeFolder("a", mode: 0o755)
    try write("one", to: folder, "a/file")
    try write("two", to: folder, "a/file")
    try folder.makeSymbolicLink("a/link", to: "file")
    try folder.makeLink("a/other", to: "a/file")
    try folder.finishFolder("a", mode: 0o500, modified: 2_000_000)
    #expect(place.text("a/file") == "two" && place.text("a/link") == "two" && place.text("a/other") == "two")
    var status = stat()
    #expect(stat(place.path + "/a/file", &status) == 0)
    #expect(status.st_mode & 0o7777 == 0o640 && status.st_mtim.tv_sec == 1_000_000 && status.st_nlink == 2)
    #expect(stat(place.path + "/a", &status) == 0)
    #expect(status.st_mode & 0o7777 == 0o500 && status.st_mtim.tv_sec == 2_000_000)
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: place.path + "/a").sorted() == ["file", "link", "other"])
    chmod(place.path + "/a", 0o700)
  }

  /// A link that was made in the folder, or was there, leads nobody out of it.
  @Test func linksLeadNowhere() throws {
    let outside = TemporaryFolder()
    try outside.put("mine", at: "secret")
    let folder = try ConfinedFolder(path: place.path)
    try folder.makeSymbolicLink("out", to: outside.path)
    try folder.makeSymbolicLink("file", to: outside.path + "/secret")
    #expect(throws: HostError.self) { try write("theirs", to: folder, "out/new") }
    #expect(throws: HostError.self) { try folder.makeFolder("out", mode: 0o755) }
    #expect(throws: HostError.self) { try folder.finishFolder("out", mode: 0o777, modified: 0) }
    #expect(throws: HostError.self) { try folder.makeLink("copy", to: "out/secret") }
    // The link itself is replaced.
    try write("theirs", to: folder, "file")
    #expect(place.text("file") == "theirs" && outside.names == ["secret"] && outside.text("secret") == "mine")
  }

  @Test func aFileThatFailsLeavesWhatWasThere() throws {
    struct Failure: Error {}
    let folder = try ConfinedFolder(path: place.path)
    try write("before", to: folder, "file")
    #expect(throws: Failure.self) {
      try folder.makeFile("file", mode: 0o600, modified: 0) { file in
        _ = Glibc.write(file, "half", 4)
        throw Failure()
      }
    }
    #expect(place.names == ["file"] && place.text("file") == "before")
  }
}

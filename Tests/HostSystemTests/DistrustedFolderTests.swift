import Foundation
import HostSystem
import Testing

@Suite struct DistrustedFolderTests {
  private let place = TemporaryFolder()
  private let elsewhere = TemporaryFolder()

  private func link(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(atPath: place.path + "/" + name, withDestinationPath: target)
  }

  private func code(_ body: () throws -> Void) -> Int32 {
    do {
      try body()
      return 0
    } catch {
      return (error as? HostError)?.code ?? -1
    }
  }

  @Test func linksAreFollowedAtNoStep() throws {
    try place.put("own", at: "folder/file")
    try elsewhere.put("secret", at: "folder/file")
    try link("file", to: elsewhere.path + "/folder/file")
    try link("other", to: elsewhere.path + "/folder")
    try link("near", to: "folder")
    let folder = try DistrustedFolder(path: place.path)
    #expect(try folder.contents(of: "folder/file", atMost: 3) == Array("own".utf8))
    #expect(code { _ = try folder.contents(of: "folder/file", atMost: 2) } == EFBIG)
    for name in ["file", "other/file", "near/file", "folder/../folder/file", ".."] {
      #expect(code { close(try folder.open(name)) } != 0, "\(name)")
      #expect(!folder.isFile(name), "\(name)")
    }
    for name in ["other", "near"] {
      #expect(!folder.isFolder(name))
      #expect(code { _ = try folder.folder(name) } != 0)
      #expect(code { try folder.makeFolder(name + "/new") } != 0)
      #expect(code { try folder.write([1], to: name + "/new", isDurable: false) } != 0)
      #expect(code { try folder.remove(name + "/file") } != 0)
    }
    #expect(folder.names() == ["file", "folder", "near", "other"])
    #expect(elsewhere.text("folder/file") == "secret" && place.text("folder/file") == "own")
  }

  @Test func onlyFilesAreOpened() throws {
    try place.put("own", at: "folder/file")
    #expect(mkfifo(place.path + "/pipe", 0o600) == 0)
    let folder = try DistrustedFolder(path: place.path)
    let target = try DistrustedFolder(path: elsewhere.path)
    for name in ["pipe", "folder", "none"] {
      #expect(code { close(try folder.open(name)) } != 0, "\(name)")
      #expect(code { try folder.take(name, to: target, as: "taken", isDurable: false) } != 0, "\(name)")
      #expect(code { try folder.link(name, to: target, as: "linked") } != 0, "\(name)")
    }
    #expect(elsewhere.names.isEmpty)
    try folder.link("folder/file", to: target, as: "linked")
    try folder.copy("folder/file", to: target, as: "copied", isDurable: true)
    try folder.take("folder/file", to: target, as: "taken", isDurable: false)
    #expect(["linked", "copied", "taken"].map(elsewhere.text) == ["own", "own", "own"])
    #expect(!folder.isFile("folder/file"))
  }

  @Test func allOfAFolderIsRemovedAndNothingElse() throws {
    try elsewhere.put("mine", at: "folder/file")
    try place.put("a", at: "old/a")
    try link("old/link", to: elsewhere.path + "/folder")
    // Deeper than a path can be, and a name that is no text.
    var inner = open(place.path + "/old", O_RDONLY | O_DIRECTORY)
    for _ in 0..<2000 {
      #expect(mkdirat(inner, "deep", 0o700) == 0)
      let next = openat(inner, "deep", O_RDONLY | O_DIRECTORY)
      close(inner)
      inner = next
    }
    close(inner)
    let name: [CChar] = Array((place.path + "/old/").utf8CString.dropLast()) + [-1, 0]
    close(name.withUnsafeBufferPointer { creat($0.baseAddress!, 0o600) })
    let folder = try DistrustedFolder(path: place.path)
    try folder.discard("old")
    try folder.remove("none")
    #expect(place.names.isEmpty)
    #expect(elsewhere.text("folder/file") == "mine")
  }
}

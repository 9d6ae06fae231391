import Foundation
import HostSystem
import Testing

struct AtomicFileWriterTests {
  let folder = TemporaryFolder()

  @Test func theOldContentStaysUntilCommit() throws {
    try folder.put("old", at: "file")
    let writer = try AtomicFileWriter(path: folder.path + "/file")
    try writer.write("new ".utf8)
    try writer.write("content".utf8)
    #expect(folder.text("file") == "old")
    try writer.commit()
    #expect(folder.text("file") == "new content")
    #expect(folder.names == ["file"])
  }

  @Test func abandonedWorkLeavesNothing() throws {
    do {
      let writer = try AtomicFileWriter(path: folder.path + "/file")
      try writer.write("half".utf8)
      #expect(folder.names.count == 1 && folder.names != ["file"])
    }
    #expect(folder.names.isEmpty)
  }

  @Test func oneCallWritesWithPermissions() throws {
    try AtomicFileWriter.write([1, 2, 3], to: folder.path + "/file", permissions: 0o600)
    let attributes = try FileManager.default.attributesOfItem(atPath: folder.path + "/file")
    #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
    #expect((attributes[.size] as? NSNumber)?.intValue == 3)
  }

  @Test func aMissingFolderIsNamed() {
    let path = folder.path + "/missing/file"
    let error = #expect(throws: HostError.self) { _ = try AtomicFileWriter(path: path) }
    #expect(error?.message == "can't write '\(path)': No such file or directory")
  }

  @Test func aFolderIsNoFile() throws {
    #expect(throws: HostError.self) { _ = try AtomicFileWriter(path: folder.path + "/") }
    // A folder with the name: rename refuses, and nothing is left behind.
    try folder.put("x", at: "taken/inside")
    #expect(throws: HostError.self) { try AtomicFileWriter.write([1], to: folder.path + "/taken") }
    #expect(folder.names == ["taken"])
  }

  @Test func theLongestNameStillHasRoomForATemporaryOne() throws {
    let long = String(repeating: "n", count: 255)
    try AtomicFileWriter.write([1], to: folder.path + "/" + long)
    #expect(folder.names == [long])
  }
}

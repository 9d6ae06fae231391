import CHost
import Foundation
import Testing

/// Folders that are passed to another process.
@Suite struct FolderAloneTests {
  private let place = TemporaryFolder()

  private func isSame(_ one: Int32, _ other: Int32) -> Bool {
    var (first, second) = (stat(), stat())
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_ino == second.st_ino
      && first.st_dev == second.st_dev
  }

  @Test(arguments: [false, true])
  func nothingIsWrittenToOneToBeRead(isReadOnly: Bool) throws {
    try place.put("text", at: "shared/within/file")
    let folder = chost_folder_alone(place.path + "/shared", isReadOnly ? 1 : 0)
    try #require(folder >= 0)
    defer { close(folder) }
    let up = openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    defer { close(up) }
    // This host lets nobody make mounts: it is the folder itself.
    guard isSame(folder, up) else { return }
    let file = openat(folder, "within/file", O_RDONLY | O_CLOEXEC)
    #expect(file >= 0)
    close(file)
    for (name, flags) in [("new", O_WRONLY | O_CREAT), ("within/file", O_WRONLY)] {
      let written = openat(folder, name, flags | O_CLOEXEC, 0o600)
      #expect(written < 0 && errno == EROFS || !isReadOnly && written >= 0, "\(name)")
      if written >= 0 { close(written) }
    }
  }

  @Test func whatIsNoFolderIsRefused() throws {
    try place.put("text", at: "file")
    #expect(chost_folder_alone(place.path + "/file", 0) < 0 && errno == ENOTDIR)
    #expect(chost_folder_alone(place.path + "/none", 1) < 0 && errno == ENOENT)
  }
}

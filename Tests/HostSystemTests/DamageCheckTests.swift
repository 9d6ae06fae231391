import CHost
import Foundation
import HostSystem
import Testing

/// Notes that a file was looked through.
@Suite struct DamageCheckTests {
  private let place = TemporaryFolder()

  private func file(_ name: String) -> Int32 { open(place.path + "/" + name, O_RDWR | O_CREAT, 0o600) }

  private func write(_ text: String, to descriptor: Int32) {
    _ = text.withCString { Glibc.write(descriptor, $0, strlen($0)) }
  }

  /// A file with such a note; nil: this file system has no place for it.
  private func notedFile() -> Int32? {
    let noted = file("noted")
    write("whole", to: noted)
    DamageCheck.note(noted, asOf: DamageCheck.FileState(noted))
    if fgetxattr(noted, "user.yadori.checked", nil, 0) > 0 { return noted }
    close(noted)
    return nil
  }

  @Test func aNoteHoldsForTheFileItself() throws {
    guard let noted = notedFile() else { return }
    defer { close(noted) }
    #expect(DamageCheck.isNoted(noted))
    #expect(link(place.path + "/noted", place.path + "/link") == 0)
    let other = file("link")
    defer { close(other) }
    #expect(DamageCheck.isNoted(other))
    // A copy with the note, and with the same times, may be damaged.
    #expect(try Subprocess.runAndWait("cp", ["-a", place.path + "/noted", place.path + "/copy"]).succeeded)
    let copy = file("copy")
    defer { close(copy) }
    #expect(fgetxattr(copy, "user.yadori.checked", nil, 0) > 0)
    #expect(!DamageCheck.isNoted(copy))
    write("more", to: noted)
    #expect(!DamageCheck.isNoted(noted))
  }

  @Test func whatIsWrittenDuringTheCheckIsntNoted() throws {
    guard let noted = notedFile() else { return }
    defer { close(noted) }
    let before = DamageCheck.FileState(noted)
    write("damage", to: noted)
    DamageCheck.note(noted, asOf: before)
    #expect(!DamageCheck.isNoted(noted))
  }
}

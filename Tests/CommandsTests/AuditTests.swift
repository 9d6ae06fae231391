import Foundation
import HostSystem
import Testing

/// The programs of `Guests/` print and end under audit as they do in the interpreter.
@Suite(
  .enabled(if: Subprocess.find("swiftc") != nil && Subprocess.find("ld.lld") != nil, "needs clang and lld in PATH"))
struct AuditTests {
  private static let folder = Result<URL, any Error>(catching: {
    let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let folder = package.appendingPathComponent(".build/guests")
    let outcome = try Subprocess.runAndWait(package.appendingPathComponent("Guests/build").path, [folder.path])
    try #require(outcome.succeeded, "\(outcome.errorText)")
    return folder
  })

  @Test(arguments: [
    "end-finisher", "end-finisher-7", "end-htif", "end-htif-7", "end-semihosting", "end-semihosting-7", "end-sbi",
    "end-sbi-7", "hello-uart", "primes",
  ])
  func guestsEndAlike(name: String) throws {
    let file = try Self.folder.get().appendingPathComponent("\(name).elf").path
    // The toolchain may lack Swift for the guest.
    guard FileManager.default.fileExists(atPath: file) else { return }
    let program = try Program()
    let expected = try program.run("run", file, "-m", "256M", "--engine", "interpreter")
    let audited = try program.run("run", file, "-m", "256M", "--engine", "audit", "--threshold", "1")
    #expect(audited.error == "")
    #expect(audited.status == expected.status)
    #expect(audited.output == expected.output)
  }
}

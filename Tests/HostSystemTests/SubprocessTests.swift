import Foundation
import HostSystem
import Testing

struct SubprocessTests {
  @Test func bothOutputsAndTheStatusComeBack() async throws {
    let outcome = try await Subprocess.run("sh", ["-c", "echo out; echo err >&2; exit 3"])
    #expect(outcome.output == Data("out\n".utf8))
    #expect(outcome.errorText == "err")
    #expect(outcome.status == 3 && !outcome.succeeded)
  }

  @Test func aSignalIsAStatusAsInShells() throws {
    #expect(try Subprocess.runAndWait("sh", ["-c", "kill -KILL $$"]).status == 128 + SIGKILL)
  }

  @Test func muchInputAndOutputMoveAtTheSameTime() throws {
    let input = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0) })
    let outcome = try Subprocess.runAndWait("cat", [], input: input)
    #expect(outcome.output == input)
  }

  @Test func aProgramMayLeaveItsInputUnread() throws {
    #expect(try Subprocess.runAndWait("true", [], input: Data(count: 1 << 20)).succeeded)
  }

  @Test func aMissingProgramIsNamed() {
    let error = #expect(throws: HostError.self) { _ = try Subprocess.runAndWait("no-such-program-here", []) }
    #expect(error?.message == "'no-such-program-here' isn't installed on this host")
  }

  @Test func findLooksInThePath() {
    #expect(Subprocess.find("sh")?.hasSuffix("/sh") == true)
    #expect(Subprocess.find("/bin/sh") == "/bin/sh")
    #expect(Subprocess.find("/bin") == nil)
  }
}

import Foundation
import Testing
import Yadori

/// The example programs, as a person runs them, and the states that they tell.
@Suite final class ExampleTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  /// Prints "ab" on the UART, and ends with code 3.
  private func program() throws -> String {
    try BareProgram.write(
      [
        0x1000_02B7,  // lui   t0, 0x10000
        0x0610_0313,  // li    t1, 'a'
        0x0062_8023,  // sb    t1, 0(t0)
        0x0620_0313,  // li    t1, 'b'
        0x0062_8023,  // sb    t1, 0(t0)
        0x0010_02B7,  // lui   t0, 0x100
        0x0003_3337,  // lui   t1, 0x33
        0x3333_0313,  // addi  t1, t1, 0x333
        0x0062_A023,  // sw    t1, 0(t0)
        0x0000_006F,  // j     .
      ], to: folder)
  }

  private func run(_ name: String, _ arguments: String...) throws -> (code: Int32, output: String, told: String) {
    let process = Process()
    process.executableURL = Bundle.main.bundleURL.appendingPathComponent(name)
    process.arguments = arguments
    let (output, told) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = told
    try process.run()
    let texts = [output, told].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
    process.waitUntilExit()
    return (process.terminationStatus, texts[0], texts[1])
  }

  @Test func bootTellsItsStatesAndEndsAsTheGuest() throws {
    let (code, output, told) = try run("example-boot", try program())
    #expect(code == 3 && output == "ab")
    #expect(told == "the machine is ready\nthe machine is running\nthe machine is ended\n")
    let missing = try run("example-boot", "/nowhere")
    #expect(missing.code == 1 && missing.told.contains("/nowhere"))
  }

  /// The reset ROM takes six instructions.
  @Test func twoGoOnFromWhereOneWasSaved() throws {
    let (code, output, _) = try run("example-fork", try program(), "9")
    #expect(code == 0)
    #expect(output == "until then: \"a\"\nshutdown(code: 3): \"b\"\nshutdown(code: 3): \"b\"\n")
    let late = try run("example-fork", try program(), "100000000")
    #expect(late.code == 1 && late.told.contains("before instruction"))
  }

  @Test func eachWatcherSeesEveryState() async throws {
    let machine = try VirtualMachine(
      VirtualMachineConfiguration(
        memorySize: 64 << 20,
        boot: .init(firmware: .none, kernel: try BareProgram.write([0x0000_006F], to: folder))),
      console: BufferConsole())
    let (first, second) = (machine.states, machine.states)
    let running = Task.detached { try machine.run() }
    machine.wait(while: [.ready])
    machine.pause()
    machine.wait(while: [.running])
    machine.resume()
    machine.wait(while: [.paused])
    machine.stop()
    #expect(try await running.value == .stopped)
    for stream in [first, second] {
      var seen: [VirtualMachine.State] = []
      for await state in stream { seen.append(state) }
      #expect(seen == [.ready, .running, .paused, .running, .ended])
    }
    var late: [VirtualMachine.State] = []
    for await state in machine.states { late.append(state) }
    #expect(late == [.ended])
  }
}

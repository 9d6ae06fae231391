import Console
import Foundation
import HostSystem
import Testing

/// One process has one terminal: these run one after the other.
@Suite(.serialized) struct TerminalConsoleTests {
  let loop: EventLoop
  let terminal = PseudoTerminal()

  init() throws { loop = try EventLoop() }

  private func makeConsole() -> TerminalConsole { TerminalConsole(input: terminal.slave, output: terminal.slave) }

  // MARK: - On a terminal

  @Test func rawModeIsSetAndGivenBack() throws {
    let before = terminal.mode
    #expect(!terminal.isRaw)
    let console = makeConsole()
    #expect(console.isInteractive)
    #expect(console.escapeDescription?.contains("Ctrl-]") == true)
    #expect(!terminal.isRaw)
    let guest = try TestGuest(console, on: loop)
    #expect(terminal.isRaw)
    terminal.type([3, 4, 26, 13])
    #expect(guest.turn { guest.typed == [3, 4, 26, 13] })
    console.stop()
    #expect(sameMode(terminal.mode, before))
    console.stop()
    // Another one may have it now.
    let second = makeConsole()
    try withExtendedLifetime(TestGuest(second, on: loop)) { #expect(terminal.isRaw) }
    second.stop()
    #expect(sameMode(terminal.mode, before))
  }

  @Test func oneTerminalServesOneConsole() throws {
    let first = makeConsole()
    let guest = try TestGuest(first, on: loop)
    let second = makeConsole()
    let error = #expect(throws: ConsoleError.self) { _ = try TestGuest(second, on: loop) }
    #expect(error?.code == .inUse)
    second.stop()
    #expect(terminal.isRaw)
    guest.console.stop()
  }

  @Test func outputComesOutAsItIsBeforeStopReturns() throws {
    let console = makeConsole()
    let guest = try TestGuest(console, on: loop)
    guest.print("a\nb\r\n\u{1B}[0m")
    console.stop()
    // A bare line feed stays one: full-screen programs in the guest count on it.
    #expect(terminal.read(9) == Array("a\nb\r\n\u{1B}[0m".utf8))
  }

  @Test func commandsAreNotTyped() throws {
    let console = makeConsole()
    var calls: [String] = []
    console.onQuit = { calls.append("quit") }
    console.onPause = { calls.append("pause") }
    console.onBreak = { calls.append("break") }
    let guest = try TestGuest(console, on: loop)
    terminal.type("one\u{1D}ptwo\u{1D}\u{1D}three\u{1D}b\u{1D}q")
    #expect(guest.turn { calls == ["pause", "break", "quit"] })
    #expect(guest.typedText == "onetwo\u{1D}three")
    console.stop()
  }

  @Test func commandsWorkWhileTheGuestTakesNothing() throws {
    let console = makeConsole()
    var hasQuit = false
    console.onQuit = { hasQuit = true }
    let guest = try TestGuest(console, on: loop)
    guest.room = 0
    for _ in 0..<50 {
      terminal.type(String(repeating: "x", count: 1000))
      loop.turn(maximumWait: 10)
    }
    terminal.type("\u{1D}q")
    #expect(guest.turn { hasQuit })
    #expect(guest.typed.isEmpty)
    guest.room = .max
    console.guestHasRoom()
    #expect(guest.typedText == String(repeating: "x", count: 50_000))
    console.stop()
  }

  @Test func commandsWorkWhileNobodyReadsTheOutput() throws {
    let console = makeConsole()
    console.onQuit = {}
    let guest = try TestGuest(console, on: loop)
    loop.start()
    // More than the queue and the terminal hold; nobody reads the master's side. On the I/O thread, as a virtio device.
    let done = DispatchSemaphore(value: 0)
    loop.perform {
      [UInt8](repeating: 0x78, count: 4 << 20).withUnsafeBytes { console.write($0) }
      done.signal()
    }
    terminal.type("\u{1D}q")
    #expect(done.wait(timeout: .now() + 30) == .success)
    console.stop()
    loop.stop()
    #expect(!terminal.isRaw)
    withExtendedLifetime(guest) {}
  }

  @Test func theWindowSizeIsPassedOn() throws {
    terminal.setSize(columns: 80, rows: 24)
    let console = makeConsole()
    let guest = try TestGuest(console, on: loop)
    #expect(guest.sizes == [[80, 24]])
    terminal.setSize(columns: 132, rows: 43)
    // The test isn't in the terminal's foreground group; the signal comes by hand.
    kill(getpid(), SIGWINCH)
    #expect(guest.turn { guest.sizes == [[80, 24], [132, 43]] })
    // The same size again is no news.
    kill(getpid(), SIGWINCH)
    guest.settle()
    #expect(guest.sizes.count == 2)
    console.stop()
  }

  @Test func aTerminalWithoutSizeGivesNone() throws {
    let console = makeConsole()
    let guest = try TestGuest(console, on: loop)
    #expect(guest.sizes.isEmpty)
    console.stop()
  }

  // MARK: - On every way out

  @Test func exitGivesTheTerminalBack() async throws {
    let before = terminal.mode
    let path = terminal.slavePath
    await #expect(processExitsWith: .exitCode(3)) { [path = path as String] in
      try takeTerminal(path)
      exit(3)
    }
    #expect(sameMode(terminal.mode, before))
  }

  @Test(arguments: [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGSEGV])
  func signalsGiveTheTerminalBack(number: Int32) async throws {
    let before = terminal.mode
    let path = terminal.slavePath
    await #expect(processExitsWith: .signal(number)) { [path = path as String, number = number as Int32] in
      try takeTerminal(path)
      // The handlers for faults may be others' (a debugger's); what counts is the default here.
      kill(getpid(), number)
      while true { pause() }
    }
    #expect(sameMode(terminal.mode, before))
  }

  @Test func aFaultGivesTheTerminalBack() async throws {
    let before = terminal.mode
    let path = terminal.slavePath
    await #expect(processExitsWith: .failure) { [path = path as String] in
      try takeTerminal(path)
      fatalError("on purpose")
    }
    #expect(sameMode(terminal.mode, before))
  }

  // MARK: - In pipes

  @Test func aPipeIsPassedOnAsItIsToItsEnd() throws {
    let (input, output) = (TestPipe(), TestPipe())
    let console = TerminalConsole(input: input.reading, output: output.writing)
    #expect(!console.isInteractive && console.escapeDescription == nil)
    console.onQuit = { Issue.record("a command in a pipe") }
    let guest = try TestGuest(console, on: loop)
    input.put("a\u{1D}q\u{3}")
    input.closeWriting()
    #expect(guest.turn { guest.typedText == "a\u{1D}q\u{3}" })
    // The end of the input is no news to the guest, and no reason to spin.
    guest.settle()
    guest.print("still here")
    console.stop()
    #expect(readBytes(output.reading, 10) == Array("still here".utf8))
    #expect(guest.sizes.isEmpty)
  }

  @Test func aPipeWaitsForTheGuest() throws {
    let (input, output) = (TestPipe(), TestPipe())
    let console = TerminalConsole(input: input.reading, output: output.writing)
    let guest = try TestGuest(console, on: loop)
    guest.room = 3
    input.put("123456")
    #expect(guest.turn { guest.typedText == "123" })
    guest.settle()
    #expect(guest.typedText == "123")
    guest.room = 2
    console.guestHasRoom()
    #expect(guest.typedText == "12345")
    guest.room = .max
    console.guestHasRoom()
    input.put("789")
    #expect(guest.turn { guest.typedText == "123456789" })
    console.stop()
  }

  @Test func aFileAndTheNullDeviceEnd() throws {
    let file = TemporaryPath()
    try Data("from a file".utf8).write(to: URL(fileURLWithPath: file.path))
    for (path, text) in [(file.path, "from a file"), ("/dev/null", "")] {
      let input = open(path, O_RDONLY)
      defer { close(input) }
      let output = TestPipe()
      let console = TerminalConsole(input: input, output: output.writing)
      let guest = try TestGuest(console, on: loop)
      #expect(guest.turn { guest.typedText == text })
      guest.settle()
      #expect(guest.typedText == text)
      console.stop()
    }
  }

  @Test func muchOutputReachesASlowReaderWhole() throws {
    let (input, output) = (TestPipe(), TestPipe())
    let console = TerminalConsole(input: input.reading, output: output.writing)
    let guest = try TestGuest(console, on: loop)
    // More than the queue holds: the writers have to wait for the reader.
    let block = [UInt8]((0..<100_000).map { UInt8(truncatingIfNeeded: $0 % 251) })
    let writer = HostThread(name: "hart") {
      for _ in 0..<50 { block.withUnsafeBytes { console.write($0) } }
    }
    var received: [UInt8] = []
    while received.count < 5_000_000 {
      let more = readBytes(output.reading, 100_000)
      if more.isEmpty { break }
      received += more
    }
    writer.join()
    #expect(received == Array(repeatElement(block, count: 50).joined()))
    console.stop()
    withExtendedLifetime(guest) {}
  }

  @Test func aReaderThatLeavesLosesTheRestAndBlocksNobody() throws {
    let (input, output) = (TestPipe(), TestPipe())
    let console = TerminalConsole(input: input.reading, output: output.writing)
    let guest = try TestGuest(console, on: loop)
    guest.print("head")
    #expect(readBytes(output.reading, 4) == Array("head".utf8))
    output.closeReading()
    // Neither SIGPIPE nor a full queue may stop this.
    let block = [UInt8](repeating: 0x78, count: 1 << 20)
    for _ in 0..<8 { block.withUnsafeBytes { console.write($0) } }
    input.put("x")
    #expect(guest.turn { guest.typedText == "x" })
    console.stop()
  }

  @Test func stopEndsTheWaitOfAWriterWhenSomebodyQuit() throws {
    let output = TestPipe()
    let console = TerminalConsole(input: terminal.slave, output: output.writing)
    var hasQuit = false
    console.onQuit = { hasQuit = true }
    let guest = try TestGuest(console, on: loop)
    let writer = HostThread(name: "hart") {
      [UInt8](repeating: 0x78, count: 8 << 20).withUnsafeBytes { console.write($0) }
    }
    terminal.type("\u{1D}q")
    #expect(guest.turn { hasQuit })
    console.stop()
    writer.join()
    #expect(!terminal.isRaw)
  }
}

/// Makes the terminal at `path` raw, as a machine's console does, and stays so.
private func takeTerminal(_ path: String) throws {
  let descriptor = open(path, O_RDWR | O_NOCTTY)
  let console = TerminalConsole(input: descriptor, output: descriptor)
  let guest = try TestGuest(console, on: EventLoop())
  var mode = termios()
  precondition(tcgetattr(descriptor, &mode) == 0 && mode.c_lflag & tcflag_t(ICANON) == 0)
  kept = guest
}

nonisolated(unsafe) private var kept: TestGuest?

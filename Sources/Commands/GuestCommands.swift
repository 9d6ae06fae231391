import ArgumentParser
import CHost
import Foundation
import HostSystem
import Supervisor
import Yadori

/// How a command in a guest is run, whatever verb asks for it.
struct GuestCommandOptions: ParsableArguments {
  @Option(name: [.short, .long], help: "The guest's user who runs it (root).")
  var user: String?

  @Option(name: [.customShort("C"), .customLong("directory")], help: "Where in the guest it runs (the user's home).")
  var directory: String?

  @Option(
    name: [.customShort("e"), .customLong("env")],
    help: "A variable of its environment: NAME=VALUE, or NAME to take this process's. May be repeated.")
  var environment: [String] = []

  var isUsed: Bool { user != nil || directory != nil || !environment.isEmpty }

  func apply(to request: inout GuestCommand.Request) throws {
    if let user { request.user = user }
    request.folder = directory
    for variable in environment {
      let parts = variable.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard let name = parts.first, !name.isEmpty else {
        throw CommandFailure(.usage, "-e: '\(variable)' is no variable; give NAME=VALUE")
      }
      if parts.count == 2 {
        request.environment[String(name)] = String(parts[1])
      } else if let value = ProcessInfo.processInfo.environment[String(name)] {
        request.environment[String(name)] = value
      }
    }
  }
}

/// Connects a command in a guest with this process: its standard streams, its terminal where it has one, its signals.
struct GuestCommandSession {
  let registry: MachineRegistry
  let record: MachineRecord
  var request: GuestCommand.Request

  /// Runs it to its end. Throws its exit code where that isn't 0.
  func run() throws {
    var request = self.request
    if request.hasTerminal {
      request.environment["TERM"] = ProcessInfo.processInfo.environment["TERM"] ?? "xterm"
      request.size = Self.terminalSize()
    }
    try GuestShares.wait(registry, record)
    let command = try GuestCommand(registry, record, request)
    let isRaw = request.hasTerminal && chost_terminal_enter_raw(STDIN_FILENO) == 0
    defer { if isRaw { chost_terminal_leave_raw() } }
    if request.hasTerminal { followSize(command) }
    // At a terminal of its own, keys are the guest's affair.
    let signals = isRaw ? nil : CaughtSignals(CaughtSignals.passed) { command.signal($0) }
    defer { signals?.release() }
    Thread.detachNewThread {
      var buffer = [UInt8](repeating: 0, count: 64 << 10)
      while true {
        let count = read(STDIN_FILENO, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        if count <= 0 { return command.endInput() }
        guard command.write(buffer[..<count]) else { return }
      }
    }
    let code = try command.wait { event in
      switch event {
      case .output(let bytes): try Self.write(bytes, to: STDOUT_FILENO)
      case .diagnostics(let bytes): try Self.write(bytes, to: STDERR_FILENO)
      }
    }.code
    if code != 0 { throw ExitCode(code) }
  }

  private static func terminalSize() -> (columns: Int, rows: Int)? {
    var (columns, rows): (Int32, Int32) = (0, 0)
    guard chost_terminal_size(STDIN_FILENO, &columns, &rows) == 0 else { return nil }
    return (Int(columns), Int(rows))
  }

  private func followSize(_ command: GuestCommand) {
    let descriptor = chost_terminal_resize_descriptor()
    guard descriptor >= 0 else { return }
    Thread.detachNewThread { [weak command] in
      var change = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      while poll(&change, 1, -1) > 0 || errno == EINTR {
        var count: UInt64 = 0
        guard read(descriptor, &count, 8) == 8 else { continue }
        guard let command else { return }
        if let size = Self.terminalSize() { command.resize(columns: size.columns, rows: size.rows) }
      }
    }
  }

  private static func write(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) throws {
    var rest = bytes
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN {
        var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        poll(&room, 1, -1)
        continue
      }
      // Nobody reads it any more: as a program on this host would end.
      if count < 0 { throw ExitCode(128 + SIGPIPE) }
      rest = rest.dropFirst(count)
    }
  }
}

struct ExecCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec", abstract: "Runs a command in a machine: its output, its exit code.",
    discussion: """
      The command's input, output and diagnostics are this process's, and it gets this process's signals. A command \
      that a signal ended has the exit code 128 and its number.
      """)

  @OptionGroup var machine: MachineName

  @Flag(name: [.short, .long], help: "Give it a terminal, which is this one.")
  var terminal = false

  @OptionGroup var options: GuestCommandOptions

  @Argument(parsing: .captureForPassthrough, help: "The command, after '--'.")
  var command: [String] = []

  func run() throws {
    let words = command.first == "--" ? Array(command.dropFirst()) : command
    guard !words.isEmpty else {
      throw CommandFailure(.usage, "say what to run: yadori exec \(machine.name) -- uname -a")
    }
    let (registry, record) = try machine.find()
    var request = GuestCommand.Request(words)
    request.hasTerminal = terminal && isatty(STDIN_FILENO) == 1
    try options.apply(to: &request)
    try GuestCommandSession(registry: registry, record: record, request: request).run()
  }
}

struct ShellCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shell", abstract: "Opens a shell in a machine, on this terminal.")

  @OptionGroup var machine: MachineName
  @OptionGroup var options: GuestCommandOptions

  func run() throws {
    let (registry, record) = try machine.find()
    var request = GuestCommand.Request([])
    request.hasTerminal = isatty(STDIN_FILENO) == 1
    try options.apply(to: &request)
    try GuestCommandSession(registry: registry, record: record, request: request).run()
  }
}

struct CopyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "copy", abstract: "Copies files and folders between this host and a machine.",
    discussion: "One of the two places is in a machine: MACHINE:PATH. A folder is copied with all that is in it.")

  @Argument(help: "What to copy: PATH or MACHINE:PATH.")
  var source: String

  @Argument(help: "Where to: PATH or MACHINE:PATH. Into it where it is a folder, else under that name.")
  var target: String

  @Option(name: [.short, .long], help: "The guest's user who reads or writes there (root).")
  var user: String?

  /// Nil: a path of this host.
  private static func place(_ text: String) -> (machine: String, path: String)? {
    guard let colon = text.firstIndex(of: ":"), !text[..<colon].contains("/") else { return nil }
    return (String(text[..<colon]), String(text[text.index(after: colon)...]))
  }

  func run() throws {
    let (from, to) = (Self.place(source), Self.place(target))
    guard (from == nil) != (to == nil), let place = from ?? to, !place.path.isEmpty else {
      throw CommandFailure(
        .usage, "one of the two is in a machine, as MACHINE:PATH ('yadori copy web:/etc/hosts .'); give one such")
    }
    let registry = try MachineStarting.registry()
    let record = try registry.find(place.machine)
    try GuestShares.wait(registry, record)
    var copy = GuestCopy(registry, record)
    if let user { copy.user = user }
    if from != nil {
      try copy.copy(fromGuest: place.path, to: target)
    } else {
      try copy.copy(source, toGuest: place.path)
    }
  }
}

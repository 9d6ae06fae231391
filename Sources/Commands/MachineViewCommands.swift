import ArgumentParser
import Console
import Foundation
import HostSystem
import Supervisor
import Synchronization
import Yadori

struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists the machines of this host.")

  @Flag(help: "Write JSON.")
  var json = false

  func run() throws {
    let registry = try MachineStarting.registry()
    let machines = try registry.all().map { MachineDescription(registry, $0) }
    if json { return try Output.writeJSON(machines) }
    if machines.isEmpty { return print("no machines; 'yadori run -d debian' starts one") }
    let rows = machines.map { machine in
      [
        machine.name, machine.state, machine.image ?? "-", "\(machine.configuration.hartCount)",
        "\(machine.configuration.memorySize >> 20)M",
        (machine.status?.started ?? machine.created).formatted(.iso8601),
      ]
    }
    Output.writeTable(["NAME", "STATE", "IMAGE", "HARTS", "MEMORY", "SINCE"], rows)
  }
}

struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Shows all that is known of machines.")

  @OptionGroup var machines: MachineNames

  @Flag(help: "Write JSON.")
  var json = false

  func run() throws {
    var descriptions: [MachineDescription] = []
    let result = Result { try machines.forEach { descriptions.append(MachineDescription($0, $1)) } }
    // Those that there are, whatever became of the others.
    if json {
      if (try? result.get()) != nil || !descriptions.isEmpty { try Output.writeJSON(descriptions) }
    } else {
      for (index, description) in descriptions.enumerated() {
        if index > 0 { print() }
        Output.writeFields(description.fields)
      }
    }
    try result.get()
  }
}

struct LogsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logs", abstract: "Shows what a machine in the background has printed on its console.")

  @OptionGroup var machine: MachineName

  @Flag(name: [.short, .long], help: "Go on until the machine ends.")
  var follow = false

  func run() throws {
    BrokenPipes.becomeErrors()
    let (registry, record) = try machine.find()
    let folder = registry.folder(of: record)
    let log = URL(fileURLWithPath: folder.consoleLog).lastPathComponent
    let place = try? DistrustedFolder(path: folder.url.path)
    let files = [log + ".1", log].filter { place?.isFile($0) == true }
    guard let place, !files.isEmpty else {
      throw CommandFailure(.noInput, "the machine '\(record.name)' hasn't run in the background yet")
    }
    for file in files { try show(file, in: place, isFollowed: follow && file == log, folder) }
  }

  /// Writes a file out; one that is followed, as it grows and is begun anew, to the machine's end.
  private func show(
    _ name: String, in place: DistrustedFolder, isFollowed: Bool, _ folder: MachineFolder
  ) throws {
    func open() -> FileHandle? {
      (try? place.open(name)).map { FileHandle(fileDescriptor: $0, closeOnDealloc: true) }
    }
    guard var file = open() else { return }
    while true {
      // Asked before what may be the end is read.
      let isLast = !isFollowed || !folder.isInUse
      while let data = try file.read(upToCount: 1 << 20), !data.isEmpty {
        try FileHandle.standardOutput.write(contentsOf: data)
      }
      if isLast { return }
      if let newer = open(), Self.number(newer) != Self.number(file) {
        file = newer
      } else {
        usleep(100_000)
      }
    }
  }

  private static func number(_ file: FileHandle) -> ino_t {
    var status = stat()
    return fstat(file.fileDescriptor, &status) == 0 ? status.st_ino : 0
  }
}

struct ConsoleCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "console", abstract: "Connects this terminal to the console of a machine in the background.")

  @OptionGroup var machine: MachineName

  func run() throws {
    let (registry, record) = try machine.find()
    let client = ControlClient(registry, record)
    let connection = try client.attachConsole()
    defer { close(connection) }
    let loop = try EventLoop()
    let terminal = TerminalConsole()
    terminal.help = EscapeSequence.attachedHelp
    let ended = DispatchSemaphore(value: 0)
    let hasLeft = Atomic<Bool>(false)
    terminal.onQuit = {
      hasLeft.store(true, ordering: .relaxed)
      ended.signal()
    }
    // Control requests may wait for the machine; the terminal mustn't.
    let requests = DispatchQueue(label: "requests")
    terminal.onPause = {
      requests.async {
        let isPaused = (try? client.status())?.state == .paused
        try? isPaused ? client.resume() : client.pause()
      }
    }
    loop.start(name: "terminal")
    if terminal.isInteractive { report(EscapeSequence.attachedSummary) }
    try loop.performAndWait { Result { try connect(terminal, to: connection, on: loop, client, requests) } }.get()
    let reader = HostThread(name: "console-in") {
      var buffer = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = read(connection, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        if count <= 0 { break }
        buffer.withUnsafeBytes { terminal.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
      }
      ended.signal()
    }
    ended.wait()
    shutdown(connection, Int32(SHUT_RDWR))
    reader.join()
    loop.performAndWait { terminal.stop() }
    loop.stop()
    if !hasLeft.load(ordering: .relaxed) { report("the machine '\(record.name)' has let the console go") }
  }

  private func connect(
    _ terminal: TerminalConsole, to connection: Int32, on loop: EventLoop, _ client: ControlClient,
    _ requests: DispatchQueue
  ) throws {
    var roomWatch: EventLoop.Token?
    try terminal.start(
      on: loop,
      input: { bytes in
        let count = send(connection, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT))
        if count >= 0 { return count }
        if errno == EAGAIN, roomWatch == nil {
          roomWatch = loop.watch(connection, for: .write) { _ in
            if let watch = roomWatch { loop.cancel(watch) }
            roomWatch = nil
            terminal.guestHasRoom()
          }
        }
        return 0
      },
      resize: { columns, rows in requests.async { try? client.resizeConsole(columns: columns, rows: rows) } })
  }
}

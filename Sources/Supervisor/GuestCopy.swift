import Foundation
import HostSystem
import Images
import Synchronization
import Yadori

/// Copies files and folders between this host and a running machine: tar in the guest, the host's own reader and writer
/// here. What a guest sends is not trusted: it stays within the folder that it is copied to.
public struct GuestCopy {
  private let registry: MachineRegistry
  private let record: MachineRecord
  /// The guest's user who reads or writes there.
  public var user = "root"

  public init(_ registry: MachineRegistry, _ record: MachineRecord) {
    self.registry = registry
    self.record = record
  }

  private func start(_ arguments: [String]) throws -> GuestCommand {
    var request = GuestCommand.Request(arguments)
    request.user = user
    request.folder = "/"
    return try GuestCommand(registry, record, request)
  }

  private static func join(_ folder: String, _ name: String) -> String {
    folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
  }

  /// The last part of a path, and what comes before.
  private static func split(_ path: String) throws -> (folder: String, name: String) {
    var trimmed = path[...]
    while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed = trimmed.dropLast() }
    let name = trimmed.split(separator: "/").last.map(String.init) ?? ""
    guard !name.isEmpty, name != ".", name != ".." else {
      throw MachineError(.usage, "can't copy '\(path)'; name a file or folder in it")
    }
    let folder = String(trimmed.dropLast(name.count))
    return (folder.isEmpty ? "." : folder, name)
  }

  // MARK: to the guest

  /// Copies what is at `source` here to `target` in the guest: into it where it is a folder, else under its name.
  public func copy(_ source: String, toGuest target: String) throws {
    var status = stat()
    guard lstat(source, &status) == 0 else {
      throw MachineError(.noInput, "there is no file or folder '\(source)'; check the name")
    }
    let name = try Self.split(URL(fileURLWithPath: source).path).name
    let (folder, newName) =
      try isFolderInGuest(target) ? (target, name) : try Self.split(target)
    let command = try start(["tar", "-C", folder, "-xpf", "-", "--no-same-owner"])
    let problems = Mutex<(text: String, result: Result<GuestCommand.Ending, any Error>?)>(("", nil))
    let reader = HostThread(name: "copy") {
      let result = Result {
        try command.wait { event in
          if case .diagnostics(let bytes) = event {
            problems.withLock { $0.text += String(decoding: bytes, as: UTF8.self) }
          }
        }
      }
      problems.withLock { $0.result = result }
    }
    let sink = CommandSink(command)
    let sent = Result {
      let writer = TarWriter(sink)
      try add(source, as: newName, to: writer)
      try writer.finish()
    }
    command.endInput()
    reader.join()
    let (text, result) = problems.withLock { $0 }
    try check(try result!.get(), text)
    try sent.get()
  }

  private func isFolderInGuest(_ path: String) throws -> Bool {
    let ending = try start(["test", "-d", path]).wait { _ in }
    return ending == .exit(code: 0)
  }

  private func check(_ ending: GuestCommand.Ending, _ problems: String) throws {
    if ending == .exit(code: 0) { return }
    let line = problems.split(separator: "\n").first.map { $0.replacing("tar: ", with: "") } ?? "tar failed"
    throw MachineError(.inputOutput, "in the machine '\(record.name)': \(line)")
  }

  private func add(_ path: String, as name: String, to writer: TarWriter) throws {
    var status = stat()
    guard lstat(path, &status) == 0 else { throw HostError.last("can't read '\(path)'") }
    var entry = TarEntry(
      path: name, kind: .file, mode: UInt32(status.st_mode & 0o7777), modified: UInt64(max(0, status.st_mtim.tv_sec)))
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      entry.kind = .directory
      try writer.add(entry)
      let names: [String]
      do {
        names = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
      } catch {
        throw MachineError(.permission, "can't read the folder '\(path)'; check its permissions")
      }
      for child in names { try add(Self.join(path, child), as: "\(name)/\(child)", to: writer) }
    case S_IFLNK:
      entry.kind = .symbolicLink(try FileManager.default.destinationOfSymbolicLink(atPath: path))
      try writer.add(entry)
    case S_IFREG:
      entry.byteCount = UInt64(status.st_size)
      try writer.add(entry, from: try FileSource(path: path))
    default: throw MachineError(.usage, "'\(path)' is neither a file nor a folder; it can't be copied")
    }
  }

  /// Input of a command in the guest.
  private final class CommandSink: ByteSink {
    private let command: GuestCommand

    init(_ command: GuestCommand) { self.command = command }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
      // One that has ended says why itself.
      guard command.write(ArraySlice(bytes)) else {
        throw MachineError(.inputOutput, "the guest took only a part of what was copied")
      }
    }
  }

  // MARK: from the guest

  /// Copies what is at `source` in the guest to `target` here: into it where it is a folder, else under its name.
  public func copy(fromGuest source: String, to target: String) throws {
    let (folder, name) = try Self.split(source)
    var isFolder: ObjCBool = false
    let isThere = FileManager.default.fileExists(atPath: target, isDirectory: &isFolder)
    let (place, newName) = isThere && isFolder.boolValue ? (target, name) : try Self.split(target)
    let destination = try ConfinedFolder(path: place)
    let command = try start(["tar", "-C", folder, "-cf", "-", "--", name])
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw HostError.last("can't make a pipe") }
    let input = ends[1]
    let problems = Mutex<(text: String, result: Result<GuestCommand.Ending, any Error>?)>(("", nil))
    let reader = HostThread(name: "copy") {
      var isRead = true
      let result = Result {
        try command.wait { event in
          switch event {
          case .output(let bytes):
            if isRead { isRead = (try? FileHandle(fileDescriptor: input).write(contentsOf: Data(bytes))) != nil }
          case .diagnostics(let bytes): problems.withLock { $0.text += String(decoding: bytes, as: UTF8.self) }
          }
        }
      }
      close(input)
      problems.withLock { $0.result = result }
    }
    let output = ends[0]
    let received = Result { try receive(output, name, as: newName, into: destination) }
    reader.join()
    let (text, result) = problems.withLock { $0 }
    if case .success = received {} else if text.isEmpty { try received.get() }
    try check(try result!.get(), text)
    try received.get()
  }

  /// Reads what the guest's tar writes, and closes `output`.
  private func receive(
    _ output: Int32, _ name: String, as newName: String, into destination: ConfinedFolder
  ) throws {
    let archive = "what the machine '\(record.name)' sent"
    let reader = TarReader(FileSource(descriptor: output, name: archive), name: archive)
    var folders: [(String, TarEntry)] = []
    func renamed(_ path: String) throws -> String {
      let parts = path.split(separator: "/", maxSplits: 1)
      guard let first = parts.first, first == name else {
        throw MachineError(.data, "\(archive) has '\(path)' in it, which wasn't asked for")
      }
      return parts.count == 1 ? newName : "\(newName)/\(parts[1])"
    }
    while let entry = try reader.next() {
      let path = try renamed(entry.path)
      let mode = mode_t(entry.mode & 0o777)
      let modified = Int(clamping: entry.modified)
      switch entry.kind {
      case .directory:
        try destination.makeFolder(path, mode: mode)
        folders.append((path, entry))
      case .file:
        try destination.makeFile(path, mode: mode, modified: modified) { file in
          var chunk = [UInt8](repeating: 0, count: 1 << 17)
          while true {
            let count = try chunk.withUnsafeMutableBytes { try reader.contentSource.read(into: $0) }
            if count == 0 { return }
            try FileHandle(fileDescriptor: file).write(contentsOf: Data(chunk[..<count]))
          }
        }
      case .symbolicLink(let target): try destination.makeSymbolicLink(path, to: target)
      case .hardLink(let target): try destination.makeLink(path, to: try renamed(target))
      case .characterDevice, .blockDevice, .namedPipe:
        throw MachineError(.usage, "'\(entry.path)' in the guest is neither a file nor a folder; it can't be copied")
      }
    }
    // Deepest first: what a folder forbids comes when all is in it.
    for (path, entry) in folders.reversed() {
      try destination.finishFolder(path, mode: mode_t(entry.mode & 0o777), modified: Int(clamping: entry.modified))
    }
  }
}

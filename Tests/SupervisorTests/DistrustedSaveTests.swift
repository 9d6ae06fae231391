import Foundation
import HostSystem
import Supervisor
import Synchronization
import Testing
import Yadori

/// What is believed of a saved machine that was written by a machine's process, which a guest may have owned.
@Suite struct DistrustedSaveTests {
  private let home = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
  private let registry: MachineRegistry
  private let record: MachineRecord

  init() throws {
    registry = try MachineRegistry(folder: home)
    let disk = home.appendingPathComponent("disk.img").path
    try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: disk))
    var configuration = VirtualMachineConfiguration(
      memorySize: 64 << 20, boot: .init(firmware: .none, kernel: "/known/kernel"),
      disks: [.init(path: disk, format: "raw")], network: .init(.user(forwards: ["2222:22"])))
    configuration.disks[0].behind = []
    configuration.sharedFolders = [.init(name: "known", path: "/known/folder")]
    configuration.processorWeight = 50
    record = MachineRecord(
      identifier: MachineRecord.newIdentifier(), name: "web", image: nil, configuration: configuration)
    try registry.add(record)
    try registry.folder(of: record).create()
  }

  /// Has a machine's process save itself, as it likes, and returns what comes of it.
  private func save(_ change: @escaping @Sendable (inout VirtualMachineConfiguration) -> Void) throws -> SavedMachine {
    let server = try server(change)
    defer { server.end(exitCode: 0) }
    let path = home.appendingPathComponent("saved").path
    try ControlClient(registry, record).save(to: path)
    return try SavedMachine(path: path)
  }

  private func server(
    _ change: @escaping @Sendable (inout VirtualMachineConfiguration) -> Void,
    _ then: @escaping @Sendable (String) -> Void = { _ in }
  ) throws -> ControlServer {
    var handlers = ControlServer.Handlers(status: { MachineStatus(isBeingSaved: false) })
    let configuration = record.configuration
    handlers.save = { path, _, _ in
      var configuration = configuration
      change(&configuration)
      do {
        try VirtualMachine.saveStopped(configuration, to: path)
        then(path)
        return nil
      } catch {
        return error as? MachineError ?? MachineError(.software, "\(error)")
      }
    }
    return try ControlServer(registry.folder(of: record), handlers)
  }

  @Test func whatConcernsTheHostIsTheRegistrys() throws {
    defer { try? FileManager.default.removeItem(at: home) }
    let saved = try save { forged in
      forged.hartCount = 2
      forged.memorySize = 128 << 20
      forged.maximumMemorySize = 256 << 20
      forged.sharedFolders = [.init(name: "all", path: "/")]
      forged.network = .init(.tap(name: "tap0"))
      forged.boot = .init(firmware: .file(path: "/etc/passwd"), kernel: "/etc/passwd", deviceTree: "/etc/passwd")
      forged.keptCode = ["/etc/passwd"]
      forged.guestSocket = "/run/somebody"
      forged.processorWeight = 10_000
      forged.pinnedProcessors = [0]
    }
    var expected = record.configuration
    // What RAM and devices need.
    expected.hartCount = 2
    expected.memorySize = 128 << 20
    expected.maximumMemorySize = 256 << 20
    expected.guestSocket = registry.folder(of: record).guestSocket
    expected.network = saved.configuration.network.map { .init(.user(forwards: ["2222:22"]), address: $0.address) }
    expected.disks[0].path = saved.path + "/disk-0"
    #expect(saved.configuration == expected)
    try saved.check()
  }

  /// Changes of the running machine are the registry's, too.
  @Test func whatTheUserChangedMeanwhileIsSaved() throws {
    defer { try? FileManager.default.removeItem(at: home) }
    try registry.update(record.identifier) {
      $0.configuration.sharedFolders?.append(.init(name: "new", path: "/new"))
      $0.configuration.network?.attachment = .user(forwards: [])
    }
    let saved = try save { _ in }
    #expect(saved.configuration.sharedFolders?.map(\.name) == ["known", "new"])
    #expect(saved.configuration.network?.attachment == .user(forwards: []))
  }

  @Test func whatDoesntFitIsRefused() throws {
    defer { try? FileManager.default.removeItem(at: home) }
    let secret = home.appendingPathComponent("secret").path
    try Data(repeating: 1, count: 512).write(to: URL(fileURLWithPath: secret))
    let cases: [(String, @Sendable (inout VirtualMachineConfiguration) -> Void)] = [
      ("disks were 0", { $0.disks = [] }),
      ("another one", { $0.disks[0].isReadOnly = true }),
      ("no such machine", { $0.hartCount = 1000 }),
      ("no such machine", { $0.memorySize = .max }),
      ("no such machine", { $0.maximumMemorySize = 0 }),
      ("no such machine", { $0.maximumHartCount = 0 }),
    ]
    for (words, change) in cases {
      let error = #expect(throws: MachineError.self) { _ = try save(change) }
      #expect(error?.message.contains(words) == true && error?.code == .data, "\(error?.message ?? "")")
    }
    #expect(try !FileManager.default.contentsOfDirectory(atPath: home.path).contains { $0.contains("saved") })
  }

  /// Files of what was saved that are links are no files; and what is in the folder isn't all in the way of that.
  @Test func linksAmongTheFilesAreRefused() throws {
    defer { try? FileManager.default.removeItem(at: home) }
    let server = try server({ _ in }) { path in
      unlink(path + "/disk-0")
      symlink("/etc/passwd", path + "/disk-0")
    }
    defer { server.end(exitCode: 0) }
    let path = home.appendingPathComponent("saved").path
    let error = #expect(throws: MachineError.self) { try ControlClient(registry, record).save(to: path) }
    #expect(error?.message.contains("something else") == true, "\(error?.message ?? "")")
    #expect(!FileManager.default.fileExists(atPath: path))
  }
}

import Foundation
import HostSystem
import Supervisor
import Testing
import Yadori

@Suite struct MachineRegistryTests {
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")

  private func record(_ name: String, image: String? = nil, isTemporary: Bool = false) -> MachineRecord {
    MachineRecord(
      identifier: MachineRecord.newIdentifier(), name: name, image: image,
      configuration: VirtualMachineConfiguration(hartCount: 3, boot: .init(kernel: "/boot/Image")),
      isTemporary: isTemporary)
  }

  private func refusal(_ body: () throws -> Void) -> String {
    do {
      try body()
      return "none"
    } catch {
      return "\(error)"
    }
  }

  @Test func keepsMachinesForOtherProcesses() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let (first, second) = (try MachineRegistry(folder: folder), try MachineRegistry(folder: folder))
    let web = record("web", image: "debian")
    try first.add(web)
    try first.add(record("data"))
    #expect(try second.all().map(\.name) == ["data", "web"])
    #expect(try second.find("web").configuration == web.configuration)
    #expect(try second.records(image: "debian").map(\.identifier) == [web.identifier])
    try second.update(web.identifier) { $0.startsWithHost = true }
    #expect(try first.find("web").startsWithHost)
  }

  @Test func namesAreOnceOnly() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let registry = try MachineRegistry(folder: folder)
    try registry.add(record("web"))
    try registry.add(record("data"))
    #expect(refusal { try registry.add(record("web")) }.contains("'web' already"))
    #expect(refusal { try registry.rename("data", to: "web") }.contains("'web' already"))
    #expect(refusal { try registry.rename("data", to: "Web!") }.contains("can't name a machine"))
    try registry.rename("data", to: "database")
    #expect(refusal { _ = try registry.find("databse") }.contains("did you mean 'database'"))
    #expect(try registry.all().map(\.name) == ["database", "web"])
  }

  @Test func aMachineThatRunsStays() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let registry = try MachineRegistry(folder: folder)
    let web = record("web")
    try registry.add(web)
    let place = registry.folder(of: web)
    try place.create()
    #expect(!place.isInUse)
    var lock = try place.takeLock()
    #expect(lock != nil && place.isInUse)
    #expect(try place.takeLock() == nil)
    #expect(refusal { try registry.remove(web) }.contains("runs"))
    lock = nil
    try registry.remove(web)
    #expect(try registry.all().isEmpty)
    #expect(!FileManager.default.fileExists(atPath: place.url.path))
  }

  /// What a process leaves that was killed while it removed a machine, or while a temporary one ran.
  @Test func whatWasLeftIsSweptUp() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let registry = try MachineRegistry(folder: folder)
    let trash = folder.appendingPathComponent("machines/.removed-abc/disk")
    try FileManager.default.createDirectory(at: trash, withIntermediateDirectories: true)
    var old = record("old", isTemporary: true)
    old.created = Date(timeIntervalSinceNow: -3600)
    var running = record("running", isTemporary: true)
    running.created = old.created
    for machine in [old, running, record("new", isTemporary: true)] {
      try registry.add(machine)
      try registry.folder(of: machine).create()
    }
    let lock = try registry.folder(of: running).takeLock()
    // Folders of machines that were never added: one just made, one from before there was a registry.
    let machines = folder.appendingPathComponent("machines")
    func age(_ url: URL) throws {
      try FileManager.default.setAttributes([.modificationDate: old.created - 60], ofItemAtPath: url.path)
    }
    let left = machines.appendingPathComponent("0123456789ab")
    let young = machines.appendingPathComponent("ba9876543210")
    let ancient = machines.appendingPathComponent("debian")
    for place in [left, young, ancient] {
      try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    }
    for place in [left, ancient] { try age(place) }
    let snapshots = registry.folder(of: running).snapshots
    for name in [".one.1.partial", ".two.2.partial", "whole"] {
      try FileManager.default.createDirectory(
        at: snapshots.appendingPathComponent(name), withIntermediateDirectories: true)
    }
    for name in [".one.1.partial", "whole"] { try age(snapshots.appendingPathComponent(name)) }
    try registry.prepareSnapshots(of: running)
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: snapshots.path).sorted() == [".two.2.partial", "whole"])
    #expect(try MachineRegistry(folder: folder).all().map(\.name) == ["new", "running"])
    withExtendedLifetime(lock) {}
    #expect(!FileManager.default.fileExists(atPath: trash.deletingLastPathComponent().path))
    #expect(!FileManager.default.fileExists(atPath: registry.folder(of: old).url.path))
    let exist = [left, young, ancient].map { FileManager.default.fileExists(atPath: $0.path) }
    #expect(exist == [false, true, true])
  }
}

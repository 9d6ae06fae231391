import Foundation
import HostSystem
import Storage
import Yadori

/// Machines that are made of saved ones: they share what they don't change with them, and with each other.
public enum SavedMachines {
  /// Makes machines that go on as the saved one, at their first start. They have the saved machine's files by links of
  /// their own as far as the file system lets that be, so it doesn't matter what becomes of the folder. Either all are
  /// made or none. Throws `MachineError`.
  ///
  /// - Parameters:
  ///   - image: see `MachineRecord.image`.
  ///   - adjust: changes the configuration that was saved.
  public static func prepare(
    _ registry: MachineRegistry, _ saved: SavedMachine, named names: [String], image: String?,
    isTemporary: Bool = false, adjust: (inout VirtualMachineConfiguration) -> Void = { _ in }
  ) throws -> [MachineRecord] {
    for name in names { try MachineRegistry.checkName(name) }
    var records = names.map { name in
      MachineRecord(
        identifier: MachineRecord.newIdentifier(), name: name, image: image, configuration: saved.configuration,
        isTemporary: isTemporary)
    }
    do {
      let configurations = try records.mapConcurrently { record in
        let folder = registry.folder(of: record)
        try folder.create()
        return try place(saved, in: folder)
      }
      for index in records.indices {
        records[index].configuration = configurations[index]
        adjust(&records[index].configuration)
      }
      // One step, that it is written to the disk once.
      try registry.add(records)
    } catch {
      for record in records { try? FileManager.default.removeItem(at: registry.folder(of: record).url) }
      throw error
    }
    return records
  }

  /// Has a machine that doesn't run go on as it was when it was saved, at its next start. Throws `MachineError`.
  public static func revert(_ registry: MachineRegistry, _ record: MachineRecord, to saved: SavedMachine) throws {
    let folder = registry.folder(of: record)
    guard let lock = try folder.takeLock() else {
      throw MachineError(.unavailable, "the machine '\(record.name)' runs; 'yadori kill \(record.name)' first")
    }
    try withExtendedLifetime(lock) {
      let configuration = try place(saved, in: folder)
      try registry.update(record.identifier) { $0.configuration = configuration }
    }
  }

  /// Puts a saved machine's files into a machine's folder, in place of what is there. Returns what the machine is by then.
  ///
  /// Each disk is an overlay of the saved one. What the machine is to go on as comes last: without it, it starts with
  /// the saved disks.
  private static func place(
    _ saved: SavedMachine, in folder: MachineFolder
  ) throws -> VirtualMachineConfiguration {
    let manager = FileManager.default
    let bases = folder.url.appendingPathComponent("base-\(MachineRecord.newIdentifier())")
    let earlier = ((try? manager.contentsOfDirectory(atPath: folder.url.path)) ?? []).filter { $0.hasPrefix("base-") }
    try manager.createDirectory(at: bases, withIntermediateDirectories: false)
    var configuration = saved.configuration
    var disks = configuration.disks
    if manager.fileExists(atPath: folder.resumption) { try discard(folder.resumption) }
    for index in disks.indices where disks[index].path == saved.path + "/disk-\(index)" {
      let base = bases.appendingPathComponent("disk-\(index)").path
      try link(disks[index].path, base)
      let overlay = index == 0 ? folder.disk : folder.url.appendingPathComponent("disk-\(index).qcow2").path
      let beside = overlay + ".partial"
      unlink(beside)
      let information = try DiskImage.information(path: base)
      try DiskImage.create(
        path: beside, format: .qcow2, size: information.virtualSize, backing: (base, information.format))
      guard rename(beside, overlay) == 0 else { throw HostError.last("can't write '\(overlay)'") }
      disks[index].path = overlay
      disks[index].format = "qcow2"
    }
    let partial = folder.resumption + ".partial"
    try? manager.removeItem(atPath: partial)
    try manager.createDirectory(atPath: partial, withIntermediateDirectories: false)
    for file in ["machine", "memory"] { try link(saved.path + "/" + file, partial + "/" + file) }
    guard rename(partial, folder.resumption) == 0 else { throw HostError.last("can't write '\(folder.resumption)'") }
    for name in earlier { try? manager.removeItem(at: folder.url.appendingPathComponent(name)) }
    configuration.disks = disks
    // The one that was saved has its own.
    if configuration.guestSocket != nil { configuration.guestSocket = folder.guestSocket }
    return configuration
  }

  /// Gives a machine that doesn't run yet, or an image, the code that a machine's translators kept, in place of what it
  /// has. False: that machine has kept none. Throws `HostError`.
  @discardableResult
  public static func passKeptCode(from source: MachineFolder, to target: String) throws -> Bool {
    guard FileManager.default.fileExists(atPath: source.keptCode) else { return false }
    let beside = target + ".partial"
    unlink(beside)
    try link(source.keptCode, beside)
    guard rename(beside, target) == 0 else { throw HostError.last("can't write '\(target)'") }
    // Where both were one file already, that changed nothing.
    unlink(beside)
    return true
  }

  /// Another name of the same file; a copy where there can't be one.
  private static func link(_ source: String, _ target: String) throws {
    if Glibc.link(source, target) == 0 { return }
    let (from, to) = (open(source, O_RDONLY | O_CLOEXEC), open(target, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600))
    defer {
      close(from)
      close(to)
    }
    guard from >= 0, to >= 0 else { throw HostError.last("can't copy '\(source)'") }
    _ = try SparseCopy.copy(from, to: to)
  }

  /// Deletes a saved machine's folder, whose name is gone at once. Throws `HostError`.
  public static func discard(_ path: String) throws {
    let beside = path + ".removed"
    try? FileManager.default.removeItem(atPath: beside)
    guard rename(path, beside) == 0 else { throw HostError.last("can't remove '\(path)'") }
    try? FileManager.default.removeItem(atPath: beside)
  }
}

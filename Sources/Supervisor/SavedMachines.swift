import Foundation
import HostSystem
import Storage
import Yadori

/// Machines that are made of saved ones: they share what they don't change with them, and with each other.
public enum SavedMachines {
  /// Makes machines that go on as the saved one, at their first start, or begin with its disks if it was off. They have the
  /// saved machine's files by links of their own as far as the file system lets that be, so it doesn't matter what becomes
  /// of the folder. Either all are made or none. Throws `MachineError`.
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
        let staged = try stage(saved, in: folder)
        try staged.show(in: folder)
        return staged.configuration
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

  /// Takes from a configuration what a machine's process says is behind its disks, and the registry doesn't know of: who
  /// owned that could have other files read.
  public static func keepKnownFiles(_ configuration: inout VirtualMachineConfiguration, as record: MachineRecord) {
    let known = Set(
      record.configuration.disks.flatMap { $0.behind ?? DiskImage.backingFiles(of: $0.path, format: $0.knownFormat) })
    for index in configuration.disks.indices { configuration.disks[index].behind?.removeAll { !known.contains($0) } }
  }

  /// Has a machine that doesn't run go on as it was when it was saved, at its next start. Throws `MachineError`.
  public static func revert(_ registry: MachineRegistry, _ record: MachineRecord, to saved: SavedMachine) throws {
    let folder = registry.folder(of: record)
    guard let lock = try folder.takeLock() else {
      throw MachineError(.unavailable, "the machine '\(record.name)' runs; 'yadori kill \(record.name)' first")
    }
    try withExtendedLifetime(lock) {
      let staged = try stage(saved, in: folder)
      var configuration = staged.configuration
      keepKnownFiles(&configuration, as: record)
      do {
        // From here on it isn't any more what it was to go on as; between this and `show` it begins with the saved disks.
        if FileManager.default.fileExists(atPath: folder.resumption) { try discard(folder.resumption) }
        try registry.update(record.identifier) { $0.configuration = configuration }
      } catch {
        try? FileManager.default.removeItem(at: staged.disks)
        throw error
      }
      try staged.show(in: folder)
      // Of its own, what it had before.
      let used = Set(staged.configuration.disks.map(\.path) + [staged.disks.path])
      for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.url.path)) ?? [] {
        let place = folder.url.appendingPathComponent(name)
        let isDisk = name.hasPrefix(diskPrefix) || (name.hasPrefix("disk") && name.hasSuffix(".qcow2"))
        if isDisk, !used.contains(place.path) { try? FileManager.default.removeItem(at: place) }
      }
    }
  }

  private static let diskPrefix = "base-"

  /// What a machine needs to go on as a saved one, beside what it has.
  private struct Staged {
    let configuration: VirtualMachineConfiguration
    /// The folder of what its disks are overlays of.
    let disks: URL
    /// What it is to go on as, under another name; nil: it was off.
    let resumption: String?

    /// The last step: without it, the machine begins with the saved disks.
    func show(in folder: MachineFolder) throws {
      guard let resumption else { return }
      guard rename(resumption, folder.resumption) == 0 else {
        throw HostError.last("can't write '\(folder.resumption)'")
      }
    }
  }

  /// Puts a saved machine's files into a machine's folder, beside what is there: each disk is an overlay of the saved one.
  private static func stage(_ saved: SavedMachine, in folder: MachineFolder) throws -> Staged {
    let manager = FileManager.default
    let identifier = MachineRecord.newIdentifier()
    let place = folder.url.appendingPathComponent("\(diskPrefix)\(identifier)")
    try manager.createDirectory(at: place, withIntermediateDirectories: false)
    do {
      var configuration = saved.configuration
      for index in configuration.disks.indices where configuration.disks[index].path == saved.path + "/disk-\(index)" {
        let base = place.appendingPathComponent("disk-\(index)").path
        try link(configuration.disks[index].path, base)
        // A raw disk stays one, whatever its guest has written there.
        let information = try DiskImage.information(path: base, format: configuration.disks[index].knownFormat)
        let overlay = folder.url.appendingPathComponent("disk-\(index)-\(identifier).qcow2").path
        try DiskImage.create(
          path: overlay, format: .qcow2, size: information.virtualSize, backing: (base, information.format))
        configuration.disks[index].path = overlay
        configuration.disks[index].format = "qcow2"
        configuration.disks[index].base = base
      }
      // The one that was saved has its own, and each puts its own code before these.
      let machines = folder.url.deletingLastPathComponent().path + "/"
      configuration.keptCode?.removeAll { $0.hasPrefix(machines) }
      if configuration.guestSocket != nil { configuration.guestSocket = folder.guestSocket }
      if saved.isOff { return Staged(configuration: configuration, disks: place, resumption: nil) }
      let resumption = folder.resumption + ".partial"
      try? manager.removeItem(atPath: resumption)
      try manager.createDirectory(atPath: resumption, withIntermediateDirectories: false)
      for file in saved.stateFiles { try link(saved.path + "/" + file, resumption + "/" + file) }
      return Staged(configuration: configuration, disks: place, resumption: resumption)
    } catch {
      try? manager.removeItem(at: place)
      throw error
    }
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
    let (from, to) = (
      open(source, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), open(target, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    )
    defer {
      close(from)
      close(to)
    }
    guard from >= 0, to >= 0 else { throw HostError.last("can't copy '\(source)'") }
    _ = try SparseCopy.copy(from, to: to)
  }

  /// Deletes a saved machine's folder, whose name is gone at once. Throws `HostError`.
  public static func discard(_ path: String) throws {
    let url = URL(fileURLWithPath: path)
    let folder = url.deletingLastPathComponent()
    let beside = folder.appendingPathComponent("\(removedPrefix)\(MachineRecord.newIdentifier())").path
    guard rename(path, beside) == 0 else { throw HostError.last("can't remove '\(path)'") }
    try? FileManager.default.removeItem(atPath: beside)
    // What processes that were killed at this have left.
    for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    where name.hasPrefix(removedPrefix) {
      try? FileManager.default.removeItem(at: folder.appendingPathComponent(name))
    }
  }

  private static let removedPrefix = ".removed-"
}

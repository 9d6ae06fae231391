import Foundation
import HostSystem
import Images
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
        let staged = try stage(saved, in: folder, isTemporary: isTemporary)
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
      for record in records {
        try? FileManager.default.removeItem(at: registry.folder(of: record).url)
        registry.folder(of: record).removeMemory()
      }
      throw error
    }
    return records
  }

  /// What is believed of what a machine's process has saved in `folder`, see `SavedMachine.adopted`. Throws `MachineError`.
  public static func adopt(
    _ saved: SavedMachine, _ registry: MachineRegistry, _ record: MachineRecord
  ) throws -> SavedMachine {
    var known = record.configuration
    known.guestSocket = registry.folder(of: record).guestSocket
    return try saved.adopted(by: known, name: record.name, isCommon: isOfImages)
  }

  /// Whether a file is one of the images', which all machines can read.
  private static func isOfImages(_ path: String) -> Bool {
    path.hasPrefix(ImageStore.standardFolder().path + "/") && !path.split(separator: "/").contains("..")
  }

  /// Saves a machine that is off, with its disks, in a folder. Who calls it holds the machine's lock, and may do what the
  /// machine's process may not: so nothing is read but what is known to be the machine's. Throws `MachineError`, and
  /// `StorageError` where a disk can't be read.
  public static func saveStopped(_ registry: MachineRegistry, _ record: MachineRecord, to path: String) throws {
    let own = registry.folder(of: record).url.path + "/"
    let folder = try DistrustedFolder(path: own)
    for disk in record.configuration.disks {
      for file in [disk.path, disk.base].compactMap(\.self) where file.hasPrefix(own) {
        guard folder.isFile(String(file.dropFirst(own.count))) else {
          throw MachineError(.data, "'\(file)' isn't a file; don't trust the machine '\(record.name)'")
        }
      }
      // What is behind others, whose files their user has named, was never noted with earlier versions.
      guard disk.behind != nil || disk.path.hasPrefix(own) else { continue }
      let known = Set((disk.behind ?? []) + [disk.base].compactMap(\.self))
      if let other = DiskImage.backingFile(
        of: disk.path, format: disk.knownFormat, isKnown: { known.contains($0) || isOfImages($0) })
      {
        throw MachineError(
          .data,
          "the disk '\(disk.path)' wants to show '\(other)', which nobody said of it; don't trust the machine "
            + "'\(record.name)'")
      }
    }
    try VirtualMachine.saveStopped(record.configuration, to: path)
  }

  /// Has a machine that doesn't run go on as it was when it was saved, at its next start. `saved` is adopted. Throws
  /// `MachineError`.
  public static func revert(_ registry: MachineRegistry, _ record: MachineRecord, to saved: SavedMachine) throws {
    let folder = registry.folder(of: record)
    guard let lock = try folder.takeLock() else {
      throw MachineError(.unavailable, "the machine '\(record.name)' runs; 'yadori kill \(record.name)' first")
    }
    try withExtendedLifetime(lock) {
      let staged = try stage(saved, in: folder)
      do {
        // From here on it isn't any more what it was to go on as; between this and `show` it begins with the saved disks.
        let resumption = URL(fileURLWithPath: folder.resumption).lastPathComponent
        if staged.folder.status(resumption) != nil { try staged.folder.discard(resumption) }
        try registry.update(record.identifier) { $0.configuration = staged.configuration }
      } catch {
        try? staged.folder.remove(staged.disks)
        throw error
      }
      try staged.show(in: folder)
      // Of its own, what it had before.
      let place = staged.folder.path + "/"
      let used = staged.configuration.disks.map(\.path) + [place + staged.disks]
      for name in staged.folder.names() {
        let isDisk = name.hasPrefix(diskPrefix) || (name.hasPrefix("disk") && name.hasSuffix(".qcow2"))
        if isDisk, !used.contains(place + name) { try? staged.folder.remove(name) }
      }
    }
  }

  /// What names of folders begin with in which there is what a machine's disks are overlays of.
  static let diskPrefix = "base-"

  /// What a machine needs to go on as a saved one, beside what it has.
  private struct Staged {
    let configuration: VirtualMachineConfiguration
    /// The machine's folder, and the name of the one there with what its disks are overlays of.
    let folder: DistrustedFolder
    let disks: String
    /// What it is to go on as, under another name; nil: it was off.
    let resumption: String?

    /// The last step: without it, the machine begins with the saved disks.
    func show(in place: MachineFolder) throws {
      guard let resumption else { return }
      try folder.move(resumption, to: folder, as: URL(fileURLWithPath: place.resumption).lastPathComponent)
    }
  }

  /// Puts a saved machine's files into a machine's folder, beside what is there: each disk is an overlay of the saved one.
  private static func stage(
    _ saved: SavedMachine, in place: MachineFolder, isTemporary: Bool = false
  ) throws -> Staged {
    let identifier = MachineRecord.newIdentifier()
    let folder = try DistrustedFolder(path: place.url.path)
    let baseName = "\(diskPrefix)\(identifier)"
    try folder.makeFolder(baseName)
    do {
      let bases = try folder.folder(baseName)
      var configuration = saved.configuration
      for index in saved.savedDisks {
        let name = "disk-\(index)"
        try saved.folder.link(name, to: bases, as: name)
        let base = bases.path + "/" + name
        // A raw disk stays one, whatever its guest has written there.
        let information = try DiskImage.information(path: base, format: configuration.disks[index].knownFormat)
        let overlay = place.url.appendingPathComponent("\(name)-\(identifier).qcow2").path
        try DiskImage.create(
          path: overlay, format: .qcow2, size: information.virtualSize, backing: (base, information.format))
        configuration.disks[index].path = overlay
        configuration.disks[index].format = "qcow2"
        configuration.disks[index].base = base
      }
      dropOwnCode(&configuration, among: place.url.deletingLastPathComponent().path)
      if configuration.guestSocket != nil { configuration.guestSocket = place.guestSocket }
      if saved.isOff { return Staged(configuration: configuration, folder: folder, disks: baseName, resumption: nil) }
      let name = URL(fileURLWithPath: place.resumption).lastPathComponent + ".partial"
      try folder.remove(name)
      try folder.makeFolder(name)
      let resumption = try folder.folder(name)
      for file in saved.stateFiles { try saved.folder.link(file, to: resumption, as: file) }
      // Seldom cloned.
      if !isTemporary { place.keepMemory(saved.memoryFiles, of: resumption) }
      return Staged(configuration: configuration, folder: folder, disks: baseName, resumption: name)
    } catch {
      try? folder.remove(baseName)
      throw error
    }
  }

  /// The one that was saved has kept code of its own, and each machine puts its own before the others'.
  private static func dropOwnCode(_ configuration: inout VirtualMachineConfiguration, among machines: String) {
    configuration.keptCode?.removeAll { $0.hasPrefix(machines + "/") }
  }

  /// Has a saved machine's configuration be of no machine's kept code.
  public static func dropOwnCode(_ configuration: inout VirtualMachineConfiguration, of registry: MachineRegistry) {
    dropOwnCode(&configuration, among: registry.folder.appendingPathComponent("machines").path)
  }

  /// Gives a machine that doesn't run yet, or an image, the code that a machine's translators kept, in place of what it
  /// has. False: that machine has kept none. Throws `HostError`.
  /// - Parameter isShared: whether both may have one file, to which either can write.
  @discardableResult
  public static func passKeptCode(from source: MachineFolder, to target: String, isShared: Bool) throws -> Bool {
    let (folder, name) = (
      try DistrustedFolder(path: source.url.path), URL(fileURLWithPath: source.keptCode).lastPathComponent
    )
    guard folder.isFile(name) else { return false }
    let url = URL(fileURLWithPath: target)
    let place = try DistrustedFolder(path: url.deletingLastPathComponent().path)
    let beside = url.lastPathComponent + ".partial"
    try place.remove(beside)
    if isShared {
      try folder.link(name, to: place, as: beside)
    } else {
      try folder.copy(name, to: place, as: beside, isDurable: false)
    }
    try place.move(beside, to: place, as: url.lastPathComponent)
    // Where both were one file already, that changed nothing.
    try place.remove(beside)
    return true
  }

  /// Deletes a saved machine's folder, whose name is gone at once. Throws `HostError`.
  public static func discard(_ path: String) throws {
    let url = URL(fileURLWithPath: path)
    try DistrustedFolder(path: url.deletingLastPathComponent().path).discard(url.lastPathComponent)
  }
}

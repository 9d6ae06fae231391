import Bus
import CHost
import Foundation
import HostSystem
import Storage

/// A machine in a folder, as it stood at one moment: what it is made of and its devices' states, its RAM, and the disks
/// that it writes to.
///
/// `machine` is text: a line with a format's name and version and the CRC-32C of what follows, then JSON. `memory-N` are
/// the parts of the RAM, one behind the other, in which what is zero takes no space, and `memory-changes` pages that are
/// otherwise than there; `disk-N` are the disks. Each has a checksum for each piece (`SparseCopy`), but for the changes. A machine that was off has no RAM, and no devices' states. The folder is written beside and
/// renamed, so it is there whole or not at all. Files that the disks show in part (an image's disk) stay where they are; the
/// saved machine notes what they were.
public struct SavedMachine {
  /// Raised at each change after which an older program couldn't read it. What has no changes to RAM is of the first.
  static let versions = 3...4
  private static let name = "YADORI-MACHINE"

  struct Content: Codable {
    var file: String
    var byteCount: Int
    /// A little-endian UInt32 for each piece.
    var checksums: Data
    /// False: they tell only which pieces are all zero.
    var tellDamage: Bool

    init(file: String, byteCount: Int, checksums: [UInt32], tellDamage: Bool = true) {
      self.file = file
      self.byteCount = byteCount
      self.checksums = checksums.withUnsafeBytes { Data($0) }
      self.tellDamage = tellDamage
    }

    var checksumList: [UInt32] {
      checksums.withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
      }
    }
  }

  /// A file that isn't saved, and must be as it was.
  struct Neighbour: Codable {
    var path: String
    var byteCount: Int64
    /// Seconds and nanoseconds since 1970.
    var modified: [Int64]

    /// Nil: there is none.
    init?(path: String) {
      var status = stat()
      guard stat(path, &status) == 0 else { return nil }
      self.path = path
      byteCount = Int64(status.st_size)
      modified = [Int64(status.st_mtim.tv_sec), Int64(status.st_mtim.tv_nsec)]
    }
  }

  /// Tells a file from others that come to its place.
  package struct MemoryFile: Codable, Equatable {
    var node: UInt64
    var byteCount: Int64
    /// Seconds and nanoseconds since 1970.
    var modified: [Int64]

    /// Nil: it can't be looked at.
    init?(_ descriptor: Int32) {
      var status = stat()
      guard fstat(descriptor, &status) == 0 else { return nil }
      self.init(status)
    }

    package init(_ status: stat) {
      node = UInt64(status.st_ino)
      byteCount = Int64(status.st_size)
      modified = [Int64(status.st_mtim.tv_sec), Int64(status.st_mtim.tv_nsec)]
    }
  }

  /// What RAM was restored from.
  struct Base {
    var contents: [Content]
    var files: [MemoryFile]
  }

  struct Manifest: Codable {
    /// Paths of disks that are saved, too, are relative.
    var configuration: VirtualMachineConfiguration
    /// The extensions that the guest was told of.
    var instructionSet: [String]
    /// The guest's clock, in ticks.
    var clock: UInt64
    var components: [EncodedState]
    var memory: [Content]
    var disks: [Content]
    var neighbours: [Neighbour]
    /// Pages of RAM that are otherwise than in `memory`, which is then what the machine was restored from: its process
    /// leaves that to whoever asked it to save. Nil: there are none.
    var changes: Changes?
    /// For each hart the physical addresses of the pages with code that it used last, as little-endian 64-bit words; nil:
    /// nobody noted them. Whoever goes on needn't wait until they are used again.
    var codePages: [Data]?

    /// Whoever wrote it may have been a guest's: no name leads out of the folder.
    var hasUsualNames: Bool {
      let indices = configuration.disks.indices
      return memory.indices.allSatisfy { memory[$0].file == "memory-\($0)" }
        && changes.map { $0.base.count == memory.count } != false
        && disks.allSatisfy { disk in indices.contains { disk.file == "disk-\($0)" } }
    }
  }

  /// What is saved with the RAM.
  struct Parts {
    var configuration: VirtualMachineConfiguration
    var clock: UInt64
    var instructionSet: [String]
    var components: [EncodedState]
    /// See `Manifest`.
    var codePages: [[UInt64]]?
    /// The disks that are saved, too, by index.
    var disks: [Int: Disk]
    /// Whether RAM is to outlive a failure of the host, and damage to be found, which take most of the time. Disks do in
    /// any case: machines that are made of the saved one go on using them.
    var isDurable: Bool
    /// What RAM was restored from, where only what is otherwise by now is to be written; nil: all is.
    var base: Base?

    enum Disk {
      /// All that belongs to it is in the open file.
      case file(Int32)
      /// It has another file behind it, of this path, that belongs to it as well.
      case chain(any BlockStorage, downTo: String)
    }
  }

  /// Files of RAM: several can be written at the same time.
  private static let memoryParts = 4

  // MARK: writing

  /// Writes a folder `path`. What stands there is replaced where it is a saved machine. Nothing changes meanwhile.
  /// Throws `MachineError`.
  static func write(_ parts: Parts, memory: GuestMemory?, to path: String) throws {
    let manager = FileManager.default
    let url = URL(fileURLWithPath: path)
    if let folder = try? DistrustedFolder(path: url.deletingLastPathComponent().path) {
      removeAbandoned(url.lastPathComponent, in: folder)
    }
    if manager.fileExists(atPath: path), !isSavedMachine(path) {
      throw MachineError(.cannotCreate, "'\(path)' is there already, and isn't a saved machine; choose another name")
    }
    let beside = url.deletingLastPathComponent().appendingPathComponent(partialName(url.lastPathComponent))
    do {
      try manager.createDirectory(
        at: beside, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    } catch {
      throw MachineError(.cannotCreate, "can't write the saved machine '\(path)'; check the folder that it is to be in")
    }
    do {
      try fill(beside, parts, memory)
      if parts.isDurable { try AtomicFileWriter.synchronizeFolder(of: beside.appendingPathComponent("machine").path) }
      try replace(path, by: beside)
      if parts.isDurable { try AtomicFileWriter.synchronizeFolder(of: path) }
    } catch {
      try? manager.removeItem(at: beside)
      if let error = error as? MachineError { throw error }
      throw MachineError(.inputOutput, "can't write the saved machine '\(path)': \(error)")
    }
  }

  /// Deletes what killed processes left half-written of a saved machine of this name an hour ago or earlier.
  package static func removeAbandoned(_ saved: String, in folder: DistrustedFolder) {
    for name in folder.names() where name.hasPrefix(".\(saved).") && name.hasSuffix(".partial") {
      guard UInt32(name.dropFirst(saved.count + 2).dropLast(".partial".count)) != nil,
        let status = folder.status(name), time(nil) - status.st_mtim.tv_sec > 3600
      else { continue }
      try? folder.remove(name)
    }
  }

  /// The name of a saved machine until it is whole.
  package static func partialName(_ name: String) -> String {
    ".\(name).\(UInt32.random(in: 0 ... .max)).partial"
  }

  private static func replace(_ path: String, by beside: URL) throws {
    guard FileManager.default.fileExists(atPath: path) else {
      guard rename(beside.path, path) == 0 else { throw HostError.last("can't rename the folder") }
      return
    }
    guard chost_exchange(beside.path, path) == 0 else { throw HostError.last("can't replace the folder") }
    // It has the old one's content by now.
    try? FileManager.default.removeItem(at: beside)
  }

  private static func fill(_ folder: URL, _ parts: Parts, _ memory: GuestMemory?) throws {
    func make(_ name: String, flags: Int32 = O_CREAT | O_EXCL) throws -> Int32 {
      let path = folder.appendingPathComponent(name).path
      let descriptor = chost_open(path, O_RDWR | flags, 0o600)
      guard descriptor >= 0 else { throw HostError.last("can't make '\(path)'") }
      return descriptor
    }
    func finish(_ name: String, _ descriptor: Int32, _ checksums: [UInt32], isDurable: Bool) throws -> Content {
      var status = stat()
      guard fstat(descriptor, &status) == 0, !isDurable || fsync(descriptor) == 0 else {
        throw HostError.last("can't write '\(folder.appendingPathComponent(name).path)'")
      }
      // As it was written; what becomes of it later is seen.
      if isDurable { DamageCheck.note(descriptor, asOf: DamageCheck.FileState(descriptor)) }
      return Content(file: name, byteCount: Int(status.st_size), checksums: checksums, tellDamage: isDurable)
    }
    var descriptors: [Int32] = []
    defer { for descriptor in descriptors { close(descriptor) } }
    var contents: [Content] = []
    var changes: Manifest.Changes?
    if let base = parts.base, let memory, let runs = changedPages(memory) {
      descriptors.append(try make(Manifest.Changes.file))
      try write(runs, of: memory, to: descriptors[0])
      (contents, changes) = (base.contents, Manifest.Changes(runs, base: base.files))
    } else {
      let ram = UnsafeRawBufferPointer(start: memory?.host, count: Int(memory?.size ?? 0))
      let work = memory?.contentBounds(inPiecesOf: SparseCopy.chunkSize) ?? []
      let ranges = SparseCopy.parts(of: work, most: memoryParts)
      let names = ranges.indices.map { "memory-\($0)" }
      for name in names { descriptors.append(try make(name)) }
      let checksums = try SparseCopy.write(ram, ranges, to: descriptors, work, hasChecksums: parts.isDurable)
      contents = try names.indices.map {
        try finish(names[$0], descriptors[$0], checksums[$0], isDurable: parts.isDurable)
      }
    }
    var configuration = parts.configuration
    var disks: [Content] = []
    var neighbours = configuration.disks.indices.filter { parts.disks[$0] == nil }.map { configuration.disks[$0].path }
    for (index, disk) in parts.disks.sorted(by: { $0.key < $1.key }) {
      let name = "disk-\(index)"
      let place = folder.appendingPathComponent(name).path
      let descriptor: Int32
      let checksums: [UInt32]
      switch disk {
      case .file(let source):
        guard source >= 0 else {
          throw HostError(code: EBADF, message: "can't read '\(configuration.disks[index].path)'")
        }
        descriptor = try make(name)
        descriptors.append(descriptor)
        checksums = try SparseCopy.copy(source, to: descriptor)
      case .chain(let storage, let base):
        try DiskImage.flatten(storage, downTo: base, to: place)
        descriptor = try make(name, flags: 0)
        descriptors.append(descriptor)
        checksums = try SparseCopy.checksums(of: descriptor)
      }
      disks.append(try finish(name, descriptor, checksums, isDurable: true))
      // What is behind a raw disk is nothing, whatever its guest has written there.
      if case .chain = disk { configuration.disks[index].format = DiskFormat.qcow2.rawValue }
      configuration.disks[index].wasProbed = nil
      let behind = DiskImage.backingFiles(of: place, format: configuration.disks[index].knownFormat)
      neighbours += behind
      configuration.disks[index].path = name
      configuration.disks[index].base = nil
      configuration.disks[index].behind = behind
    }
    let manifest = Manifest(
      configuration: configuration, instructionSet: parts.instructionSet, clock: parts.clock,
      components: parts.components, memory: contents, disks: disks,
      neighbours: neighbours.compactMap(Neighbour.init),
      changes: changes, codePages: parts.codePages?.map { pages in pages.withUnsafeBytes { Data($0) } })
    try AtomicFileWriter.write(
      try text(of: manifest), to: folder.appendingPathComponent("machine").path, permissions: 0o600)
  }

  /// What is in the file `machine`.
  static func text(of manifest: Manifest) throws -> Data {
    let json = try JSONEncoder().encode(manifest)
    let version = manifest.changes == nil ? versions.lowerBound : versions.upperBound
    return Data("\(name) \(version) \(digest(json))\n".utf8) + json
  }

  /// The CRC-32C of the JSON, in hexadecimal digits.
  private static func digest(_ json: Data) -> String {
    String(json.withUnsafeBytes { chost_crc32c(0, $0.baseAddress, $0.count) }, radix: 16)
  }

  // MARK: reading

  /// Its folder, in which nobody's links are followed.
  package let folder: DistrustedFolder
  let manifest: Manifest

  public var path: String { folder.path }

  /// Whether a folder holds a saved machine, whole or not.
  public static func isSavedMachine(_ path: String) -> Bool {
    (try? DistrustedFolder(path: path)).map(isSavedMachine) ?? false
  }

  /// The same of what has this name in a folder.
  package static func isSavedMachine(_ name: String, in folder: DistrustedFolder) -> Bool {
    (try? folder.folder(name)).map(isSavedMachine) ?? false
  }

  private static func isSavedMachine(_ folder: DistrustedFolder) -> Bool {
    guard let file = try? folder.open("machine") else { return false }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: name.utf8.count)
    return read(file, &bytes, bytes.count) == bytes.count && bytes == Array(name.utf8)
  }

  /// Bytes of the file `machine`: devices' states are small beside that.
  private static let largestManifest = 64 << 20

  /// Reads what it is; RAM and disks are looked at when they are needed. Throws `MachineError`.
  public init(path: String) throws {
    guard FileManager.default.fileExists(atPath: path) else {
      throw MachineError(.noInput, "there is no saved machine '\(path)'; check the name")
    }
    guard let folder = try? DistrustedFolder(path: path) else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    try self.init(folder)
  }

  /// The same in an open folder.
  package init(_ folder: DistrustedFolder) throws {
    let path = folder.path
    guard let data = (try? folder.contents(of: "machine", atMost: Self.largestManifest)).map({ Data($0) }) else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    let line = data.prefix { $0 != UInt8(ascii: "\n") }
    let words = String(decoding: line.prefix(200), as: UTF8.self).split(separator: " ")
    guard words.count == 3, words[0] == Self.name, let version = Int(words[1]) else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    guard Self.versions.contains(version) else {
      throw MachineError(
        .data,
        "'\(path)' was saved in version \(version) of the format; this program reads \(Self.versions.lowerBound) and "
          + "\(Self.versions.upperBound)")
    }
    let json = data.dropFirst(line.count + 1)
    guard words[2] == Self.digest(json), let manifest = try? JSONDecoder().decode(Manifest.self, from: json),
      manifest.hasUsualNames
    else { throw Self.damaged(path) }
    self.init(folder, manifest)
  }

  init(_ folder: DistrustedFolder, _ manifest: Manifest) {
    self.folder = folder
    self.manifest = manifest
  }

  static func damaged(_ path: String) -> MachineError {
    MachineError(.data, "the saved machine '\(path)' is damaged or incomplete; use another one")
  }

  /// What the machine is made of. The paths of disks that were saved with it lead into the folder.
  public var configuration: VirtualMachineConfiguration {
    var configuration = manifest.configuration
    for index in savedDisks { configuration.disks[index].path = path + "/disk-\(index)" }
    return configuration
  }

  /// By index: the disks that were saved with it.
  package var savedDisks: [Int] {
    manifest.configuration.disks.indices.filter { index in manifest.disks.contains { $0.file == "disk-\(index)" } }
  }

  /// Whether it was off: what is made of it begins as if it was switched on.
  public var isOff: Bool { manifest.memory.isEmpty }

  /// The names of its files in its folder, but for the disks'.
  public var stateFiles: [String] { ["machine"] + memoryFiles + changedFiles }

  /// Those of what RAM is restored from first.
  package var memoryFiles: [String] { manifest.memory.map(\.file) }

  private var changedFiles: [String] { manifest.changes == nil ? [] : [Manifest.Changes.file] }

  /// The names of all that the machine's process has written, but for the one that says what it is; and of those that it
  /// was itself restored from.
  package var contentFiles: (written: [String], base: [(name: String, file: MemoryFile)]) {
    let disks = manifest.disks.map(\.file)
    guard let changes = manifest.changes else { return (memoryFiles + disks, []) }
    return (changedFiles + disks, Array(zip(memoryFiles, changes.base)))
  }

  /// Whether its RAM is in part that from which its machine was restored.
  package var hasBase: Bool { manifest.changes != nil }

  /// Looks for damage in RAM and disks, all of which it reads where nobody has since the host was started (`DamageCheck`),
  /// and for files that it needs and that aren't as they were. Throws `MachineError`.
  public func check() throws {
    for neighbour in manifest.neighbours {
      let now = Neighbour(path: neighbour.path)
      guard now?.byteCount == neighbour.byteCount, now?.modified == neighbour.modified else {
        throw MachineError(
          .data,
          "the saved machine '\(path)' needs '\(neighbour.path)' as it was, which \(now == nil ? "is gone" : "has changed"); "
            + "put it back")
      }
    }
    // A disk's own file can be written to by who has it, and must not lead elsewhere by now.
    for (index, disk) in zip(savedDisks, savedDisks.map { configuration.disks[$0] }) {
      guard folder.isFile("disk-\(index)") else { throw Self.damaged(path) }
      if let behind = disk.behind,
        let other = DiskImage.backingFile(of: disk.path, format: disk.knownFormat, isKnown: behind.contains)
      {
        throw MachineError(
          .data, "a disk of the saved machine '\(path)' wants to show '\(other)', which it didn't when it was saved")
      }
    }
    for content in manifest.memory + manifest.disks {
      guard let descriptor = try? folder.open(content.file) else { throw Self.damaged(path) }
      defer { close(descriptor) }
      if !content.tellDamage || DamageCheck.isNoted(descriptor) { continue }
      let state = DamageCheck.FileState(descriptor)
      guard try SparseCopy.agrees(descriptor, count: content.byteCount, content.checksumList) else {
        throw Self.damaged(path)
      }
      DamageCheck.note(descriptor, asOf: state)
    }
  }

  /// Throws `MachineError` where a machine of this program lacks instructions that the saved one had.
  func check(instructionSet: [String]) throws {
    let missing = manifest.instructionSet.filter { !instructionSet.contains($0) }
    if missing.isEmpty { return }
    throw MachineError(
      .data,
      "the saved machine '\(path)' has instructions that this program doesn't offer (\(missing.joined(separator: ", "))); "
        + "restore it with the one that saved it")
  }

  /// Has RAM, which is zero, hold what was saved. The files may lose their names afterwards, but mustn't change. Returns
  /// them.
  func restoreMemory(_ memory: GuestMemory) throws -> Base {
    var start = 0
    var files: [MemoryFile] = []
    for content in manifest.memory {
      let rest = Int(memory.size) - start
      guard (1...max(1, rest)).contains(content.byteCount),
        content.byteCount % SparseCopy.chunkSize == 0 || content.byteCount == rest
      else { throw Self.damaged(path) }
      files.append(try restore(content, to: memory, at: start, count: content.byteCount))
      start += content.byteCount
    }
    guard start == Int(memory.size) else { throw Self.damaged(path) }
    if let changes = manifest.changes { try restore(changes, to: memory) }
    return Base(contents: manifest.memory, files: files)
  }

  private func restore(
    _ content: Content, to memory: GuestMemory, at start: Int, count: Int
  ) throws -> MemoryFile {
    let checksums = content.checksumList
    guard let descriptor = try? folder.open(content.file) else { throw Self.damaged(path) }
    defer { close(descriptor) }
    let size = SparseCopy.chunkSize
    guard let file = MemoryFile(descriptor), Int(file.byteCount) == count, content.byteCount == count,
      checksums.count == (count + size - 1) / size
    else { throw Self.damaged(path) }
    // What is all zero stays memory of its own, that the host may give in large pages.
    var index = 0
    while index < checksums.count {
      let first = index
      while index < checksums.count, checksums[index] != SparseCopy.zeroChecksum { index += 1 }
      if index > first {
        let offset = first * size
        try memory.show(
          descriptor, at: start + offset, offset: offset, count: min(index * size, count) - offset)
      } else {
        index += 1
      }
    }
    return file
  }
}

import Bus
import CHost
import Foundation
import HostSystem

/// A machine in a folder, as it stood at one moment: what it is made of and its devices' states, its RAM, and the disks
/// that it writes to.
///
/// `machine` is text: a line with a format's name and version and the CRC-32C of what follows, then JSON. `memory` is the
/// RAM, in which what is zero takes no space; `disk-N` are the disks. Each has a checksum for each part
/// (`SparseCopy`). The folder is written beside and renamed, so it is there whole or not at all.
public struct SavedMachine {
  /// Raised at each change after which an older program couldn't read it.
  static let version = 2
  private static let name = "YADORI-MACHINE"

  struct Content: Codable {
    var file: String
    var byteCount: Int
    /// A little-endian UInt32 for each part.
    var checksums: Data

    init(file: String, byteCount: Int, checksums: [UInt32]) {
      self.file = file
      self.byteCount = byteCount
      self.checksums = checksums.withUnsafeBytes { Data($0) }
    }

    var checksumList: [UInt32] {
      checksums.withUnsafeBytes { bytes in
        (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
      }
    }
  }

  struct Manifest: Codable {
    /// Paths of disks that are saved, too, are relative.
    var configuration: VirtualMachineConfiguration
    /// The guest's clock, in ticks.
    var clock: UInt64
    var components: [EncodedState]
    var memory: Content
    var disks: [Content]
  }

  /// What is saved with the RAM.
  struct Parts {
    var configuration: VirtualMachineConfiguration
    var clock: UInt64
    var components: [EncodedState]
    /// Descriptors of the disks that are saved, too, by index.
    var disks: [Int: Int32]
    /// Whether RAM is to outlive a failure of the host, which takes most of the time. Disks do in any case: machines that
    /// are made of the saved one go on using them.
    var isDurable: Bool
  }

  // MARK: writing

  /// Writes a folder `path`. What stands there is replaced where it is a saved machine. Nothing changes meanwhile.
  /// Throws `MachineError`.
  static func write(_ parts: Parts, memory: GuestMemory, to path: String) throws {
    let manager = FileManager.default
    let url = URL(fileURLWithPath: path)
    if manager.fileExists(atPath: path), !isSavedMachine(path) {
      throw MachineError(.cannotCreate, "'\(path)' is there already, and isn't a saved machine; choose another name")
    }
    let beside = url.deletingLastPathComponent().appendingPathComponent(
      ".\(url.lastPathComponent).\(UInt32.random(in: 0 ... .max)).partial")
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

  private static func replace(_ path: String, by beside: URL) throws {
    guard FileManager.default.fileExists(atPath: path) else {
      guard rename(beside.path, path) == 0 else { throw HostError.last("can't rename the folder") }
      return
    }
    guard chost_exchange(beside.path, path) == 0 else { throw HostError.last("can't replace the folder") }
    // It has the old one's content by now.
    try? FileManager.default.removeItem(at: beside)
  }

  private static func fill(_ folder: URL, _ parts: Parts, _ memory: GuestMemory) throws {
    func write(_ name: String, isDurable: Bool, _ body: (Int32) throws -> [UInt32]) throws -> Content {
      let path = folder.appendingPathComponent(name).path
      let descriptor = chost_open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
      guard descriptor >= 0 else { throw HostError.last("can't make '\(path)'") }
      defer { close(descriptor) }
      let checksums = try body(descriptor)
      var status = stat()
      guard fstat(descriptor, &status) == 0, !isDurable || fsync(descriptor) == 0 else {
        throw HostError.last("can't write '\(path)'")
      }
      return Content(file: name, byteCount: Int(status.st_size), checksums: checksums)
    }
    let ram = UnsafeRawBufferPointer(start: memory.host, count: Int(memory.size))
    let memoryContent = try write("memory", isDurable: parts.isDurable) { try SparseCopy.write(ram, to: $0) }
    var configuration = parts.configuration
    var disks: [Content] = []
    for (index, source) in parts.disks.sorted(by: { $0.key < $1.key }) {
      guard source >= 0 else {
        throw HostError(code: EBADF, message: "can't read '\(configuration.disks[index].path)'")
      }
      let name = "disk-\(index)"
      disks.append(try write(name, isDurable: true) { try SparseCopy.copy(source, to: $0) })
      configuration.disks[index].path = name
    }
    let manifest = Manifest(
      configuration: configuration, clock: parts.clock, components: parts.components, memory: memoryContent,
      disks: disks)
    let json = try JSONEncoder().encode(manifest)
    try AtomicFileWriter.write(
      Data("\(name) \(version) \(digest(json))\n".utf8) + json, to: folder.appendingPathComponent("machine").path,
      permissions: 0o600)
  }

  /// The CRC-32C of the JSON, in hexadecimal digits.
  private static func digest(_ json: Data) -> String {
    String(json.withUnsafeBytes { chost_crc32c(0, $0.baseAddress, $0.count) }, radix: 16)
  }

  // MARK: reading

  public let path: String
  let manifest: Manifest

  private static func isSavedMachine(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: path + "/machine")
      && FileManager.default.fileExists(atPath: path + "/memory")
  }

  /// Reads what it is; RAM and disks are looked at when they are needed. Throws `MachineError`.
  public init(path: String) throws {
    self.path = path
    let file = path + "/machine"
    guard FileManager.default.fileExists(atPath: path) else {
      throw MachineError(.noInput, "there is no saved machine '\(path)'; check the name")
    }
    guard let data = FileManager.default.contents(atPath: file) else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    let line = data.prefix { $0 != UInt8(ascii: "\n") }
    let words = String(decoding: line.prefix(200), as: UTF8.self).split(separator: " ")
    guard words.count == 3, words[0] == Self.name, let version = Int(words[1]) else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    guard version == Self.version else {
      throw MachineError(
        .data, "'\(path)' was saved in version \(version) of the format; this program reads \(Self.version)")
    }
    let json = data.dropFirst(line.count + 1)
    guard words[2] == Self.digest(json), let manifest = try? JSONDecoder().decode(Manifest.self, from: json) else {
      throw Self.damaged(path)
    }
    self.manifest = manifest
  }

  private static func damaged(_ path: String) -> MachineError {
    MachineError(.data, "the saved machine '\(path)' is damaged or incomplete; use another one")
  }

  /// What the machine is made of. The paths of disks that were saved with it lead into the folder.
  public var configuration: VirtualMachineConfiguration {
    var configuration = manifest.configuration
    for index in configuration.disks.indices where manifest.disks.contains(where: { $0.file == "disk-\(index)" }) {
      configuration.disks[index].path = path + "/disk-\(index)"
    }
    return configuration
  }

  /// Looks for damage in RAM and disks, all of which it reads. Throws `MachineError`.
  public func check() throws {
    for content in [manifest.memory] + manifest.disks {
      let descriptor = chost_open(path + "/" + content.file, O_RDONLY, 0)
      guard descriptor >= 0 else { throw Self.damaged(path) }
      defer { close(descriptor) }
      guard try SparseCopy.agrees(descriptor, count: content.byteCount, content.checksumList) else {
        throw Self.damaged(path)
      }
    }
  }

  /// Has RAM, which is zero, hold what was saved. The file may lose its name afterwards, but mustn't change.
  func restoreMemory(_ memory: GuestMemory) throws {
    let checksums = manifest.memory.checksumList
    let descriptor = chost_open(path + "/memory", O_RDONLY, 0)
    guard descriptor >= 0 else { throw Self.damaged(path) }
    defer { close(descriptor) }
    var status = stat()
    let size = SparseCopy.chunkSize
    guard fstat(descriptor, &status) == 0, Int(status.st_size) == Int(memory.size),
      manifest.memory.byteCount == Int(memory.size), checksums.count == (Int(memory.size) + size - 1) / size
    else { throw Self.damaged(path) }
    // What is all zero stays memory of its own, that the host may give in large pages.
    var index = 0
    while index < checksums.count {
      let first = index
      while index < checksums.count, checksums[index] != SparseCopy.zeroChecksum { index += 1 }
      if index > first {
        let start = first * size
        try memory.show(descriptor, offset: start, count: min(index * size, Int(memory.size)) - start)
      } else {
        index += 1
      }
    }
  }
}

import Foundation
import Glibc

/// The images on this host: one folder for each, named as the image is.
public struct ImageStore: Sendable {
  /// An image of the store.
  public struct Image: Sendable {
    public let folder: URL
    public let manifest: ImageManifest

    public var kernel: URL { folder.appendingPathComponent(manifest.kernel.name) }
    public var initialRamdisk: URL { folder.appendingPathComponent(manifest.initialRamdisk.name) }
    public var disk: URL? { manifest.disk.map { folder.appendingPathComponent($0.file.name) } }
    /// Code that a machine's translators made of the image's programs, see `VirtualMachineConfiguration.keptCode`.
    public var keptCode: URL { folder.appendingPathComponent("kept-code") }
    /// The bytes that the image's files take on the host.
    public var allocatedByteCount: UInt64 {
      manifest.files.reduce(0) { sum, file in
        var status = stat()
        let path = folder.appendingPathComponent(file.name).path
        return stat(path, &status) == 0 ? sum + UInt64(max(status.st_blocks, 0)) * 512 : sum
      }
    }
  }

  public let folder: URL

  /// YADORI_HOME/images, else `yadori/images` below XDG_DATA_HOME or ~/.local/share.
  public static func standardFolder(
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) -> URL {
    func folder(_ variable: String) -> URL? {
      guard let path = environment[variable], path.hasPrefix("/") else { return nil }
      return URL(fileURLWithPath: path, isDirectory: true)
    }
    if let home = folder("YADORI_HOME") { return home.appendingPathComponent("images") }
    let data =
      folder("XDG_DATA_HOME")
      ?? URL(fileURLWithPath: environment["HOME"] ?? NSHomeDirectory()).appendingPathComponent(".local/share")
    return data.appendingPathComponent("yadori/images")
  }

  public init(folder: URL = ImageStore.standardFolder()) { self.folder = folder }

  /// Lower-case letters, digits, ".", "_" and "-", with a letter or digit first; at most 64 characters.
  public static func isValidName(_ name: String) -> Bool {
    guard let first = name.utf8.first, name.utf8.count <= 64 else { return false }
    func isAlphanumeric(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) }
    return isAlphanumeric(first)
      && name.utf8.allSatisfy { isAlphanumeric($0) || [0x2E, 0x5F, 0x2D].contains($0) }
  }

  package static func checkName(_ name: String) throws {
    if !isValidName(name) {
      throw ImageError(
        .usage, "\"\(name)\" can't name an image; use lower-case letters, digits, \".\", \"_\" and \"-\"")
    }
  }

  /// The images by name. What isn't a whole image is left out.
  public func list() -> [Image] {
    names().compactMap { name in
      let place = folder.appendingPathComponent(name)
      return (try? ImageManifest.read(folder: place)).map { Image(folder: place, manifest: $0) }
    }
  }

  private func names() -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter(Self.isValidName).sorted()
  }

  /// The image of this name, whole as far as the sizes of its kernel and initial ramdisk tell.
  ///
  /// - Throws: `ImageError.Code.notFound` when there is none, with the name that is most like it.
  public func find(_ name: String) throws -> Image {
    try Self.checkName(name)
    let place = folder.appendingPathComponent(name)
    guard FileManager.default.fileExists(atPath: place.path) else {
      let hint = nearestName(to: name, among: names()).map { "; did you mean \($0)?" } ?? ""
      throw ImageError(.notFound, "no image \(name)\(hint) (\"yadori image list\" shows what there is)")
    }
    let manifest = try ImageManifest.read(folder: place)
    for file in [manifest.kernel, manifest.initialRamdisk] {
      let path = place.appendingPathComponent(file.name).path
      if fileByteCount(path) != file.byteCount {
        throw ImageError(
          .corrupt, "\(path) is missing or of another size than the manifest says; build the image again")
      }
    }
    if let disk = manifest.disk {
      let path = place.appendingPathComponent(disk.file.name).path
      if fileByteCount(path) == nil {
        throw ImageError(.corrupt, "\(path) is missing; build the image again")
      }
    }
    return Image(folder: place, manifest: manifest)
  }

  public func contains(_ name: String) -> Bool {
    Self.isValidName(name) && FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path)
  }

  /// Removes an image. It is gone from the list at once, whatever happens while its files go.
  public func remove(_ name: String) throws {
    try Self.checkName(name)
    let place = folder.appendingPathComponent(name).path
    guard FileManager.default.fileExists(atPath: place) else {
      _ = try find(name)
      return
    }
    let trash = folder.appendingPathComponent(".removed-\(name)-\(UUID().uuidString)").path
    if rename(place, trash) != 0 { throw ImageError.last("can't remove \(place)") }
    do {
      try FileManager.default.removeItem(atPath: trash)
    } catch {
      throw ImageError(.inputOutput, "can't remove \(trash): \(describe(error))")
    }
  }

  /// A new folder beside the images in which one is put together. `add` makes it an image; otherwise remove it.
  package func makeWorkFolder(for name: String) throws -> URL {
    try Self.checkName(name)
    try makeFolder(folder.path)
    removeAbandoned()
    let place = folder.appendingPathComponent(".new-\(name)-\(getpid())-\(UUID().uuidString.prefix(8))")
    // The folder may hold a password on its way to the guest.
    if mkdir(place.path, 0o700) != 0 { throw ImageError.last("can't make the folder \(place.path)") }
    return place
  }

  /// Work folders of processes that were killed.
  private func removeAbandoned() {
    for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [] {
      let isTrash = name.hasPrefix(".removed-")
      var isAbandoned = false
      if name.hasPrefix(".new-"), let owner = name.split(separator: "-").dropLast().last.flatMap({ pid_t($0) }) {
        isAbandoned = kill(owner, 0) != 0 && errno == ESRCH
      }
      if isTrash || isAbandoned { try? FileManager.default.removeItem(at: folder.appendingPathComponent(name)) }
    }
  }

  /// Makes a work folder the image of this name, in one step: there is never half an image.
  ///
  /// - Parameter replacing: whether an image of this name may be there; it is removed afterwards.
  package func add(_ work: URL, manifest: ImageManifest, replacing: Bool) throws -> Image {
    let sink = try FileSink(path: work.appendingPathComponent("manifest.json").path)
    try sink.write(Array(manifest.serialized()))
    try sink.finish()
    chmod(work.path, 0o755)
    let place = folder.appendingPathComponent(manifest.name)
    if FileManager.default.fileExists(atPath: place.path) {
      guard replacing else { throw Self.exists(manifest.name) }
      // A killed process leaves either image under this name, or, between the two renames, none and both beside it.
      let old = folder.appendingPathComponent(".removed-\(manifest.name)-\(UUID().uuidString)").path
      if rename(place.path, old) != 0 || rename(work.path, place.path) != 0 {
        throw ImageError.last("can't replace \(place.path)")
      }
      try? FileManager.default.removeItem(atPath: old)
    } else if rename(work.path, place.path) != 0 {
      throw ImageError.last("can't make \(place.path)")
    }
    return Image(folder: place, manifest: manifest)
  }

  package static func exists(_ name: String) -> ImageError {
    ImageError(.usage, "there is an image \(name) already; remove it first or choose another --name")
  }
}

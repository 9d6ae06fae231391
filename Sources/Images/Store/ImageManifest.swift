import Foundation

/// What an image folder holds, as its file `manifest.json` says it. A person can read and edit it.
public struct ImageManifest: Codable, Equatable, Sendable {
  public enum DiskFormat: String, Codable, Sendable { case raw, qcow2 }

  public struct File: Codable, Equatable, Sendable {
    /// The file's name in the image folder.
    public var name: String
    public var byteCount: UInt64
    /// Lower-case hex digits. Of a disk that a machine may have written to since, the one at the time of the build.
    public var sha256: String

    public init(name: String, byteCount: UInt64, sha256: String) {
      self.name = name
      self.byteCount = byteCount
      self.sha256 = sha256
    }
  }

  public struct Disk: Codable, Equatable, Sendable {
    public var file: File
    public var format: DiskFormat
    /// The bytes that the guest sees.
    public var virtualByteCount: UInt64

    public init(file: File, format: DiskFormat, virtualByteCount: UInt64) {
      self.file = file
      self.format = format
      self.virtualByteCount = virtualByteCount
    }
  }

  public struct Package: Codable, Equatable, Sendable {
    public var name: String
    public var version: String
  }

  /// Of this description itself; other versions are refused.
  public var formatVersion = 1
  public var name: String
  /// "debian".
  public var distribution: String
  /// "13.1".
  public var version: String
  /// "standard" or "tiny".
  public var variant: String
  public var architecture = "riscv64"
  /// ISO 8601, UTC.
  public var created: String
  public var kernel: File
  public var initialRamdisk: File
  /// Nil where the initial ramdisk is all.
  public var disk: Disk?
  /// Without a console: the machine adds the one that it listens to.
  public var commandLine: String
  /// The user who is logged in on the console; nil where a login prompt comes.
  public var automaticLogin: String?
  public var hostname: String
  /// Without user name and password.
  public var mirror: String
  /// Whether the lists of packages were signed by a key that the host knew.
  public var signatureChecked: Bool
  public var packages: [Package]

  /// The manifest of an image folder.
  public static func read(folder: URL) throws -> ImageManifest {
    let path = folder.appendingPathComponent("manifest.json").path
    guard let data = FileManager.default.contents(atPath: path) else {
      throw ImageError(.notFound, "\(path) can't be read; the folder isn't an image")
    }
    return try parse(data, path: path)
  }

  package static func parse(_ data: Data, path: String) throws -> ImageManifest {
    let manifest: ImageManifest
    do {
      // Another version may have other fields: it is looked at first.
      let machine = try JSONDecoder().decode(Machine.self, from: data)
      if machine.formatVersion != 1 {
        throw ImageError(
          .corrupt, "\(path): formatVersion is \(machine.formatVersion), but only 1 is known; use a newer yadori")
      }
      if machine.architecture != "riscv64" {
        throw ImageError(
          .corrupt, "\(path): architecture is \(printable(machine.architecture)), but machines are riscv64")
      }
      manifest = try JSONDecoder().decode(ImageManifest.self, from: data)
    } catch let error as ImageError {
      throw error
    } catch let error as DecodingError {
      throw ImageError(.corrupt, "\(path): \(explain(error))")
    } catch {
      throw ImageError(.corrupt, "\(path): not a manifest")
    }
    for file in manifest.files where !isPlainFileName(file.name) {
      throw ImageError(
        .corrupt, "\(path): \"\(printable(file.name))\" isn't the name of a file in the image's folder")
    }
    if let text = manifest.shownTexts.first(where: { printable($0) != $0 }) {
      throw ImageError(.corrupt, "\(path): \"\(printable(text))\" has a control character in it")
    }
    if Set(manifest.files.map(\.name)).count != manifest.files.count {
      throw ImageError(.corrupt, "\(path): two files have the same name")
    }
    return manifest
  }

  /// What tells whether the rest can be understood.
  private struct Machine: Decodable {
    var formatVersion: Int
    var architecture: String
  }

  /// All that is shown on a person's terminal, where a control character could do harm.
  private var shownTexts: [String] {
    [name, distribution, version, variant, created, commandLine, automaticLogin ?? "", hostname, mirror]
  }

  private static func printable(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
  }

  /// Kernel, initial ramdisk and disk.
  public var files: [File] { [kernel, initialRamdisk] + (disk.map { [$0.file] } ?? []) }

  package func serialized() throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self) + Data("\n".utf8)
  }

  private static func isPlainFileName(_ name: String) -> Bool {
    !name.isEmpty && !name.hasPrefix(".") && !name.contains("/") && name != "manifest.json"
      && name.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7F }
  }

  private static func explain(_ error: DecodingError) -> String {
    func place(_ path: [any CodingKey]) -> String { path.map(\.stringValue).joined(separator: ".") }
    switch error {
    case .keyNotFound(let key, let context): return "the field \(place(context.codingPath + [key])) is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      return "the field \(place(context.codingPath)) is of another type"
    case .dataCorrupted(let context):
      let field = place(context.codingPath)
      return field.isEmpty ? "not valid JSON" : "the field \(field) isn't valid"
    @unknown default: return "not a manifest"
    }
  }
}

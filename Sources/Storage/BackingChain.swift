/// Opens the files that show through where an image has no data of its own.
enum BackingChain {
  static let maximumDepth = 64

  /// The path of a backing file as the host sees it: relative to the folder of the image that names it.
  static func resolve(_ name: String, from path: String) throws -> String {
    var name = name
    if name.hasPrefix("file:") { name.removeFirst(5) }
    let scheme = name.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) }
    guard !name.isEmpty, scheme.isEmpty || name.dropFirst(scheme.count).first != ":" else {
      throw StorageError(
        .unsupported, "\(path): its backing file \(name) isn't a file on this host; only files are supported")
    }
    if name.hasPrefix("/") { return name }
    guard let slash = path.lastIndex(of: "/") else { return name }
    return path[...slash] + name
  }

  /// Opens the backing file of the image at `path`, read-only, with its own backing files. `chain`: the images that led
  /// here.
  static func open(
    _ name: String, format: String?, of path: String, chain: [DiskFile.Identity]
  ) throws -> any BlockStorage {
    let backingPath = try resolve(name, from: path)
    guard chain.count < maximumDepth else {
      throw StorageError(
        .corrupt, "\(path): more than \(maximumDepth) images stand behind each other; commit some with qemu-img commit")
    }
    if let identity = DiskFile.identity(of: backingPath), chain.contains(identity) {
      throw StorageError(
        .corrupt, "\(path): its backing file \(backingPath) leads back to itself; name another with qemu-img rebase -u")
    }
    var known: DiskFormat?
    if let format {
      known = DiskFormat(rawValue: format)
      guard known != nil else {
        throw StorageError(
          .unsupported, "\(path): its backing file \(backingPath) has the format \(format); raw and qcow2 are supported"
        )
      }
    }
    do {
      return try DiskImage.open(path: backingPath, readOnly: true, format: known, chain: chain)
    } catch let error as StorageError {
      throw StorageError(error.code, "\(path) needs a backing file: \(error.message)")
    }
  }
}

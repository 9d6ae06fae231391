import Foundation
import Glibc

extension ImageStore {
  /// Adds an image that comes as an archive (`export` makes them): a tar file, plain or compressed with zstd, xz or gzip.
  ///
  /// - Parameters:
  ///   - source: an HTTP, HTTPS or file URL, or a path. A cut download is gone on with; one whose checksum is known is
  ///     kept in the cache.
  ///   - name: the name in the store; nil takes the one in the archive.
  ///   - sha256: the checksum that the archive must have, in hex digits.
  ///   - environment: where the cache folder is looked up.
  /// - Returns: the new image. On an error the store is as it was.
  public func pull(
    _ source: String, name: String? = nil, sha256: String? = nil,
    environment: [String: String] = ProcessInfo.processInfo.environment, task: ImageTask = ImageTask()
  ) throws -> Image {
    // What can be known before anything is fetched.
    if let name {
      try Self.checkName(name)
      if contains(name) { throw Self.exists(name) }
    }
    let checksum = sha256?.lowercased()
    if let checksum, checksum.utf8.count != 64 || !checksum.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }) {
      throw ImageError(.usage, "--sha256: \"\(sha256 ?? "")\" isn't a SHA-256; give 64 hex digits")
    }
    if let path = try Self.path(of: source) { return try add(archive: path, called: path, name, checksum, task) }
    return try fetch(source, checksum: checksum, environment: environment, task: task) { path in
      // The downloader has compared the checksum.
      try add(archive: path, called: source.withoutCredentials, name, nil, task)
    }
  }

  /// The path that a source names, nil for a URL of a server.
  private static func path(of source: String) throws -> String? {
    guard let scheme = source.range(of: "://").map({ source[..<$0.lowerBound].lowercased() }) else { return source }
    if scheme == "http" || scheme == "https" { return nil }
    if scheme == "file", let url = URL(string: source), url.host ?? "" == "" { return url.path }
    throw ImageError(
      .usage, "\(source.withoutCredentials) can't be fetched; give an http or https URL, or the path of a file")
  }

  private func fetch<Result>(
    _ url: String, checksum: String?, environment: [String: String], task: ImageTask,
    use: (String) throws -> Result
  ) throws -> Result {
    let cache = try FileCache(folder: FileCache.standardFolder(environment: environment), task: task)
    let key = checksum ?? "url-" + Checksum.hexadecimal(.sha256, of: url.withoutCredentials.utf8)
    let item = Downloader.Item(url: url, path: try cache.path("images/\(key)"), sha256: checksum, isResumable: true)
    // Nobody could tell later whether the server has the same file still.
    defer { if checksum == nil { unlink(item.path) } }
    try Downloader(scratch: cache.folder, origin: .person, task: task).fetch([item], step: .fetchingImage)
    return try use(item.path)
  }

  private func add(
    archive path: String, called title: String, _ name: String?, _ checksum: String?, _ task: ImageTask
  ) throws -> Image {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue else {
      throw ImageError(.notFound, "there is no file \(title); give the URL or the path of an image's archive")
    }
    if let checksum {
      let found = try Images.sha256(ofFile: path, task: task)
      if found != checksum {
        throw ImageError(.corrupt, "\(title) has the SHA-256 \(found), not the one that --sha256 says; check both")
      }
    }
    let archive = ImageArchive(path: path, name: title, task: task)
    var (manifest, folder) = try archive.manifest()
    if let name { manifest.name = name }
    guard Self.isValidName(manifest.name) else {
      throw ImageError(.corrupt, "\(title) names its image \"\(manifest.name)\", which can't be; give a --name")
    }
    if contains(manifest.name) { throw Self.exists(manifest.name) }
    let work = try makeWorkFolder(for: manifest.name)
    do {
      try archive.unpack(manifest, folder: folder, into: work)
      return try add(work, manifest: manifest, replacing: false)
    } catch {
      try? FileManager.default.removeItem(at: work)
      throw error
    }
  }
}

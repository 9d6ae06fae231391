import Foundation

/// A Debian archive on a mirror: its lists, checked up to the signature, and its packages.
package final class DebianArchive {
  /// One suite of one mirror.
  package struct Suite: Sendable, Equatable {
    package var mirror: String
    package var name: String
    /// Whether the image can be built without it.
    package var isOptional: Bool
    /// Another name of the same suite on the mirror, for when a mirror (or a cache before it) is in the middle of an
    /// update and has lists under `name` that don't fit their Release file. What it has is used only when its Release
    /// file has the codename of `name`'s.
    package var alias: String?
  }

  package let index = PackageIndex()
  /// The suites that were there.
  package private(set) var suites: [Suite] = []
  /// The version of the first suite, for example "13.1".
  package private(set) var version: String?
  package private(set) var codename = ""

  private let cache: FileCache
  private let downloader: Downloader
  private let task: ImageTask
  private let architecture = "riscv64"

  package init(cache: FileCache, task: ImageTask) throws {
    self.cache = cache
    self.task = task
    downloader = try Downloader(scratch: cache.folder, task: task)
  }

  /// The suites of a stable release: the release, its updates, and its security updates, which are on most mirrors beside
  /// the archive.
  package static func suites(of codename: String, mirror: String) -> [Suite] {
    var suites = [
      Suite(mirror: mirror, name: codename, isOptional: false, alias: "stable"),
      Suite(mirror: mirror, name: codename + "-updates", isOptional: true, alias: "stable-updates"),
    ]
    if mirror.hasSuffix("/debian") {
      suites.append(
        Suite(mirror: mirror + "-security", name: codename + "-security", isOptional: true, alias: "stable-security"))
    }
    return suites
  }

  /// Fetches and checks the package lists.
  package func loadLists(_ wanted: [Suite], keyring: String?) throws {
    for suite in wanted {
      task.report(ImageProgress(.fetchingIndex, detail: suite.name))
      // A Release file with a bad signature ends the build, whichever suite it is.
      guard let named = try release(of: suite, keyring: keyring) else { continue }
      let found: (release: ReleaseFile, list: [UInt8])
      do {
        found = try lists(of: suite, named, keyring: keyring)
      } catch let error as ImageError where suite.isOptional && error.code != .cancelled {
        // A mirror in the middle of an update; the release itself does without.
        task.warn("\(suite.name) is left out: \(error.message)")
        continue
      }
      if suites.isEmpty {
        version = found.release.version
        codename = found.release.codename
      }
      index.add(list: found.list, mirror: suite.mirror)
      suites.append(suite)
    }
  }

  /// The Release file and the package list of a suite that fit each other, by its name or else by its alias.
  private func lists(
    of suite: Suite, _ release: ReleaseFile, keyring: String?
  ) throws -> (release: ReleaseFile, list: [UInt8]) {
    do {
      return (release, try packageList(of: suite, release))
    } catch let error as ImageError where error.code == .corrupt {
      guard let alias = suite.alias else { throw error }
      let other = Suite(mirror: suite.mirror, name: alias, isOptional: true)
      do {
        guard let same = try self.release(of: other, keyring: keyring), same.codename == release.codename else {
          throw error
        }
        let list = try packageList(of: other, same)
        task.warn("the mirror's \(suite.name) is in the middle of an update; its \(alias) is used (\(error.message))")
        return (same, list)
      } catch let second as ImageError where second.code != .cancelled {
        throw error
      }
    }
  }

  /// Fetches packages. Returns their paths in the order given.
  package func fetch(_ packages: [DebianPackage]) throws -> [String] {
    let items = try packages.map { package in
      if package.sha256.utf8.count != 64 {
        throw ImageError(.corrupt, "the package list has no SHA256 for \(package.name)")
      }
      let name = package.fileName.split(separator: "/").last.map(String.init) ?? ""
      guard TarEntry.normalized(package.fileName) == package.fileName, !name.isEmpty else {
        throw ImageError(.corrupt, "the package list names a file \(package.fileName)")
      }
      return Downloader.Item(
        url: "\(package.mirror)/\(package.fileName.percentEncodedPath)", path: try cache.path("packages/\(name)"),
        byteCount: package.byteCount, sha256: package.sha256)
    }
    try downloader.fetch(items, step: .fetchingPackages)
    return items.map(\.path)
  }

  /// The cache's folder of a suite's lists. Each mirror has its own.
  private func folder(of suite: Suite) -> String {
    let mirror = suite.mirror.withoutCredentials.map { $0.isLetter || $0.isNumber || $0 == "." || $0 == "-" ? $0 : "_" }
    return "lists/\(String(mirror))/\(suite.name)"
  }

  /// Nil when an optional suite isn't on the mirror.
  private func release(of suite: Suite, keyring: String?) throws -> ReleaseFile? {
    let base = "\(suite.mirror)/dists/\(suite.name)"
    let folder = folder(of: suite)
    let signed = Downloader.Item(
      url: base + "/InRelease", path: try cache.path(folder + "/InRelease"), isOptional: true)
    let verdict: ReleaseSignature.Verdict
    let text: String
    if try downloader.fetch([signed], step: .fetchingIndex).contains(signed.path) {
      verdict = try ReleaseSignature.verify(signed.path, keyring: keyring, scratch: cache.folder)
      let whole = String(decoding: FileManager.default.contents(atPath: signed.path) ?? Data(), as: UTF8.self)
      guard let inner = ReleaseFile.signedText(whole) else {
        throw ImageError(
          .corrupt, "\(signed.url.withoutCredentials) isn't a signed Release file; check the mirror's URL")
      }
      text = inner
    } else {
      let plain = Downloader.Item(
        url: base + "/Release", path: try cache.path(folder + "/Release"), isOptional: suite.isOptional)
      let signature = Downloader.Item(
        url: base + "/Release.gpg", path: try cache.path(folder + "/Release.gpg"), isOptional: true)
      let here = try downloader.fetch([plain, signature], step: .fetchingIndex)
      guard here.contains(plain.path) else { return nil }
      if here.contains(signature.path) {
        verdict = try ReleaseSignature.verify(
          plain.path, detachedSignature: signature.path, keyring: keyring, scratch: cache.folder)
      } else {
        if keyring != nil { throw ImageError(.corrupt, "\(base.withoutCredentials) isn't signed") }
        verdict = .unknown("the mirror has no signature")
      }
      text = String(decoding: FileManager.default.contents(atPath: plain.path) ?? Data(), as: UTF8.self)
    }
    if case .unknown(let why) = verdict {
      task.warn("the signature of \(suite.name) couldn't be checked: \(why)")
    }
    let release = try ReleaseFile(text: text, name: "\(base.withoutCredentials)/Release")
    if let end = release.validUntil, end < Date() {
      task.warn("the lists of \(suite.name) are out of date since \(end); the mirror may be stale")
    }
    return release
  }

  private func packageList(of suite: Suite, _ release: ReleaseFile) throws -> [UInt8] {
    let plain = "main/binary-\(architecture)/Packages"
    for suffix in [".xz", ".gz", ""] {
      guard let list = release.lists[plain + suffix] else { continue }
      let folder = "\(suite.mirror)/dists/\(suite.name)"
      let path = try cache.path("\(self.folder(of: suite))/Packages\(suffix)")
      // By its checksum first: that file stays while a mirror changes to the next list.
      let places = ["main/binary-\(architecture)/by-hash/SHA256/\(list.sha256)", plain + suffix]
      let isHere = try places.contains { place in
        let item = Downloader.Item(
          url: "\(folder)/\(place)", path: path, byteCount: list.byteCount, sha256: list.sha256, isOptional: true)
        return try downloader.fetch([item], step: .fetchingIndex).contains(path)
      }
      guard isHere else { continue }
      let source = try DecompressedSource(FileSource(path: path), compression: Compression(fileName: path), name: path)
      return try source.readAll(limit: 1 << 30, of: path)
    }
    throw ImageError(
      .notFound,
      "\(suite.mirror.withoutCredentials) has no packages of \(suite.name) for \(architecture); give another --mirror")
  }
}

extension String {
  /// Everything that isn't plain in a URL's path as %XX. A plus sign too: some servers read it as a space.
  package var percentEncodedPath: String {
    let plain = CharacterSet(charactersIn: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")
    return addingPercentEncoding(withAllowedCharacters: plain) ?? self
  }
}

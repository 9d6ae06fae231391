/// Puts the files of many packages into one tar archive: the root file system as `dpkg --unpack` would leave it.
///
/// Every path in the archive is free of symbolic links, so whoever unpacks it needs to follow none. Conffiles are in
/// place under their own names; nothing of an older version can be there.
package final class RootArchive {
  /// Files below these folders are left out, as dpkg's path-exclude does it; the folders stay known to dpkg.
  package static let excludedFolders = [
    "usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/",
    "usr/share/bug/", "usr/share/doc-base/",
  ]

  /// The same rules for the dpkg of the guest.
  package static let dpkgConfiguration =
    "# Left out of this image; remove this file and reinstall packages to have them.\n"
    + excludedFolders.map { "path-exclude=/\($0)*\n" }.joined()
    + "path-include=/usr/share/doc/*/copyright\n"

  private let writer: TarWriter
  private let task: ImageTask
  private var tree = RootTree()
  private var replaces: [String: [PackageRelation]] = [:]
  private var versions: [String: DebianVersion] = [:]
  package private(set) var database = DpkgDatabase()

  package init(_ sink: ByteSink, task: ImageTask) {
    writer = TarWriter(sink)
    self.task = task
  }

  /// Adds all files of a package and registers it as unpacked.
  ///
  /// - Parameter isAutomatic: whether nobody asked for it: apt may remove it when nothing needs it any more.
  package func add(_ file: DebianPackageFile, isAutomatic: Bool) throws {
    let name = file.control["Package"] ?? ""
    versions[name] = DebianVersion(file.control["Version"] ?? "")
    replaces[name] = try PackageRelation.parse(file.control["Replaces"] ?? "", name: "Replaces of \(name)").flatMap {
      $0
    }
    var paths: [String] = ["/."]
    let conffiles = (file.controlText("conffiles") ?? "").split(separator: "\n").compactMap { line -> String? in
      // "remove-on-upgrade /path" names a file that isn't there.
      line.hasPrefix("/") ? TarEntry.normalized(String(line)) : nil
    }
    var digests: [String: String] = [:]
    while let entry = try file.data.next() {
      try task.checkCancellation()
      if entry.path.isEmpty { continue }
      paths.append("/" + entry.path)
      if isExcluded(entry) { continue }
      if entry.kind == .file, conffiles.contains(entry.path) {
        let content = try file.data.contentSource.readAll(limit: 1 << 26, of: entry.path)
        digests[entry.path] = Checksum.hexadecimal(.md5, of: content)
        try put(entry, owner: name, from: MemorySource(content))
      } else {
        try put(entry, owner: name, from: file.data.contentSource)
      }
    }
    database.add(
      file, paths: paths, conffiles: conffiles.map { ($0, digests[$0]) }, status: "install ok unpacked",
      isAutomatic: isAutomatic)
  }

  /// Writes something that no package brought.
  package func add(_ entry: TarEntry, content: [UInt8] = []) throws {
    var entry = entry
    entry.byteCount = UInt64(content.count)
    try put(entry, owner: "", from: MemorySource(content))
  }

  package func add(file path: String, mode: UInt32 = 0o644, _ text: String) throws {
    try add(TarEntry(path: path, kind: .file, mode: mode), content: Array(text.utf8))
  }

  package func add(symbolicLink path: String, to target: String) throws {
    try add(TarEntry(path: path, kind: .symbolicLink(target), mode: 0o777))
  }

  /// Registers a package whose files were added one by one, as installed.
  package func addInstalled(_ control: ControlParagraph, paths: [String]) {
    database.add(control, paths: paths, status: "install ok installed", isAutomatic: false)
  }

  /// Notes for apt whether a package that the guest's dpkg will unpack was asked for.
  package func markLate(_ name: String, isAutomatic: Bool) { if isAutomatic { database.markAutomatic(name) } }

  /// Writes dpkg's database and the end of the archive.
  package func finish() throws {
    for file in database.files() { try add(file.entry, content: file.content) }
    try writer.finish()
  }

  private func isExcluded(_ entry: TarEntry) -> Bool {
    if entry.kind == .directory || entry.path.hasSuffix("/copyright") { return false }
    return Self.excludedFolders.contains { entry.path.hasPrefix($0) }
  }

  private func put(_ entry: TarEntry, owner: String, from content: ByteSource) throws {
    var entry = entry
    entry.path = try tree.resolve(entry.path)
    try addParents(of: entry.path)
    let known = tree[entry.path]
    switch entry.kind {
    case .directory:
      // A folder may come to a link to a folder: then it is there already.
      if let known {
        if known == .directory { return }
        if case .symbolicLink = known { return }
        throw clash(entry.path, owner, known)
      }
      tree[entry.path] = .directory
    case .symbolicLink(let target):
      if let known {
        if known == .symbolicLink(target) { return }
        if try !mayReplace(entry.path, by: owner, known) { return }
      }
      tree[entry.path] = .symbolicLink(target)
    case .hardLink(let target):
      entry.kind = .hardLink(try tree.resolve(target))
      if let known, try !mayReplace(entry.path, by: owner, known) { return }
      tree[entry.path] = .other(owner: owner)
    default:
      if let known, try !mayReplace(entry.path, by: owner, known) { return }
      tree[entry.path] = .other(owner: owner)
    }
    try writer.add(entry, from: content)
  }

  private func addParents(of path: String) throws {
    var parent = ""
    for part in path.split(separator: "/").dropLast() {
      parent += (parent.isEmpty ? "" : "/") + part
      if tree[parent] == nil {
        tree[parent] = .directory
        try writer.add(TarEntry(path: parent, kind: .directory, mode: 0o755))
      } else if case .other(let owner) = tree[parent] {
        throw ImageError(.corrupt, "/\(path) is below /\(parent), which is a file of \(owner)")
      }
    }
  }

  /// Whether the later of two packages takes the file over, as dpkg decides it by the field Replaces.
  private func mayReplace(_ path: String, by owner: String, _ known: RootTree.Node) throws -> Bool {
    guard case .other(let earlier) = known else {
      if case .symbolicLink = known, owner.isEmpty { return true }
      throw clash(path, owner, known)
    }
    if owner.isEmpty || owner == earlier || says(owner, replaces: earlier) { return true }
    if says(earlier, replaces: owner) { return false }
    throw clash(path, owner, known)
  }

  private func says(_ name: String, replaces other: String) -> Bool {
    guard let version = versions[other] else { return false }
    return (replaces[name] ?? []).contains { $0.name == other && $0.accepts(version) }
  }

  private func clash(_ path: String, _ owner: String, _ known: RootTree.Node) -> ImageError {
    let other =
      switch known {
      case .directory: "a folder of another package"
      case .symbolicLink(let target): "a link to \(target)"
      case .other(let earlier): "a file of \(earlier)"
      }
    return ImageError(.corrupt, "\(owner) has /\(path), which is \(other) too; leave one of them out")
  }
}

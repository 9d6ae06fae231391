/// mke2fs and the shared libraries it needs, for the ramdisk of the installing guest.
struct FormattingPrograms {
  private(set) var files: [(path: String, mode: UInt32, content: [UInt8])] = []
  private(set) var links: [(path: String, target: String)] = []

  /// - Parameter packages: the files of e2fsprogs and of all packages it needs.
  init(packages: [String]) throws {
    for path in packages {
      let package = try DebianPackageFile(path: path)
      while let entry = try package.data.next() {
        // Everything is in /usr, whatever the package says; in the ramdisk /lib is a link to /usr/lib.
        let place = entry.path.hasPrefix("lib/") || entry.path.hasPrefix("sbin/") ? "usr/" + entry.path : entry.path
        switch entry.kind {
        case .file where place == "usr/sbin/mke2fs" || place == "etc/mke2fs.conf" || Self.isLibrary(place):
          let content = try package.data.contentSource.readAll(limit: 1 << 26, of: "\(path), \(entry.path)")
          files.append((place, entry.mode, content))
        case .symbolicLink(let target) where Self.isLibrary(place):
          links.append((place, target))
        default: break
        }
      }
    }
    guard files.contains(where: { $0.path == "usr/sbin/mke2fs" }) else {
      throw ImageError(.corrupt, "the package e2fsprogs has no mke2fs in it")
    }
  }

  /// Shared libraries that mke2fs may need, not the many modules of libc6 and of others.
  private static func isLibrary(_ path: String) -> Bool {
    guard path.hasPrefix("usr/lib/"), path.split(separator: "/").count <= 4 else { return false }
    let name = path.split(separator: "/").last ?? ""
    let wanted = [
      "ld-linux", "libc.so", "libext2fs", "libe2p", "libblkid", "libuuid", "libcom_err", "libpthread", "libdl",
    ]
    return wanted.contains { name.hasPrefix($0) }
  }
}

/// What the images need of a kernel's package.
struct KernelPackage {
  /// The kernel as the machine starts it.
  var image: [UInt8]
  /// "6.12.0-riscv64".
  var release: String
  /// Modules as the package has them, by their path below the modules' folder.
  var compressedModules: [String: [UInt8]]
  var modules: KernelModules
  /// The files that make modprobe and udev find modules, by their path in the root file system.
  var indexFiles: [(path: String, content: [UInt8])]

  private static let folder = "usr/lib/modules/"

  init(path: String, task: ImageTask) throws {
    let package = try DebianPackageFile(path: path)
    var image: [UInt8]?
    var release = ""
    var compressed: [String: [UInt8]] = [:]
    var builtin: [UInt8] = []
    var builtinInformation: [UInt8] = []
    let total = package.control["Installed-Size"].flatMap { UInt64($0) }.map { $0 &* 1024 }
    var done: UInt64 = 0
    while let entry = try package.data.next() {
      try task.checkCancellation()
      if let total {
        done += entry.byteCount
        task.report(
          ImageProgress(.unpacking, fraction: min(1, Double(done) / Double(max(total, 1))), detail: "the kernel"))
      }
      guard entry.kind == .file else { continue }
      func content() throws -> [UInt8] {
        try package.data.contentSource.readAll(limit: 1 << 28, of: "\(path), \(entry.path)")
      }
      if entry.path.hasPrefix("boot/vmlinu") {
        image = try KernelImage.plain(content(), name: "\(path), \(entry.path)")
      }
      // Older packages have the modules in /lib, which is a link to /usr/lib.
      let place = entry.path.hasPrefix("lib/modules/") ? "usr/" + entry.path : entry.path
      guard place.hasPrefix(Self.folder) else { continue }
      let parts = place.dropFirst(Self.folder.count).split(separator: "/", maxSplits: 1)
      guard parts.count == 2 else { continue }
      release = String(parts[0])
      switch parts[1] {
      case "modules.builtin": builtin = try content()
      case "modules.builtin.modinfo": builtinInformation = try content()
      default:
        if [".ko", ".ko.xz", ".ko.gz", ".ko.zst"].contains(where: { parts[1].hasSuffix($0) }) {
          compressed[String(parts[1])] = try content()
        }
      }
    }
    guard let image, !release.isEmpty else {
      throw ImageError(.corrupt, "\(path) has no kernel or no modules in it")
    }
    self.image = image
    self.release = release
    compressedModules = compressed
    modules = try KernelModules(compressed: compressed.map { ($0.key, $0.value) })
    let index = ModuleIndex(modules)
      .files(builtin: String(decoding: builtin, as: UTF8.self), builtinInformation: builtinInformation)
    indexFiles = index.map { ("\(Self.folder)\(release)/\($0.name)", $0.content) }
  }
}

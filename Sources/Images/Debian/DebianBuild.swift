import Foundation
import Glibc

/// One build of a Debian image in a work folder.
struct DebianBuild {
  static let codename = "trixie"

  let options: ImageBuildOptions
  let mirror: String
  let work: URL
  let cacheFolder: String
  let task: ImageTask

  private func path(_ name: String) -> String { work.appendingPathComponent(name).path }

  func run(machine: (any ImageBuilderMachine)?) throws -> ImageManifest {
    let signatures = SignatureRecord()
    let listening = ImageTask(relay: task, onWarning: { signatures.note($0) })
    var cache: FileCache? = try FileCache(folder: cacheFolder, task: task)
    let archive = try DebianArchive(cache: cache!, task: listening)
    try archive.loadLists(DebianArchive.suites(of: Self.codename, mirror: mirror), keyring: options.keyring)
    task.report(ImageProgress(.resolving))
    let choice = try DebianPackageChoice.choose(
      in: archive.index, include: options.include, user: options.user, isTiny: options.variant == .tiny)
    try checkSpace(choice)
    var fetched = choice.packages
    if !fetched.contains(where: { $0.name == choice.busybox.name }) { fetched.append(choice.busybox) }
    let paths = try archive.fetch(fetched)
    let files = Dictionary(zip(fetched.map(\.name), paths), uniquingKeysWith: { first, _ in first })
    // Other builds may download while this one unpacks: packages are whole once they are there.
    cache = nil

    var manifest = ImageManifest(
      name: options.name, distribution: "debian", version: archive.version ?? archive.codename,
      variant: options.variant.rawValue, created: Self.timestamp(), kernel: .init(name: "", byteCount: 0, sha256: ""),
      initialRamdisk: .init(name: "", byteCount: 0, sha256: ""), commandLine: "", hostname: options.hostname,
      mirror: mirror.withoutCredentials, signatureChecked: !signatures.isDoubtful,
      packages: choice.packages.map { .init(name: $0.name, version: $0.version.text) })
    let kernel = try KernelPackage(path: files[choice.kernel.name] ?? "", task: task)
    try writeFile("kernel", into: &manifest.kernel) { try $0.write(kernel.image) }
    let ramdisks = Ramdisks(
      busybox: try Self.file(["usr/bin/busybox", "bin/busybox"], ofPackage: files[choice.busybox.name] ?? ""),
      compressedModules: kernel.compressedModules, modules: kernel.modules)
    switch options.variant {
    case .tiny:
      try writeFile("initrd", into: &manifest.initialRamdisk) { try ramdisks.tiny(hostname: options.hostname, to: $0) }
      manifest.commandLine = "quiet"
      manifest.automaticLogin = "root"
    case .standard:
      try writeFile("initrd", into: &manifest.initialRamdisk) { try ramdisks.root(to: $0) }
      manifest.automaticLogin = options.password == nil ? options.login : nil
      let installation = DebianInstallation(
        options: options, choice: choice, files: files, kernel: kernel, ramdisks: ramdisks, suites: archive.suites,
        work: work, logPath: "\(cacheFolder)/build-\(options.name).log", task: task)
      manifest.disk = try installation.run(machine: machine!, kernelPath: path("kernel"))
      manifest.commandLine = "root=UUID=\(installation.uuid) rw quiet"
    }
    return manifest
  }

  private func writeFile(
    _ name: String, into file: inout ImageManifest.File, _ body: (FileSink) throws -> Void
  ) throws {
    let sink = try FileSink(path: path(name))
    try body(sink)
    let digest = try sink.finish()
    file = ImageManifest.File(name: name, byteCount: sink.byteCount, sha256: digest)
  }

  /// What the installation takes on the host: the archive of files, the disk and the kernel.
  private func checkSpace(_ choice: DebianPackageChoice) throws {
    let installed = choice.packages.reduce(UInt64(0)) { $0 &+ $1.installedByteCount }
    let needed = options.variant == .tiny ? 64 << 20 : installed &* 5 / 2 &+ (128 << 20)
    if options.variant == .standard && installed &* 5 / 4 &+ (256 << 20) > options.diskSize {
      throw ImageError(
        .usage, "--disk-size: the packages alone need \(installed >> 20) MB; give a larger disk")
    }
    var status = statvfs()
    guard statvfs(work.path, &status) == 0 else { return }
    let free = UInt64(status.f_bavail) &* UInt64(status.f_frsize)
    if free < needed {
      let folder = work.deletingLastPathComponent().path
      throw ImageError(
        .inputOutput,
        "\(folder) has \(free >> 20) MB free, but the build needs \(needed >> 20) MB; free some space or set YADORI_HOME"
      )
    }
  }

  /// The content of the first of these files that a package has.
  static func file(_ names: [String], ofPackage path: String) throws -> [UInt8] {
    let package = try DebianPackageFile(path: path)
    while let entry = try package.data.next() {
      if entry.kind == .file, names.contains(entry.path) {
        return try package.data.contentSource.readAll(limit: 1 << 26, of: entry.path)
      }
    }
    throw ImageError(.corrupt, "\(path) has no file \(names[0])")
  }

  /// Now, or what SOURCE_DATE_EPOCH says (reproducible-builds.org).
  private static func timestamp() -> String {
    let given = ProcessInfo.processInfo.environment["SOURCE_DATE_EPOCH"].flatMap { Double($0) }
    return ISO8601DateFormatter().string(from: given.map { Date(timeIntervalSince1970: $0) } ?? Date())
  }
}

/// Remembers whether a signature couldn't be checked.
private final class SignatureRecord: @unchecked Sendable {
  private(set) var isDoubtful = false
  func note(_ warning: String) { if warning.hasPrefix("the signature of") { isDoubtful = true } }
}

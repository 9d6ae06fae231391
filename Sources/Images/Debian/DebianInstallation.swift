import Foundation
import Glibc
import Storage

/// Puts the packages on a disk: one archive of all files made by the host, then a guest.
struct DebianInstallation {
  let options: ImageBuildOptions
  let choice: DebianPackageChoice
  /// The packages' files by name.
  let files: [String: String]
  let kernel: KernelPackage
  let ramdisks: Ramdisks
  let suites: [DebianArchive.Suite]
  let work: URL
  let logPath: String
  let task: ImageTask
  let uuid = UUID().uuidString.lowercased()

  private static let label = "debian"

  private func path(_ name: String) -> String { work.appendingPathComponent(name).path }

  func run(machine: any ImageBuilderMachine, kernelPath: String) throws -> ImageManifest.Disk {
    let late = try latePackages()
    let preinst = try writeRoot(late: late)
    let builder = try FileSink(path: path("builder-initrd"), mode: 0o600)
    let programs = try FormattingPrograms(
      packages: DebianPackageChoice.closure(of: ["e2fsprogs"], in: choice.packages).sorted().compactMap { files[$0] })
    try ramdisks.builder(
      programs: programs.files, links: programs.links, build: buildFiles(preinst: preinst, late: late), to: builder)
    try builder.finish()
    let diskName = "disk.\(options.diskFormat.rawValue)"
    let diskFormat = DiskFormat(rawValue: options.diskFormat.rawValue) ?? .raw
    try DiskImage.create(path: path(diskName), format: diskFormat, size: options.diskSize)
    try install(machine, kernelPath: kernelPath, diskName: diskName)
    for name in ["builder-initrd", "root.tar"] { unlink(path(name)) }
    let digest = try sha256(ofFile: path(diskName), task: task)
    return ImageManifest.Disk(
      file: .init(name: diskName, byteCount: fileByteCount(path(diskName)) ?? 0, sha256: digest),
      format: options.diskFormat, virtualByteCount: options.diskSize)
  }

  private func install(_ machine: any ImageBuilderMachine, kernelPath: String, diskName: String) throws {
    task.report(ImageProgress(.startingGuest))
    let console = BuilderConsole(task: task, packageCount: choice.packages.count, logPath: logPath)
    let configuration = ImageBuilderConfiguration(
      kernel: URL(fileURLWithPath: kernelPath), initialRamdisk: work.appendingPathComponent("builder-initrd"),
      commandLine: "quiet panic=-1",
      disks: [
        .init(file: work.appendingPathComponent(diskName), format: options.diskFormat, isReadOnly: false),
        .init(file: work.appendingPathComponent("root.tar"), format: .raw, isReadOnly: true),
      ], memorySize: options.memorySize)
    let task = task
    try machine.run(configuration, console: { console.receive($0) }, isCancelled: { task.isCancelled })
    try task.checkCancellation()
    switch console.outcome {
    case .done: unlink(logPath)
    case .failed(let why):
      throw ImageError(.guest, "the guest that installs the image failed: \(why); its whole console is in \(logPath)")
    case .running:
      throw ImageError(.guest, "the guest that installs the image stopped early; its whole console is in \(logPath)")
    }
  }

  /// Packages that aren't part of the base system and whose preinst script expects that nothing of them is there yet,
  /// and those that need such packages, are unpacked by the guest's own dpkg. In the order of `choice.packages`.
  private func latePackages() throws -> [DebianPackage] {
    let extra = choice.packages.filter { !choice.baseNames.contains($0.name) }
    var late: Set<String> = []
    for package in extra {
      let file = try DebianPackageFile(path: files[package.name] ?? "")
      if file.controlFiles.contains(where: { $0.name == "preinst" }) { late.insert(package.name) }
    }
    var isGrowing = !late.isEmpty
    while isGrowing {
      isGrowing = false
      for package in extra where !late.contains(package.name) {
        let needsLate = package.dependencies.flatMap { $0 }.contains { relation in
          extra.contains { late.contains($0.name) && $0.fulfils(relation) }
        }
        if needsLate {
          late.insert(package.name)
          isGrowing = true
        }
      }
    }
    return choice.packages.filter { late.contains($0.name) }
  }

  /// Writes the archive of all files. Returns the stems of the packages whose preinst script is still to run.
  private func writeRoot(late: [DebianPackage]) throws -> [String] {
    let sink = try FileSink(path: path("root.tar"), mode: 0o600)
    let root = RootArchive(sink, task: task)
    let lateNames = Set(late.map(\.name))
    // base-files comes first: its links /bin, /lib and /sbin decide where everything else goes.
    let early = choice.packages.filter { !lateNames.contains($0.name) }
    let ordered = early.filter { $0.name == "base-files" } + early.filter { $0.name != "base-files" }
    let total = ordered.reduce(UInt64(0)) { $0 &+ $1.byteCount }
    var done: UInt64 = 0
    for package in ordered {
      task.report(
        ImageProgress(.unpacking, fraction: Double(done) / Double(max(total, 1)), detail: package.name))
      let file = try DebianPackageFile(path: files[package.name] ?? "")
      try root.add(file, isAutomatic: !choice.wanted.contains(package.name))
      done += package.byteCount
    }
    for index in kernel.indexFiles {
      try root.add(TarEntry(path: index.path, kind: .file, mode: 0o644), content: index.content)
    }
    for package in late {
      let content = try FileSource(path: files[package.name] ?? "").readAll(limit: 1 << 31, of: package.name)
      try root.add(
        TarEntry(path: "var/cache/apt/archives/\(package.name).deb", kind: .file, mode: 0o644), content: content)
      root.markLate(package.name, isAutomatic: !choice.wanted.contains(package.name))
    }
    let settings = SystemSettings(
      hostname: options.hostname, label: Self.label, suites: suites,
      automaticLogin: options.password == nil ? options.login : nil, user: options.user,
      userHasPassword: options.password != nil, kernelRelease: kernel.release)
    try settings.write(to: root)
    root.addInstalled(SystemSettings.ramdiskPackage, paths: ["/etc/kernel/postinst.d/yadori"])
    let preinst = root.database.packagesWithPreinst
    try root.finish()
    try sink.finish()
    // Users and groups first: the other scripts name them.
    return preinst.filter { $0 == "base-passwd" } + preinst.filter { $0 != "base-passwd" }
  }

  private func buildFiles(
    preinst: [String], late: [DebianPackage]
  ) -> [(path: String, mode: UInt32, content: [UInt8])] {
    let settings = """
      LABEL=\(Self.label)
      UUID=\(uuid)
      LOGIN=\(options.user ?? "")
      PREINST="\(preinst.joined(separator: " "))"
      LATE="\(LatePackages(late).words.joined(separator: " "))"

      """
    var files: [(path: String, mode: UInt32, content: [UInt8])] = [
      ("settings", 0o644, Array(settings.utf8)), ("install", 0o755, Array(InstallScript.script.utf8)),
    ]
    for shim in InstallScript.shims { files.append(("bin/\(shim.name)", 0o755, Array(shim.script.utf8))) }
    if let password = options.password { files.append(("password", 0o600, Array((password + "\n").utf8))) }
    if let key = options.sshKey {
      let lines = key.split(whereSeparator: \.isNewline).map { $0.trimmingBlanks + "\n" }.joined()
      files.append(("authorized_keys", 0o600, Array(lines.utf8)))
    }
    return files
  }
}

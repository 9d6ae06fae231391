/// Which packages an image is made of.
struct DebianPackageChoice {
  /// What a small and comfortable system has beyond the required packages.
  static let base = [
    "apt", "ca-certificates", "dbus", "debian-archive-keyring", "e2fsprogs", "iproute2", "iputils-ping", "kmod", "less",
    "linux-base", "login", "nano", "netbase", "openssh-server", "passwd", "procps", "systemd-resolved", "systemd-sysv",
    "udev",
  ]

  /// All packages of the image, pre-dependencies first.
  var packages: [DebianPackage]
  var kernel: DebianPackage
  var busybox: DebianPackage
  /// The names of the packages that somebody asked for; the others came as dependencies.
  var wanted: Set<String>
  /// The names of the packages that the base system consists of.
  var baseNames: Set<String>

  /// - Parameter isTiny: only the kernel and the busybox.
  static func choose(
    in index: PackageIndex, include: [String], user: String?, isTiny: Bool
  ) throws -> DebianPackageChoice {
    let kernel = try chooseKernel(in: index)
    guard let busybox = try index.latest("busybox-static") else {
      throw ImageError(.notFound, "the archive has no package busybox-static; give another --mirror")
    }
    if isTiny {
      return DebianPackageChoice(
        packages: [kernel, busybox], kernel: kernel, busybox: busybox, wanted: [kernel.name, busybox.name],
        baseNames: [])
    }
    let required = try index.names(withPriority: "required") + index.essentialNames()
    var base = required + Self.base + [kernel.name]
    if user != nil { base.append("sudo") }
    let ramdisk = try DebianPackage(SystemSettings.ramdiskPackage, mirror: "")
    let packages = try PackageResolver.resolve(base + include, in: index, alreadyProvided: [ramdisk])
    return DebianPackageChoice(
      packages: packages, kernel: kernel, busybox: busybox, wanted: Set(base + include),
      baseNames: closure(of: base, in: packages))
  }

  /// The package with the kernel itself, which a package of a lasting name depends on.
  private static func chooseKernel(in index: PackageIndex) throws -> DebianPackage {
    let relations = try index.latest("linux-image-riscv64")?.dependencies.flatMap { $0 } ?? []
    for relation in relations where relation.name.hasPrefix("linux-image-") {
      if let kernel = try index.packages(named: relation.name).first(where: { relation.accepts($0.version) }) {
        return kernel
      }
    }
    throw ImageError(.notFound, "the archive has no kernel linux-image-riscv64; give another --mirror")
  }

  /// The names among `packages` that those of `names` need, directly or not, and these themselves.
  static func closure(of names: [String], in packages: [DebianPackage]) -> Set<String> {
    var found: Set<String> = []
    var pending = names
    while let name = pending.popLast() {
      guard let package = packages.first(where: { $0.name == name }), found.insert(name).inserted else { continue }
      for relation in package.dependencies.flatMap({ $0 }) {
        pending += packages.filter { !found.contains($0.name) && $0.fulfils(relation) }.map(\.name)
      }
    }
    return found
  }
}

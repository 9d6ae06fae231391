/// Puts the initial ramdisks together: ours (a busybox and a script) for the machine's start, and the one that installs.
struct Ramdisks {
  /// The statically linked busybox of the guest's architecture.
  var busybox: [UInt8]
  /// Compressed modules by their path below the modules' folder.
  var compressedModules: [String: [UInt8]]
  var modules: KernelModules

  /// What a machine needs before it can see its root file system. The entropy source is first: programs that wait for
  /// random numbers would wait long without it.
  static let rootModules = ["virtio_rng", "virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"]
  static let networkModules = ["virtio_net", "af_packet"]

  func root(to sink: ByteSink) throws {
    let writer = InitialRamdiskWriter(sink)
    try begin(writer, script: RamdiskScripts.root, modules: Self.rootModules)
    try writer.finish()
  }

  func tiny(hostname: String, to sink: ByteSink) throws {
    let writer = InitialRamdiskWriter(sink)
    try begin(writer, script: RamdiskScripts.tiny, modules: Self.rootModules + Self.networkModules)
    func add(_ path: String, mode: UInt32 = 0o644, _ text: String) throws {
      try writer.add(file: path, mode: mode, content: Array(text.utf8))
    }
    try add("etc/hostname", hostname + "\n")
    try add("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 \(hostname)\n")
    try add("etc/passwd", "root::0:0:root:/root:/bin/sh\n")
    try add("etc/group", "root:x:0:\n")
    try add("etc/motd", "A kernel and a busybox: \"busybox --list\" shows what there is, \"poweroff -f\" ends it.\n")
    try add("etc/profile", "export PS1='\\h:\\w# '\n")
    try add("etc/udhcpc", mode: 0o755, RamdiskScripts.dynamicConfiguration)
    try writer.add(symbolicLink: "sbin/init", to: "../init")
    try writer.finish()
  }

  /// - Parameters:
  ///   - programs: mke2fs and its libraries by their paths.
  ///   - build: the files of the folder /build.
  func builder(
    programs: [(path: String, mode: UInt32, content: [UInt8])], links: [(path: String, target: String)],
    build: [(path: String, mode: UInt32, content: [UInt8])], to sink: ByteSink
  ) throws {
    let writer = InitialRamdiskWriter(sink)
    try begin(writer, script: RamdiskScripts.builder, modules: Self.rootModules)
    // The programs' folders are as in a system where /bin, /sbin and /lib are links into /usr.
    for folder in ["lib"] { try writer.add(symbolicLink: folder, to: "usr/\(folder)") }
    for program in programs { try writer.add(file: program.path, mode: program.mode, content: program.content) }
    for link in links { try writer.add(symbolicLink: link.path, to: link.target) }
    for file in build { try writer.add(file: "build/\(file.path)", mode: file.mode, content: file.content) }
    try writer.finish()
  }

  private func begin(_ writer: InitialRamdiskWriter, script: String, modules wanted: [String]) throws {
    for folder in ["bin", "dev", "proc", "sys", "run", "tmp", "etc", "modules"] { try writer.add(directory: folder) }
    // The kernel opens it for the first program before anything is mounted.
    try writer.add(characterDevice: "dev/console", major: 5, minor: 1)
    try writer.add(file: "bin/busybox", mode: 0o755, content: busybox)
    try writer.add(symbolicLink: "bin/sh", to: "busybox")
    try writer.add(file: "init", mode: 0o755, content: Array(script.utf8))
    var order = ""
    for module in modules.loadOrder(of: wanted) {
      guard let compressed = compressedModules[module.path] else { continue }
      let object = try decompress(compressed, limit: 1 << 28, name: module.path)
      try writer.add(file: "modules/\(module.name).ko", content: object)
      order += module.name + ".ko\n"
    }
    try writer.add(file: "modules/order", content: Array(order.utf8))
  }
}

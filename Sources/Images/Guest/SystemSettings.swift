/// The files that make a set of packages a system: they don't depend on programs of the guest, so the host writes them.
struct SystemSettings {
  var hostname: String
  var label: String
  var suites: [DebianArchive.Suite]
  /// Who is logged in on the console without being asked; nil for a login prompt.
  var automaticLogin: String?
  var user: String?
  var userHasPassword: Bool
  var kernelRelease: String

  func write(to root: RootArchive) throws {
    try root.add(file: "etc/hostname", hostname + "\n")
    try root.add(
      file: "etc/hosts",
      """
      127.0.0.1 localhost
      127.0.1.1 \(hostname)
      ::1 localhost ip6-localhost ip6-loopback
      ff02::1 ip6-allnodes
      ff02::2 ip6-allrouters

      """)
    try root.add(
      file: "etc/fstab",
      """
      # <file system> <mount point> <type> <options> <dump> <pass>
      LABEL=\(label) / ext4 rw,noatime,x-systemd.growfs 0 0

      """)
    try root.add(file: "etc/locale.conf", "LANG=C.UTF-8\n")
    try root.add(file: "etc/apt/sources.list.d/debian.sources", aptSources)
    // A guest without a hypervisor's clock may be minutes behind after a pause.
    try root.add(
      file: "etc/apt/apt.conf.d/90yadori",
      "Acquire::Languages \"none\";\nAPT::Install-Recommends \"false\";\n")
    try root.add(file: "etc/dpkg/dpkg.cfg.d/90yadori", RootArchive.dpkgConfiguration)
    try root.add(
      file: "etc/systemd/network/80-ethernet.network",
      """
      [Match]
      Type=ether

      [Network]
      DHCP=yes
      IPv6AcceptRA=yes

      """)
    // systemd-networkd asks whether links are wireless, for which the kernel would load 9 MB; without their rules on the
    // disk, that asks udev for these every three seconds from then on.
    try root.add(file: "etc/modprobe.d/yadori.conf", "alias net-pf-16-proto-16-family-nl80211 off\n")
    try root.add(file: GuestAgent.path, mode: 0o755, GuestAgent.program)
    try root.add(file: "etc/systemd/system/yadori-agent.service", GuestAgent.unit)
    try writeServices(to: root)
    try writeLogin(to: root)
    try writeBootHook(to: root)
  }

  private var aptSources: String {
    suites.map { suite in
      """
      Types: deb
      URIs: \(suite.mirror.withoutCredentials)
      Suites: \(suite.name)
      Components: main
      Signed-By: \(ReleaseSignature.debianKeyring)

      """
    }.joined(separator: "\n")
  }

  private func writeServices(to root: RootArchive) throws {
    // The key of a machine is its own, so it is made at the first start; the quick kind only.
    try root.add(
      file: "etc/systemd/system/ssh.service.d/host-key.conf",
      """
      [Service]
      ExecStartPre=
      ExecStartPre=/bin/sh -c 'test -s /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
      ExecStartPre=/usr/sbin/sshd -t

      """)
    for unit in ["systemd-hwdb-update.service"] {
      try root.add(symbolicLink: "etc/systemd/system/\(unit)", to: "/dev/null")
    }
  }

  private func writeLogin(to root: RootArchive) throws {
    if let automaticLogin {
      for unit in ["serial-getty@", "getty@"] {
        try root.add(
          file: "etc/systemd/system/\(unit).service.d/automatic-login.conf",
          """
          [Service]
          ExecStart=
          ExecStart=-/sbin/agetty --autologin \(automaticLogin) --noclear --keep-baud 115200,57600,38400,9600 - ${TERM}

          """)
      }
    }
    if let user, !userHasPassword {
      try root.add(file: "etc/sudoers.d/90-\(user)", mode: 0o440, "\(user) ALL=(ALL:ALL) NOPASSWD: ALL\n")
    }
  }

  /// The kernel package depends on a program that makes initial ramdisks. Here the host makes it, and a package that
  /// says so stands for it: apt finds all dependencies fulfilled, and a person finds out why.
  private func writeBootHook(to root: RootArchive) throws {
    try root.add(
      file: "etc/kernel/postinst.d/yadori", mode: 0o755,
      """
      #!/bin/sh
      # The machine starts the kernel that lies beside its disk image on the host.
      [ "$1" = "\(kernelRelease)" ] || echo "yadori: the kernel $1 is installed, but the machine goes on to start \
      \(kernelRelease); build a new image to change that"
      exit 0

      """)
  }

  static let ramdiskPackage = ControlParagraph(fields: [
    .init(name: "Package", value: "yadori-initramfs"),
    .init(name: "Priority", value: "optional"),
    .init(name: "Section", value: "kernel"),
    .init(name: "Maintainer", value: "Yadori <root@localhost>"),
    .init(name: "Architecture", value: "all"),
    .init(name: "Version", value: "1"),
    .init(name: "Provides", value: "linux-initramfs-tool"),
    .init(
      name: "Description",
      value:
        "stands for an initramfs generator\n The initial ramdisk of this machine is made on its host and lies beside"
        + " the disk\n image, so the guest needs no program that makes one."),
  ])
}

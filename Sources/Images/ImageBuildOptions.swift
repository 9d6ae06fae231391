/// What an image is to be. Everything has a default that suits a person who only wants a shell.
public struct ImageBuildOptions: Sendable {
  public enum Variant: String, Sendable, CaseIterable {
    /// A small Debian with systemd, apt and an SSH server on a disk.
    case standard
    /// A kernel and a busybox, all in the initial ramdisk.
    case tiny
  }

  /// The name in the store.
  public var name: String
  /// "debian"; others aren't known yet.
  public var distribution = "debian"
  public var variant = Variant.standard
  /// The base URL of a mirror; nil finds one.
  public var mirror: String?
  /// A keyring with the keys that the lists must be signed with; nil takes Debian's where it is installed.
  public var keyring: String?
  /// More packages.
  public var include: [String] = []
  public var hostname: String
  /// A user besides root, who may use sudo.
  public var user: String?
  /// The text of a public key (or several, one a line) for SSH logins of the user, or of root when there is none.
  public var sshKey: String?
  /// The password of the user, or of root when there is none. Without one the console is logged in by itself.
  public var password: String?
  /// The bytes of the disk.
  public var diskSize: UInt64 = 8 << 30
  public var diskFormat = ImageManifest.DiskFormat.qcow2
  /// The bytes of RAM of the installing machine.
  public var memorySize: UInt64 = 1 << 30
  /// Whether an image of the same name is replaced.
  public var replaceExisting = false

  public init(name: String, variant: Variant = .standard) {
    self.name = name
    self.variant = variant
    hostname = variant == .tiny ? "tiny" : "debian"
  }

  /// Whoever logs in on the console.
  var login: String { user ?? "root" }

  package func check() throws {
    try ImageStore.checkName(name)
    if distribution != "debian" {
      throw ImageError(.usage, "the distribution \(distribution) isn't known; \"debian\" is")
    }
    if !Self.isHostname(hostname) {
      throw ImageError(.usage, "--hostname: \"\(hostname)\" isn't a host name; use letters, digits and \"-\"")
    }
    if let user, !Self.isUserName(user) {
      throw ImageError(.usage, "--user: \"\(user)\" can't name a user; use lower-case letters, digits, \"_\" and \"-\"")
    }
    if user == "root" { throw ImageError(.usage, "--user: root is there anyway; leave --user out") }
    for package in include where !Self.isPackageName(package) {
      throw ImageError(.usage, "--include: \"\(package)\" can't name a package")
    }
    if let password, password.isEmpty || password.contains(where: \.isNewline) {
      throw ImageError(.usage, "--password: it can't be empty or have a line break")
    }
    if let sshKey { try Self.checkKey(sshKey) }
    switch variant {
    case .standard:
      if diskSize < 2 << 30 || diskSize > 1 << 50 {
        throw ImageError(.usage, "--disk-size: \(diskSize) bytes; give between 2G and 1024T")
      }
      if memorySize < 256 << 20 { throw ImageError(.usage, "an image needs at least 256M of RAM to be built") }
    case .tiny:
      let unfit = [
        ("--include", !include.isEmpty), ("--user", user != nil), ("--ssh-key", sshKey != nil),
        ("--password", password != nil),
      ]
      for (flag, isGiven) in unfit where isGiven {
        throw ImageError(.usage, "\(flag): the tiny variant has only a busybox; leave the flag or the variant out")
      }
    }
  }

  private static func isHostname(_ text: String) -> Bool {
    text.utf8.count <= 64
      && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { part in
        !part.isEmpty && part.utf8.count <= 63 && part.first != "-" && part.last != "-"
          && part.utf8.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
      }
  }

  private static func isUserName(_ text: String) -> Bool {
    guard let first = text.utf8.first, text.utf8.count <= 32 else { return false }
    func isLower(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) || byte == UInt8(ascii: "_") }
    return isLower(first)
      && text.utf8.allSatisfy { isLower($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-") }
  }

  private static func isPackageName(_ text: String) -> Bool {
    text.utf8.count >= 2 && isAlphanumeric(text.utf8.first ?? 0)
      && text.utf8.allSatisfy { isAlphanumeric($0) || "+-.".utf8.contains($0) }
  }

  private static func isAlphanumeric(_ byte: UInt8) -> Bool {
    (0x61...0x7A).contains(byte) || (0x41...0x5A).contains(byte) || (0x30...0x39).contains(byte)
  }

  private static func checkKey(_ text: String) throws {
    let kinds = ["ssh-", "ecdsa-", "sk-", "#"]
    let lines = text.split(whereSeparator: \.isNewline).map(\.trimmingBlanks).filter { !$0.isEmpty }
    let good = !lines.isEmpty && lines.allSatisfy { line in kinds.contains { line.hasPrefix($0) } }
    if text.contains("PRIVATE KEY") {
      throw ImageError(.usage, "--ssh-key: this is a private key; give the public one (its file ends in .pub)")
    }
    if !good { throw ImageError(.usage, "--ssh-key: this isn't a public key such as ssh-ed25519 AAAA...") }
  }
}

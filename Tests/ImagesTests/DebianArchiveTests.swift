import Foundation
import HTTPTestServer
import Images
import Synchronization
import Testing

/// The chain of checksums, from a mirror's Release file down to each package.
@Suite struct DebianArchiveTests {
  let scratch = Scratch()
  let package = try! PackageFileTests.package()

  private static let poolPath = "/debian/pool/main/h/hello/hello_1_riscv64.deb"
  private static let listPath = "/debian/dists/trixie/main/binary-riscv64/Packages"

  /// A mirror with one package, and no signature.
  private func mirror(
    release: (String) -> String = { $0 }, list: (String) -> String = { $0 }
  ) throws -> HTTPTestServer {
    let packages = list(
      """
      Package: hello
      Version: 1
      Architecture: riscv64
      Filename: pool/main/h/hello/hello_1_riscv64.deb
      Size: \(package.count)
      SHA256: \(sha256(package))

      """)
    let text = release(
      """
      Codename: trixie
      Version: 13.1
      SHA256:
       \(sha256(Array(packages.utf8))) \(packages.utf8.count) main/binary-riscv64/Packages
       \(sha256([])) 0 main/binary-amd64/Packages

      """)
    return try HTTPTestServer([
      "/debian/dists/trixie/Release": .init(text), Self.listPath: .init(packages), Self.poolPath: .init(package),
    ])
  }

  private func open(_ server: HTTPTestServer, keyring: String? = nil, task: ImageTask = ImageTask()) throws
    -> DebianArchive
  {
    let archive = try DebianArchive(cache: FileCache(folder: scratch["cache"], task: task), task: task)
    let mirror = "\(server.address)/debian"
    try archive.loadLists([DebianArchive.suites(of: "trixie", mirror: mirror)[0]], keyring: keyring)
    return archive
  }

  private func fetch(_ archive: DebianArchive) throws -> [String] {
    try archive.fetch([try #require(try archive.index.latest("hello"))])
  }

  @Test func fetchesAndChecks() throws {
    let server = try mirror()
    let warnings = Mutex<[String]>([])
    let archive = try open(server, task: ImageTask(warning: { text in warnings.withLock { $0.append(text) } }))
    #expect(archive.version == "13.1")
    #expect(archive.codename == "trixie")
    #expect(warnings.withLock { $0 }.contains { $0.contains("the signature of trixie couldn't be checked") })
    let paths = try fetch(archive)
    #expect(FileManager.default.contents(atPath: paths[0]) == Data(package))
    #expect(try DebianPackageFile(path: paths[0]).control["Package"] == "hello")
    // By its checksum first, as long as the mirror has it so.
    #expect(server.requests.map(\.path).contains { $0.contains("/by-hash/SHA256/") })
    server.forgetRequests()
    _ = try fetch(archive)
    #expect(server.requests.isEmpty)
  }

  @Test func aChangedListIsRefused() throws {
    let server = try mirror()
    let list = try #require(server[Self.listPath])
    var text = String(decoding: list.content, as: UTF8.self)
    text.replace("Version: 1", with: "Version: 2")
    server[Self.listPath] = .init(text)
    imageError(.corrupt, says: "\(server.address)\(Self.listPath) has a wrong checksum") { _ = try open(server) }
    #expect(!scratch.names(in: "cache").contains { $0.contains("Packages") })
    server[Self.listPath] = .init(text + "\n")
    imageError(.corrupt, says: Self.listPath) { _ = try open(server) }
  }

  /// A mirror whose suite has a list that doesn't fit, and another name for the suite, whose files `change` makes.
  private func staleMirror(release: (String) -> String = { $0 }, list: (String) -> String = { $0 }) throws
    -> HTTPTestServer
  {
    let server = try mirror()
    func text(_ path: String) throws -> String {
      String(decoding: try #require(server[path]).content, as: UTF8.self)
    }
    server["/debian/dists/stable/Release"] = .init(release(try text("/debian/dists/trixie/Release")))
    server["/debian/dists/stable/main/binary-riscv64/Packages"] = .init(list(try text(Self.listPath)))
    server[Self.listPath] = .init("in the middle of an update\n")
    return server
  }

  @Test func theOtherNameOfASuiteStandsInForOneThatDoesNotFit() throws {
    let warnings = Mutex<[String]>([])
    let archive = try open(
      try staleMirror(), task: ImageTask(warning: { text in warnings.withLock { $0.append(text) } }))
    #expect(try archive.index.latest("hello") != nil)
    #expect(warnings.withLock { $0 }.contains { $0.contains("its stable is used") })
  }

  @Test func theOtherNameIsCheckedJustAsWell() throws {
    for server in [
      try staleMirror(release: { $0.replacing("Codename: trixie", with: "Codename: forky") }),
      try staleMirror(list: { $0.replacing("Version: 1", with: "Version: 2") }),
      try staleMirror(release: { _ in "" }),
    ] {
      imageError(.corrupt, says: "\(server.address)\(Self.listPath)", "but the list says") { _ = try open(server) }
    }
  }

  @Test func aChangedPackageIsRefused() throws {
    let server = try mirror()
    var changed = package
    changed[changed.count - 1] ^= 1
    server[Self.poolPath] = .init(changed)
    let archive = try open(server)
    imageError(.corrupt, says: "\(server.address)\(Self.poolPath) has a wrong checksum") { _ = try fetch(archive) }
    #expect(!scratch.names(in: "cache").contains { $0.contains(".deb") })
  }

  @Test(arguments: ["../../etc/passwd", "pool/../../x", "/etc/passwd", "", "pool//x"])
  func hostileFileNamesAreRefused(name: String) throws {
    let server = try mirror(list: { $0.replacing("pool/main/h/hello/hello_1_riscv64.deb", with: name) })
    let archive = try open(server)
    imageError(.corrupt, says: "names a file") { _ = try fetch(archive) }
  }

  @Test func packagesWithoutChecksumAreRefused() throws {
    let server = try mirror(list: { $0.replacing("SHA256", with: "MD5sum") })
    let archive = try open(server)
    imageError(.corrupt, says: "no SHA256 for hello") { _ = try fetch(archive) }
  }

  @Test func releasesAreAsked() throws {
    let server = try mirror(release: { $0.replacing("binary-riscv64", with: "binary-s390x") })
    imageError(.notFound, says: "no packages of trixie for riscv64") { _ = try open(server) }
    server["/debian/dists/trixie/Release"] = .init("<html>Welcome</html>")
    imageError(.corrupt, says: "trixie/Release") { _ = try open(server) }
    server["/debian/dists/trixie/Release"] = nil
    imageError(.notFound, says: "dists/trixie") { _ = try open(server) }
  }

  @Test func aKeyringAsksForASignature() throws {
    let server = try mirror()
    let keyring = try scratch.put("", at: "keyring.gpg")
    imageError(.corrupt, says: "isn't signed") { _ = try open(server, keyring: keyring) }
  }

  @Test func anUnreachableMirror() throws {
    let port = try HTTPTestServer.freePort()
    let archive = try DebianArchive(cache: FileCache(folder: scratch["cache"], task: ImageTask()), task: ImageTask())
    imageError(.unavailable, says: "http://127.0.0.1:\(port)/debian", "--mirror") {
      let mirror = "http://127.0.0.1:\(port)/debian"
      try archive.loadLists(DebianArchive.suites(of: "trixie", mirror: mirror), keyring: nil)
    }
  }
}

@Suite struct ReleaseTests {
  private static let message = """
    -----BEGIN PGP SIGNED MESSAGE-----
    Hash: SHA256

    Codename: trixie
    - -----dashes
    SHA256:
     aa 1 x
    -----BEGIN PGP SIGNATURE-----

    iQ==
    -----END PGP SIGNATURE-----

    """

  @Test func readsTheSignedPart() {
    #expect(ReleaseFile.signedText(Self.message) == "Codename: trixie\n-----dashes\nSHA256:\n aa 1 x\n")
  }

  @Test func refusesWhatIsNotSignedAsAWhole() {
    let message = Self.message
    for text in [
      "", "Codename: trixie\n", "Codename: forged\n" + message, message + "Codename: forged\n", message + message,
      message.replacing("-----BEGIN PGP SIGNATURE-----", with: ""),
      message.replacing("-----END PGP SIGNATURE-----", with: ""),
      message.replacing("- -----dashes", with: "-----dashes"),
      message.replacing("- -----dashes", with: "-----BEGIN PGP SIGNED MESSAGE-----"),
    ] { #expect(ReleaseFile.signedText(text) == nil, "\(text)") }
  }

  @Test func readsLists() throws {
    let sum = String(repeating: "AB", count: 32)
    let release = try ReleaseFile(
      text: """
        Codename: trixie
        Version: 13.1
        Valid-Until: Sat, 03 Jan 2026 10:00:00 UTC
        MD5Sum:
         00 1 main/x
        SHA256:
         \(sum) 12 main/x
         short 12 main/y
         \(sum) -1 main/z
         \(sum) 12

        """, name: "Release")
    #expect(Set(release.lists.keys) == ["main/x"])
    #expect(release.lists["main/x"]?.byteCount == 12)
    #expect(release.lists["main/x"]?.sha256 == sum.lowercased())
    #expect(release.validUntil == Date(timeIntervalSince1970: 1_767_434_400))
    for text in ["", "Codename: trixie\n", "SHA256:\n \(sum) 1 x\n"] {
      imageError(.corrupt, says: "Release", "check the mirror") { _ = try ReleaseFile(text: text, name: "Release") }
    }
  }

  @Test func understandsGPGV() throws {
    #expect(
      try ReleaseSignature.verdict("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 0123 Debian <x@y>\n", path: "InRelease")
        == .good(signer: "Debian <x@y>"))
    #expect(try ReleaseSignature.verdict("[GNUPG:] ERRSIG 1 2 3\n[GNUPG:] NO_PUBKEY 1\n", path: "InRelease") == nil)
    #expect(try ReleaseSignature.verdict("[GNUPG:] EXPKEYSIG 1 Debian\n", path: "InRelease") == nil)
    // One bad signature among good ones is too many.
    imageError(.corrupt, says: "InRelease has a bad signature") {
      _ = try ReleaseSignature.verdict("[GNUPG:] GOODSIG 1 A\n[GNUPG:] BADSIG 1 B\n", path: "InRelease")
    }
  }

  @Test func aKeyringThatIsNotThere() {
    imageError(.notFound, says: "/nowhere/keyring.gpg") {
      _ = try ReleaseSignature.verify("/dev/null", keyring: "/nowhere/keyring.gpg", scratch: NSTemporaryDirectory())
    }
  }
}

@Suite struct MirrorChoiceTests {
  let scratch = Scratch()

  private func choose(given: String? = nil, _ environment: [String: String] = [:]) throws -> String {
    try MirrorChoice.choose(given: given, environment: environment, aptFolder: scratch.path)
  }

  @Test func whatIsGivenComesFirst() throws {
    try scratch.put("deb http://host/debian trixie main\n", at: "sources.list")
    #expect(try choose() == "http://host/debian")
    #expect(try choose(["YADORI_MIRROR": "https://env/debian/"]) == "https://env/debian")
    #expect(try choose(given: "http://given/debian//", ["YADORI_MIRROR": "http://env/debian"]) == "http://given/debian")
  }

  @Test func readsTheHostsConfiguration() throws {
    try scratch.put(
      "# deb http://comment/debian x\ndeb-src http://source/debian x\ndeb [arch=amd64 signed-by=/x] http://other/ubuntu x\n",
      at: "sources.list")
    try scratch.put(
      """
      Types: deb-src
      URIs: http://source/debian

      Enabled: no
      Types: deb
      URIs: http://disabled/debian

      Types: deb deb-src
      URIs: cdrom://x http://right/debian/ http://second/debian
      Suites: trixie
      """, at: "sources.list.d/debian.sources")
    #expect(try choose() == "http://right/debian")
  }

  @Test func noneIsAnError() {
    imageError(.usage, says: "--mirror URL", "YADORI_MIRROR") { _ = try choose() }
    for text in ["mirror", "ftp://mirror/debian", "http://", "http:///debian"] {
      imageError(.usage, says: "--mirror", text) { _ = try choose(given: text) }
      imageError(.usage, says: "YADORI_MIRROR") { _ = try choose(["YADORI_MIRROR": text]) }
    }
    let error = imageError(.usage) { _ = try choose(given: "ftp://me:secret@mirror/debian") }
    #expect(error?.message.contains("secret") == false)
  }
}

/// dpkg's database of what is installed, as dpkg itself keeps it below /var/lib/dpkg (deb-triggers(5), dpkg(1), and the
/// source of dpkg for the layout).
package struct DpkgDatabase {
  package struct File {
    package var entry: TarEntry
    package var content: [UInt8]
  }

  private static let folder = "var/lib/dpkg"

  private var paragraphs: [String] = []
  private var info: [File] = []
  private var fileTriggers: [String] = []
  private var namedTriggers: [String: [String]] = [:]
  private var automatic: [String] = []
  /// The packages with a preinst script, in the order they were added.
  package private(set) var packagesWithPreinst: [String] = []
  package private(set) var packageCount = 0

  package init() {}

  /// - Parameters:
  ///   - paths: all paths of the package with a leading slash, in the order of its archive.
  ///   - conffiles: the conffiles with their MD5.
  package mutating func add(
    _ file: DebianPackageFile, paths: [String], conffiles: [(path: String, digest: String?)], status: String,
    isAutomatic: Bool
  ) {
    let name = file.control["Package"] ?? ""
    let architecture = file.control["Architecture"] ?? "all"
    let isMultiArch = file.control["Multi-Arch"]?.trimmingBlanks == "same"
    // Packages that may be there for several architectures at once carry theirs in the file name.
    let stem = isMultiArch ? "\(name):\(architecture)" : name
    for control in file.controlFiles where control.name != "control" {
      let mode: UInt32 = ["preinst", "postinst", "prerm", "postrm", "config"].contains(control.name) ? 0o755 : 0o644
      addInfo("\(stem).\(control.name)", mode: mode, control.content)
      if control.name == "preinst" { packagesWithPreinst.append(stem) }
      if control.name == "triggers" { addTriggers(String(decoding: control.content, as: UTF8.self), stem: stem) }
    }
    addInfo("\(stem).list", mode: 0o644, Array(paths.map { $0 + "\n" }.joined().utf8))
    add(file.control, conffiles: conffiles, status: status, isAutomatic: isAutomatic)
  }

  /// Adds a package without files of its own in dpkg's info folder but a list.
  package mutating func add(
    _ control: ControlParagraph, paths: [String], status: String, isAutomatic: Bool
  ) {
    addInfo("\(control["Package"] ?? "").list", mode: 0o644, Array((["/."] + paths).map { $0 + "\n" }.joined().utf8))
    add(control, conffiles: [], status: status, isAutomatic: isAutomatic)
  }

  private mutating func add(
    _ control: ControlParagraph, conffiles: [(path: String, digest: String?)], status: String, isAutomatic: Bool
  ) {
    var paragraph = control
    let name = control["Package"] ?? ""
    let at = paragraph.fields.firstIndex { $0.name == "Package" }.map { $0 + 1 } ?? 0
    paragraph.fields.insert(.init(name: "Status", value: status), at: at)
    let present = conffiles.filter { $0.digest != nil }
    if !present.isEmpty {
      paragraph["Conffiles"] = present.map { "\n /\($0.path) \($0.digest ?? "")" }.joined()
    }
    paragraphs.append(paragraph.text)
    packageCount += 1
    if isAutomatic { markAutomatic(name) }
  }

  /// Notes for apt that nobody asked for a package (apt: apt-mark(8)).
  package mutating func markAutomatic(_ name: String) {
    automatic.append("Package: \(name)\nArchitecture: riscv64\nAuto-Installed: 1\n")
  }

  private mutating func addInfo(_ name: String, mode: UInt32, _ content: [UInt8]) {
    info.append(File(entry: TarEntry(path: "\(Self.folder)/info/\(name)", kind: .file, mode: mode), content: content))
  }

  /// Registers what a package is interested in. What it activates, dpkg looks up when it configures it.
  private mutating func addTriggers(_ text: String, stem: String) {
    for line in text.split(separator: "\n") {
      let words = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" }
      guard words.count == 2, words[0].hasPrefix("interest") else { continue }
      let suffix = words[0] == "interest-noawait" ? "/noawait" : ""
      if words[1].hasPrefix("/") {
        fileTriggers.append("\(words[1]) \(stem)\(suffix)\n")
      } else {
        namedTriggers[String(words[1]), default: []].append("\(stem)\(suffix)\n")
      }
    }
  }

  /// Everything as it is to be written.
  package func files() -> [File] {
    func file(_ path: String, _ text: String) -> File {
      File(entry: TarEntry(path: path, kind: .file, mode: 0o644), content: Array(text.utf8))
    }
    func folder(_ path: String) -> File {
      File(entry: TarEntry(path: path, kind: .directory, mode: 0o755), content: [])
    }
    var files = ["info", "updates", "parts", "alternatives", "triggers"].map { folder("\(Self.folder)/\($0)") }
    files += info
    files.append(file("\(Self.folder)/info/format", "1\n"))
    files.append(file("\(Self.folder)/status", paragraphs.map { $0 + "\n" }.joined()))
    files.append(file("\(Self.folder)/available", ""))
    files.append(file("\(Self.folder)/triggers/File", fileTriggers.joined()))
    files.append(file("\(Self.folder)/triggers/Unincorp", ""))
    files.append(file("\(Self.folder)/triggers/Lock", ""))
    for (name, lines) in namedTriggers.sorted(by: { $0.key < $1.key }) where !name.contains("/") {
      files.append(file("\(Self.folder)/triggers/\(name)", lines.joined()))
    }
    files.append(file("var/lib/apt/extended_states", automatic.map { $0 + "\n" }.joined()))
    return files
  }
}

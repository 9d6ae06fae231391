import ArgumentParser
import Foundation
import Images
import Supervisor

/// `yadori image ...`: the images on this host.
struct ImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "Builds and manages images.",
    subcommands: [
      PullImageCommand.self, BuildImageCommand.self, ListImagesCommand.self, ImageInformationCommand.self,
      WarmImageCommand.self,
      RemoveImageCommand.self, ExportImageCommand.self,
    ])
}

struct BuildImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "build", abstract: "Builds a Debian image, without root, on any host.")

  @Argument(help: "The distribution: debian.")
  var distribution = "debian"

  @Option(help: "The image's name (the distribution's, or 'tiny').")
  var name: String?

  @Option(help: "standard (systemd, apt, SSH server) or tiny (kernel and busybox).")
  var variant: ImageBuildOptions.Variant = .standard

  @Option(help: "A Debian mirror; else YADORI_MIRROR, else the one that this host's apt uses.")
  var mirror: String?

  @Option(help: "A keyring to check the mirror's signature with.")
  var keyring: String?

  @Option(help: "More packages: NAME,NAME. May be repeated.")
  var include: [String] = []

  @Option(help: "The guest's host name.")
  var hostname: String?

  @Option(help: "A user who may use sudo.")
  var user: String?

  @Option(help: "A file with a public key for SSH logins.")
  var sshKey: String?

  @Option(help: "The user's (or root's) password; without one the console logs in by itself.")
  var password: String?

  @Option(help: "Size of the disk.")
  var diskSize: ByteCount?

  @Flag(help: "Replace an image of the same name.")
  var replace = false

  @OptionGroup var engine: EngineOptions

  func run() throws {
    var options = ImageBuildOptions(name: name ?? (variant == .tiny ? "tiny" : distribution), variant: variant)
    options.distribution = distribution
    options.mirror = mirror
    options.keyring = keyring
    options.include = include.flatMap { $0.split(separator: ",").map(String.init) }
    if let hostname { options.hostname = hostname }
    options.user = user
    options.password = password
    options.replaceExisting = replace
    if let diskSize { options.diskSize = diskSize.bytes }
    if let sshKey {
      guard let text = try? String(contentsOfFile: sshKey, encoding: .utf8) else {
        throw CommandFailure(.noInput, "--ssh-key: can't read '\(sshKey)'; give the file of a public key")
      }
      options.sshKey = text
    }
    let image = try ImageBuilding.build(options, engine: try engine.choice())
    print(image.folder.path)
  }
}

extension ImageBuildOptions.Variant: ExpressibleByArgument {}

struct ListImagesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists the images on this host.")

  @Flag(help: "Write JSON.")
  var json = false

  func run() throws {
    let images = ImageStore().list()
    if json {
      return try Output.writeJSON(images.map(\.manifest))
    }
    let rows = images.map { image in
      [
        image.manifest.name, "\(image.manifest.distribution) \(image.manifest.version)", image.manifest.variant,
        "\(image.allocatedByteCount >> 20) MiB", image.manifest.created,
      ]
    }
    Output.writeTable(["NAME", "SYSTEM", "VARIANT", "SIZE", "CREATED"], rows)
  }
}

struct ImageInformationCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "info", abstract: "Shows what an image holds.")

  @Argument(help: "The image's name.")
  var name: String

  @Flag(help: "Write the whole manifest, as JSON.")
  var json = false

  func run() throws {
    let image = try ImageStore().find(name)
    if json {
      let text = try String(contentsOf: image.folder.appendingPathComponent("manifest.json"), encoding: .utf8)
      print(text, terminator: "")
      return
    }
    let manifest = image.manifest
    print("Name        \(manifest.name)")
    print("System      \(manifest.distribution) \(manifest.version) \(manifest.architecture), \(manifest.variant)")
    print("Created     \(manifest.created)\(manifest.signatureChecked ? "" : " (signature not checked)")")
    print("Folder      \(image.folder.path)")
    print("Takes       \(image.allocatedByteCount >> 20) MiB")
    if let disk = manifest.disk { print("Disk        \(disk.virtualByteCount >> 20) MiB, \(disk.format.rawValue)") }
    print("Parameters  \(manifest.commandLine)")
    print("Packages    \(manifest.packages.count)")
  }
}

struct WarmImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "warm", abstract: "Has an image's machines start quicker.",
    discussion: """
      Brings the image's system up, and keeps its state, from which machines for single commands start (run --rm), and \
      the code that was made of its programs, which all machines of the image then needn't make again. With a command, \
      that of its programs, too. Machines with a name keep their own code when their guests switch them off; --from \
      takes such a machine's for all of the image.
      """)

  @Argument(help: "The image's name.")
  var name: String

  @Option(help: "Take the code that this machine of the image has kept.")
  var from: String?

  @Argument(parsing: .postTerminator, help: "A command to run there, after --.")
  var command: [String] = []

  func run() throws {
    let image = try ImageStore().find(name)
    let registry = try MachineStarting.registry()
    if let from {
      guard command.isEmpty else { throw CommandFailure(.usage, "--from runs nothing; leave it or the command out") }
      let machine = try registry.find(from)
      guard machine.image == name else {
        throw CommandFailure(.usage, "the machine '\(from)' isn't one of the image '\(name)'")
      }
      // A file of its own: the machine's process can go on writing to its one.
      guard
        try SavedMachines.passKeptCode(
          from: registry.folder(of: machine), to: image.keptCode.path, isShared: false)
      else {
        throw CommandFailure(
          .unavailable, "the machine '\(from)' has kept no code yet; it does when its guest switches it off")
      }
      return
    }
    let usual = try RunCommand.usualForCommands(image: name)
    try WarmMachine(registry, image: image, usual).renew(training: command)
  }
}

struct RemoveImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "remove", abstract: "Removes images.")

  @Argument(help: "The images' names.")
  var names: [String]

  func run() throws {
    let store = ImageStore()
    for name in names {
      try ImageBuilding.checkUnused(name)
      try store.remove(name)
    }
  }
}

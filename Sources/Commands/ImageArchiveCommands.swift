import ArgumentParser
import Images

/// `yadori image pull`.
struct PullImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pull", abstract: "Fetches an image that somebody exported.",
    discussion: """
      The archive is a tar file (plain, .zst, .xz or .gz) of an image's folder, as 'yadori image export' makes it. \
      Its files are checked against its manifest; give --sha256 to be sure whose archive it is.
      """)

  @Argument(help: "An http or https URL, or the path of a file.")
  var source: String

  @Option(help: "The image's name (else the one in the archive).")
  var name: String?

  @Option(name: .customLong("sha256"), help: "The SHA-256 that the archive must have, in hex digits.")
  var sha256: String?

  func run() throws {
    let image = try ImageBuilding.withProgress { task in
      try ImageStore().pull(source, name: name, sha256: sha256, task: task)
    }
    print(image.folder.path)
  }
}

/// `yadori image export`.
struct ExportImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Writes an image into one file, for 'yadori image pull'.")

  @Argument(help: "The image's name.")
  var name: String

  @Argument(help: "The archive to make: FILE.tar or FILE.tar.zst.")
  var file: String

  func run() throws {
    try ImageBuilding.withProgress { task in try ImageStore().export(name, to: file, task: task) }
  }
}

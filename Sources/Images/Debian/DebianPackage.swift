/// What the package list of an archive says about one package.
package struct DebianPackage: Sendable {
  package var name: String
  package var version: DebianVersion
  package var architecture: String
  package var isEssential: Bool
  package var priority: String
  /// Depends and Pre-Depends.
  package var dependencies: [[PackageRelation]]
  package var preDependencies: [[PackageRelation]]
  /// Conflicts and Breaks.
  package var conflicts: [PackageRelation]
  package var provides: [PackageRelation]
  /// The path of the package below the mirror, its size in bytes and its SHA-256.
  package var fileName: String
  package var byteCount: UInt64
  package var sha256: String
  package var installedByteCount: UInt64
  /// The URL of the mirror it comes from.
  package var mirror: String

  package init(_ paragraph: ControlParagraph, mirror: String) throws {
    guard let name = paragraph["Package"], let version = paragraph["Version"] else {
      throw ImageError(.corrupt, "the package list has a paragraph without Package or Version")
    }
    func relations(_ field: String) throws -> [[PackageRelation]] {
      try PackageRelation.parse(paragraph[field] ?? "", name: "\(field) of \(name)")
    }
    self.name = name
    self.version = DebianVersion(version)
    architecture = paragraph["Architecture"] ?? "all"
    isEssential = paragraph["Essential"] == "yes"
    priority = paragraph["Priority"] ?? "optional"
    preDependencies = try relations("Pre-Depends")
    dependencies = try relations("Depends") + preDependencies
    conflicts = try (relations("Conflicts") + relations("Breaks")).flatMap { $0 }
    provides = try relations("Provides").flatMap { $0 }
    fileName = paragraph["Filename"] ?? ""
    byteCount = paragraph["Size"].flatMap { UInt64($0) } ?? 0
    sha256 = (paragraph["SHA256"] ?? "").lowercased()
    installedByteCount =
      (paragraph["Installed-Size"].flatMap { UInt64($0) } ?? 0).multipliedReportingOverflow(by: 1024)
      .partialValue
    self.mirror = mirror
  }

  /// Whether it fulfils a relation, by its name or by what it provides. A provided name without a version fulfils only
  /// relations without one.
  package func fulfils(_ relation: PackageRelation) -> Bool {
    if name == relation.name && relation.accepts(version) { return true }
    return provides.contains { provided in
      guard provided.name == relation.name else { return false }
      if relation.version == nil { return true }
      guard let version = provided.version else { return false }
      return relation.accepts(version)
    }
  }
}

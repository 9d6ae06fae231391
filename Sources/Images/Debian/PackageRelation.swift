/// A relation to another package: "name", "name (>= version)" (Debian Policy 7.1).
package struct PackageRelation: Equatable, Sendable, CustomStringConvertible {
  package enum Comparison: String, Sendable {
    case earlier = "<<"
    case earlierOrEqual = "<="
    case equal = "="
    case laterOrEqual = ">="
    case later = ">>"
  }

  package var name: String
  package var comparison: Comparison?
  package var version: DebianVersion?

  package var description: String {
    guard let comparison, let version else { return name }
    return "\(name) (\(comparison.rawValue) \(version))"
  }

  /// Whether a package of this version fulfils the relation.
  package func accepts(_ candidate: DebianVersion) -> Bool {
    guard let comparison, let version else { return true }
    switch comparison {
    case .earlier: return candidate < version
    case .earlierOrEqual: return candidate <= version
    case .equal: return candidate == version
    case .laterOrEqual: return candidate >= version
    case .later: return candidate > version
    }
  }

  /// Parses a field such as Depends: groups that all must hold, each of alternatives of which one must.
  package static func parse(_ field: String, name: String) throws -> [[PackageRelation]] {
    try field.split(separator: ",").compactMap { group in
      if group.trimmingBlanks.isEmpty { return nil }
      return try group.split(separator: "|").map { try PackageRelation($0.trimmingBlanks, field: name) }
    }
  }

  private init(_ text: some StringProtocol, field: String) throws {
    func damaged() -> ImageError { ImageError(.corrupt, "\(field): \"\(text)\" isn't a relation to a package") }
    // Architecture lists and build profiles never occur in binary packages of an archive for one architecture.
    var rest = Substring(text)
    if let end = rest.firstIndex(where: { $0 == "[" || $0 == "<" && !rest.contains("(") }) { rest = rest[..<end] }
    let nameEnd = rest.firstIndex { $0 == "(" || $0 == " " || $0 == "\t" || $0 == "\n" } ?? rest.endIndex
    var name = rest[..<nameEnd]
    // "perl:any": any architecture will do, and there is one.
    if let colon = name.firstIndex(of: ":") { name = name[..<colon] }
    if name.isEmpty { throw damaged() }
    self.name = String(name)
    rest = rest[nameEnd...].trimmingBlanks
    if rest.isEmpty { return }
    guard rest.first == "(", let close = rest.firstIndex(of: ")") else { throw damaged() }
    let inside = rest[rest.index(after: rest.startIndex)..<close].trimmingBlanks
    let symbol = inside.prefix { "<>=".contains($0) }
    switch symbol {
    case "<": comparison = .earlierOrEqual  // obsolete spellings that Policy still knows
    case ">": comparison = .laterOrEqual
    default: comparison = Comparison(rawValue: String(symbol))
    }
    let version = inside[symbol.endIndex...].trimmingBlanks
    if comparison == nil || version.isEmpty { throw damaged() }
    self.version = DebianVersion(String(version))
  }
}

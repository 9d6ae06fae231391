/// The packages of one or more package lists, found by name.
///
/// A list of Debian has some 70,000 paragraphs of which a build needs a few hundred: they are only located at first, and
/// parsed when asked for.
package final class PackageIndex {
  private struct Place {
    var list: Int
    var range: Range<Int>
  }

  private var lists: [(bytes: [UInt8], mirror: String)] = []
  private var places: [String: [Place]] = [:]
  private var providers: [String: [String]] = [:]
  private var parsed: [String: [DebianPackage]] = [:]

  package init() {}

  /// The names of all packages.
  package var names: some Collection<String> { places.keys }

  /// - Parameters:
  ///   - list: the text of a Packages file.
  ///   - mirror: the URL that the file names in it are below.
  package func add(list bytes: [UInt8], mirror: String) {
    let list = lists.count
    lists.append((bytes, mirror))
    parsed.removeAll()
    bytes.withUnsafeBytes { buffer in
      var start = 0
      var position = 0
      var name: String?
      var provided: [String] = []
      func endParagraph(_ end: Int) {
        if let name {
          places[name, default: []].append(Place(list: list, range: start..<end))
          for virtual in provided { providers[virtual, default: []].append(name) }
        }
        name = nil
        provided = []
      }
      while position < buffer.count {
        let end = buffer[position...].firstIndex(of: 0x0A) ?? buffer.count
        let line = buffer[position..<end]
        if line.isEmpty {
          endParagraph(position)
          start = end + 1
        } else if let value = Self.value(of: "Package: ", in: line) {
          name = value
        } else if let value = Self.value(of: "Provides: ", in: line) {
          for item in value.split(separator: ",") {
            provided.append(String(item.trimmingBlanks.prefix { $0 != " " && $0 != "(" && $0 != ":" }))
          }
        }
        position = end + 1
      }
      endParagraph(buffer.count)
    }
  }

  private static func value(of field: StaticString, in line: Slice<UnsafeRawBufferPointer>) -> String? {
    let count = field.utf8CodeUnitCount
    guard line.count > count, line[line.startIndex] == field.utf8Start[0] else { return nil }
    for index in 1..<count where line[line.startIndex + index] != field.utf8Start[index] { return nil }
    return String(decoding: line[(line.startIndex + count)...], as: UTF8.self)
  }

  /// The packages of this name, the latest version first.
  package func packages(named name: String) throws -> [DebianPackage] {
    if let known = parsed[name] { return known }
    var found: [DebianPackage] = []
    for place in places[name] ?? [] {
      let text = String(decoding: lists[place.list].bytes[place.range], as: UTF8.self)
      for paragraph in try ControlParagraph.parse(text, name: "the package list, \(name)") {
        found.append(try DebianPackage(paragraph, mirror: lists[place.list].mirror))
      }
    }
    found.sort { $0.version > $1.version }
    parsed[name] = found
    return found
  }

  package func latest(_ name: String) throws -> DebianPackage? { try packages(named: name).first }

  /// The latest versions of the packages that say they provide `name`.
  package func packages(providing name: String) throws -> [DebianPackage] {
    try Set(providers[name] ?? []).sorted().compactMap { try latest($0) }
  }

  /// The names of packages of this priority or of all essential ones.
  package func names(withPriority priority: String) throws -> [String] {
    try names(withLine: "Priority: \(priority)")
  }

  package func essentialNames() throws -> [String] { try names(withLine: "Essential: yes") }

  private func names(withLine line: String) throws -> [String] {
    let pattern = Array("\n\(line)\n".utf8)
    var found: Set<String> = []
    for (name, places) in places {
      for place in places where lists[place.list].bytes.contains(pattern, in: place.range) { found.insert(name) }
    }
    return found.sorted()
  }

  /// The known name that is most like `name`, if any is.
  package func nearest(to name: String) -> String? { nearestName(to: name, among: names) }
}

extension [UInt8] {
  fileprivate func contains(_ pattern: [UInt8], in range: Range<Int>) -> Bool {
    withUnsafeBytes { bytes in
      var position = range.lowerBound
      let last = range.upperBound - pattern.count
      while position <= last, let start = bytes[position...last].firstIndex(of: pattern[0]) {
        if bytes[start..<start + pattern.count].elementsEqual(pattern) { return true }
        position = start + 1
      }
      return false
    }
  }
}

/// The candidate with the fewest edits to `name`, nil when none is near.
package func nearestName(to name: String, among candidates: some Sequence<String>) -> String? {
  let wanted = Array(name.utf8)
  let limit = Swift.max(1, wanted.count / 3)
  var best: (distance: Int, name: String)?
  for candidate in candidates where abs(candidate.utf8.count - wanted.count) <= limit {
    let distance = editDistance(wanted, Array(candidate.utf8))
    if distance > limit { continue }
    if let known = best, (known.distance, known.name) <= (distance, candidate) { continue }
    best = (distance, candidate)
  }
  return best?.name
}

/// Insertions, deletions and replacements that make one text the other (Levenshtein).
private func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
  var row = Array(0...right.count)
  for (i, a) in left.enumerated() {
    var diagonal = row[0]
    row[0] = i + 1
    for (j, b) in right.enumerated() {
      let change = diagonal + (a == b ? 0 : 1)
      diagonal = row[j + 1]
      row[j + 1] = Swift.min(change, row[j] + 1, row[j + 1] + 1)
    }
  }
  return row[right.count]
}

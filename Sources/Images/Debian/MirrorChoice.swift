import Foundation

/// Where the packages come from: the base URL of a Debian archive, the one that has `dists` and `pool` in it.
package enum MirrorChoice {
  /// - Parameters:
  ///   - given: what the caller was told (`--mirror`).
  ///   - aptFolder: the folder of the host's own apt configuration.
  /// - Returns: the URL without a slash at its end: `given`, else YADORI_MIRROR, else the host's own Debian mirror.
  package static func choose(
    given: String?, environment: [String: String] = ProcessInfo.processInfo.environment, aptFolder: String = "/etc/apt"
  ) throws -> String {
    if let given { return try check(given, from: "--mirror") }
    if let known = environment["YADORI_MIRROR"], !known.isEmpty { return try check(known, from: "YADORI_MIRROR") }
    if let found = configuredArchives(aptFolder: aptFolder).first(where: { $0.hasSuffix("/debian") }) { return found }
    throw ImageError(
      .usage,
      "no Debian mirror is known: this host's apt configuration names none; give one with --mirror URL or YADORI_MIRROR"
    )
  }

  private static func check(_ text: String, from origin: String) throws -> String {
    guard let url = URL(string: text), let scheme = url.scheme, ["http", "https", "file"].contains(scheme),
      scheme == "file" || !(url.host ?? "").isEmpty
    else {
      throw ImageError(
        .usage, "\(origin): \(text.withoutCredentials) isn't an http, https or file URL of a Debian mirror")
    }
    return withoutTrailingSlash(text)
  }

  private static func withoutTrailingSlash(_ text: String) -> String {
    var text = text
    while text.hasSuffix("/") { text.removeLast() }
    return text
  }

  /// The archive URLs that the host's apt uses, in its order (sources.list(5): one-line and deb822 style).
  package static func configuredArchives(aptFolder: String) -> [String] {
    let parts = aptFolder + "/sources.list.d"
    let names = ((try? FileManager.default.contentsOfDirectory(atPath: parts)) ?? []).sorted()
    var found: [String] = []
    for path in [aptFolder + "/sources.list"] + names.map({ "\(parts)/\($0)" }) {
      guard let data = FileManager.default.contents(atPath: path) else { continue }
      let text = String(decoding: data, as: UTF8.self)
      if path.hasSuffix(".list") {
        found += oneLineArchives(text)
      } else if path.hasSuffix(".sources") {
        found += deb822Archives(text, name: path)
      }
    }
    return found.map(withoutTrailingSlash).filter { $0.hasPrefix("http://") || $0.hasPrefix("https://") }
  }

  /// Lines such as "deb [signed-by=...] URL suite component...".
  private static func oneLineArchives(_ text: String) -> [String] {
    text.split(whereSeparator: \.isNewline).compactMap { line in
      var words = line.prefix { $0 != "#" }.split { $0 == " " || $0 == "\t" }[...]
      guard words.popFirst() == "deb" else { return nil }
      if let first = words.first, first.hasPrefix("[") {
        while let word = words.popFirst(), !word.hasSuffix("]") {}
      }
      return words.first.map(String.init)
    }
  }

  private static func deb822Archives(_ text: String, name: String) -> [String] {
    let paragraphs = (try? ControlParagraph.parse(text, name: name)) ?? []
    return paragraphs.flatMap { paragraph -> [String] in
      if paragraph["Enabled"]?.lowercased() == "no" { return [] }
      func words(_ field: String) -> [String] {
        (paragraph[field] ?? "").split(whereSeparator: \.isWhitespace).map(String.init)
      }
      return words("Types").contains("deb") ? words("URIs") : []
    }
  }
}

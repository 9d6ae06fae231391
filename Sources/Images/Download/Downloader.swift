import Foundation
import Glibc

/// Fetches files by HTTP with the system's `curl`, several at a time.
package struct Downloader {
  /// One file to fetch.
  package struct Item: Sendable {
    package var url: String
    package var path: String
    /// What is known about the file before it is fetched. Without both the file is fetched anew each time.
    package var byteCount: UInt64?
    package var sha256: String?
    /// Whether it may be missing on the server.
    package var isOptional: Bool
    /// Whether a cut download is gone on with. Without a checksum somebody else must find out that it is whole.
    package var isResumable: Bool

    package init(
      url: String, path: String, byteCount: UInt64? = nil, sha256: String? = nil, isOptional: Bool = false,
      isResumable: Bool = false
    ) {
      self.isResumable = isResumable || sha256 != nil
      self.url = url
      self.path = path
      self.byteCount = byteCount
      self.sha256 = sha256
      self.isOptional = isOptional
    }

    fileprivate var partPath: String { path + ".part" }
    fileprivate var name: String { (path as NSString).lastPathComponent }
  }

  /// Who said what is to be fetched, for what errors tell a person to do.
  package enum Origin: Sendable {
    /// The lists of a mirror.
    case mirror
    /// A person, with a URL and perhaps a checksum.
    case person
  }

  private let curl: String
  private let task: ImageTask
  private let scratch: String
  private let origin: Origin
  /// A download that was cut so often isn't tried again.
  private static let attempts = 5

  /// - Parameter scratch: a folder for the program's own files.
  package init(scratch: String, origin: Origin = .mirror, task: ImageTask) throws {
    guard let curl = SystemCommand.find("curl") else {
      throw ImageError(.notFound, "the program curl isn't installed; install the package curl")
    }
    self.curl = curl
    self.task = task
    self.scratch = scratch
    self.origin = origin
  }

  /// Makes sure that each item is at its path, whole and with the right checksum. What is there already is checked and
  /// used; what was cut is gone on with.
  ///
  /// - Returns: the paths of the items that are there; those missing are optional ones.
  @discardableResult
  package func fetch(_ items: [Item], step: ImageProgress.Step) throws -> Set<String> {
    let total = items.reduce(UInt64(0)) { $0 &+ ($1.byteCount ?? 0) }
    var here: Set<String> = []
    var missing: [Item] = []
    var ready: UInt64 = 0
    for item in items {
      try task.checkCancellation()
      if try isWhole(item) {
        here.insert(item.path)
        ready += item.byteCount ?? 0
      } else {
        missing.append(item)
      }
    }
    if missing.isEmpty { return here }
    try checkSpace(missing)
    for attempt in 1...Self.attempts where !missing.isEmpty {
      dropUselessParts(of: missing)
      let resumed = Set(missing.map(\.partPath).filter { fileByteCount($0) != nil })
      let failures = try transfer(missing, ready: ready, total: total, step: step)
      var again: [Item] = []
      // The first one, thrown when all that did arrive is in its place.
      var refusal: ImageError?
      for item in missing {
        let isLast = attempt == Self.attempts
        let failure = failures[item.partPath]
        if let failure, failure.isMissingFile, item.isOptional {
          unlink(item.partPath)
          continue
        }
        if let failure {
          if !isLast && failure.isCut {
            again.append(item)
            continue
          }
          if !isLast && failure.isRefusalToGoOn && resumed.contains(item.partPath) {
            unlink(item.partPath)
            again.append(item)
            continue
          }
          refusal = refusal ?? error(failure, item)
          continue
        }
        if let problem = try problem(of: item.partPath, item) {
          unlink(item.partPath)
          // What was there before may have been damaged.
          if !isLast && resumed.contains(item.partPath) {
            again.append(item)
            continue
          }
          refusal = refusal ?? problem
          continue
        }
        if rename(item.partPath, item.path) != 0 { throw ImageError.last("can't rename \(item.partPath)") }
        here.insert(item.path)
        ready += item.byteCount ?? 0
      }
      if let refusal { throw refusal }
      missing = again
    }
    return here
  }

  private func isWhole(_ item: Item) throws -> Bool {
    guard item.sha256 != nil, fileByteCount(item.path) != nil else { return false }
    if try problem(of: item.path, item) == nil { return true }
    unlink(item.path)
    return false
  }

  private func problem(of path: String, _ item: Item) throws -> ImageError? {
    guard let byteCount = fileByteCount(path) else {
      return ImageError(.unavailable, "\(item.url.withoutCredentials) couldn't be fetched")
    }
    if let expected = item.byteCount, expected != byteCount {
      return ImageError(
        .corrupt, "\(item.url.withoutCredentials) has \(byteCount) bytes, but the list says \(expected)")
    }
    guard let expected = item.sha256 else { return nil }
    let found = try sha256(ofFile: path, task: task)
    if found == expected { return nil }
    switch origin {
    case .mirror:
      return ImageError(
        .corrupt, "\(item.url.withoutCredentials) has a wrong checksum; try again later or another mirror")
    case .person:
      return ImageError(
        .corrupt, "\(item.url.withoutCredentials) has the SHA-256 \(found), not the one that --sha256 says; check both")
    }
  }

  /// Removes what a download can't go on with.
  private func dropUselessParts(of items: [Item]) {
    for item in items {
      let isWhole = item.byteCount.map { (fileByteCount(item.partPath) ?? 0) >= $0 } ?? false
      // Whole but wrong, or it would be in place.
      if isWhole || !item.isResumable { unlink(item.partPath) }
    }
  }

  private func checkSpace(_ items: [Item]) throws {
    guard let first = items.first else { return }
    let needed = items.reduce(UInt64(0)) {
      $0 &+ ($1.byteCount ?? 0) &- min(fileByteCount($1.partPath) ?? 0, $1.byteCount ?? 0)
    }
    let folder = (first.path as NSString).deletingLastPathComponent
    var status = statvfs()
    guard statvfs(folder, &status) == 0 else { return }
    let free = UInt64(status.f_bavail) &* UInt64(status.f_frsize)
    if free < needed {
      throw ImageError(
        .inputOutput,
        "\(folder) has \(free >> 20) MB free, but the download needs \(needed >> 20) MB; free some space or set XDG_CACHE_HOME"
      )
    }
  }

  private struct Failure {
    var curlStatus: Int
    var httpStatus: Int
    var message: String

    var isMissingFile: Bool { [404, 410].contains(httpStatus) || curlStatus == 37 || curlStatus == 78 }
    /// The connection ended too early.
    var isCut: Bool { curlStatus == 18 }
    /// The server can't begin in the middle, or has less than what is here.
    var isRefusalToGoOn: Bool { [33, 36].contains(curlStatus) || httpStatus == 416 }
    var isTooLarge: Bool { curlStatus == 63 }
  }

  private func error(_ failure: Failure, _ item: Item) -> ImageError {
    let url = item.url.withoutCredentials
    if failure.curlStatus == 23 { return ImageError.failure(ENOSPC, "can't write \(item.partPath)") }
    if failure.isMissingFile {
      return ImageError(.notFound, "\(url) isn't there; check the URL\(origin == .mirror ? " of the mirror" : "")")
    }
    if failure.isTooLarge, let expected = item.byteCount {
      return ImageError(.corrupt, "\(url) is larger than the \(expected) bytes that the list says")
    }
    let why = failure.message.isEmpty ? "curl failed with status \(failure.curlStatus)" : failure.message
    let advice = origin == .mirror ? "check the network or give another --mirror" : "check the network and the URL"
    return ImageError(.unavailable, "\(url): \(why.withoutCredentials); \(advice)")
  }

  /// Runs curl once over the items. Returns what failed, by the path of the part.
  private func transfer(
    _ items: [Item], ready: UInt64, total: UInt64, step: ImageProgress.Step
  ) throws -> [String: Failure] {
    var configuration = ""
    for item in items {
      // Scalars: a quotation mark with an accent on it is another character to Swift, but not to curl.
      for text in [item.url, item.partPath].map(\.unicodeScalars) {
        if let culprit = text.first(where: { $0.value < 0x20 || $0 == "\"" || $0 == "\\" || $0.value == 0x7F }) {
          throw ImageError(
            .usage, "\(item.url.prefix { !$0.isNewline }): the character \(culprit.debugDescription) can't be there")
        }
      }
      configuration += configuration.isEmpty ? "" : "next\n"
      configuration += """
        url = "\(item.url)"
        output = "\(item.partPath)"
        write-out = "%{exitcode}\\t%{http_code}\\t%{filename_effective}\\t%{errormsg}\\n"
        fail
        location
        silent
        globoff
        proto = "=http,https,file"
        proto-redir = "=http,https"
        connect-timeout = 30
        speed-limit = 1
        speed-time = 60
        retry = 4
        retry-max-time = 60

        """
      if item.isResumable { configuration += "continue-at = \"-\"\n" }
      if let limit = item.byteCount { configuration += "max-filesize = \(limit)\n" }
    }
    // The configuration is a file that only we can read: a URL may hold a password.
    let configurationPath = "\(scratch)/curl-\(UUID().uuidString)"
    let sink = try FileSink(path: configurationPath, mode: 0o600)
    defer { unlink(configurationPath) }
    try sink.write(Array(configuration.utf8))
    try sink.finish()
    let arguments = ["-q", "--parallel", "--parallel-max", "6", "--no-progress-meter", "--config", configurationPath]
    let result = try SystemCommand.run(curl, arguments, in: scratch) {
      try task.checkCancellation()
      let parts = items.reduce(UInt64(0)) { $0 &+ (fileByteCount($1.partPath) ?? 0) }
      let done = ready &+ parts
      task.report(
        ImageProgress(
          step, fraction: total > 0 ? min(1, Double(done) / Double(total)) : nil, completedBytes: done,
          totalBytes: total > 0 ? total : nil))
    }
    return failures(items, result)
  }

  private func failures(_ items: [Item], _ result: SystemCommand.Result) -> [String: Failure] {
    var failures: [String: Failure] = [:]
    var reported: Set<String> = []
    for line in result.output.split(separator: "\n") {
      let fields = line.split(separator: "\t", maxSplits: 3, omittingEmptySubsequences: false)
      guard fields.count == 4, let status = Int(fields[0]), let http = Int(fields[1]) else { continue }
      let path = String(fields[2])
      reported.insert(path)
      failures[path] =
        status == 0 ? nil : Failure(curlStatus: status, httpStatus: http, message: String(fields[3]))
    }
    if result.status != 0 {
      let why = result.errors.split(separator: "\n").first.map(String.init) ?? ""
      for item in items where !reported.contains(item.partPath) {
        failures[item.partPath] = Failure(curlStatus: Int(result.status), httpStatus: 0, message: why)
      }
    }
    return failures
  }
}

extension String {
  /// A URL, or a text with one, without the user name and password in it.
  package var withoutCredentials: String {
    guard let scheme = range(of: "://") else { return self }
    let authority = self[scheme.upperBound...].prefix { $0 != "/" && $0 != " " && $0 != "?" }
    guard let at = authority.lastIndex(of: "@") else { return self }
    return String(self[..<scheme.upperBound] + self[index(after: at)...])
  }
}

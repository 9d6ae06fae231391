import ArgumentParser

/// A number of bytes as people write it: 512M, 2G, 65536.
struct ByteCount: ExpressibleByArgument {
  let bytes: UInt64

  /// Nil when the text isn't a whole number with an optional K, M, G or T (powers of 1024; "B", "iB" may follow).
  init?(argument: String) {
    var text = argument.lowercased()
    if text.hasSuffix("ib") { text.removeLast(2) } else if text.hasSuffix("b") { text.removeLast() }
    var shift: UInt64 = 0
    if let unit = text.last, let index = "kmgt".firstIndex(of: unit) {
      shift = 10 * UInt64("kmgt".distance(from: "kmgt".startIndex, to: index) + 1)
      text.removeLast()
    }
    guard let number = UInt64(text), !text.hasPrefix("+") else { return nil }
    let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
    guard !overflow else { return nil }
    self.bytes = bytes
  }
}

/// `--disk FILE[,ro][,format=raw|qcow2][,serial=TEXT]`.
struct DiskArgument: ExpressibleByArgument {
  let path: String
  var isReadOnly = false
  var format: String?
  var serial = ""

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard let path = parts.first, !path.isEmpty else { return nil }
    self.path = path
    for part in parts.dropFirst() {
      if part == "ro" || part == "readonly" {
        isReadOnly = true
      } else if part.hasPrefix("format=") {
        let name = String(part.dropFirst("format=".count))
        guard name == "raw" || name == "qcow2" else { return nil }
        format = name
      } else if part.hasPrefix("serial=") {
        serial = String(part.dropFirst("serial=".count))
        guard serial.utf8.count <= 20 else { return nil }
      } else {
        return nil
      }
    }
  }
}

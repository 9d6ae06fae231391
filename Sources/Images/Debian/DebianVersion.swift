/// A package version, ordered as dpkg orders them (Debian Policy 5.6.12, deb-version(7)).
public struct DebianVersion: Comparable, Hashable, Sendable, CustomStringConvertible {
  public let text: String
  private let epoch: UInt64
  private let upstream: [UInt8]
  private let revision: [UInt8]

  /// Any text is accepted, as dpkg accepts what is already in an archive: an epoch that isn't a number counts as 0.
  public init(_ text: String) {
    self.text = text
    var rest = Array(text.utf8)[...]
    var epoch: UInt64 = 0
    if let colon = rest.firstIndex(of: UInt8(ascii: ":")) {
      epoch = UInt64(String(decoding: rest[..<colon], as: UTF8.self)) ?? 0
      rest = rest[(colon + 1)...]
    }
    self.epoch = epoch
    if let hyphen = rest.lastIndex(of: UInt8(ascii: "-")) {
      upstream = Array(rest[..<hyphen])
      revision = Array(rest[(hyphen + 1)...])
    } else {
      upstream = Array(rest)
      revision = []
    }
  }

  public var description: String { text }

  public static func == (left: DebianVersion, right: DebianVersion) -> Bool { order(left, right) == 0 }
  public static func < (left: DebianVersion, right: DebianVersion) -> Bool { order(left, right) < 0 }

  public func hash(into hasher: inout Hasher) {
    // 1.0 equals 1.00 and 1.0-0: only what all equal versions share may count.
    hasher.combine(epoch)
  }

  private static func order(_ left: DebianVersion, _ right: DebianVersion) -> Int {
    if left.epoch != right.epoch { return left.epoch < right.epoch ? -1 : 1 }
    let upstream = order(left.upstream, right.upstream)
    return upstream != 0 ? upstream : order(left.revision, right.revision)
  }

  /// Alternating runs of non-digits, where "~" sorts before the end and letters before other characters, and of digits.
  private static func order(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var i = 0
    var j = 0
    func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
    func weight(_ bytes: [UInt8], _ index: Int) -> Int {
      guard index < bytes.count, !isDigit(bytes[index]) else { return 0 }
      let byte = bytes[index]
      if byte == UInt8(ascii: "~") { return -1 }
      let isLetter = (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
      return isLetter ? Int(byte) : Int(byte) + 256
    }
    while i < left.count || j < right.count {
      while (i < left.count && !isDigit(left[i])) || (j < right.count && !isDigit(right[j])) {
        let difference = weight(left, i) - weight(right, j)
        if difference != 0 { return difference }
        i += 1
        j += 1
      }
      while i < left.count && left[i] == 0x30 { i += 1 }
      while j < right.count && right[j] == 0x30 { j += 1 }
      var firstDifference = 0
      while i < left.count, j < right.count, isDigit(left[i]), isDigit(right[j]) {
        if firstDifference == 0 { firstDifference = Int(left[i]) - Int(right[j]) }
        i += 1
        j += 1
      }
      if i < left.count && isDigit(left[i]) { return 1 }
      if j < right.count && isDigit(right[j]) { return -1 }
      if firstDifference != 0 { return firstDifference }
    }
    return 0
  }
}

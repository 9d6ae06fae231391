import Glibc

/// The part of the state that a program can see: registers, CSRs, the reservation.
extension HartState {
  /// Whether that part is the same in both.
  package static func agree(_ left: UnsafePointer<HartState>, _ right: UnsafePointer<HartState>) -> Bool {
    let (a, b) = (UnsafeRawPointer(left), UnsafeRawPointer(right))
    return visibleRanges.allSatisfy { memcmp(a + $0.lowerBound, b + $0.lowerBound, $0.count) == 0 }
      && (left.pointee.reservedAddress == ~0
        || left.pointee.reservedValue == right.pointee.reservedValue
          && left.pointee.reservedWidth == right.pointee.reservedWidth)
  }

  private static func offset(_ path: PartialKeyPath<HartState>) -> Int { MemoryLayout<HartState>.offset(of: path)! }

  private static let linesRange = offset(\.lines)..<offset(\.lines) + 8

  /// Takes over everything but the interrupt lines, which other threads may change at this moment.
  static func copy(_ source: UnsafePointer<HartState>, to target: UnsafeMutablePointer<HartState>) {
    let (from, to) = (UnsafeRawPointer(source), UnsafeMutableRawPointer(target))
    let end = linesRange.upperBound
    memcpy(to, from, linesRange.lowerBound)
    memcpy(to + end, from + end, MemoryLayout<HartState>.size - end)
  }

  /// In bytes from the state's beginning. Fields that lie side by side have no gaps between them.
  private static let visibleRanges: [Range<Int>] = [
    // Without the place that takes writes to x0.
    offset(\.x)..<offset(\.x) + 256,
    offset(\.f)..<offset(\.floatingPointRounding) + 1,
    offset(\.retired)..<offset(\.retired) + 8,
    offset(\.reservedAddress)..<offset(\.reservedAddress) + 8,
    // Without the interrupt lines, which others change.
    offset(\.mstatus)..<linesRange.lowerBound,
    linesRange.upperBound..<offset(\.isWaiting) + 1,
  ]

  /// The same, by the names of the specifications.
  package var visibleValues: [(name: String, value: UInt64)] {
    var values: [(String, UInt64)] = [("pc", pc), ("privilege", UInt64(privilege.rawValue)), ("retired", retired)]
    for index in 0..<32 { values.append(("x\(index)", x[index])) }
    for index in 0..<32 { values.append(("f\(index)", f[index])) }
    values += [("fflags", UInt64(floatingPointFlags)), ("frm", UInt64(floatingPointRounding))]
    let isReserved = reservedAddress != ~0
    values += [
      ("reserved address", reservedAddress), ("reserved value", isReserved ? reservedValue : 0),
      ("reserved width", isReserved ? reservedWidth : 0),
    ]
    for (name, field) in Hart.registerFields { values.append((name, self[keyPath: field])) }
    for index in 0..<16 { values.append(("pmpcfg of entry \(index)", UInt64(pmpcfg[index]))) }
    for index in 0..<16 { values.append(("pmpaddr\(index)", pmpaddr[index])) }
    values.append(("waiting", isWaiting ? 1 : 0))
    return values
  }
}

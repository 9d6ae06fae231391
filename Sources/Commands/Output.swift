import Foundation
import HostSystem

/// What commands write on standard output: tables for people, JSON for programs.
enum Output {
  static func writeTable(_ header: [String], _ rows: [[String]]) {
    let rows = rows.map { $0.map(\.withoutControls) }
    let widths = header.indices.map { column in ([header] + rows).map { $0[column].count }.max() ?? 0 }
    for row in [header] + rows {
      print(zip(row, widths).map { $0.padding(to: $1 + 2) }.joined().trimmingCharacters(in: .whitespaces))
    }
  }

  /// One a line: what is said, and what of it.
  static func writeFields(_ fields: [(String, String)]) {
    let width = fields.map(\.0.count).max() ?? 0
    for (key, value) in fields { print("\(key.padding(to: width))  \(value.withoutControls)") }
  }

  static func writeJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .iso8601
    print(String(decoding: try encoder.encode(value), as: UTF8.self))
  }
}

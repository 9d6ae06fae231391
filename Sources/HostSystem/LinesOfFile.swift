import Foundation

/// The lines of a text file, without their ends, one at a time. Of one that can't be read there are none.
final class LinesOfFile: Sequence, IteratorProtocol {
  private let file: UnsafeMutablePointer<FILE>?
  private var line: UnsafeMutablePointer<CChar>?
  private var capacity = 0

  init(_ path: String) { file = fopen(path, "re") }

  deinit {
    free(line)
    if let file { fclose(file) }
  }

  func next() -> String? {
    guard let file else { return nil }
    var count = getline(&line, &capacity, file)
    guard count > 0, let line else { return nil }
    if line[count - 1] == CChar(bitPattern: UInt8(ascii: "\n")) { count -= 1 }
    return line.withMemoryRebound(to: UInt8.self, capacity: count) {
      String(decoding: UnsafeBufferPointer(start: $0, count: count), as: UTF8.self)
    }
  }
}

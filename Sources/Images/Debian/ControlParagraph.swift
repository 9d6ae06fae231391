/// One paragraph of a Debian control file: fields with values of one or more lines (Debian Policy 5.1).
package struct ControlParagraph: Equatable, Sendable {
  package struct Field: Equatable, Sendable {
    package var name: String
    /// The lines of the value as written, joined by newlines: continuation lines keep their leading space.
    package var value: String
  }

  package var fields: [Field]

  package init(fields: [Field] = []) { self.fields = fields }

  /// The value of a field, whose name counts without regard to case.
  package subscript(_ name: String) -> String? {
    get { fields.first { $0.name.caseInsensitivelyEquals(name) }?.value }
    set {
      let index = fields.firstIndex { $0.name.caseInsensitivelyEquals(name) }
      switch (index, newValue) {
      case (let index?, let value?): fields[index].value = value
      case (let index?, nil): fields.remove(at: index)
      case (nil, let value?): fields.append(Field(name: name, value: value))
      case (nil, nil): break
      }
    }
  }

  /// The text of the paragraph with a newline after each line.
  package var text: String {
    fields.map {
      $0.value.isEmpty || $0.value.hasPrefix("\n") ? "\($0.name):\($0.value)\n" : "\($0.name): \($0.value)\n"
    }
    .joined()
  }

  /// The paragraphs of a file. Comments and empty paragraphs are left out.
  ///
  /// - Parameter name: names the file in errors.
  package static func parse(_ text: String, name: String) throws -> [ControlParagraph] {
    var paragraphs: [ControlParagraph] = []
    var fields: [Field] = []
    // Swift takes a carriage return with its newline for one character.
    let lines = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
    for (index, line) in lines.enumerated() {
      guard let first = line.unicodeScalars.first else {
        if !fields.isEmpty { paragraphs.append(ControlParagraph(fields: fields)) }
        fields = []
        continue
      }
      if first == "#" { continue }
      if first == " " || first == "\t" {
        if line.allSatisfy({ $0 == " " || $0 == "\t" }) && fields.isEmpty { continue }
        guard !fields.isEmpty else {
          throw ImageError(.corrupt, "\(name), line \(index + 1): a continuation line without a field")
        }
        fields[fields.count - 1].value += "\n" + line
      } else {
        guard let colon = line.firstIndex(of: ":"), colon != line.startIndex else {
          throw ImageError(.corrupt, "\(name), line \(index + 1): no field name; expected \"Field: value\"")
        }
        let value = line[line.index(after: colon)...].trimmingBlanks
        fields.append(Field(name: String(line[..<colon]), value: String(value)))
      }
    }
    if !fields.isEmpty { paragraphs.append(ControlParagraph(fields: fields)) }
    return paragraphs
  }
}

extension StringProtocol {
  /// Without spaces and tabs at both ends.
  package var trimmingBlanks: SubSequence {
    let start = unicodeScalars.firstIndex { !Self.isBlank($0) } ?? endIndex
    var end = endIndex
    while end > start, Self.isBlank(unicodeScalars[unicodeScalars.index(before: end)]) {
      end = unicodeScalars.index(before: end)
    }
    return self[start..<end]
  }

  private static func isBlank(_ scalar: Unicode.Scalar) -> Bool {
    scalar == " " || scalar == "\t" || scalar == "\n" || scalar == "\r"
  }

  package func caseInsensitivelyEquals(_ other: String) -> Bool {
    utf8.count == other.utf8.count && utf8.elementsEqual(other.utf8, by: { Self.lowered($0) == Self.lowered($1) })
  }

  private static func lowered(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte | 0x20 : byte }
}

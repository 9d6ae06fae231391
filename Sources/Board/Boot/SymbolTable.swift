import Foundation

/// Names for the addresses of a guest's code, out of an ELF file or a kernel's list of symbols.
public struct SymbolTable: Sendable {
  private struct Entry: Sendable {
    var start: UInt64
    /// One past its last byte.
    var end: UInt64
    /// Nil: what stands here has no name that matters, but ends what is before it.
    var name: String?
  }

  /// By rising start.
  private var entries: [Entry] = []

  /// How far the last symbol reaches, where nothing says it.
  private static let longestTail: UInt64 = 64 << 10

  /// No names at all.
  public init() {}

  /// The symbols of a program.
  public init(_ elf: ELFFile) {
    self.init(elf.symbols.map { Entry(start: $0.value, end: $0.value &+ $0.size, name: $0.isCode ? $0.name : nil) })
  }

  /// Reads `file`: an ELF file, or lines of address, type and name as System.map and /proc/kallsyms have them. Throws
  /// `BootError` where it is neither or names nothing.
  public init(_ file: BootFile) throws {
    if ELFFile.isELF(file.contents) {
      self.init(try ELFFile(file.contents, name: file.name))
    } else {
      try self.init(lines: file)
    }
    guard entries.contains(where: { $0.name != nil }) else {
      throw BootError(.data, "\(file.name): no symbols of code in it; give a System.map, /proc/kallsyms or ELF file")
    }
  }

  private init(lines file: BootFile) throws {
    var entries: [Entry] = []
    for line in file.contents.split(separator: 0x0A) where !line.isEmpty {
      let fields = line.split(whereSeparator: { $0 == 0x20 || $0 == 0x09 })
      guard fields.count >= 3, fields[1].count == 1,
        let address = UInt64(String(decoding: fields[0], as: UTF8.self), radix: 16)
      else { throw BootError(.data, "\(file.name): neither an ELF file nor a list of symbols (System.map)") }
      let name = String(decoding: fields[2], as: UTF8.self)
      // Zero stands for an address that isn't shown to everybody.
      guard address != 0, Self.isMeant(name) else { continue }
      let isCode = [0x74, 0x54, 0x77, 0x57].contains(fields[1].first)
      entries.append(Entry(start: address, end: address, name: isCode ? name : nil))
    }
    self.init(entries)
  }

  /// Whether a person gave the name, as opposed to tools: $x and $d mark code and data (RISC-V ELF, mapping symbols), .L
  /// labels of the assembler's.
  static func isMeant(_ name: String) -> Bool {
    !name.hasPrefix(".L") && name != "$x" && name != "$d" && !name.hasPrefix("$x.") && !name.hasPrefix("$d.")
      && !name.hasPrefix("$xrv")
  }

  /// Sorts; of several at one address the first named one stays. What doesn't say where it ends does so at the next.
  private init(_ unsorted: [Entry]) {
    let sorted = unsorted.enumerated().sorted {
      ($0.element.start, $0.element.name == nil ? 1 : 0, $0.element.end == $0.element.start ? 1 : 0, $0.offset)
        < ($1.element.start, $1.element.name == nil ? 1 : 0, $1.element.end == $1.element.start ? 1 : 0, $1.offset)
    }.map(\.element)
    for entry in sorted where entries.last?.start != entry.start { entries.append(entry) }
    for index in entries.indices where entries[index].end <= entries[index].start {
      let start = entries[index].start
      let tail = start.addingReportingOverflow(Self.longestTail)
      entries[index].end = index + 1 < entries.count ? entries[index + 1].start : tail.overflow ? ~0 : tail.partialValue
    }
  }

  /// The symbols of both; where they overlap, those that begin later.
  public static func + (left: Self, right: Self) -> Self { Self(left.entries + right.entries) }

  public var isEmpty: Bool { entries.isEmpty }

  /// The symbol of the code at `address`; nil where none is known.
  public func name(of address: UInt64) -> String? {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].start <= address { low = middle + 1 } else { high = middle }
    }
    guard low > 0, address < entries[low - 1].end else { return nil }
    return entries[low - 1].name
  }
}

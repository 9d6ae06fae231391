import Foundation

/// A 64-bit little-endian RISC-V executable (System V ABI, ELF-64 Object File Format). Every field is checked before it
/// is used.
public struct ELFFile {
  /// A loadable segment.
  public struct Segment: Equatable, Sendable {
    public let physicalAddress: UInt64
    public let virtualAddress: UInt64
    /// Where its bytes lie in the file, and how many.
    public let fileOffset: UInt64
    public let fileSize: UInt64
    /// Bytes in memory; those beyond `fileSize` are zero.
    public let memorySize: UInt64
    public let isExecutable: Bool
  }

  /// The file's name, for messages.
  public let name: String
  /// Virtual address of the first instruction.
  public let entry: UInt64
  /// Linked to run at any address (ET_DYN).
  public let isPositionIndependent: Bool
  /// Loadable segments that aren't empty, in the file's order.
  public let segments: [Segment]
  private let reader: ByteReader
  private let symbolTable: (offset: UInt64, count: UInt64, strings: UInt64, stringsSize: UInt64)?

  /// Whether `data` says it is an ELF file of any kind.
  public static func isELF(_ data: Data) -> Bool { data.prefix(4).elementsEqual([0x7F, 0x45, 0x4C, 0x46]) }

  /// Reads the headers. `name` stands in messages. Throws `BootError`.
  public init(_ data: Data, name: String) throws {
    self.name = name
    let reader = ByteReader(data)
    self.reader = reader
    guard ELFFile.isELF(data) else { throw BootError(.data, "\(name): not an ELF file") }
    func truncated() -> BootError { BootError(.data, "\(name): the ELF file is truncated; copy or build it again") }
    func damaged(_ what: String) -> BootError { BootError(.data, "\(name): damaged ELF file (\(what))") }
    guard let fileClass = reader.little(4, as: UInt8.self), let order = reader.little(5, as: UInt8.self),
      let version = reader.little(6, as: UInt8.self), let type = reader.little(16, as: UInt16.self),
      let machine = reader.little(18, as: UInt16.self)
    else { throw truncated() }
    guard order == 1 else {
      throw BootError(.data, "\(name): a big-endian program; RISC-V 64-bit (little-endian) is needed")
    }
    guard machine == 243 else {
      throw BootError(
        .data, "\(name): a program for another architecture (\(ELFFile.machineName(machine))); riscv64 is needed")
    }
    guard fileClass == 2 else { throw BootError(.data, "\(name): a 32-bit RISC-V program; riscv64 is needed") }
    guard version == 1 else { throw damaged("unknown version \(version)") }
    guard type == 2 || type == 3 else {
      throw BootError(.data, "\(name): not an executable but ELF type \(type); link it first")
    }
    guard let entry = reader.little(24, as: UInt64.self), let headersOffset = reader.little(32, as: UInt64.self),
      let sectionsOffset = reader.little(40, as: UInt64.self), let headerSize = reader.little(54, as: UInt16.self),
      let headerCount = reader.little(56, as: UInt16.self), let sectionSize = reader.little(58, as: UInt16.self),
      let sectionCount = reader.little(60, as: UInt16.self)
    else { throw truncated() }
    self.entry = entry
    isPositionIndependent = type == 3
    guard headerCount > 0 else { throw BootError(.data, "\(name): the ELF file has nothing to load") }
    guard headerSize == 56 else { throw damaged("program headers of \(headerSize) bytes") }
    segments = try (0..<UInt64(headerCount)).compactMap { index in
      let (at, overflow) = headersOffset.addingReportingOverflow(index * 56)
      guard !overflow, let kind = reader.little(at, as: UInt32.self), reader.slice(at, 56) != nil,
        let flags = reader.little(at + 4, as: UInt32.self),
        let fileOffset = reader.little(at + 8, as: UInt64.self), let virtual = reader.little(at + 16, as: UInt64.self),
        let physical = reader.little(at + 24, as: UInt64.self), let fileSize = reader.little(at + 32, as: UInt64.self),
        let memorySize = reader.little(at + 40, as: UInt64.self)
      else { throw truncated() }
      guard kind == 1, memorySize > 0 else { return nil }
      guard fileSize <= memorySize else { throw damaged("a segment is larger in the file than in memory") }
      guard reader.slice(fileOffset, fileSize) != nil else { throw truncated() }
      guard !physical.addingReportingOverflow(memorySize).overflow,
        !virtual.addingReportingOverflow(memorySize - 1).overflow
      else { throw damaged("a segment wraps around the address space") }
      return Segment(
        physicalAddress: physical, virtualAddress: virtual, fileOffset: fileOffset, fileSize: fileSize,
        memorySize: memorySize, isExecutable: flags & 1 != 0)
    }
    guard !segments.isEmpty else { throw BootError(.data, "\(name): the ELF file has nothing to load") }
    symbolTable = ELFFile.findSymbols(reader, offset: sectionsOffset, entrySize: sectionSize, count: sectionCount)
  }

  /// The bytes of a segment that come from the file.
  public func contents(of segment: Segment) -> Data { reader.slice(segment.fileOffset, segment.fileSize) ?? Data() }

  /// The value of a symbol; nil where the file has no such symbol (or no symbols).
  public func symbol(_ wanted: String) -> UInt64? {
    guard let table = symbolTable else { return nil }
    let name = Array(wanted.utf8) + [0]
    for index in 0..<table.count {
      let at = table.offset + index * 24
      guard let nameOffset = reader.little(at, as: UInt32.self), let section = reader.little(at + 6, as: UInt16.self),
        let value = reader.little(at + 8, as: UInt64.self)
      else { return nil }
      guard section != 0, UInt64(nameOffset) < table.stringsSize,
        let candidate = reader.slice(table.strings + UInt64(nameOffset), UInt64(name.count)),
        candidate.elementsEqual(name)
      else { continue }
      return value
    }
    return nil
  }

  /// A symbol with a name and a place.
  public struct Symbol: Equatable, Sendable {
    public let name: String
    public let value: UInt64
    /// Bytes; 0: not said.
    public let size: UInt64
    /// Whether it may name code: a function, or a label in an executable segment.
    public let isCode: Bool
  }

  /// All symbols that have a place, in the file's order; those that tools make for themselves are left out.
  public var symbols: [Symbol] {
    guard let table = symbolTable else { return [] }
    let executable = segments.filter(\.isExecutable)
    return (0..<table.count).compactMap { index in
      let at = table.offset + index * 24
      guard let nameOffset = reader.little(at, as: UInt32.self), let kind = reader.little(at + 4, as: UInt8.self),
        let section = reader.little(at + 6, as: UInt16.self), let value = reader.little(at + 8, as: UInt64.self),
        let size = reader.little(at + 16, as: UInt64.self), section != 0, section != 0xFFF1, kind & 0xF <= 2,
        UInt64(nameOffset) < table.stringsSize,
        let name = reader.string(table.strings + UInt64(nameOffset), limit: 4096), !name.isEmpty,
        SymbolTable.isMeant(name)
      else { return nil }
      let isCode = kind & 0xF != 1 && executable.contains { value &- $0.virtualAddress < $0.memorySize }
      return Symbol(name: name, value: value, size: size, isCode: isCode)
    }
  }

  /// Symbols are an extra: a table that isn't whole counts as none.
  private static func findSymbols(
    _ reader: ByteReader, offset: UInt64, entrySize: UInt16, count: UInt16
  ) -> (offset: UInt64, count: UInt64, strings: UInt64, stringsSize: UInt64)? {
    guard entrySize == 64, offset > 0 else { return nil }
    func section(_ index: UInt64) -> (type: UInt32, offset: UInt64, size: UInt64, link: UInt32, entry: UInt64)? {
      let (at, overflow) = offset.addingReportingOverflow(index * 64)
      guard !overflow, index < UInt64(count), reader.slice(at, 64) != nil,
        let type = reader.little(at + 4, as: UInt32.self), let start = reader.little(at + 24, as: UInt64.self),
        let size = reader.little(at + 32, as: UInt64.self), let link = reader.little(at + 40, as: UInt32.self),
        let entry = reader.little(at + 56, as: UInt64.self)
      else { return nil }
      return (type, start, size, link, entry)
    }
    for index in 0..<UInt64(count) {
      guard let symbols = section(index), symbols.type == 2, symbols.entry == 24,
        let strings = section(UInt64(symbols.link)), strings.type == 3,
        reader.slice(symbols.offset, symbols.size) != nil, reader.slice(strings.offset, strings.size) != nil
      else { continue }
      return (symbols.offset, symbols.size / 24, strings.offset, strings.size)
    }
    return nil
  }

  private static func machineName(_ machine: UInt16) -> String {
    switch machine {
    case 3: return "x86"
    case 8: return "MIPS"
    case 20, 21: return "PowerPC"
    case 22: return "s390"
    case 40: return "arm"
    case 62: return "x86-64"
    case 183: return "aarch64"
    case 258: return "LoongArch"
    default: return "ELF machine \(machine)"
    }
  }
}

import Foundation

/// A program to start, in any of the forms that people have: what goes where in RAM, and where to enter.
struct KernelImage {
  /// Bytes for a place in RAM; `memorySize` beyond `contents` is zero.
  struct Piece {
    var address: UInt64
    let contents: Data
    let memorySize: UInt64
  }

  let name: String
  var pieces: [Piece]
  let entry: UInt64
  /// Set for ELF files.
  let elf: ELFFile?

  /// One past the last byte in memory.
  var end: UInt64 { pieces.map { $0.address &+ $0.memorySize }.max() ?? 0 }

  /// Reads `file`. `origin` is where a file that doesn't say so itself is loaded. `ram`: the machine's RAM, which the
  /// image must fit in. Throws `BootError`.
  init(_ file: BootFile, origin: UInt64, ram: Range<UInt64>) throws {
    name = file.name
    let contents = try KernelImage.uncompressed(file, limit: Int(clamping: ram.upperBound - ram.lowerBound))
    guard !contents.isEmpty else { throw BootError(.data, "\(name): the file is empty") }
    if ELFFile.isELF(contents) {
      let elf = try ELFFile(contents, name: name)
      self.elf = elf
      (pieces, entry) = try KernelImage.place(elf, origin: origin, ram: ram)
    } else {
      elf = nil
      var address = origin
      var memorySize = UInt64(contents.count)
      if let header = try KernelImage.linuxHeader(contents, name: name) {
        address = ram.lowerBound &+ header.textOffset
        memorySize = max(memorySize, header.imageSize)
      }
      pieces = [Piece(address: address, contents: contents, memorySize: memorySize)]
      entry = address
    }
    for piece in pieces where !KernelImage.fits(piece, ram) {
      let place = "0x\(String(piece.address, radix: 16)), \(piece.memorySize) bytes"
      throw BootError(
        .configuration,
        elf != nil
          ? "\(name): a segment (\(place)) lies outside RAM; give the machine more memory or link the program into RAM"
          : "\(name): doesn't fit into RAM (\(place)); give the machine more memory")
    }
    // Segments that lie in each other's place could otherwise add up to any amount of work.
    guard pieces.reduce(0, { $0 + $1.memorySize }) <= ram.upperBound - ram.lowerBound else {
      throw BootError(.data, "\(name): damaged ELF file (its segments overlap)")
    }
  }

  private static func fits(_ piece: Piece, _ ram: Range<UInt64>) -> Bool {
    piece.address >= ram.lowerBound && piece.address <= ram.upperBound
      && piece.memorySize <= ram.upperBound - piece.address
  }

  // MARK: ELF

  /// Segments stand at their physical addresses. A file linked for any address, or for virtual ones (Linux's vmlinux),
  /// whose segments lie below RAM is moved to `origin`.
  private static func place(
    _ elf: ELFFile, origin: UInt64, ram: Range<UInt64>
  ) throws -> (pieces: [Piece], entry: UInt64) {
    let lowest = elf.segments.map(\.physicalAddress).min() ?? 0
    let isMovable = elf.isPositionIndependent || elf.segments.allSatisfy { $0.virtualAddress != $0.physicalAddress }
    let shift = lowest < ram.lowerBound && isMovable ? origin &- lowest : 0
    let pieces = elf.segments.map { segment in
      Piece(
        address: segment.physicalAddress &+ shift, contents: elf.contents(of: segment), memorySize: segment.memorySize)
    }
    for segment in elf.segments where elf.entry &- segment.virtualAddress < segment.memorySize {
      return (pieces, elf.entry &- segment.virtualAddress &+ segment.physicalAddress &+ shift)
    }
    // Some link scripts give the entry as a physical address.
    return (pieces, elf.entry &+ shift)
  }

  // MARK: Linux

  /// The header of a RISC-V Linux Image (Linux, Documentation/arch/riscv/boot-image-header.rst); nil when there is none.
  /// Refuses kernels of other architectures.
  private static func linuxHeader(
    _ contents: Data, name: String
  ) throws -> (textOffset: UInt64, imageSize: UInt64)? {
    let reader = ByteReader(contents)
    func other(_ architecture: String) -> BootError {
      BootError(.data, "\(name): a kernel for another architecture (\(architecture)); riscv64 is needed")
    }
    if reader.little(0x38, as: UInt32.self) == 0x644D_5241 { throw other("aarch64") }
    if reader.little(0x202, as: UInt32.self) == 0x5372_6448 { throw other("x86") }
    if reader.little(0x24, as: UInt32.self) == 0x016F_2818 { throw other("arm") }
    guard reader.little(0x38, as: UInt32.self) == 0x0543_5352, let textOffset = reader.little(8, as: UInt64.self),
      let imageSize = reader.little(16, as: UInt64.self), let flags = reader.little(24, as: UInt64.self)
    else { return nil }
    guard flags & 1 == 0 else { throw BootError(.data, "\(name): a big-endian kernel; riscv64 is little-endian") }
    return (textOffset, imageSize)
  }

  // MARK: compression

  private static func uncompressed(_ file: BootFile, limit: Int) throws -> Data {
    if file.contents.prefix(2).elementsEqual([0x1F, 0x8B]) {
      return try GzipFile.uncompressed(file.contents, name: file.name, limit: limit)
    }
    // Linux's EFI zboot: "MZ", then "zimg", payload offset and size, and the compression's name.
    let reader = ByteReader(file.contents)
    guard reader.little(0, as: UInt16.self) == 0x5A4D, reader.little(4, as: UInt32.self) == 0x676D_697A,
      let offset = reader.little(8, as: UInt32.self), let size = reader.little(12, as: UInt32.self)
    else { return file.contents }
    let compression = reader.string(24, limit: 16) ?? ""
    guard compression == "gzip", let payload = reader.slice(UInt64(offset), UInt64(size)) else {
      throw BootError(
        .data, "\(file.name): an EFI kernel compressed with '\(compression)'; give the uncompressed Image instead")
    }
    return try GzipFile.uncompressed(payload, name: file.name, limit: limit)
  }
}

import Bus
import CZstd
import Foundation
import HostSystem

/// A machine written to a file: a header that a program of the same version reads, then RAM.
///
/// Layout: the magic "YADORI-M", a version (UInt32), the length of the manifest (UInt32), the manifest (JSON), then for
/// each MiB of RAM that isn't all zero its offset (UInt64), its compressed length (UInt32) and a zstd frame with checksum;
/// the offset ~0 ends the file. Integers are little-endian.
struct SavedMachine {
  static let magic = Array("YADORI-M".utf8)
  static let version: UInt32 = 1
  private static let chunkSize = 1 << 20

  struct Manifest: Codable {
    var configuration: VirtualMachineConfiguration
    /// The guest's clock, in ticks.
    var clock: UInt64
    var components: [EncodedState]
  }

  /// Writes beside `path`, makes it durable, renames.
  static func write(_ manifest: Manifest, memory: GuestMemory, to path: String) throws {
    let writer: AtomicFileWriter
    do {
      writer = try AtomicFileWriter(path: path)
    } catch {
      throw MachineError(.cannotCreate, "can't write the saved machine '\(path)': \(error)")
    }
    do {
      let json = try JSONEncoder().encode(manifest)
      try writer.write(Data(magic) + bytes(version) + bytes(UInt32(json.count)) + json)
      try writeMemory(memory, to: writer)
      try writer.write(bytes(~UInt64(0)))
      try writer.commit()
    } catch {
      throw MachineError(.inputOutput, "can't write the saved machine '\(path)': \(error)")
    }
  }

  private static func bytes<Value: FixedWidthInteger>(_ value: Value) -> Data {
    withUnsafeBytes(of: value.littleEndian) { Data($0) }
  }

  private static func writeMemory(_ memory: GuestMemory, to writer: AtomicFileWriter) throws {
    guard let context = ZSTD_createCCtx() else { throw MachineError(.host, "no memory to compress with") }
    defer { ZSTD_freeCCtx(context) }
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1)
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
    var buffer = [UInt8](repeating: 0, count: ZSTD_compressBound(chunkSize))
    let zeroes = [UInt8](repeating: 0, count: chunkSize)
    for offset in stride(from: 0, to: Int(memory.size), by: chunkSize) {
      let count = min(chunkSize, Int(memory.size) - offset)
      let source = memory.host + offset
      if zeroes.withUnsafeBytes({ memcmp($0.baseAddress!, source, count) == 0 }) { continue }
      let length = ZSTD_compress2(context, &buffer, buffer.count, source, count)
      guard ZSTD_isError(length) == 0 else {
        throw MachineError(.software, String(cString: ZSTD_getErrorName(length)))
      }
      try writer.write(bytes(UInt64(offset)) + bytes(UInt32(length)) + Data(buffer[..<length]))
    }
  }

  /// Reads the manifest of a saved machine; `memory` makes the RAM that the rest goes into.
  let manifest: Manifest
  private let path: String
  private let data: Data
  private let memoryStart: Int

  init(path: String) throws {
    self.path = path
    do {
      data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
    } catch {
      throw MachineError(.noInput, "can't read the saved machine '\(path)'")
    }
    guard data.count >= 16, Array(data[0..<8]) == Self.magic else {
      throw MachineError(.data, "'\(path)' isn't a saved machine")
    }
    let version = Self.integer(data, at: 8, as: UInt32.self)
    guard version == Self.version else {
      throw MachineError(
        .data, "'\(path)' was saved in version \(version) of the format; this program reads \(Self.version)")
    }
    let length = Int(Self.integer(data, at: 12, as: UInt32.self))
    guard length <= data.count - 16,
      let manifest = try? JSONDecoder().decode(Manifest.self, from: data[16..<16 + length])
    else { throw Self.damaged(path) }
    self.manifest = manifest
    memoryStart = 16 + length
  }

  private static func integer<Value: FixedWidthInteger>(_ data: Data, at offset: Int, as: Value.Type) -> Value {
    var value: Value = 0
    _ = withUnsafeMutableBytes(of: &value) { data.copyBytes(to: $0, from: offset..<offset + MemoryLayout<Value>.size) }
    return Value(littleEndian: value)
  }

  private static func damaged(_ path: String) -> MachineError {
    MachineError(.data, "the saved machine '\(path)' is damaged or incomplete; use another one")
  }

  /// Fills RAM, which is zero, with what was saved.
  func restoreMemory(_ memory: GuestMemory) throws {
    var position = memoryStart
    while true {
      guard position + 8 <= data.count else { throw Self.damaged(path) }
      let offset = Self.integer(data, at: position, as: UInt64.self)
      if offset == ~0 { return }
      guard position + 12 <= data.count, offset % UInt64(Self.chunkSize) == 0, offset < memory.size else {
        throw Self.damaged(path)
      }
      let length = Int(Self.integer(data, at: position + 8, as: UInt32.self))
      position += 12
      guard length <= data.count - position else { throw Self.damaged(path) }
      let count = min(Self.chunkSize, Int(memory.size - offset))
      let written = data.withUnsafeBytes { bytes in
        ZSTD_decompress(memory.host + Int(offset), count, bytes.baseAddress! + position, length)
      }
      guard ZSTD_isError(written) == 0, written == count else { throw Self.damaged(path) }
      position += length
    }
  }
}

import CZlib
import Foundation

/// Reads gzip files (RFC 1952) with zlib.
enum GzipFile {
  /// The contents of `data`, of at most `limit` bytes. `name` stands in messages. Throws `BootError`.
  static func uncompressed(_ data: Data, name: String, limit: Int) throws -> Data {
    var stream = z_stream()
    // 16: a gzip header is expected.
    guard inflateInit2_(&stream, 16 + MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
      throw BootError(.data, "\(name): can't be uncompressed: zlib refuses to start")
    }
    defer { inflateEnd(&stream) }
    var output = Data()
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    var input = [UInt8](data)
    let status: Int32 = input.withUnsafeMutableBufferPointer { input in
      stream.next_in = input.baseAddress
      stream.avail_in = UInt32(clamping: input.count)
      while true {
        let result: Int32 = chunk.withUnsafeMutableBufferPointer { chunk in
          stream.next_out = chunk.baseAddress
          stream.avail_out = UInt32(chunk.count)
          return inflate(&stream, Z_NO_FLUSH)
        }
        output.append(contentsOf: chunk[..<(chunk.count - Int(stream.avail_out))])
        if result != Z_OK || output.count > limit { return result }
      }
    }
    guard output.count <= limit else {
      throw BootError(.configuration, "\(name): doesn't fit into RAM uncompressed; give the machine more memory")
    }
    guard status == Z_STREAM_END else {
      throw BootError(.data, "\(name): the compressed file is damaged or truncated; copy it again")
    }
    return output
  }
}

import CLZMA
import CZlib
import CZstd

/// The compressions that Debian uses for packages, lists, modules and kernels.
package enum Compression: Sendable {
  case none, xz, gzip, zstd

  /// What the first bytes say.
  package init(magic: some Sequence<UInt8>) {
    let start = Array(magic.prefix(6))
    if start.starts(with: [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00]) {
      self = .xz
    } else if start.starts(with: [0x1F, 0x8B]) {
      self = .gzip
    } else if start.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
      self = .zstd
    } else {
      self = .none
    }
  }

  /// What the end of a file name says.
  package init(fileName: String) {
    if fileName.hasSuffix(".xz") {
      self = .xz
    } else if fileName.hasSuffix(".gz") {
      self = .gzip
    } else if fileName.hasSuffix(".zst") {
      self = .zstd
    } else {
      self = .none
    }
  }
}

/// A source that gives the decompressed bytes of another.
package final class DecompressedSource: ByteSource {
  private let base: ByteSource
  private let decoder: Decoder?
  private let name: String
  private let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)
  private var pending = 0..<0
  private var baseEnded = false
  private var ended = false

  /// - Parameter name: names the source in errors.
  package init(_ base: ByteSource, compression: Compression, name: String) throws {
    self.base = base
    self.name = name
    decoder =
      switch compression {
      case .none: nil
      case .xz: try XZDecoder()
      case .gzip: try GzipDecoder()
      case .zstd: try ZstandardDecoder()
      }
  }

  deinit { input.deallocate() }

  package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
    guard let decoder else { return try base.read(into: buffer) }
    if buffer.count == 0 { return 0 }
    while !ended {
      if pending.isEmpty && !baseEnded {
        pending = 0..<(try base.read(into: input))
        baseEnded = pending.isEmpty
      }
      let step = decoder.decode(
        UnsafeRawBufferPointer(rebasing: input[pending]), into: buffer, inputEnds: baseEnded)
      pending = pending.lowerBound + step.consumed..<pending.upperBound
      switch step.state {
      case .failed: throw ImageError(.corrupt, "\(name): the compressed data is damaged; fetch it again")
      case .ended: ended = true
      case .going:
        if baseEnded && step.consumed == 0 && step.produced == 0 {
          throw ImageError(.corrupt, "\(name) is cut short; fetch it again")
        }
      }
      if step.produced > 0 { return step.produced }
    }
    return 0
  }
}

/// Decompresses what is in memory; refused when it grows beyond `limit` bytes.
package func decompress(_ bytes: [UInt8], limit: Int, name: String) throws -> [UInt8] {
  let compression = Compression(magic: bytes)
  if case .none = compression { return bytes }
  return try DecompressedSource(MemorySource(bytes), compression: compression, name: name)
    .readAll(limit: limit, of: name)
}

private struct DecoderStep {
  enum State { case going, ended, failed }
  var consumed: Int
  var produced: Int
  var state: State
}

private protocol Decoder: AnyObject {
  func decode(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, inputEnds: Bool
  ) -> DecoderStep
}

private final class XZDecoder: Decoder {
  // On the heap: liblzma keeps the address of nothing here, but a stable one lets the compiler not copy it.
  private let stream = UnsafeMutablePointer<lzma_stream>.allocate(capacity: 1)

  init() throws {
    stream.initialize(to: lzma_stream())
    let concatenated: UInt32 = 0x08  // LZMA_CONCATENATED, a macro that Swift doesn't see
    if lzma_stream_decoder(stream, 1 << 29, concatenated) != LZMA_OK {
      throw ImageError(.inputOutput, "can't start the xz decompressor: not enough memory")
    }
  }

  deinit {
    lzma_end(stream)
    stream.deallocate()
  }

  func decode(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, inputEnds: Bool
  ) -> DecoderStep {
    stream.pointee.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
    stream.pointee.avail_in = input.count
    stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
    stream.pointee.avail_out = output.count
    let result = lzma_code(stream, inputEnds ? LZMA_FINISH : LZMA_RUN)
    let state: DecoderStep.State =
      switch result {
      case LZMA_OK, LZMA_BUF_ERROR: .going
      case LZMA_STREAM_END: .ended
      default: .failed
      }
    return DecoderStep(
      consumed: input.count - stream.pointee.avail_in, produced: output.count - stream.pointee.avail_out, state: state)
  }
}

private final class GzipDecoder: Decoder {
  // zlib checks that its stream stays at one address.
  private let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)

  init() throws {
    stream.initialize(to: z_stream())
    let gzipOrZlib: Int32 = 15 + 32
    if inflateInit2_(stream, gzipOrZlib, zlibVersion(), Int32(MemoryLayout<z_stream>.size)) != Z_OK {
      throw ImageError(.inputOutput, "can't start the gzip decompressor: not enough memory")
    }
  }

  deinit {
    inflateEnd(stream)
    stream.deallocate()
  }

  func decode(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, inputEnds: Bool
  ) -> DecoderStep {
    stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress?.assumingMemoryBound(to: UInt8.self))
    stream.pointee.avail_in = UInt32(input.count)
    stream.pointee.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
    stream.pointee.avail_out = UInt32(clamping: output.count)
    let room = Int(stream.pointee.avail_out)
    let result = inflate(stream, Z_NO_FLUSH)
    let state: DecoderStep.State =
      switch result {
      case Z_OK, Z_BUF_ERROR: .going
      case Z_STREAM_END: .ended
      default: .failed
      }
    return DecoderStep(
      consumed: input.count - Int(stream.pointee.avail_in), produced: room - Int(stream.pointee.avail_out),
      state: state)
  }
}

private final class ZstandardDecoder: Decoder {
  private let context: OpaquePointer
  private var frameEnded = false

  init() throws {
    guard let context = ZSTD_createDCtx() else {
      throw ImageError(.inputOutput, "can't start the zstd decompressor: not enough memory")
    }
    self.context = context
  }

  deinit { ZSTD_freeDCtx(context) }

  func decode(
    _ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, inputEnds: Bool
  ) -> DecoderStep {
    // Frames may follow each other; the end is the end of the input after a whole frame.
    if input.count == 0 && inputEnds && frameEnded { return DecoderStep(consumed: 0, produced: 0, state: .ended) }
    var source = ZSTD_inBuffer(src: input.baseAddress, size: input.count, pos: 0)
    var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
    let result = ZSTD_decompressStream(context, &target, &source)
    if ZSTD_isError(result) != 0 { return DecoderStep(consumed: 0, produced: 0, state: .failed) }
    if source.pos > 0 || target.pos > 0 { frameEnded = result == 0 }
    return DecoderStep(consumed: source.pos, produced: target.pos, state: .going)
  }
}

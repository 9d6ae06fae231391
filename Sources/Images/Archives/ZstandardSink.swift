import CZstd

/// Compresses what is written and passes it on: one zstd frame with a checksum (RFC 8878).
package final class ZstandardSink: ByteSink {
  private let base: ByteSink
  private let context: OpaquePointer
  private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)

  package init(_ base: ByteSink) throws {
    guard let context = ZSTD_createCCtx() else {
      throw ImageError(.inputOutput, "can't start the zstd compressor: not enough memory")
    }
    self.base = base
    self.context = context
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3)
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
  }

  deinit {
    ZSTD_freeCCtx(context)
    output.deallocate()
  }

  package func write(_ bytes: UnsafeRawBufferPointer) throws { try compress(bytes, ZSTD_e_continue) }

  /// Ends the frame. The base is to be finished after it.
  package func finish() throws { try compress(UnsafeRawBufferPointer(start: nil, count: 0), ZSTD_e_end) }

  private func compress(_ bytes: UnsafeRawBufferPointer, _ step: ZSTD_EndDirective) throws {
    var source = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
    while true {
      var target = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
      let left = ZSTD_compressStream2(context, &target, &source, step)
      if ZSTD_isError(left) != 0 { throw ImageError(.inputOutput, "can't compress: not enough memory") }
      if target.pos > 0 { try base.write(UnsafeRawBufferPointer(rebasing: output[..<target.pos])) }
      if step == ZSTD_e_end ? left == 0 : source.pos == source.size { return }
    }
  }
}

/// The kernel as the machine starts it: a RISC-V "Image" (Linux: Documentation/arch/riscv/boot-image-header.rst).
package enum KernelImage {
  private static let limit = 1 << 28

  /// The plain Image in `bytes`, which may be gzip-compressed or a self-decompressing EFI program (Linux:
  /// drivers/firmware/efi/libstub/zboot-header.S).
  package static func plain(_ bytes: [UInt8], name: String) throws -> [UInt8] {
    var image = bytes
    if isSelfDecompressing(image) {
      let start = Int(little32(image, 8))
      let count = Int(little32(image, 12))
      guard start <= image.count, count <= image.count - start else {
        throw ImageError(.corrupt, "\(name): the compressed kernel is cut short")
      }
      image = Array(image[start..<start + count])
    }
    image = try decompress(image, limit: limit, name: name)
    guard image.count > 64, little32(image, 0x38) == 0x0543_5352 else {
      throw ImageError(.corrupt, "\(name) isn't a RISC-V kernel image")
    }
    return image
  }

  private static func isSelfDecompressing(_ bytes: [UInt8]) -> Bool {
    bytes.count > 64 && bytes.starts(with: Array("MZ".utf8)) && bytes[4..<8].elementsEqual("zimg".utf8)
  }

  private static func little32(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * UInt32($1)) }
  }
}

// Cache block management, zero and prefetch (Zicbom, Zicboz, Zicbop).
extension InstructionPattern {
  static let cacheBlockRows: [InstructionPattern] = [
    .init(.cbo_inval, "cbo.inval", .address, 0x0000_200f, 0xfff0_7fff, .zicbom, .cacheBlock),
    .init(.cbo_clean, "cbo.clean", .address, 0x0010_200f, 0xfff0_7fff, .zicbom, .cacheBlock),
    .init(.cbo_flush, "cbo.flush", .address, 0x0020_200f, 0xfff0_7fff, .zicbom, .cacheBlock),
    .init(.cbo_zero, "cbo.zero", .address, 0x0040_200f, 0xfff0_7fff, .zicboz, .store),
    // Prefetches are encodings of ori to x0, which they are where Zicbop is missing
    .init(.prefetch_i, "prefetch.i", .prefetch, 0x0000_6013, 0x01f0_7fff, .zicbop, []),
    .init(.prefetch_r, "prefetch.r", .prefetch, 0x0010_6013, 0x01f0_7fff, .zicbop, []),
    .init(.prefetch_w, "prefetch.w", .prefetch, 0x0030_6013, 0x01f0_7fff, .zicbop, []),
  ]
}

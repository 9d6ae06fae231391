// Scalar cryptography (Cryptography Extensions, Volume I): what Zbb and Zbc lack of Zbkb and Zbkc, Zbkx, Zknd, Zkne, Zknh.
extension InstructionPattern {
  static let cryptographyRows: [InstructionPattern] = [
    // Zbkb; under Zbb packw of x0 is zext.h
    .init(.pack, "pack", .r, 0x0800_4033, 0xfe00_707f, .zbkb, .writesInteger),
    .init(.packh, "packh", .r, 0x0800_7033, 0xfe00_707f, .zbkb, .writesInteger),
    .init(.packw, "packw", .r, 0x0800_403b, 0xfe00_707f, .zbkb, .writesInteger),
    .init(.brev8, "brev8", .rUnary, 0x6870_5013, 0xfff0_707f, .zbkb, .writesInteger),
    // Zbkx
    .init(.xperm4, "xperm4", .r, 0x2800_2033, 0xfe00_707f, .zbkx, .writesInteger),
    .init(.xperm8, "xperm8", .r, 0x2800_4033, 0xfe00_707f, .zbkx, .writesInteger),
    // Zknd, Zkne
    .init(.aes64ds, "aes64ds", .r, 0x3a00_0033, 0xfe00_707f, .zknd, .writesInteger),
    .init(.aes64dsm, "aes64dsm", .r, 0x3e00_0033, 0xfe00_707f, .zknd, .writesInteger),
    .init(.aes64im, "aes64im", .rUnary, 0x3000_1013, 0xfff0_707f, .zknd, .writesInteger),
    .init(.aes64es, "aes64es", .r, 0x3200_0033, 0xfe00_707f, .zkne, .writesInteger),
    .init(.aes64esm, "aes64esm", .r, 0x3600_0033, 0xfe00_707f, .zkne, .writesInteger),
    .init(
      .aes64ks1i, "aes64ks1i", .round, 0x3100_1013, 0xff00_707f, .zkne, .writesInteger, largest: 10, or: .zknd),
    .init(.aes64ks2, "aes64ks2", .r, 0x7e00_0033, 0xfe00_707f, .zkne, .writesInteger, or: .zknd),
    // Zknh
    .init(.sha256sum0, "sha256sum0", .rUnary, 0x1000_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha256sum1, "sha256sum1", .rUnary, 0x1010_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha256sig0, "sha256sig0", .rUnary, 0x1020_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha256sig1, "sha256sig1", .rUnary, 0x1030_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha512sum0, "sha512sum0", .rUnary, 0x1040_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha512sum1, "sha512sum1", .rUnary, 0x1050_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha512sig0, "sha512sig0", .rUnary, 0x1060_1013, 0xfff0_707f, .zknh, .writesInteger),
    .init(.sha512sig1, "sha512sig1", .rUnary, 0x1070_1013, 0xfff0_707f, .zknh, .writesInteger),
  ]
}

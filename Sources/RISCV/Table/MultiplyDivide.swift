// M: integer multiplication and division.
extension InstructionPattern {
  static let multiplyDivideRows: [InstructionPattern] = [
    .init(.mul, "mul", .r, 0x0200_0033, 0xfe00_707f, .m, .writesInteger),
    .init(.mulh, "mulh", .r, 0x0200_1033, 0xfe00_707f, .m, .writesInteger),
    .init(.mulhsu, "mulhsu", .r, 0x0200_2033, 0xfe00_707f, .m, .writesInteger),
    .init(.mulhu, "mulhu", .r, 0x0200_3033, 0xfe00_707f, .m, .writesInteger),
    .init(.div, "div", .r, 0x0200_4033, 0xfe00_707f, .m, .writesInteger),
    .init(.divu, "divu", .r, 0x0200_5033, 0xfe00_707f, .m, .writesInteger),
    .init(.rem, "rem", .r, 0x0200_6033, 0xfe00_707f, .m, .writesInteger),
    .init(.remu, "remu", .r, 0x0200_7033, 0xfe00_707f, .m, .writesInteger),
    .init(.mulw, "mulw", .r, 0x0200_003b, 0xfe00_707f, .m, .writesInteger),
    .init(.divw, "divw", .r, 0x0200_403b, 0xfe00_707f, .m, .writesInteger),
    .init(.divuw, "divuw", .r, 0x0200_503b, 0xfe00_707f, .m, .writesInteger),
    .init(.remw, "remw", .r, 0x0200_603b, 0xfe00_707f, .m, .writesInteger),
    .init(.remuw, "remuw", .r, 0x0200_703b, 0xfe00_707f, .m, .writesInteger),
  ]
}

/// Names of registers as assembly language has them (RISC-V ABIs specification, register convention).
public enum RegisterName {
  /// x0...x31: "zero", "ra", "sp" ...
  public static func integer(_ number: UInt8) -> String { integers[Int(number & 31)] }

  /// f0...f31: "ft0" ... "ft11".
  public static func floatingPoint(_ number: UInt8) -> String { floatingPoints[Int(number & 31)] }

  private static let integers: [String] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
    "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
  ]

  private static let floatingPoints: [String] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
  ]
}

/// The code that harts begin with in M-mode, at 0x1000 as on QEMU's `virt`, and the data it reads.
enum ResetVector {
  /// Magic of OpenSBI's dynamic information (OpenSBI, docs/firmware/fw_dynamic.md).
  private static let dynamicInformationMagic: UInt64 = 0x4942_534F
  private static let supervisorMode: UInt64 = 1

  /// The ROM's bytes: loads a0 (hart), a1 (device tree) and a2 (dynamic information), then goes on at `entry`.
  /// `next`: where firmware finds the next stage, in S-mode; 0 for none.
  static func bytes(entry: UInt64, deviceTree: UInt64, next: UInt64) -> [UInt8] {
    let code: [UInt32] = [
      0x0000_0297,  // auipc t0, 0
      0x0282_8613,  // addi  a2, t0, 40
      0xF140_2573,  // csrr  a0, mhartid
      0x0202_B583,  // ld    a1, 32(t0)
      0x0182_B283,  // ld    t0, 24(t0)
      0x0002_8067,  // jr    t0
    ]
    let data: [UInt64] = [
      entry, deviceTree,
      dynamicInformationMagic, 2, next, supervisorMode,
      // Options, then the hart that boots.
      0, 0,
    ]
    return code.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }
      + data.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } }
  }
}

import RISCV

/// Scalar cryptography (RISC-V Cryptography Extensions, Volume I, 1.0.1). How long some of it takes depends on the
/// operands, so Zkt is none of the hart's extensions.
extension Hart {
  /// What an instruction of Zbkx, Zknd, Zkne, Zknh, or one that Zbkb has and Zbb lacks, leaves in rd.
  @inline(never)
  func cryptographicResult(_ operation: Operation, _ left: UInt64, _ right: UInt64, _ immediate: Int64) -> UInt64 {
    switch operation {
    case .pack: pack(left, right)
    case .packh: packh(left, right)
    case .packw: packw(left, right)
    case .brev8: brev8(left)
    case .xperm4: xperm4(left, right)
    case .xperm8: xperm8(left, right)
    case .aes64ds: aes64ds(left, right)
    case .aes64dsm: aes64dsm(left, right)
    case .aes64es: aes64es(left, right)
    case .aes64esm: aes64esm(left, right)
    case .aes64im: aes64im(left)
    case .aes64ks1i: aes64ks1i(left, round: Int(immediate))
    case .aes64ks2: aes64ks2(left, right)
    case .sha256sig0: sha256sig0(UInt32(truncatingIfNeeded: left))
    case .sha256sig1: sha256sig1(UInt32(truncatingIfNeeded: left))
    case .sha256sum0: sha256sum0(UInt32(truncatingIfNeeded: left))
    case .sha256sum1: sha256sum1(UInt32(truncatingIfNeeded: left))
    case .sha512sig0: sha512sig0(left)
    case .sha512sig1: sha512sig1(left)
    case .sha512sum0: sha512sum0(left)
    case .sha512sum1: sha512sum1(left)
    default: 0
    }
  }
}

// The functions are named after the instructions; chapter 3 of the specification defines them in the same order.

// MARK: Zbkb and Zbkx

/// The lower halves of both.
private func pack(_ left: UInt64, _ right: UInt64) -> UInt64 { right << 32 | left & 0xFFFF_FFFF }

/// The lowest bytes of both.
private func packh(_ left: UInt64, _ right: UInt64) -> UInt64 { (right & 0xFF) << 8 | left & 0xFF }

/// The lowest 16 bits of both, as a word.
private func packw(_ left: UInt64, _ right: UInt64) -> UInt64 {
  extended(UInt32(truncatingIfNeeded: right << 16 | left & 0xFFFF))
}

/// The bits of each byte in reverse order.
private func brev8(_ value: UInt64) -> UInt64 {
  var value = value
  value = (value & 0x5555_5555_5555_5555) << 1 | value >> 1 & 0x5555_5555_5555_5555
  value = (value & 0x3333_3333_3333_3333) << 2 | value >> 2 & 0x3333_3333_3333_3333
  return (value & 0x0F0F_0F0F_0F0F_0F0F) << 4 | value >> 4 & 0x0F0F_0F0F_0F0F_0F0F
}

/// For each four bits of `indices` the four bits of `table` that they name.
private func xperm4(_ table: UInt64, _ indices: UInt64) -> UInt64 {
  var result: UInt64 = 0
  for place in stride(from: UInt64(0), to: 64, by: 4) {
    let index = indices &>> place & 15
    result |= (table &>> (index * 4) & 15) &<< place
  }
  return result
}

/// For each byte of `indices` the byte of `table` that it names; zero where there is none.
private func xperm8(_ table: UInt64, _ indices: UInt64) -> UInt64 {
  var result: UInt64 = 0
  for place in stride(from: UInt64(0), to: 64, by: 8) {
    let index = indices &>> place & 0xFF
    if index < 8 { result |= (table &>> (index * 8) & 0xFF) &<< place }
  }
  return result
}

// MARK: Zknd and Zkne

/// The last round of decryption but for its key: two columns of the block whose first half is `left`.
private func aes64ds(_ left: UInt64, _ right: UInt64) -> UInt64 {
  AES.substitutingShiftedRows(left, right, columnsPerRow: -1, AES.boxes.inverse)
}

/// A round of decryption but for its key.
private func aes64dsm(_ left: UInt64, _ right: UInt64) -> UInt64 { aes64im(aes64ds(left, right)) }

/// The last round of encryption but for its key: two columns of the block whose first half is `left`.
private func aes64es(_ left: UInt64, _ right: UInt64) -> UInt64 {
  AES.substitutingShiftedRows(left, right, columnsPerRow: 1, AES.boxes.forward)
}

/// A round of encryption but for its key.
private func aes64esm(_ left: UInt64, _ right: UInt64) -> UInt64 { AES.mixingColumns(aes64es(left, right)) }

/// InvMixColumns of two columns: what decryption does to round keys.
private func aes64im(_ columns: UInt64) -> UInt64 {
  // The inverse matrix is the matrix times one of 5, 0, 4, 0.
  let difference = columns ^ AES.turningColumns(columns, by: 2)
  return AES.mixingColumns(columns ^ AES.doubling(AES.doubling(difference)))
}

/// The key schedule's SubWord, RotWord and round constant, applied to the upper word; twice. Round 10 stands for the
/// step of 256-bit keys that has SubWord alone.
private func aes64ks1i(_ key: UInt64, round: Int) -> UInt64 {
  var word = UInt32(truncatingIfNeeded: key >> 32)
  if round < 10 { word = rotated(word, 8) }
  var result: UInt32 = 0
  for place in stride(from: UInt32(0), to: 32, by: 8) {
    result |= UInt32(AES.boxes.forward[Int(word &>> place & 0xFF)]) &<< place
  }
  if round < 10 { result ^= UInt32(AES.roundConstant(round)) }
  return UInt64(result) << 32 | UInt64(result)
}

/// Two words of the next round key.
private func aes64ks2(_ left: UInt64, _ right: UInt64) -> UInt64 {
  let low = left >> 32 ^ right & 0xFFFF_FFFF
  return (low ^ right >> 32) << 32 | low
}

/// What the instructions have in common (FIPS 197). A block is two numbers of eight bytes, a column four of them.
private enum AES {
  /// The S-box and its inverse: the inverse in GF(2^8), then an affine map (5.1.1). Made at first use, never freed.
  static let boxes: (forward: UnsafePointer<UInt8>, inverse: UnsafePointer<UInt8>) = {
    let forward = UnsafeMutablePointer<UInt8>.allocate(capacity: 256)
    let inverse = UnsafeMutablePointer<UInt8>.allocate(capacity: 256)
    // 3 generates the field's multiplicative group.
    var powers: [UInt8] = [1]
    for _ in 0..<254 { powers.append(powers.last! ^ UInt8(doubling(UInt64(powers.last!)))) }
    func enter(_ value: UInt8, inverse reciprocal: UInt8) {
      var image: UInt8 = 0x63
      for distance in UInt8(0)..<5 { image ^= reciprocal &<< distance | reciprocal >> (8 - distance) }
      forward[Int(value)] = image
      inverse[Int(image)] = value
    }
    enter(0, inverse: 0)
    for exponent in 0..<255 { enter(powers[exponent], inverse: powers[(255 - exponent) % 255]) }
    return (UnsafePointer(forward), UnsafePointer(inverse))
  }()

  /// ShiftRows and SubBytes, or their inverses (5.1.1, 5.1.2, 5.3.1, 5.3.2), as far as the block's first two columns go.
  static func substitutingShiftedRows(
    _ left: UInt64, _ right: UInt64, columnsPerRow: Int, _ box: UnsafePointer<UInt8>
  ) -> UInt64 {
    var result: UInt64 = 0
    for place in 0..<8 {
      let row = place & 3
      let column = (place >> 2 + row * columnsPerRow) & 3
      let half = column < 2 ? left : right
      let byte = half &>> UInt64((column & 1) * 32 + row * 8) & 0xFF
      result |= UInt64(box[Int(byte)]) &<< UInt64(place * 8)
    }
    return result
  }

  /// MixColumns (5.1.3).
  static func mixingColumns(_ columns: UInt64) -> UInt64 {
    let next = turningColumns(columns, by: 1)
    return doubling(columns ^ next) ^ next ^ turningColumns(columns, by: 2) ^ turningColumns(columns, by: 3)
  }

  /// Each byte replaced by that `rows` further down its column.
  static func turningColumns(_ columns: UInt64, by rows: UInt32) -> UInt64 {
    UInt64(rotated(UInt32(truncatingIfNeeded: columns >> 32), rows * 8)) << 32
      | UInt64(rotated(UInt32(truncatingIfNeeded: columns), rows * 8))
  }

  /// Each byte times x in GF(2^8) (4.2.1).
  static func doubling(_ bytes: UInt64) -> UInt64 {
    (bytes & 0x7F7F_7F7F_7F7F_7F7F) << 1 ^ (bytes >> 7 & 0x0101_0101_0101_0101) &* 0x1B
  }

  /// Rcon (5.2), `round` counted from zero.
  static func roundConstant(_ round: Int) -> UInt64 { (0..<round).reduce(1) { value, _ in doubling(value) } }
}

// MARK: Zknh

/// The functions of SHA-256 (FIPS 180-4, 4.1.2) on the lower word, as a word.
private func sha256sig0(_ value: UInt32) -> UInt64 { extended(rotated(value, 7) ^ rotated(value, 18) ^ value >> 3) }
private func sha256sig1(_ value: UInt32) -> UInt64 { extended(rotated(value, 17) ^ rotated(value, 19) ^ value >> 10) }
private func sha256sum0(_ value: UInt32) -> UInt64 {
  extended(rotated(value, 2) ^ rotated(value, 13) ^ rotated(value, 22))
}
private func sha256sum1(_ value: UInt32) -> UInt64 {
  extended(rotated(value, 6) ^ rotated(value, 11) ^ rotated(value, 25))
}

/// The functions of SHA-512 (FIPS 180-4, 4.1.3).
private func sha512sig0(_ value: UInt64) -> UInt64 { rotated(value, 1) ^ rotated(value, 8) ^ value >> 7 }
private func sha512sig1(_ value: UInt64) -> UInt64 { rotated(value, 19) ^ rotated(value, 61) ^ value >> 6 }
private func sha512sum0(_ value: UInt64) -> UInt64 { rotated(value, 28) ^ rotated(value, 34) ^ rotated(value, 39) }
private func sha512sum1(_ value: UInt64) -> UInt64 { rotated(value, 14) ^ rotated(value, 18) ^ rotated(value, 41) }

/// To the right.
@inline(__always)
private func rotated<Value: FixedWidthInteger>(_ value: Value, _ distance: Value) -> Value {
  value &>> distance | value &<< (0 &- distance)
}

@inline(__always)
private func extended(_ word: UInt32) -> UInt64 { UInt64(bitPattern: Int64(Int32(bitPattern: word))) }

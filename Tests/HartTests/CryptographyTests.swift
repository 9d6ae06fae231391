import Hart
import RISCV
import Testing

/// Published examples, computed by the instructions of scalar cryptography.
@Suite struct CryptographyTests {
  private let harness: HartHarness

  init() throws { harness = try HartHarness() }

  /// What `operation` makes of two operands.
  private func execute(
    _ operation: RISCV.Operation, _ left: UInt64, _ right: UInt64 = 0, immediate: Int64 = 0
  ) -> UInt64 {
    let rs2: UInt8 = operation.pattern!.format.operands.contains(.rs2) ? 12 : 0
    harness.place([Encoder.encode(operation, rd: 10, rs1: 11, rs2: rs2, immediate: immediate)!, 0x0000_100f])
    // The code is new: fence.i.
    harness.hart.pc = HartHarness.base + 4
    harness.step(1)
    harness.hart.pc = HartHarness.base
    harness.hart[x: 11] = left
    harness.hart[x: 12] = right
    harness.step(1)
    return harness.hart[x: 10]
  }

  // MARK: AES (FIPS 197, appendix C)

  private struct Block: Equatable {
    var low: UInt64
    var high: UInt64

    init(_ low: UInt64, _ high: UInt64) { (self.low, self.high) = (low, high) }

    static func ^ (left: Block, right: Block) -> Block { Block(left.low ^ right.low, left.high ^ right.high) }
  }

  private static let plain = Block(0x7766_5544_3322_1100, 0xffee_ddcc_bbaa_9988)

  private func round(_ operation: RISCV.Operation, _ block: Block) -> Block {
    Block(execute(operation, block.low, block.high), execute(operation, block.high, block.low))
  }

  private func encrypt(_ block: Block, _ keys: [Block]) -> Block {
    var block = block ^ keys[0]
    for key in keys[1..<(keys.count - 1)] { block = round(.aes64esm, block) ^ key }
    return round(.aes64es, block) ^ keys.last!
  }

  /// The equivalent inverse cipher (5.3.5).
  private func decrypt(_ block: Block, _ keys: [Block]) -> Block {
    var block = block ^ keys.last!
    for key in keys[1..<(keys.count - 1)].reversed() {
      block = round(.aes64dsm, block) ^ Block(execute(.aes64im, key.low), execute(.aes64im, key.high))
    }
    return round(.aes64ds, block) ^ keys[0]
  }

  @Test func aes128() {
    var keys = [Block(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)]
    for number in 0..<10 {
      let key = keys[number]
      let low = execute(.aes64ks2, execute(.aes64ks1i, key.high, immediate: Int64(number)), key.low)
      keys.append(Block(low, execute(.aes64ks2, low, key.high)))
    }
    #expect(keys[10] == Block(0x174a_94e3_7f1d_1113, 0xc530_2b4d_8ba7_07f3))
    let cipher = encrypt(Self.plain, keys)
    #expect(cipher == Block(0x3004_7b6a_d8e0_c469, 0x5ac5_b470_80b7_cdd8))
    #expect(decrypt(cipher, keys) == Self.plain)
  }

  @Test func aes256() {
    var keys = [
      Block(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908), Block(0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918),
    ]
    for number in 0..<13 {
      // Every second step of 256-bit keys is SubWord alone.
      let round: Int64 = number % 2 == 0 ? Int64(number / 2) : 10
      let key = keys[number]
      let low = execute(.aes64ks2, execute(.aes64ks1i, keys[number + 1].high, immediate: round), key.low)
      keys.append(Block(low, execute(.aes64ks2, low, key.high)))
    }
    let cipher = encrypt(Self.plain, keys)
    #expect(cipher == Block(0xbf45_6751_cab7_a28e, 0x8960_494b_9049_fcea))
    #expect(decrypt(cipher, keys) == Self.plain)
  }

  // MARK: SHA-256 (FIPS 180-4)

  /// The first 32 bits of the fractional part of a prime's square or cube root.
  private static func rootBits(_ prime: UInt128, degree: Int) -> UInt32 {
    let power = prime << (32 * UInt128(degree))
    var root: UInt128 = 0
    for bit in stride(from: 40, through: 0, by: -1) {
      let larger = root | 1 << UInt128(bit)
      if (0..<degree).reduce(UInt128(1), { product, _ in product * larger }) <= power { root = larger }
    }
    return UInt32(truncatingIfNeeded: root)
  }

  @Test func sha256() {
    let primes = (UInt128(2)..<312).filter { number in (2..<number).allSatisfy { number % $0 != 0 } }
    func function(_ operation: RISCV.Operation, _ value: UInt32) -> UInt32 {
      let result = execute(operation, UInt64(value) | 0xFFFF_0000_0000_0000)
      #expect(Int64(bitPattern: result) == Int64(Int32(truncatingIfNeeded: result)))
      return UInt32(truncatingIfNeeded: result)
    }
    // "abc", the end's mark, and the length in bits.
    var words: [UInt32] = [0x6162_6380] + Array(repeating: 0, count: 14) + [24]
    for index in 16..<64 {
      words.append(
        function(.sha256sig1, words[index - 2]) &+ words[index - 7] &+ function(.sha256sig0, words[index - 15])
          &+ words[index - 16])
    }
    let initial = primes.prefix(8).map { Self.rootBits($0, degree: 2) }
    var h = initial
    for (word, prime) in zip(words, primes) {
      let choice = h[4] & h[5] ^ ~h[4] & h[6]
      let majority = h[0] & h[1] ^ h[0] & h[2] ^ h[1] & h[2]
      let first = h[7] &+ function(.sha256sum1, h[4]) &+ choice &+ Self.rootBits(prime, degree: 3) &+ word
      let second = function(.sha256sum0, h[0]) &+ majority
      h = [first &+ second, h[0], h[1], h[2], h[3] &+ first, h[4], h[5], h[6]]
    }
    #expect(
      zip(initial, h).map { $0 &+ $1 } == [
        0xba78_16bf, 0x8f01_cfea, 0x4141_40de, 0x5dae_2223, 0xb003_61a3, 0x9617_7a9c, 0xb410_ff61, 0xf200_15ad,
      ])
  }
}

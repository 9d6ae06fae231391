import Hart
import RISCV

/// Scalar cryptography (RISC-V Cryptography Extensions, Volume I): AES by the host's AES-NI, whose blocks and rounds are
/// the same; the hash functions by rotations.
extension X86BackEnd {
  /// Emits an instruction of Zbkb, Zbkx, Zknd, Zkne or Zknh. False, and nothing emitted: the interpreter executes it.
  mutating func emitCryptography(_ step: Trace.Step) -> Bool {
    let i = step.instruction
    switch i.operation {
    case .pack: emitPack(i, bits: 32)
    case .packw: emitPack(i, bits: 16)
    case .packh: emitPack(i, bits: 8)
    case .brev8: emitReverseInBytes(i)
    case .xperm8: emitPermuteBytes(i)

    case .aes64es: return emitRound(i, .encryptLast)
    case .aes64esm: return emitRound(i, .encrypt)
    case .aes64ds: return emitRound(i, .decryptLast)
    case .aes64dsm: return emitRound(i, .decrypt)
    case .aes64im: return emitMixColumnsInversely(i)
    case .aes64ks1i: return emitKeyScheduleWord(i)
    case .aes64ks2: emitKeyScheduleSum(i)

    case .sha256sig0: emitRotations(i, 7, 18, shift: 3, .long)
    case .sha256sig1: emitRotations(i, 17, 19, shift: 10, .long)
    case .sha256sum0: emitRotations(i, 2, 13, 22, .long)
    case .sha256sum1: emitRotations(i, 6, 11, 25, .long)
    case .sha512sig0: emitRotations(i, 1, 8, shift: 7, .quad)
    case .sha512sig1: emitRotations(i, 19, 61, shift: 6, .quad)
    case .sha512sum0: emitRotations(i, 28, 34, 39, .quad)
    case .sha512sum1: emitRotations(i, 14, 18, 41, .quad)
    default: return false
    }
    return true
  }

  // MARK: Zbkb, Zbkx

  /// The lowest `bits` of rs1 below those of rs2.
  private mutating func emitPack(_ i: Instruction, bits: UInt8) {
    if i.rd == 0 { return }
    let right = read(i.rs2, .rcx)
    let left = read(i.rs1, .rax)
    switch bits {
    case 8:
      assembler.zeroExtend8(.rax, left)
      assembler.zeroExtend8(.rcx, right)
    case 16:
      assembler.zeroExtend16(.rax, left)
      assembler.zeroExtend16(.rcx, right)
    default:
      assembler.move(.rax, left, .long)
      if right != .rcx { assembler.move(.rcx, right) }
    }
    assembler.shift(.left, .rcx, by: bits)
    assembler.arithmetic(.or, .rax, .rcx)
    isResultUnextended = bits == 16
    write(i.rd, .rax)
  }

  /// The bits of each byte in reverse order.
  private mutating func emitReverseInBytes(_ i: Instruction) {
    if i.rd == 0 { return }
    readInto(.rax, i.rs1)
    for (shift, mask) in [(1, 0x5555_5555_5555_5555), (2, 0x3333_3333_3333_3333), (4, 0x0F0F_0F0F_0F0F_0F0F)]
      as [(UInt8, UInt64)]
    {
      // What moves left into rcx, what moves right into rax.
      assembler.moveImmediate(.rcx, mask)
      assembler.arithmetic(.and, .rcx, .rax)
      assembler.xor(.rax, .rcx)
      assembler.shift(.left, .rcx, by: shift)
      assembler.shift(.right, .rax, by: shift)
      assembler.arithmetic(.or, .rax, .rcx)
    }
    write(i.rd, .rax)
  }

  /// For each byte of rs2 the byte of rs1 that it names; zero where there is none.
  private mutating func emitPermuteBytes(_ i: Instruction) {
    if i.rd == 0 { return }
    let indices = read(i.rs2, .rcx)
    assembler.move(.xmm0, read(i.rs1, .rax))
    assembler.move(.xmm1, indices)
    // 16 and more get bit 7, by which the host gives zero; 8 to 15 name the upper half, which is zero.
    assembler.moveImmediate(.rcx, 0x7070_7070_7070_7070)
    assembler.move(.xmm2, .rcx)
    assembler.addSaturating8(.xmm1, .xmm1, .xmm2)
    assembler.shuffle8(.xmm0, .xmm0, .xmm1)
    assembler.move(.rax, .xmm0)
    write(i.rd, .rax)
  }

  // MARK: Zknd, Zkne

  /// A round but for its key: the first half of what the host makes of the block rs2:rs1.
  private mutating func emitRound(_ i: Instruction, _ round: Assembler.CipherRound) -> Bool {
    guard HostInstructions.hasAES else { return false }
    if i.rd == 0 { return true }
    if isOtherHalf(at: current) {
      assembler.moveHigh(.rax, .xmm0)
    } else {
      let right = read(i.rs2, .rcx)
      assembler.move(.xmm0, read(i.rs1, .rax))
      assembler.join(.xmm0, .xmm0, right)
      assembler.clear(.xmm1)
      assembler.cipher(round, .xmm0, .xmm0, key: .xmm1)
      assembler.move(.rax, .xmm0)
    }
    write(i.rd, .rax)
    return true
  }

  /// Whether the step before `index` was the same round with its operands exchanged, as programs do it for the other half
  /// of the block: rounds treat all columns alike, so the upper half of what that step left in xmm0 is the result.
  @inline(__always)
  private func isOtherHalf(at index: Int) -> Bool {
    guard index > 0 else { return false }
    let (before, i) = (trace.steps[index - 1].instruction, trace.steps[index].instruction)
    return before.operation == i.operation && before.rs1 == i.rs2 && before.rs2 == i.rs1 && before.rd != 0
      && before.rd != i.rs1 && before.rd != i.rs2 && !isOtherHalf(at: index - 1)
  }

  private mutating func emitMixColumnsInversely(_ i: Instruction) -> Bool {
    guard HostInstructions.hasAES else { return false }
    if i.rd == 0 { return true }
    assembler.move(.xmm0, read(i.rs1, .rax))
    assembler.mixColumnsInversely(.xmm0, .xmm0)
    assembler.move(.rax, .xmm0)
    write(i.rd, .rax)
    return true
  }

  /// SubWord, RotWord and the round constant, applied to the upper word; twice.
  private mutating func emitKeyScheduleWord(_ i: Instruction) -> Bool {
    guard HostInstructions.hasAES else { return false }
    if i.rd == 0 { return true }
    let constants: [UInt8] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36]
    let isWhole = i.immediate < 10
    assembler.move(.xmm0, read(i.rs1, .rax))
    assembler.assistKeySchedule(.xmm0, .xmm0, constant: isWhole ? constants[Int(i.immediate)] : 0)
    // The host gives SubWord alone in element 0, the whole in element 1.
    assembler.shuffle32(.xmm0, .xmm0, isWhole ? 0x55 : 0x00)
    assembler.move(.rax, .xmm0)
    write(i.rd, .rax)
    return true
  }

  /// Two words of the next round key.
  private mutating func emitKeyScheduleSum(_ i: Instruction) {
    if i.rd == 0 { return }
    let right = read(i.rs2, .rcx)
    readInto(.rax, i.rs1)
    assembler.shift(.right, .rax, by: 32)
    assembler.arithmetic(.xor, .rax, right)
    assembler.move(.rcx, .rax)
    assembler.shift(.left, .rcx, by: 32)
    assembler.arithmetic(.xor, .rax, .rcx)
    write(i.rd, .rax)
  }

  // MARK: Zknh

  /// rs1 rotated right by three distances, in rising order, and combined by xor.
  private mutating func emitRotations(
    _ i: Instruction, _ first: UInt8, _ second: UInt8, _ third: UInt8, _ width: HostWidth
  ) {
    if i.rd == 0 { return }
    let source = read(i.rs1, .rcx)
    // From the inside: what all are rotated by is done last, so that no other register is needed.
    assembler.rotateRight(.rax, source, by: third - second, width)
    assembler.arithmetic(.xor, .rax, source, width)
    assembler.rotateRight(.rax, .rax, by: second - first, width)
    assembler.arithmetic(.xor, .rax, source, width)
    assembler.rotateRight(.rax, .rax, by: first, width)
    isResultUnextended = width == .long
    write(i.rd, .rax)
  }

  /// rs1 rotated right by two distances, in rising order, and shifted right, combined by xor.
  private mutating func emitRotations(
    _ i: Instruction, _ first: UInt8, _ second: UInt8, shift: UInt8, _ width: HostWidth
  ) {
    if i.rd == 0 { return }
    let source = read(i.rs1, .rcx)
    assembler.rotateRight(.rax, source, by: second - first, width)
    assembler.arithmetic(.xor, .rax, source, width)
    assembler.rotateRight(.rax, .rax, by: first, width)
    if source != .rcx { assembler.move(.rcx, source, width) }
    assembler.shift(.right, .rcx, by: shift, width)
    assembler.arithmetic(.xor, .rax, .rcx, width)
    isResultUnextended = width == .long
    write(i.rd, .rax)
  }
}

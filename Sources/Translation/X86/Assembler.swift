/// Writes x86-64 machine code (Intel SDM, volume 2), a line an instruction form. It writes through one mapping of the
/// code memory; addresses in the code are those of the other, which executes.
///
/// Whoever emits makes sure beforehand that there is room; the assembler doesn't look.
struct Assembler {
  /// Where the next byte goes, in the mapping that can be written.
  var cursor: UnsafeMutablePointer<UInt8>
  /// What to add to an address in the writable mapping to get the address at which it executes.
  let executableOffset: Int

  /// A place in the code, as the address at which it executes.
  typealias Label = UInt

  init(_ cursor: UnsafeMutablePointer<UInt8>, executableOffset: Int) {
    self.cursor = cursor
    self.executableOffset = executableOffset
  }

  /// Where the next instruction will execute.
  var here: Label { UInt(bitPattern: Int(bitPattern: cursor) &+ executableOffset) }

  // MARK: bytes

  @inline(__always) mutating func byte(_ value: UInt8) {
    cursor.pointee = value
    cursor += 1
  }

  @inline(__always) mutating func long(_ value: Int32) {
    UnsafeMutableRawPointer(cursor).storeBytes(of: value, as: Int32.self)
    cursor += 4
  }

  @inline(__always) mutating func quad(_ value: UInt64) {
    UnsafeMutableRawPointer(cursor).storeBytes(of: value, as: UInt64.self)
    cursor += 8
  }

  @inline(__always) private mutating func rex(
    _ wide: Bool, _ register: UInt8, _ index: UInt8, _ base: UInt8, force: Bool = false
  ) {
    var value: UInt8 = wide ? 0x48 : 0x40
    value |= (register & 8) >> 1
    value |= (index & 8) >> 2
    value |= base >> 3
    if value != 0x40 || force { byte(value) }
  }

  @inline(__always) private mutating func modRM(_ register: UInt8, _ other: UInt8) {
    byte(0xC0 | (register & 7) << 3 | other & 7)
  }

  @inline(__always) private mutating func modRM(_ register: UInt8, _ address: HostAddress) {
    let low = address.base.number & 7
    let hasIndex = address.index != nil || low == 4
    let displacement = address.displacement
    let mode: UInt8 =
      displacement == 0 && low != 5 ? 0 : (displacement >= -128 && displacement <= 127 ? 0x40 : 0x80)
    byte(mode | (register & 7) << 3 | (hasIndex ? 4 : low))
    if hasIndex { byte(address.shift << 6 | ((address.index?.number ?? 4) & 7) << 3 | low) }
    if mode == 0x40 { byte(UInt8(truncatingIfNeeded: displacement)) } else if mode == 0x80 { long(displacement) }
  }

  /// One-byte opcode, register and register-or-memory operand.
  @inline(__always) private mutating func op(
    _ opcode: UInt8, _ width: HostWidth, _ register: UInt8, _ other: HostRegister, forceREX: Bool = false
  ) {
    rex(width == .quad, register, 0, other.number, force: forceREX)
    byte(opcode)
    modRM(register, other.number)
  }

  @inline(__always) private mutating func op(
    _ opcode: UInt8, _ width: HostWidth, _ register: UInt8, _ address: HostAddress, forceREX: Bool = false
  ) {
    rex(width == .quad, register, address.index?.number ?? 0, address.base.number, force: forceREX)
    byte(opcode)
    modRM(register, address)
  }

  /// Opcode 0F xx.
  @inline(__always) private mutating func op0F(
    _ opcode: UInt8, _ width: HostWidth, _ register: UInt8, _ other: UInt8, prefix: UInt8 = 0, forceREX: Bool = false
  ) {
    if prefix != 0 { byte(prefix) }
    rex(width == .quad, register, 0, other, force: forceREX)
    byte(0x0F)
    byte(opcode)
    modRM(register, other)
  }

  @inline(__always) private mutating func op0F(
    _ opcode: UInt8, _ width: HostWidth, _ register: UInt8, _ address: HostAddress, prefix: UInt8 = 0
  ) {
    if prefix != 0 { byte(prefix) }
    rex(width == .quad, register, address.index?.number ?? 0, address.base.number)
    byte(0x0F)
    byte(opcode)
    modRM(register, address)
  }

  /// The three bytes before the opcode; register numbers are there inverted.
  @inline(__always) private mutating func emitVEX(
    _ map: UInt8, _ prefix: UInt8, _ wide: Bool, _ register: UInt8, _ second: UInt8, _ index: UInt8, _ base: UInt8
  ) {
    byte(0xC4)
    var extensions = map
    if register & 8 == 0 { extensions |= 0x80 }
    if index & 8 == 0 { extensions |= 0x40 }
    if base & 8 == 0 { extensions |= 0x20 }
    byte(extensions)
    var last = prefix
    if wide { last |= 0x80 }
    last |= (~second & 15) << 3
    byte(last)
  }

  /// Three-operand VEX forms. `map` 1: 0F, 2: 0F38, 3: 0F3A; `prefix` 0: none, 1: 66, 2: F3, 3: F2.
  @inline(__always) private mutating func vex(
    _ map: UInt8, _ prefix: UInt8, wide: Bool, _ opcode: UInt8, _ register: UInt8, _ second: UInt8, _ other: UInt8
  ) {
    emitVEX(map, prefix, wide, register, second, 0, other)
    byte(opcode)
    modRM(register, other)
  }

  @inline(__always) private mutating func vex(
    _ map: UInt8, _ prefix: UInt8, wide: Bool, _ opcode: UInt8, _ register: UInt8, _ second: UInt8,
    _ address: HostAddress
  ) {
    emitVEX(map, prefix, wide, register, second, address.index?.number ?? 0, address.base.number)
    byte(opcode)
    modRM(register, address)
  }

  // MARK: moves

  mutating func move(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth = .quad) {
    op(0x8B, width, target.number, source)
  }
  mutating func load(_ target: HostRegister, _ source: HostAddress, _ width: HostWidth = .quad) {
    op(0x8B, width, target.number, source)
  }
  mutating func store(_ target: HostAddress, _ source: HostRegister, _ width: HostWidth = .quad) {
    op(0x89, width, source.number, target)
  }
  mutating func store16(_ target: HostAddress, _ source: HostRegister) {
    byte(0x66)
    op(0x89, .long, source.number, target)
  }
  mutating func store8(_ target: HostAddress, _ source: HostRegister) {
    op(0x88, .long, source.number, target, forceREX: true)
  }
  mutating func store8(_ target: HostAddress, immediate: UInt8) {
    op(0xC6, .long, 0, target)
    byte(immediate)
  }
  mutating func storeImmediate(_ target: HostAddress, _ value: Int32, _ width: HostWidth = .quad) {
    op(0xC7, width, 0, target)
    long(value)
  }
  /// mov of zero, which leaves the flags alone.
  mutating func clearKeepingFlags(_ target: HostRegister) {
    rex(false, 0, 0, target.number)
    byte(0xB8 | target.number & 7)
    long(0)
  }
  /// The shortest form for a constant.
  mutating func moveImmediate(_ target: HostRegister, _ value: UInt64) {
    if value == 0 {
      xor(target, target, .long)
    } else if value <= 0xFFFF_FFFF {
      rex(false, 0, 0, target.number)
      byte(0xB8 | target.number & 7)
      long(Int32(truncatingIfNeeded: value))
    } else if Int64(bitPattern: value) == Int64(Int32(truncatingIfNeeded: value)) {
      op(0xC7, .quad, 0, target)
      long(Int32(truncatingIfNeeded: value))
    } else {
      rex(true, 0, 0, target.number)
      byte(0xB8 | target.number & 7)
      quad(value)
    }
  }
  mutating func loadAddress(_ target: HostRegister, _ address: HostAddress, _ width: HostWidth = .quad) {
    op(0x8D, width, target.number, address)
  }
  /// The address of a place in the code, by its distance from here.
  mutating func loadAddress(_ target: HostRegister, of label: Label) {
    rex(true, target.number, 0, 0)
    byte(0x8D)
    byte((target.number & 7) << 3 | 5)
    long(Int32(truncatingIfNeeded: Int(bitPattern: label) &- Int(bitPattern: here &+ 4)))
  }
  mutating func signExtend32(_ target: HostRegister, _ source: HostRegister) { op(0x63, .quad, target.number, source) }
  mutating func signExtend32(_ target: HostRegister, _ source: HostAddress) { op(0x63, .quad, target.number, source) }
  mutating func signExtend16(_ target: HostRegister, _ source: HostRegister) {
    op0F(0xBF, .quad, target.number, source.number)
  }
  mutating func signExtend16(_ target: HostRegister, _ source: HostAddress) { op0F(0xBF, .quad, target.number, source) }
  mutating func signExtend8(_ target: HostRegister, _ source: HostRegister) {
    op0F(0xBE, .quad, target.number, source.number)
  }
  mutating func signExtend8(_ target: HostRegister, _ source: HostAddress) { op0F(0xBE, .quad, target.number, source) }
  mutating func zeroExtend16(_ target: HostRegister, _ source: HostRegister) {
    op0F(0xB7, .long, target.number, source.number)
  }
  mutating func zeroExtend16(_ target: HostRegister, _ source: HostAddress) { op0F(0xB7, .long, target.number, source) }
  mutating func zeroExtend8(_ target: HostRegister, _ source: HostRegister) {
    op0F(0xB6, .long, target.number, source.number, forceREX: true)
  }
  mutating func zeroExtend8(_ target: HostRegister, _ source: HostAddress) { op0F(0xB6, .long, target.number, source) }
  mutating func push(_ register: HostRegister) {
    rex(false, 0, 0, register.number)
    byte(0x50 | register.number & 7)
  }
  mutating func pop(_ register: HostRegister) {
    rex(false, 0, 0, register.number)
    byte(0x58 | register.number & 7)
  }

  // MARK: integer arithmetic

  /// add, or, and, sub, xor, cmp by their number in the opcode.
  enum Arithmetic: UInt8 { case add = 0, or = 1, addWithCarry = 2, and = 4, sub = 5, xor = 6, compare = 7 }

  mutating func arithmetic(
    _ operation: Arithmetic, _ target: HostRegister, _ source: HostRegister, _ width: HostWidth = .quad
  ) { op(operation.rawValue << 3 | 3, width, target.number, source) }
  mutating func arithmetic(
    _ operation: Arithmetic, _ target: HostRegister, _ source: HostAddress, _ width: HostWidth = .quad
  ) { op(operation.rawValue << 3 | 3, width, target.number, source) }
  mutating func arithmetic(
    _ operation: Arithmetic, _ target: HostAddress, _ source: HostRegister, _ width: HostWidth = .quad
  ) { op(operation.rawValue << 3 | 1, width, source.number, target) }
  mutating func arithmetic(
    _ operation: Arithmetic, _ target: HostRegister, immediate: Int32, _ width: HostWidth = .quad
  ) {
    let isShort = immediate >= -128 && immediate <= 127
    op(isShort ? 0x83 : 0x81, width, operation.rawValue, target)
    if isShort { byte(UInt8(truncatingIfNeeded: immediate)) } else { long(immediate) }
  }
  mutating func arithmetic(
    _ operation: Arithmetic, _ target: HostAddress, immediate: Int32, _ width: HostWidth = .quad
  ) {
    let isShort = immediate >= -128 && immediate <= 127
    op(isShort ? 0x83 : 0x81, width, operation.rawValue, target)
    if isShort { byte(UInt8(truncatingIfNeeded: immediate)) } else { long(immediate) }
  }
  mutating func compare8(_ target: HostAddress, immediate: UInt8) {
    op(0x80, .long, 7, target)
    byte(immediate)
  }
  mutating func xor(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth = .quad) {
    arithmetic(.xor, target, source, width)
  }
  mutating func test(_ left: HostRegister, _ right: HostRegister, _ width: HostWidth = .quad) {
    op(0x85, width, right.number, left)
  }
  mutating func test(_ left: HostRegister, immediate: Int32, _ width: HostWidth = .quad) {
    op(0xF7, width, 0, left)
    long(immediate)
  }
  mutating func test(_ left: HostAddress, immediate: Int32) {
    op(0xF7, .long, 0, left)
    long(immediate)
  }
  mutating func or8(_ target: HostRegister, _ source: HostAddress) {
    op(0x0A, .long, target.number, source, forceREX: true)
  }
  mutating func negate(_ target: HostRegister, _ width: HostWidth = .quad) { op(0xF7, width, 3, target) }
  mutating func not(_ target: HostRegister, _ width: HostWidth = .quad) { op(0xF7, width, 2, target) }
  mutating func multiply(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth = .quad) {
    op0F(0xAF, width, target.number, source.number)
  }
  /// rdx:rax = rax * source.
  mutating func multiplyWide(_ source: HostRegister, signed: Bool) { op(0xF7, .quad, signed ? 5 : 4, source) }
  /// mulx (BMI2): high and low half of rdx * source; `high` wins where they are the same register.
  mutating func multiplyHigh(_ high: HostRegister, low: HostRegister, _ source: HostRegister) {
    vex(2, 3, wide: true, 0xF6, high.number, low.number, source.number)
  }
  /// rax, rdx = rdx:rax / source, remainder.
  mutating func divide(_ source: HostRegister, signed: Bool, _ width: HostWidth) {
    op(0xF7, width, signed ? 7 : 6, source)
  }
  /// rdx = sign of rax (cdq, cqo).
  mutating func signIntoRDX(_ width: HostWidth) {
    if width == .quad { byte(0x48) }
    byte(0x99)
  }

  enum Shift: UInt8 { case rotateLeft = 0, rotateRight = 1, left = 4, right = 5, rightSigned = 7 }

  mutating func shift(_ kind: Shift, _ target: HostRegister, by count: UInt8, _ width: HostWidth = .quad) {
    op(0xC1, width, kind.rawValue, target)
    byte(count)
  }
  mutating func shift(_ kind: Shift, _ target: HostAddress, by count: UInt8) {
    op(0xC1, .quad, kind.rawValue, target)
    byte(count)
  }
  /// By cl.
  mutating func shiftByCL(_ kind: Shift, _ target: HostRegister, _ width: HostWidth = .quad) {
    op(0xD3, width, kind.rawValue, target)
  }
  /// shlx, shrx, sarx (BMI2): target = source shifted by count.
  mutating func shift(
    _ kind: Shift, _ target: HostRegister, _ source: HostRegister, by count: HostRegister, _ width: HostWidth = .quad
  ) {
    let prefix: UInt8 = kind == .left ? 1 : (kind == .right ? 3 : 2)
    vex(2, prefix, wide: width == .quad, 0xF7, target.number, count.number, source.number)
  }
  /// rorx (BMI2): target = source rotated right.
  mutating func rotateRight(
    _ target: HostRegister, _ source: HostRegister, by count: UInt8, _ width: HostWidth = .quad
  ) {
    vex(3, 3, wide: width == .quad, 0xF0, target.number, 0, source.number)
    byte(count)
  }
  /// andn (BMI1): target = ~inverted & other.
  mutating func andNot(_ target: HostRegister, inverted: HostRegister, _ other: HostRegister) {
    vex(2, 0, wide: true, 0xF2, target.number, inverted.number, other.number)
  }
  mutating func countLeadingZeros(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth) {
    op0F(0xBD, width, target.number, source.number, prefix: 0xF3)
  }
  mutating func countTrailingZeros(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth) {
    op0F(0xBC, width, target.number, source.number, prefix: 0xF3)
  }
  mutating func countOnes(_ target: HostRegister, _ source: HostRegister, _ width: HostWidth) {
    op0F(0xB8, width, target.number, source.number, prefix: 0xF3)
  }
  mutating func swapBytes(_ target: HostRegister) {
    rex(true, 0, 0, target.number)
    byte(0x0F)
    byte(0xC8 | target.number & 7)
  }
  /// bt, bts, btr, btc by their number in the opcode.
  enum BitOperation: UInt8 { case test = 4, set = 5, clear = 6, complement = 7 }

  mutating func bit(_ operation: BitOperation, _ target: HostRegister, _ index: UInt8) {
    op0F(0xBA, .quad, operation.rawValue, target.number)
    byte(index)
  }
  mutating func bit(_ operation: BitOperation, _ target: HostRegister, _ index: HostRegister) {
    op0F(0x83 | operation.rawValue << 3, .quad, index.number, target.number)
  }
  mutating func set(_ condition: HostCondition, _ target: HostRegister) {
    op0F(0x90 | condition.rawValue, .long, 0, target.number, forceREX: true)
  }
  mutating func move(
    _ target: HostRegister, _ source: HostRegister, if condition: HostCondition, _ width: HostWidth = .quad
  ) { op0F(0x40 | condition.rawValue, width, target.number, source.number) }

  // MARK: atomics

  /// lock xadd
  mutating func atomicExchangeAdd(_ target: HostAddress, _ source: HostRegister, _ width: HostWidth) {
    byte(0xF0)
    op0F(0xC1, width, source.number, target)
  }
  /// xchg, which locks by itself
  mutating func exchange(_ target: HostAddress, _ source: HostRegister, _ width: HostWidth) {
    op(0x87, width, source.number, target)
  }
  /// lock cmpxchg: compares rax
  mutating func atomicCompareExchange(_ target: HostAddress, _ source: HostRegister, _ width: HostWidth) {
    byte(0xF0)
    op0F(0xB1, width, source.number, target)
  }
  /// lock or of zero, which orders as mfence does, for half the time.
  mutating func memoryFence(_ anywhere: HostAddress) {
    byte(0xF0)
    arithmetic(.or, anywhere, immediate: 0, .long)
  }

  // MARK: control transfer

  /// Jumps to a known place.
  mutating func jump(_ target: Label) {
    byte(0xE9)
    long(Int32(truncatingIfNeeded: Int(bitPattern: target) &- Int(bitPattern: here) &- 4))
  }
  mutating func jump(_ target: Label, if condition: HostCondition) {
    byte(0x0F)
    byte(0x80 | condition.rawValue)
    long(Int32(truncatingIfNeeded: Int(bitPattern: target) &- Int(bitPattern: here) &- 4))
  }
  mutating func call(_ target: Label) {
    byte(0xE8)
    long(Int32(truncatingIfNeeded: Int(bitPattern: target) &- Int(bitPattern: here) &- 4))
  }
  mutating func jump(_ target: HostRegister) { op(0xFF, .long, 4, target) }
  mutating func call(_ target: HostRegister) { op(0xFF, .long, 2, target) }
  mutating func call(_ target: HostAddress) { op(0xFF, .long, 2, target) }
  mutating func ret() { byte(0xC3) }

  /// A distance still to be filled in: where its four bytes are.
  struct Patch {
    var location: UnsafeMutablePointer<UInt8>
  }

  mutating func jump() -> Patch {
    byte(0xE9)
    long(0)
    return Patch(location: cursor - 4)
  }
  mutating func jump(if condition: HostCondition) -> Patch {
    byte(0x0F)
    byte(0x80 | condition.rawValue)
    long(0)
    return Patch(location: cursor - 4)
  }
  mutating func call() -> Patch {
    byte(0xE8)
    long(0)
    return Patch(location: cursor - 4)
  }
  /// Lets a jump that was left open go to `target`.
  func fill(_ patch: Patch, _ target: Label) {
    let next = Int(bitPattern: patch.location) &+ executableOffset &+ 4
    UnsafeMutableRawPointer(patch.location).storeBytes(
      of: Int32(truncatingIfNeeded: Int(bitPattern: target) &- next), as: Int32.self)
  }
  func fillHere(_ patch: Patch) { fill(patch, here) }

  // MARK: floating point

  enum Scalar { case single, double }

  /// The prefix's number in VEX encodings.
  @inline(__always) private func prefix(_ format: Scalar) -> UInt8 { format == .double ? 3 : 2 }

  /// VEX forms of map 1 (0F) with a register or memory as last operand.
  @inline(__always) private mutating func vex(
    _ prefix: UInt8, _ opcode: UInt8, _ register: UInt8, _ second: UInt8, _ other: FloatOperand, wide: Bool = false
  ) {
    switch other {
    case .register(let other): vex(1, prefix, wide: wide, opcode, register, second, other.number)
    case .memory(let place): vex(1, prefix, wide: wide, opcode, register, second, place)
    }
  }

  /// vmovss, vmovsd: what is above the format's bits becomes zero.
  mutating func load(_ target: VectorRegister, _ source: HostAddress, _ format: Scalar) {
    vex(1, prefix(format), wide: false, 0x10, target.number, 0, source)
  }
  mutating func store(_ target: HostAddress, _ source: VectorRegister, _ format: Scalar) {
    vex(1, prefix(format), wide: false, 0x11, source.number, 0, target)
  }
  /// vmovups: all 16 bytes.
  mutating func storeWhole(_ target: HostAddress, _ source: VectorRegister) {
    vex(1, 0, wide: false, 0x11, source.number, 0, target)
  }
  /// vmovapd
  mutating func move(_ target: VectorRegister, _ source: VectorRegister) {
    vex(1, 1, wide: false, 0x28, target.number, 0, source.number)
  }
  /// vaddss ... vsqrtsd: 0x58 add, 0x59 mul, 0x5C sub, 0x5D min, 0x5E div, 0x5F max, 0x51 sqrt.
  enum ScalarOperation: UInt8 {
    case add = 0x58, multiply = 0x59, subtract = 0x5C, minimum = 0x5D, divide = 0x5E, maximum = 0x5F, squareRoot = 0x51
  }
  /// target = left OP right, with the bits above the format's from `left`. A root is of `right`.
  mutating func scalar(
    _ operation: ScalarOperation, _ target: VectorRegister, _ left: VectorRegister, _ right: FloatOperand,
    _ format: Scalar
  ) { vex(prefix(format), operation.rawValue, target.number, left.number, right) }
  /// vroundss, vroundsd, with the rounding of MXCSR's encoding: 1 down, 2 up.
  mutating func round(
    _ target: VectorRegister, _ left: VectorRegister, _ right: VectorRegister, _ rounding: UInt8, _ format: Scalar
  ) {
    vex(3, 1, wide: false, format == .double ? 0x0B : 0x0A, target.number, left.number, right.number)
    byte(rounding)
  }
  /// vandpd, vandnpd (left inverted), vorpd, vxorpd by their opcode.
  enum FloatBitwise: UInt8 { case and = 0x54, andNot = 0x55, or = 0x56, xor = 0x57 }
  mutating func bitwise(
    _ operation: FloatBitwise, _ target: VectorRegister, _ left: VectorRegister, _ right: FloatOperand
  ) { vex(1, operation.rawValue, target.number, left.number, right) }
  /// vpcmpeqd with itself: all ones.
  mutating func setOnes(_ target: VectorRegister) {
    vex(1, 1, wide: false, 0x76, target.number, target.number, target.number)
  }
  /// vucomis: flags from a comparison that is quiet; `signaling`: vcomis.
  mutating func compare(_ left: VectorRegister, _ right: FloatOperand, _ format: Scalar, signaling: Bool) {
    vex(format == .double ? 1 : 0, signaling ? 0x2F : 0x2E, left.number, 0, right)
  }
  /// vcvtss2sd and vcvtsd2ss: from `format` to the other; the bits above the result from `upper`.
  mutating func convert(
    _ target: VectorRegister, _ source: FloatOperand, upper: VectorRegister, from format: Scalar
  ) { vex(prefix(format), 0x5A, target.number, upper.number, source) }
  /// vcvtsi2ss, vcvtsi2sd; the bits above the result from `upper`.
  mutating func convert(
    _ target: VectorRegister, _ source: HostRegister, upper: VectorRegister, _ width: HostWidth, to format: Scalar
  ) { vex(1, prefix(format), wide: width == .quad, 0x2A, target.number, upper.number, source.number) }
  /// vcvttss2si, vcvttsd2si; `truncating` false: vcvtss2si, vcvtsd2si, which round as MXCSR says.
  mutating func convert(
    _ target: HostRegister, _ source: FloatOperand, from format: Scalar, _ width: HostWidth, truncating: Bool
  ) { vex(prefix(format), truncating ? 0x2C : 0x2D, target.number, 0, source, wide: width == .quad) }
  /// vfmadd213 and its relatives: target = ±(second * target) ± addend.
  mutating func fusedMultiplyAdd(
    _ target: VectorRegister, _ second: VectorRegister, addend: FloatOperand, negatedProduct: Bool,
    negatedAddend: Bool, _ format: Scalar
  ) {
    let opcode: UInt8 = negatedProduct ? (negatedAddend ? 0xAF : 0xAD) : (negatedAddend ? 0xAB : 0xA9)
    switch addend {
    case .register(let addend):
      vex(2, 1, wide: format == .double, opcode, target.number, second.number, addend.number)
    case .memory(let place): vex(2, 1, wide: format == .double, opcode, target.number, second.number, place)
    }
  }
  /// vpextrd of bits 32-63.
  mutating func moveUpper(_ target: HostRegister, _ source: VectorRegister) {
    vex(3, 1, wide: false, 0x16, source.number, 0, target.number)
    byte(1)
  }
  /// vmovd: the lower 32 bits, the others zero.
  mutating func moveLong(_ target: VectorRegister, _ source: HostRegister) {
    vex(1, 1, wide: false, 0x6E, target.number, 0, source.number)
  }
  mutating func moveLong(_ target: HostRegister, _ source: VectorRegister) {
    vex(1, 1, wide: false, 0x7E, source.number, 0, target.number)
  }
  /// movq between register files.
  mutating func move(_ target: VectorRegister, _ source: HostRegister) {
    vex(1, 1, wide: true, 0x6E, target.number, 0, source.number)
  }
  mutating func move(_ target: HostRegister, _ source: VectorRegister) {
    vex(1, 1, wide: true, 0x7E, source.number, 0, target.number)
  }
  /// pclmulqdq of the low halves.
  mutating func carrylessMultiply(_ target: VectorRegister, _ source: VectorRegister) {
    byte(0x66)
    byte(0x0F)
    byte(0x3A)
    byte(0x44)
    byte(0xC0 | target.number << 3 | source.number)
    byte(0)
  }
  /// psrldq by 8: the high half to the low one.
  mutating func moveHighDown(_ target: VectorRegister) {
    op0F(0x73, .long, 3, target.number, prefix: 0x66)
    byte(8)
  }
  /// vpinsrq: the low half of `lower` below `upper`.
  mutating func join(_ target: VectorRegister, _ lower: VectorRegister, _ upper: HostRegister) {
    vex(3, 1, wide: true, 0x22, target.number, lower.number, upper.number)
    byte(1)
  }
  /// vpextrq of the high half.
  mutating func moveHigh(_ target: HostRegister, _ source: VectorRegister) {
    vex(3, 1, wide: true, 0x16, source.number, 0, target.number)
    byte(1)
  }
  /// vaesenc, vaesenclast, vaesdec, vaesdeclast by their opcode.
  enum CipherRound: UInt8 { case encrypt = 0xDC, encryptLast = 0xDD, decrypt = 0xDE, decryptLast = 0xDF }
  mutating func cipher(
    _ round: CipherRound, _ target: VectorRegister, _ block: VectorRegister, key: VectorRegister
  ) { vex(2, 1, wide: false, round.rawValue, target.number, block.number, key.number) }
  /// vaesimc
  mutating func mixColumnsInversely(_ target: VectorRegister, _ source: VectorRegister) {
    vex(2, 1, wide: false, 0xDB, target.number, 0, source.number)
  }
  /// vaeskeygenassist
  mutating func assistKeySchedule(_ target: VectorRegister, _ source: VectorRegister, constant: UInt8) {
    vex(3, 1, wide: false, 0xDF, target.number, 0, source.number)
    byte(constant)
  }
  /// vpshufd: four numbers of a 32-bit element each, two bits for one, the lowest first.
  mutating func shuffle32(_ target: VectorRegister, _ source: VectorRegister, _ choice: UInt8) {
    vex(1, 1, wide: false, 0x70, target.number, 0, source.number)
    byte(choice)
  }
  /// vpshufb: the bytes of `table` that the low four bits of `indices` name; zero where bit 7 is set.
  mutating func shuffle8(_ target: VectorRegister, _ table: VectorRegister, _ indices: VectorRegister) {
    vex(2, 1, wide: false, 0x00, target.number, table.number, indices.number)
  }
  /// vpaddusb: sums of unsigned bytes, 255 at most.
  mutating func addSaturating8(_ target: VectorRegister, _ left: VectorRegister, _ right: VectorRegister) {
    vex(1, 1, wide: false, 0xDC, target.number, left.number, right.number)
  }
  /// vxorps with itself: zero, and no dependency on what it held.
  mutating func clear(_ target: VectorRegister) {
    vex(1, 0, wide: false, 0x57, target.number, target.number, target.number)
  }
  mutating func loadControl(_ source: HostAddress) { op0F(0xAE, .long, 2, source) }
  mutating func storeControl(_ target: HostAddress) { op0F(0xAE, .long, 3, target) }
}

import Bus
import RISCV
import Synchronization

extension UnsafeMutablePointer<Slot> {
  @inline(__always) fileprivate var rd: Int { Int(pointee.rd) }
  @inline(__always) fileprivate var rs1: Int { Int(pointee.rs1) }
  @inline(__always) fileprivate var rs2: Int { Int(pointee.rs2) }
  @inline(__always) fileprivate var immediate: UInt64 { UInt64(bitPattern: pointee.immediate) }
  @inline(__always) fileprivate var shift: UInt64 { UInt64(bitPattern: pointee.immediate) }
}

@inline(__always)
private func signed(_ value: UInt64) -> Int64 { Int64(bitPattern: value) }

/// The low 32 bits, sign-extended: what W instructions leave behind.
@inline(__always)
private func word(_ value: UInt64) -> UInt64 { UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: value))) }

/// The reference interpreter: what each instruction does, in the words of the Unprivileged Architecture.
extension Hart {
  /// Executes at most `budget` instructions from `state.pc` on; comes back earlier when an interrupt may be deliverable,
  /// the hart waits or stops, or a request wants attention. `state.pc` and `state.retired` are exact then.
  /// With `untilJump` it also comes back after the first branch taken or jump.
  package func interpret(_ budget: Int, untilJump: Bool = false) {
    let state = self.state
    let x = self.x
    var pc = state.pointee.pc
    var remaining = budget
    /// Where `retired` was last brought up to date, in terms of `remaining`.
    var counted = budget
    var hasBegun = false

    outer: while true {
      if untilJump, hasBegun { break outer }
      hasBegun = true
      let readEntries = state.pointee.readEntries
      let writeEntries = state.pointee.writeEntries
      let isFloatingPointOn = state.pointee.mstatus & MachineStatus.fs != 0
      let fetchEntry = state.fetchEntry(pc)
      var codePage: UnsafeMutablePointer<CodePage>
      var isConfined = false
      if fetchEntry.pointee.tag == pc & TranslationCache.pageMask {
        codePage = fetchEntry.pointee.page.unsafelyUnwrapped
      } else if let found = fetchPage(pc) {
        codePage = found
        isConfined = isFetchConfined
      } else {
        if remaining <= 0 { break outer }
        state.pointee.retired &+= UInt64(counted - remaining)
        counted = remaining
        state.pointee.pc = pc
        takeTrap(state.pointee.trapCause, state.pointee.trapValue)
        pc = state.pointee.pc
        // A handler that faults itself must not keep the hart in here.
        remaining -= 1
        counted = remaining
        if remaining <= 0 { break outer }
        continue outer
      }
      var base = isConfined ? straddlingSlots : slots(of: codePage)
      var pageStart = isConfined ? pc : pc & TranslationCache.pageMask
      var cursor = isConfined ? base : base + Int((pc & 0xFFF) >> 1)

      inner: while true {
        remaining -= 1
        if remaining < 0 {
          remaining = 0
          pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
          break outer
        }
        switch cursor.pointee.operation {
        // RV64I: integer computation (2.4, 4.2)
        case .addi:
          x[cursor.rd] = x[cursor.rs1] &+ cursor.immediate
        case .lui:
          x[cursor.rd] = cursor.immediate
        case .auipc:
          x[cursor.rd] =
            pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
        case .slti:
          x[cursor.rd] = signed(x[cursor.rs1]) < signed(cursor.immediate) ? 1 : 0
        case .sltiu:
          x[cursor.rd] = x[cursor.rs1] < cursor.immediate ? 1 : 0
        case .xori:
          x[cursor.rd] = x[cursor.rs1] ^ cursor.immediate
        case .ori:
          x[cursor.rd] = x[cursor.rs1] | cursor.immediate
        case .andi:
          x[cursor.rd] = x[cursor.rs1] & cursor.immediate
        case .slli:
          x[cursor.rd] = x[cursor.rs1] &<< cursor.shift
        case .srli:
          x[cursor.rd] = x[cursor.rs1] &>> cursor.shift
        case .srai:
          x[cursor.rd] = UInt64(bitPattern: signed(x[cursor.rs1]) &>> signed(cursor.shift))
        case .add:
          x[cursor.rd] = x[cursor.rs1] &+ x[cursor.rs2]
        case .sub:
          x[cursor.rd] = x[cursor.rs1] &- x[cursor.rs2]
        case .sll:
          x[cursor.rd] = x[cursor.rs1] &<< x[cursor.rs2]
        case .srl:
          x[cursor.rd] = x[cursor.rs1] &>> x[cursor.rs2]
        case .sra:
          x[cursor.rd] = UInt64(bitPattern: signed(x[cursor.rs1]) &>> signed(x[cursor.rs2]))
        case .slt:
          x[cursor.rd] = signed(x[cursor.rs1]) < signed(x[cursor.rs2]) ? 1 : 0
        case .sltu:
          x[cursor.rd] = x[cursor.rs1] < x[cursor.rs2] ? 1 : 0
        case .xor:
          x[cursor.rd] = x[cursor.rs1] ^ x[cursor.rs2]
        case .or:
          x[cursor.rd] = x[cursor.rs1] | x[cursor.rs2]
        case .and:
          x[cursor.rd] = x[cursor.rs1] & x[cursor.rs2]
        case .addiw:
          x[cursor.rd] = word(x[cursor.rs1] &+ cursor.immediate)
        case .slliw:
          x[cursor.rd] = word(x[cursor.rs1] &<< cursor.shift)
        case .srliw:
          x[cursor.rd] = word(
            UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]) &>> UInt32(truncatingIfNeeded: cursor.shift)))
        case .sraiw:
          x[cursor.rd] = UInt64(
            bitPattern: Int64(Int32(truncatingIfNeeded: x[cursor.rs1]) &>> Int32(truncatingIfNeeded: cursor.shift)))
        case .addw:
          x[cursor.rd] = word(x[cursor.rs1] &+ x[cursor.rs2])
        case .subw:
          x[cursor.rd] = word(x[cursor.rs1] &- x[cursor.rs2])
        case .sllw:
          x[cursor.rd] = word(x[cursor.rs1] &<< (x[cursor.rs2] & 31))
        case .srlw:
          x[cursor.rd] = word(
            UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]) &>> UInt32(truncatingIfNeeded: x[cursor.rs2])))
        case .sraw:
          x[cursor.rd] = UInt64(
            bitPattern: Int64(Int32(truncatingIfNeeded: x[cursor.rs1]) &>> Int32(truncatingIfNeeded: x[cursor.rs2])))

        // RV64I: control transfer (2.5)
        case .beq:
          if x[cursor.rs1] == x[cursor.rs2] {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .bne:
          if x[cursor.rs1] != x[cursor.rs2] {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .blt:
          if signed(x[cursor.rs1]) < signed(x[cursor.rs2]) {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .bge:
          if signed(x[cursor.rs1]) >= signed(x[cursor.rs2]) {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .bltu:
          if x[cursor.rs1] < x[cursor.rs2] {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .bgeu:
          if x[cursor.rs1] >= x[cursor.rs2] {
            if cursor.pointee.auxiliary != 0 {
              cursor += Int(cursor.pointee.immediate)
              if untilJump {
                pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
                break outer
              }
              continue inner
            }
            pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3 &+ cursor.immediate
            continue outer
          }
        case .jal:
          let here = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
          x[cursor.rd] = here &+ UInt64(cursor.pointee.length) &* 2
          if cursor.pointee.auxiliary != 0 {
            cursor += Int(cursor.pointee.immediate)
            if untilJump {
              pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
              break outer
            }
            continue inner
          }
          pc = here &+ cursor.immediate
          continue outer
        case .jalr:
          let target = (x[cursor.rs1] &+ cursor.immediate) & ~1
          x[cursor.rd] =
            pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            &+ UInt64(cursor.pointee.length) &* 2
          if target & TranslationCache.pageMask == pageStart, base == codePage.pointee.slots, !untilJump {
            cursor = base + Int((target & 0xFFF) >> 1)
            continue inner
          }
          pc = target
          continue outer

        // RV64I: loads and stores (2.6, 4.3)
        case .ld:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 7) {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt64.self)
            x[cursor.rd] = value
          } else {
            guard let bits = loadSlowly(address, width: 8) else { break inner }
            let value = UInt64(truncatingIfNeeded: bits)
            x[cursor.rd] = value
          }
        case .lw:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 3) {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: Int32.self)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          } else {
            guard let bits = loadSlowly(address, width: 4) else { break inner }
            let value = Int32(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          }
        case .lwu:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 3) {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt32.self)
            x[cursor.rd] = UInt64(value)
          } else {
            guard let bits = loadSlowly(address, width: 4) else { break inner }
            let value = UInt32(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(value)
          }
        case .lh:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 1) {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: Int16.self)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          } else {
            guard let bits = loadSlowly(address, width: 2) else { break inner }
            let value = Int16(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          }
        case .lhu:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 1) {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt16.self)
            x[cursor.rd] = UInt64(value)
          } else {
            guard let bits = loadSlowly(address, width: 2) else { break inner }
            let value = UInt16(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(value)
          }
        case .lb:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & TranslationCache.pageMask {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: Int8.self)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          } else {
            guard let bits = loadSlowly(address, width: 1) else { break inner }
            let value = Int8(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(bitPattern: Int64(value))
          }
        case .lbu:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & TranslationCache.pageMask {
            let value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt8.self)
            x[cursor.rd] = UInt64(value)
          } else {
            guard let bits = loadSlowly(address, width: 1) else { break inner }
            let value = UInt8(truncatingIfNeeded: bits)
            x[cursor.rd] = UInt64(value)
          }
        case .sd:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 7) {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt64(truncatingIfNeeded: x[cursor.rs2]), as: UInt64.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 8, x[cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }
        case .sw:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 3) {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt32(truncatingIfNeeded: x[cursor.rs2]), as: UInt32.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 4, x[cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }
        case .sh:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 1) {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt16(truncatingIfNeeded: x[cursor.rs2]), as: UInt16.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 2, x[cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }
        case .sb:
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & TranslationCache.pageMask {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt8(truncatingIfNeeded: x[cursor.rs2]), as: UInt8.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 1, x[cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }

        // M (12)
        case .mul:
          x[cursor.rd] = x[cursor.rs1] &* x[cursor.rs2]
        case .mulh:
          x[cursor.rd] = UInt64(bitPattern: signed(x[cursor.rs1]).multipliedFullWidth(by: signed(x[cursor.rs2])).high)
        case .mulhsu:
          let left = x[cursor.rs1]
          let right = x[cursor.rs2]
          x[cursor.rd] = left.multipliedFullWidth(by: right).high &- (signed(left) < 0 ? right : 0)
        case .mulhu:
          x[cursor.rd] = x[cursor.rs1].multipliedFullWidth(by: x[cursor.rs2]).high
        case .mulw:
          x[cursor.rd] = word(x[cursor.rs1] &* x[cursor.rs2])
        case .div:
          x[cursor.rd] = divide(x[cursor.rs1], x[cursor.rs2])
        case .divu:
          x[cursor.rd] = x[cursor.rs2] == 0 ? ~0 : x[cursor.rs1] / x[cursor.rs2]
        case .rem:
          x[cursor.rd] = remainder(x[cursor.rs1], x[cursor.rs2])
        case .remu:
          x[cursor.rd] = x[cursor.rs2] == 0 ? x[cursor.rs1] : x[cursor.rs1] % x[cursor.rs2]
        case .divw:
          x[cursor.rd] = word(divide(word(x[cursor.rs1]), word(x[cursor.rs2])))
        case .remw:
          x[cursor.rd] = word(remainder(word(x[cursor.rs1]), word(x[cursor.rs2])))
        case .divuw:
          let divisor = UInt32(truncatingIfNeeded: x[cursor.rs2])
          x[cursor.rd] = divisor == 0 ? ~0 : word(UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]) / divisor))
        case .remuw:
          let divisor = UInt32(truncatingIfNeeded: x[cursor.rs2])
          let dividend = UInt32(truncatingIfNeeded: x[cursor.rs1])
          x[cursor.rd] = word(UInt64(divisor == 0 ? dividend : dividend % divisor))

        // Zba, Zbb, Zbs, Zicond (bit manipulation, 28; 12.3)
        case .add_uw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1])) &+ x[cursor.rs2]
        case .sh1add:
          x[cursor.rd] = x[cursor.rs1] &<< 1 &+ x[cursor.rs2]
        case .sh1add_uw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1])) &<< 1 &+ x[cursor.rs2]
        case .sh2add:
          x[cursor.rd] = x[cursor.rs1] &<< 2 &+ x[cursor.rs2]
        case .sh2add_uw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1])) &<< 2 &+ x[cursor.rs2]
        case .sh3add:
          x[cursor.rd] = x[cursor.rs1] &<< 3 &+ x[cursor.rs2]
        case .sh3add_uw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1])) &<< 3 &+ x[cursor.rs2]
        case .slli_uw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1])) &<< cursor.shift
        case .andn:
          x[cursor.rd] = x[cursor.rs1] & ~x[cursor.rs2]
        case .orn:
          x[cursor.rd] = x[cursor.rs1] | ~x[cursor.rs2]
        case .xnor:
          x[cursor.rd] = ~(x[cursor.rs1] ^ x[cursor.rs2])
        case .clz:
          x[cursor.rd] = UInt64(x[cursor.rs1].leadingZeroBitCount)
        case .ctz:
          x[cursor.rd] = UInt64(x[cursor.rs1].trailingZeroBitCount)
        case .cpop:
          x[cursor.rd] = UInt64(x[cursor.rs1].nonzeroBitCount)
        case .clzw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]).leadingZeroBitCount)
        case .ctzw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]).trailingZeroBitCount)
        case .cpopw:
          x[cursor.rd] = UInt64(UInt32(truncatingIfNeeded: x[cursor.rs1]).nonzeroBitCount)
        case .min:
          x[cursor.rd] = signed(x[cursor.rs1]) < signed(x[cursor.rs2]) ? x[cursor.rs1] : x[cursor.rs2]
        case .minu:
          x[cursor.rd] = Swift.min(x[cursor.rs1], x[cursor.rs2])
        case .max:
          x[cursor.rd] = signed(x[cursor.rs1]) < signed(x[cursor.rs2]) ? x[cursor.rs2] : x[cursor.rs1]
        case .maxu:
          x[cursor.rd] = Swift.max(x[cursor.rs1], x[cursor.rs2])
        case .sext_b:
          x[cursor.rd] = UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: x[cursor.rs1])))
        case .sext_h:
          x[cursor.rd] = UInt64(bitPattern: Int64(Int16(truncatingIfNeeded: x[cursor.rs1])))
        case .zext_h:
          x[cursor.rd] = x[cursor.rs1] & 0xFFFF
        case .rol:
          x[cursor.rd] = x[cursor.rs1] &<< x[cursor.rs2] | x[cursor.rs1] &>> (0 &- x[cursor.rs2])
        case .ror:
          x[cursor.rd] = x[cursor.rs1] &>> x[cursor.rs2] | x[cursor.rs1] &<< (0 &- x[cursor.rs2])
        case .rori:
          x[cursor.rd] = x[cursor.rs1] &>> cursor.shift | x[cursor.rs1] &<< (0 &- cursor.shift)
        case .rolw:
          let value = UInt32(truncatingIfNeeded: x[cursor.rs1])
          let distance = UInt32(truncatingIfNeeded: x[cursor.rs2])
          x[cursor.rd] = word(UInt64(value &<< distance | value &>> (0 &- distance)))
        case .rorw:
          let value = UInt32(truncatingIfNeeded: x[cursor.rs1])
          let distance = UInt32(truncatingIfNeeded: x[cursor.rs2])
          x[cursor.rd] = word(UInt64(value &>> distance | value &<< (0 &- distance)))
        case .roriw:
          let value = UInt32(truncatingIfNeeded: x[cursor.rs1])
          let distance = UInt32(truncatingIfNeeded: cursor.shift)
          x[cursor.rd] = word(UInt64(value &>> distance | value &<< (0 &- distance)))
        case .orc_b:
          var value = x[cursor.rs1]
          value |= value >> 4 & 0x0F0F_0F0F_0F0F_0F0F
          value |= value >> 2 & 0x3F3F_3F3F_3F3F_3F3F
          value |= value >> 1
          x[cursor.rd] = (value & 0x0101_0101_0101_0101) &* 0xFF
        case .rev8:
          x[cursor.rd] = x[cursor.rs1].byteSwapped
        case .bclr:
          x[cursor.rd] = x[cursor.rs1] & ~(1 &<< x[cursor.rs2])
        case .bclri:
          x[cursor.rd] = x[cursor.rs1] & ~(1 &<< cursor.shift)
        case .bext:
          x[cursor.rd] = x[cursor.rs1] &>> x[cursor.rs2] & 1
        case .bexti:
          x[cursor.rd] = x[cursor.rs1] &>> cursor.shift & 1
        case .binv:
          x[cursor.rd] = x[cursor.rs1] ^ (1 &<< x[cursor.rs2])
        case .binvi:
          x[cursor.rd] = x[cursor.rs1] ^ (1 &<< cursor.shift)
        case .bset:
          x[cursor.rd] = x[cursor.rs1] | (1 &<< x[cursor.rs2])
        case .bseti:
          x[cursor.rd] = x[cursor.rs1] | (1 &<< cursor.shift)
        case .czero_eqz:
          x[cursor.rd] = x[cursor.rs2] == 0 ? 0 : x[cursor.rs1]
        case .czero_nez:
          x[cursor.rd] = x[cursor.rs2] != 0 ? 0 : x[cursor.rs1]

        // Zbc (28.4.2)
        case .clmul:
          x[cursor.rd] = carrylessProduct(x[cursor.rs1], x[cursor.rs2]).low
        case .clmulh:
          x[cursor.rd] = carrylessProduct(x[cursor.rs1], x[cursor.rs2]).high
        case .clmulr:
          let product = carrylessProduct(x[cursor.rs1], x[cursor.rs2])
          x[cursor.rd] = product.high << 1 | product.low >> 63

        // Zbkb, Zbkx, Zknd, Zkne, Zknh
        case .pack, .packh, .packw, .brev8, .xperm4, .xperm8, .aes64ds, .aes64dsm, .aes64es, .aes64esm, .aes64im,
          .aes64ks1i, .aes64ks2, .sha256sig0, .sha256sig1, .sha256sum0, .sha256sum1, .sha512sig0, .sha512sig1,
          .sha512sum0, .sha512sum1:
          x[cursor.rd] = cryptographicResult(
            cursor.pointee.operation, x[cursor.rs1], x[cursor.rs2], cursor.pointee.immediate)

        // A (13)
        case .lr_w:
          guard let old = loadReserved(x[cursor.rs1], as: UInt32.self) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .sc_w:
          guard let stored = storeConditional(x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = stored ? 0 : 1
        case .amoswap_w:
          guard let old = atomic(.swap, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amoadd_w:
          guard let old = atomic(.add, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amoxor_w:
          guard let old = atomic(.xor, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amoand_w:
          guard let old = atomic(.and, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amoor_w:
          guard let old = atomic(.or, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amomin_w:
          guard let old = atomic(.minimum, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amomax_w:
          guard let old = atomic(.maximum, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amominu_w:
          guard let old = atomic(.minimumUnsigned, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .amomaxu_w:
          guard let old = atomic(.maximumUnsigned, x[cursor.rs1], UInt32(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = UInt64(bitPattern: Int64(Int32(bitPattern: old)))
        case .lr_d:
          guard let old = loadReserved(x[cursor.rs1], as: UInt64.self) else { break inner }
          x[cursor.rd] = old
        case .sc_d:
          guard let stored = storeConditional(x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = stored ? 0 : 1
        case .amoswap_d:
          guard let old = atomic(.swap, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = old
        case .amoadd_d:
          guard let old = atomic(.add, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = old
        case .amoxor_d:
          guard let old = atomic(.xor, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = old
        case .amoand_d:
          guard let old = atomic(.and, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = old
        case .amoor_d:
          guard let old = atomic(.or, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else { break inner }
          x[cursor.rd] = old
        case .amomin_d:
          guard let old = atomic(.minimum, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = old
        case .amomax_d:
          guard let old = atomic(.maximum, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = old
        case .amominu_d:
          guard let old = atomic(.minimumUnsigned, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = old
        case .amomaxu_d:
          guard let old = atomic(.maximumUnsigned, x[cursor.rs1], UInt64(truncatingIfNeeded: x[cursor.rs2])) else {
            break inner
          }
          x[cursor.rd] = old

        // F and D: loads and stores (20.5, 21.3)
        case .fld:
          guard isFloatingPointOn else {
            raiseIllegal(at: pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3)
            break inner
          }
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          let value: UInt64
          if entry.pointee.tag == address & (TranslationCache.pageMask | 7) {
            value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt64.self)
          } else {
            guard let bits = loadSlowly(address, width: 8) else { break inner }
            value = UInt64(truncatingIfNeeded: bits)
          }
          state.pointee.f[unchecked: cursor.rd] = value
          state.pointee.mstatus |= MachineStatus.fs
        case .flw:
          guard isFloatingPointOn else {
            raiseIllegal(at: pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3)
            break inner
          }
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = readEntries + Int(address >> 12 & TranslationCache.indexMask)
          let value: UInt32
          if entry.pointee.tag == address & (TranslationCache.pageMask | 3) {
            value = UnsafeRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped.load(
              as: UInt32.self)
          } else {
            guard let bits = loadSlowly(address, width: 4) else { break inner }
            value = UInt32(truncatingIfNeeded: bits)
          }
          state.pointee.f[unchecked: cursor.rd] = UInt64(value) | 0xFFFF_FFFF_0000_0000
          state.pointee.mstatus |= MachineStatus.fs
        case .fsd:
          guard isFloatingPointOn else {
            raiseIllegal(at: pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3)
            break inner
          }
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 7) {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt64(truncatingIfNeeded: state.pointee.f[unchecked: cursor.rs2]), as: UInt64.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 8, state.pointee.f[unchecked: cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }
        case .fsw:
          guard isFloatingPointOn else {
            raiseIllegal(at: pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3)
            break inner
          }
          let address = x[cursor.rs1] &+ cursor.immediate
          let entry = writeEntries + Int(address >> 12 & TranslationCache.indexMask)
          if entry.pointee.tag == address & (TranslationCache.pageMask | 3) {
            UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend)).unsafelyUnwrapped
              .storeBytes(of: UInt32(truncatingIfNeeded: state.pointee.f[unchecked: cursor.rs2]), as: UInt32.self)
          } else {
            // A device or the watched range may look at the hart: it finds the instruction that stores.
            state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
            if !storeSlowly(address, width: 4, state.pointee.f[unchecked: cursor.rs2]) { break inner }
            if attention.load(ordering: .relaxed) != 0 {
              pc = state.pointee.pc &+ UInt64(cursor.pointee.length) &* 2
              break outer
            }
          }

        // Memory ordering (2.7): the host orders all but earlier stores against later loads.
        case .fence:
          if cursor.pointee.immediate & 0x12 == 0x12 { atomicMemoryFence(ordering: .sequentiallyConsistent) }
        case .prefetch_i, .prefetch_r, .prefetch_w:
          break

        // Everything rare: traps, CSRs, fences, cache blocks
        case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci, .ecall, .ebreak, .mret, .sret, .wfi, .sfence_vma,
          .sinval_vma, .sfence_w_inval, .sfence_inval_ir, .fence_i, .cbo_clean, .cbo_flush, .cbo_inval, .cbo_zero,
          .pause, .wrs_nto, .wrs_sto:
          // The instruction itself hasn't retired yet.
          state.pointee.retired &+= UInt64(counted - remaining - 1)
          counted = remaining + 1
          state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
          switch executeSystem(cursor.pointee) {
          case .next: break
          case .trap: break inner
          case .jump:
            pc = state.pointee.pc
            continue outer
          case .leave:
            pc = state.pointee.pc
            break outer
          }
        case .reserved:
          remaining += 1
          let here = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
          switch cursor.pointee.auxiliary {
          case SlotKind.undecoded:
            decode(codePage, cursor - base)
            continue inner
          case SlotKind.pageEnd:
            pc = here
            continue outer
          case SlotKind.straddling:
            let firstHalf = codePage.pointee.source.loadUnaligned(fromByteOffset: CodePage.lastHalf, as: UInt16.self)
            if decodeStraddling(here, firstHalf) {
              base = straddlingSlots
              cursor = base
              pageStart = here
              continue inner
            }
            remaining -= 1
          default:
            remaining -= 1
            raise(TrapCause.illegalInstruction, cursor.immediate)
          }
          break inner

        // The rest of F and D
        default:
          guard isFloatingPointOn, executeFloatingPoint(cursor.pointee) else {
            raiseIllegal(at: pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3)
            break inner
          }
        }
        cursor += Int(cursor.pointee.length)
      }

      // The instruction at the cursor trapped, and didn't retire.
      state.pointee.pc = pageStart &+ UInt64(UInt(bitPattern: cursor) &- UInt(bitPattern: base)) >> 3
      state.pointee.retired &+= UInt64(counted - remaining - 1)
      counted = remaining
      takeTrap(state.pointee.trapCause, state.pointee.trapValue)
      pc = state.pointee.pc
      if remaining <= 0 || isRehearsalOver { break outer }
    }
    state.pointee.pc = pc
    state.pointee.retired &+= UInt64(counted - remaining)
  }

  /// Division by zero and overflow have defined results (12.2).
  @inline(__always)
  private func divide(_ left: UInt64, _ right: UInt64) -> UInt64 {
    if right == 0 { return ~0 }
    if signed(right) == -1 { return 0 &- left }
    return UInt64(bitPattern: signed(left) / signed(right))
  }

  @inline(__always)
  private func remainder(_ left: UInt64, _ right: UInt64) -> UInt64 {
    if right == 0 { return left }
    if signed(right) == -1 { return 0 }
    return UInt64(bitPattern: signed(left) % signed(right))
  }

  @inline(never)
  private func carrylessProduct(_ left: UInt64, _ right: UInt64) -> (low: UInt64, high: UInt64) {
    var low: UInt64 = 0
    var high: UInt64 = 0
    for bit in 0..<UInt64(64) where right &>> bit & 1 != 0 {
      low ^= left &<< bit
      if bit != 0 { high ^= left &>> (64 - bit) }
    }
    return (low, high)
  }
}

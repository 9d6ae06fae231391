/// Physical memory protection, 16 entries (Privileged Architecture, 3.7).
extension Hart {
  private enum Mode {
    static let off: UInt8 = 0
    static let topOfRange: UInt8 = 1
    static let naturallyAligned4: UInt8 = 2
  }

  /// The half-open range of entry `index`; nil when it is off. The end wraps to 0 for the end of the address space.
  private func protectedRange(_ index: Int) -> (start: UInt64, end: UInt64)? {
    let mode = state.pointee.pmpcfg[index] >> 3 & 3
    let address = state.pointee.pmpaddr[index]
    switch mode {
    case Mode.off: return nil
    case Mode.topOfRange:
      let start = index == 0 ? 0 : state.pointee.pmpaddr[index - 1] << 2
      return start < address << 2 ? (start, address << 2) : nil
    case Mode.naturallyAligned4: return (address << 2, (address << 2) &+ 4)
    default:
      let ones = UInt64((~address).trailingZeroBitCount)
      // 56-bit addresses: an all-ones register covers everything.
      if ones >= 54 { return (0, 0) }
      let size = UInt64(8) << ones
      let start = (address & ~((1 << ones) - 1)) << 2
      return (start, start &+ size)
    }
  }

  /// Whether `privilege` may do `kind` to the `size` bytes at the physical address `start`.
  func allows(_ start: UInt64, size: UInt64, _ kind: AccessKind, privilege: Privilege) -> Bool {
    if isMemoryOpen { return true }
    if !hasMemoryProtection { return privilege == .machine }
    let last = start &+ (size &- 1)
    for index in 0..<16 {
      guard let range = protectedRange(index) else { continue }
      let rangeLast = range.end &- 1
      if last < range.start || start > rangeLast { continue }
      // The lowest entry that matches any byte decides, and must match all.
      guard start >= range.start, last <= rangeLast else { return false }
      let configuration = state.pointee.pmpcfg[index]
      if privilege == .machine, configuration & 0x80 == 0 { return true }
      switch kind {
      case .load: return configuration & 1 != 0
      case .store: return configuration & 2 != 0
      case .fetch: return configuration & 4 != 0
      }
    }
    return privilege == .machine
  }

  /// Whether the whole 4 KiB page at `page` has one answer, so that a remembered translation may stand for it.
  func isUniformlyProtected(page: UInt64) -> Bool {
    if isMemoryOpen || !hasMemoryProtection { return true }
    for index in 0..<16 {
      guard let range = protectedRange(index) else { continue }
      let rangeLast = range.end &- 1
      let last = page | 0xFFF
      if last < range.start || page > rangeLast { continue }
      return page >= range.start && last <= rangeLast
    }
    return true
  }

  /// Called after a write to pmpcfg or pmpaddr.
  func memoryProtectionChanged() {
    hasMemoryProtection = (0..<16).contains { state.pointee.pmpcfg[$0] >> 3 & 3 != 0 }
    isMemoryOpen = false
    if let first = (0..<16).first(where: { protectedRange($0) != nil }), let range = protectedRange(first) {
      isMemoryOpen = range.start == 0 && range.end == 0 && state.pointee.pmpcfg[first] & 7 == 7
    }
    translations.clearAll()
  }

  func readProtectionConfiguration(_ register: Int) -> UInt64 {
    var value: UInt64 = 0
    for byte in 0..<8 { value |= UInt64(state.pointee.pmpcfg[register * 4 + byte]) << UInt64(8 * byte) }
    return value
  }

  func writeProtectionConfiguration(_ register: Int, _ value: UInt64) {
    for byte in 0..<8 {
      let index = register * 4 + byte
      if state.pointee.pmpcfg[index] & 0x80 != 0 { continue }
      var configuration = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte)) & 0x9F
      // W without R is reserved: such a write leaves R and W clear.
      if configuration & 3 == 2 { configuration &= ~3 }
      state.pointee.pmpcfg[index] = configuration
    }
    memoryProtectionChanged()
  }

  func writeProtectionAddress(_ index: Int, _ value: UInt64) {
    if state.pointee.pmpcfg[index] & 0x80 != 0 { return }
    // The register below a locked top-of-range entry is locked too.
    if index < 15, state.pointee.pmpcfg[index + 1] & 0x98 == 0x88 { return }
    state.pointee.pmpaddr[index] = value & 0x3F_FFFF_FFFF_FFFF
    memoryProtectionChanged()
  }
}

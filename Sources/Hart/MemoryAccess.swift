import Bus
import Synchronization

/// Loads, stores and atomics where no remembered translation matched: walks, misaligned accesses, device registers.
/// Each returns nil or false after raising a trap.
extension Hart {
  /// Remembers a translation for plain loads or stores, where nothing about the page needs watching.
  private func remember(_ address: UInt64, _ translation: Translation, _ kind: AccessKind) {
    let page = translation.physical & TranslationCache.pageMask
    guard let bytes = memory.bytes(at: PhysicalAddress(page), count: 4096), isUniformlyProtected(page: page) else {
      return
    }
    if kind == .store, let watchedRange, watchedRange.lowerBound >> 12 == page >> 12 { return }
    let virtualPage = address & TranslationCache.pageMask
    let entries = kind == .store ? state.pointee.writeEntries : state.pointee.readEntries
    let entry = TranslationEntry(
      tag: virtualPage, addend: UInt64(UInt(bitPattern: bytes.baseAddress!)) &- virtualPage)
    if translations.remember(entry, in: entries) { state.pointee.secondMask = translations.secondMask }
    dataContext.pointee.pages.note(address)
    if kind == .store {
      didRememberStore(Int(address >> 12 & TranslationCache.indexMask))
      noteStore(page)
    }
    if translation.shift > 12, translation.shift < 63 {
      TranslationCache.noteLargePage(dataContext, address: address, shift: translation.shift)
    }
  }

  /// Tries to remember a translation for plain loads or stores on the page of `address`, without an access. False where
  /// there can't be one (a fault, a device, a watched page): then nothing has happened.
  package func prepareAccess(_ address: UInt64, isStore: Bool) -> Bool {
    let kind = isStore ? AccessKind.store : .load
    guard let translation = physicalAddress(address, size: 1, kind) else { return false }
    remember(address, translation, kind)
    let entries = isStore ? state.pointee.writeEntries : state.pointee.readEntries
    return entries[Int(address >> 12 & TranslationCache.indexMask)].tag == address & TranslationCache.pageMask
  }

  @inline(never)
  package func loadSlowly(_ address: UInt64, width: Int) -> UInt64? {
    let offset = address & 0xFFF
    if offset + UInt64(width) > 4096 { return loadAcrossPages(address, width: width) }
    guard let translation = physicalAddress(address, size: UInt64(width), .load) else { return nil }
    let physical = PhysicalAddress(translation.physical)
    if let bytes = memory.bytes(at: physical, count: UInt64(width)) {
      remember(address, translation, .load)
      return Hart.read(bytes, width: width)
    }
    guard address & UInt64(width - 1) == 0 else {
      raise(TrapCause.loadAddressMisaligned, address)
      return nil
    }
    if endsRehearsal() { return nil }
    guard let value = addressSpace.read(physical, width: width) else {
      raise(TrapCause.loadAccessFault, address)
      return nil
    }
    return value
  }

  private func loadAcrossPages(_ address: UInt64, width: Int) -> UInt64? {
    let first = 4096 - Int(address & 0xFFF)
    guard let low = physicalAddress(address, size: UInt64(first), .load),
      let high = physicalAddress(address &+ UInt64(first), size: UInt64(width - first), .load)
    else { return nil }
    if memory.bytes(at: PhysicalAddress(low.physical), count: UInt64(first)) == nil
      || memory.bytes(at: PhysicalAddress(high.physical), count: UInt64(width - first)) == nil, endsRehearsal()
    {
      return nil
    }
    var value: UInt64 = 0
    for byte in 0..<width {
      let physical =
        byte < first ? low.physical &+ UInt64(byte) : high.physical &+ UInt64(byte - first)
      guard let bits = addressSpace.read(PhysicalAddress(physical), width: 1) else {
        raise(TrapCause.loadAccessFault, address)
        return nil
      }
      value |= bits << UInt64(8 * byte)
    }
    return value
  }

  @inline(never)
  package func storeSlowly(_ address: UInt64, width: Int, _ value: UInt64) -> Bool {
    let offset = address & 0xFFF
    if offset + UInt64(width) > 4096 { return storeAcrossPages(address, width: width, value) }
    guard let translation = physicalAddress(address, size: UInt64(width), .store) else { return false }
    let physical = PhysicalAddress(translation.physical)
    if memory.bytes(at: physical, count: UInt64(width)) != nil {
      if let watchedRange, watchedRange.contains(translation.physical), endsRehearsal() { return false }
      willStore(translation.physical)
      remember(address, translation, .store)
    } else if address & UInt64(width - 1) != 0 {
      raise(TrapCause.storeAddressMisaligned, address)
      return false
    } else if endsRehearsal() {
      return false
    }
    guard addressSpace.write(physical, width: width, value: value) else {
      raise(TrapCause.storeAccessFault, address)
      return false
    }
    if let watchedRange, watchedRange.contains(translation.physical) {
      environment?.watchedStore(self, at: physical, width: width, value: value)
    }
    return true
  }

  private func storeAcrossPages(_ address: UInt64, width: Int, _ value: UInt64) -> Bool {
    let first = 4096 - Int(address & 0xFFF)
    guard let low = physicalAddress(address, size: UInt64(first), .store),
      let high = physicalAddress(address &+ UInt64(first), size: UInt64(width - first), .store)
    else { return false }
    // Both halves are RAM, or nothing is stored: a store is never half done.
    guard memory.bytes(at: PhysicalAddress(low.physical), count: UInt64(first)) != nil,
      memory.bytes(at: PhysicalAddress(high.physical), count: UInt64(width - first)) != nil
    else {
      raise(TrapCause.storeAccessFault, address)
      return false
    }
    willStore(low.physical)
    willStore(high.physical)
    for byte in 0..<width {
      let physical =
        byte < first ? low.physical &+ UInt64(byte) : high.physical &+ UInt64(byte - first)
      memory.bytes(at: PhysicalAddress(physical), count: 1)?[0] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))
    }
    return true
  }

  private static func read(_ bytes: UnsafeMutableRawBufferPointer, width: Int) -> UInt64 {
    switch width {
    case 1: return UInt64(bytes.loadUnaligned(as: UInt8.self))
    case 2: return UInt64(bytes.loadUnaligned(as: UInt16.self))
    case 4: return UInt64(bytes.loadUnaligned(as: UInt32.self))
    default: return bytes.loadUnaligned(as: UInt64.self)
    }
  }

  /// Where an LR, SC or AMO of `width` bytes works: its host and its physical address. Misaligned ones trap, as do
  /// those outside RAM.
  @inline(never)
  func atomicLocation(_ address: UInt64, width: UInt64, _ kind: AccessKind) -> (
    host: UnsafeMutableRawPointer, physical: UInt64
  )? {
    guard address & (width - 1) == 0 else {
      raise(kind == .load ? TrapCause.loadAddressMisaligned : TrapCause.storeAddressMisaligned, address)
      return nil
    }
    let entries = kind == .load ? state.pointee.readEntries : state.pointee.writeEntries
    let entry = entries + Int(address >> 12 & TranslationCache.indexMask)
    if entry.pointee.tag == address & TranslationCache.pageMask {
      let host = UnsafeMutableRawPointer(bitPattern: UInt(address &+ entry.pointee.addend))!
      return (host, memory.base.rawValue &+ UInt64(host - memory.host))
    }
    guard let translation = physicalAddress(address, size: width, kind) else { return nil }
    guard let bytes = memory.bytes(at: PhysicalAddress(translation.physical), count: width) else {
      raise(kind.accessFault, address)
      return nil
    }
    if kind == .store { willStore(translation.physical) }
    remember(address, translation, kind)
    return (bytes.baseAddress!, translation.physical)
  }

  /// LR (Unprivileged Architecture, Zalrsc).
  func loadReserved<Value: AtomicWord>(
    _ address: UInt64, as type: Value.Type
  ) -> Value? {
    let width = UInt64(MemoryLayout<Value>.size)
    guard let location = atomicLocation(address, width: width, .load) else { return nil }
    let value = Value.load(location.host)
    state.pointee.reservedAddress = location.physical
    state.pointee.reservedValue = UInt64(value)
    state.pointee.reservedWidth = width
    return value
  }

  /// SC: true when it stored. Succeeds when the reserved location still holds what LR saw. Nil: a trap was raised.
  func storeConditional<Value: AtomicWord>(
    _ address: UInt64, _ value: Value
  ) -> Bool? {
    let width = UInt64(MemoryLayout<Value>.size)
    guard let location = atomicLocation(address, width: width, .store) else { return nil }
    defer { state.pointee.reservedAddress = ~0 }
    guard state.pointee.reservedAddress == location.physical, state.pointee.reservedWidth == width else { return false }
    return Value.compareExchange(
      location.host, expected: Value(truncatingIfNeeded: state.pointee.reservedValue), desired: value
    ).exchanged
  }

  /// What an AMO does to memory.
  enum AtomicOperation {
    case swap, add, and, or, xor, minimum, maximum, minimumUnsigned, maximumUnsigned
  }

  /// AMO (Zaamo): the old value. Nil: a trap was raised.
  @inline(__always)
  func atomic<Value: AtomicWord>(
    _ operation: AtomicOperation, _ address: UInt64, _ operand: Value
  ) -> Value? {
    guard let location = atomicLocation(address, width: UInt64(MemoryLayout<Value>.size), .store) else { return nil }
    var old = Value.load(location.host)
    while true {
      let new: Value
      switch operation {
      case .swap: new = operand
      case .add: new = old &+ operand
      case .and: new = old & operand
      case .or: new = old | operand
      case .xor: new = old ^ operand
      case .minimumUnsigned: new = min(old, operand)
      case .maximumUnsigned: new = max(old, operand)
      case .minimum: new = Hart.isLess(old, operand) ? old : operand
      case .maximum: new = Hart.isLess(old, operand) ? operand : old
      }
      let outcome = Value.compareExchange(location.host, expected: old, desired: new)
      if outcome.exchanged { return old }
      old = outcome.original
    }
  }

  /// Signed comparison of two bit patterns.
  @inline(__always)
  private static func isLess<Value: FixedWidthInteger>(_ left: Value, _ right: Value) -> Bool {
    let sign = Value(1) << Value(Value.bitWidth - 1)
    return left ^ sign < right ^ sign
  }

  /// CBO.ZERO (Zicboz): the 64-byte block around `address`. False: a trap was raised.
  func zeroBlock(_ address: UInt64) -> Bool {
    let block = address & ~63
    guard let translation = translate(block, .store) else {
      state.pointee.trapValue = address
      return false
    }
    guard allows(translation.physical, size: 64, .store, privilege: dataPrivilege),
      let bytes = memory.bytes(at: PhysicalAddress(translation.physical), count: 64)
    else {
      raise(TrapCause.storeAccessFault, address)
      return false
    }
    willStore(translation.physical)
    remember(block, translation, .store)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    return true
  }

  /// CBO.CLEAN, CBO.FLUSH and CBO.INVAL (Zicbom): memory is coherent, so only the permission is looked at; a block that
  /// may be read or written qualifies. False: a trap was raised.
  func manageBlock(_ address: UInt64) -> Bool {
    if physicalAddress(address & ~63, size: 64, .load) != nil { return true }
    let loadCause = state.pointee.trapCause
    if physicalAddress(address & ~63, size: 64, .store) != nil { return true }
    raise(loadCause == TrapCause.loadAccessFault ? TrapCause.storeAccessFault : TrapCause.storePageFault, address)
    return false
  }
}

/// An integer that guest and host memory access atomically, at a naturally aligned address.
protocol AtomicWord: FixedWidthInteger, UnsignedInteger {
  static func load(_ location: UnsafeMutableRawPointer) -> Self
  static func compareExchange(
    _ location: UnsafeMutableRawPointer, expected: Self, desired: Self
  ) -> (exchanged: Bool, original: Self)
}

extension UInt32: AtomicWord {
  @inline(__always)
  static func load(_ location: UnsafeMutableRawPointer) -> UInt32 {
    location.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .sequentiallyConsistent)
  }

  @inline(__always)
  static func compareExchange(
    _ location: UnsafeMutableRawPointer, expected: UInt32, desired: UInt32
  ) -> (exchanged: Bool, original: UInt32) {
    location.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.compareExchange(
      expected: expected, desired: desired, ordering: .sequentiallyConsistent)
  }
}

extension UInt64: AtomicWord {
  @inline(__always)
  static func load(_ location: UnsafeMutableRawPointer) -> UInt64 {
    location.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.load(ordering: .sequentiallyConsistent)
  }

  @inline(__always)
  static func compareExchange(
    _ location: UnsafeMutableRawPointer, expected: UInt64, desired: UInt64
  ) -> (exchanged: Bool, original: UInt64) {
    location.assumingMemoryBound(to: Atomic<UInt64>.self).pointee.compareExchange(
      expected: expected, desired: desired, ordering: .sequentiallyConsistent)
  }
}

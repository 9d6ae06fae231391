import Bus

/// What an access wants, for permission checks.
package enum AccessKind {
  case fetch, load, store

  var pageFault: UInt64 {
    switch self {
    case .fetch: TrapCause.instructionPageFault
    case .load: TrapCause.loadPageFault
    case .store: TrapCause.storePageFault
    }
  }

  var accessFault: UInt64 {
    switch self {
    case .fetch: TrapCause.instructionAccessFault
    case .load: TrapCause.loadAccessFault
    case .store: TrapCause.storeAccessFault
    }
  }
}

/// Bits of a page table entry (Privileged Architecture, 12.3).
private enum PageTableEntry {
  static let valid: UInt64 = 1 << 0
  static let read: UInt64 = 1 << 1
  static let write: UInt64 = 1 << 2
  static let execute: UInt64 = 1 << 3
  static let user: UInt64 = 1 << 4
  static let accessed: UInt64 = 1 << 6
  static let dirty: UInt64 = 1 << 7
  static let reserved: UInt64 = 0x7F << 54
  static let memoryType: UInt64 = 3 << 61
  static let contiguous: UInt64 = 1 << 63
}

/// Virtual to physical: Sv39, Sv48, Sv57 with Svade, Svnapot and Svpbmt (Privileged Architecture, chapters 12, 14, 15).
extension Hart {
  /// A translation found by a walk: the physical address, and how much around it is mapped alike (2^shift bytes).
  package struct Translation {
    package var physical: UInt64
    var shift: UInt64
  }

  /// The effective privilege of loads and stores (MPRV, 3.1.6.3).
  @inline(__always)
  var dataPrivilege: Privilege {
    let status = state.pointee.mstatus
    if state.pointee.privilege == .machine, status & MachineStatus.mprv != 0 {
      return Privilege(rawValue: UInt8(status >> MachineStatus.mppShift & 3)) ?? .machine
    }
    return state.pointee.privilege
  }

  /// Walks the page tables for one access. Nil: a trap was raised (`trapCause` and `trapValue` hold it).
  func translate(_ address: UInt64, _ kind: AccessKind) -> Translation? {
    let privilege = kind == .fetch ? state.pointee.privilege : dataPrivilege
    let mode = state.pointee.satp >> 60
    if privilege == .machine || mode == 0 { return Translation(physical: address, shift: 63) }
    return walk(address, kind, privilege: privilege, levels: mode - 5)
  }

  private func walk(_ address: UInt64, _ kind: AccessKind, privilege: Privilege, levels: UInt64) -> Translation? {
    let unused = 64 - (12 + 9 * levels)
    guard Int64(bitPattern: address << unused) >> Int64(unused) == Int64(bitPattern: address) else {
      return raiseTranslation(kind.pageFault, address)
    }
    let status = state.pointee.mstatus
    let satp = state.pointee.satp
    var table = (satp & 0xFFF_FFFF_FFFF) << 12
    var level = levels
    while level > 0 {
      level -= 1
      let shift = 12 + 9 * level
      let entryAddress = table &+ (address >> shift & 0x1FF) << 3
      guard allows(entryAddress, size: 8, .load, privilege: .supervisor),
        let entry = loadWord(entryAddress)
      else { return raiseTranslation(kind.accessFault, address) }
      let permissions = entry & (PageTableEntry.read | PageTableEntry.write | PageTableEntry.execute)
      if entry & PageTableEntry.valid == 0 || entry & PageTableEntry.reserved != 0
        || permissions & (PageTableEntry.read | PageTableEntry.write) == PageTableEntry.write
      {
        return raiseTranslation(kind.pageFault, address)
      }
      if permissions == 0 {
        // A pointer to the next table: A, D, U and the top bits are reserved there.
        if entry
          & (PageTableEntry.accessed | PageTableEntry.dirty | PageTableEntry.user | PageTableEntry.memoryType
            | PageTableEntry.contiguous) != 0
        {
          return raiseTranslation(kind.pageFault, address)
        }
        table = (entry >> 10 & 0xFFF_FFFF_FFFF) << 12
        continue
      }
      let memoryType = entry & PageTableEntry.memoryType
      if memoryType == PageTableEntry.memoryType
        || (memoryType != 0 && state.pointee.menvcfg & EnvironmentConfiguration.pageBasedMemoryTypes == 0)
      {
        return raiseTranslation(kind.pageFault, address)
      }
      if entry & PageTableEntry.user != 0 {
        if privilege == .supervisor, kind == .fetch || status & MachineStatus.sum == 0 {
          return raiseTranslation(kind.pageFault, address)
        }
      } else if privilege == .user {
        return raiseTranslation(kind.pageFault, address)
      }
      let isAllowed =
        switch kind {
        case .fetch: entry & PageTableEntry.execute != 0
        case .load:
          entry & PageTableEntry.read != 0
            || (entry & PageTableEntry.execute != 0 && status & MachineStatus.mxr != 0)
        case .store: entry & PageTableEntry.write != 0
        }
      guard isAllowed else { return raiseTranslation(kind.pageFault, address) }
      let needed = kind == .store ? PageTableEntry.accessed | PageTableEntry.dirty : PageTableEntry.accessed
      if entry & needed != needed {
        // Svade: the A and D bits are software's business, and a clear one is a page fault. With ADUE (Svadu) the hart
        // sets them itself, in one step with a check that the entry is still the same; otherwise the walk begins anew.
        guard state.pointee.menvcfg & EnvironmentConfiguration.accessedAndDirtyUpdate != 0 else {
          return raiseTranslation(kind.pageFault, address)
        }
        guard allows(entryAddress, size: 8, .store, privilege: .supervisor),
          let location = memory.bytes(at: PhysicalAddress(entryAddress), count: 8)?.baseAddress
        else { return raiseTranslation(kind.accessFault, address) }
        willStore(entryAddress)
        if !UInt64.compareExchange(location, expected: entry, desired: entry | needed).exchanged {
          return walk(address, kind, privilege: privilege, levels: levels)
        }
      }
      var frame = entry >> 10 & 0xFFF_FFFF_FFFF
      var size = shift
      if level > 0 {
        if entry & PageTableEntry.contiguous != 0 || frame & (1 << (9 * level) - 1) != 0 {
          return raiseTranslation(kind.pageFault, address)
        }
      } else if entry & PageTableEntry.contiguous != 0 {
        // Svnapot defines 64 KiB only: the low four bits of the frame number are 1000.
        guard frame & 0xF == 8 else { return raiseTranslation(kind.pageFault, address) }
        frame &= ~0xF
        size = 16
      }
      let offsetMask = (UInt64(1) << size) - 1
      return Translation(physical: frame << 12 & ~offsetMask | address & offsetMask, shift: size)
    }
    return raiseTranslation(kind.pageFault, address)
  }

  /// The doubleword at a physical address that is a multiple of 8, nil outside RAM.
  @inline(__always)
  private func loadWord(_ physical: UInt64) -> UInt64? {
    let offset = physical &- ramBase
    return offset < ramSize ? (ramHost + Int(offset)).load(as: UInt64.self) : nil
  }

  private func raiseTranslation(_ cause: UInt64, _ address: UInt64) -> Translation? {
    raise(cause, address)
    return nil
  }

  /// Translates and checks physical memory protection for `size` bytes that lie in one page. Nil: a trap was raised.
  package func physicalAddress(_ address: UInt64, size: UInt64, _ kind: AccessKind) -> Translation? {
    guard let translation = translate(address, kind) else { return nil }
    let privilege = kind == .fetch ? state.pointee.privilege : dataPrivilege
    guard allows(translation.physical, size: size, kind, privilege: privilege) else {
      raise(kind.accessFault, address)
      return nil
    }
    return translation
  }

  /// Notes an exception for the run loop to take.
  @inline(__always)
  func raise(_ cause: UInt64, _ value: UInt64) {
    state.pointee.trapCause = cause
    state.pointee.trapValue = value
  }

  /// Chooses the remembered translations for the present mode; called after everything that changes it.
  func selectContexts() {
    let status = state.pointee.mstatus
    let satp = state.pointee.satp >> 60 == 0 ? 0 : state.pointee.satp
    let data = dataPrivilege
    let flags =
      (status & MachineStatus.sum != 0 ? TranslationKey.sum : 0) | (status & MachineStatus.mxr != 0 ? UInt64(8) : 0)
    let dataKey =
      data == .machine
      ? TranslationKey(satp: 0, mode: 3) : TranslationKey(satp: satp, mode: UInt64(data.rawValue) | flags)
    // Both present contexts count as used now, lest the choice of one empties the other.
    translations.touch(dataContext)
    translations.touch(fetchContext)
    if dataKey != dataContext.pointee.key {
      let before = dataContext
      let context = translations.context(for: dataKey, after: before)
      dataContext = context
      state.pointee.readEntries = context.pointee.read
      useWriteEntries()
      let other = before.pointee.key
      if other.satp == dataKey.satp, other.mode == dataKey.mode ^ TranslationKey.sum, before.pointee.partner == nil,
        context.pointee.partner == nil
      {
        before.pointee.partner = context
        context.pointee.partner = before
      }
    }
    state.pointee.alternateContext = dataContext.pointee.partner.map { UnsafeMutableRawPointer($0) }
    // SUM and MXR don't matter to fetches; sharing the data context's key where the privilege agrees saves contexts.
    let privilege = state.pointee.privilege
    let fetchKey =
      privilege == .machine
      ? TranslationKey(satp: 0, mode: 3)
      : TranslationKey(satp: satp, mode: UInt64(privilege.rawValue))
    translations.touch(dataContext)
    if fetchKey != fetchContext.pointee.key {
      fetchContext = translations.context(for: fetchKey, after: fetchContext)
      state.pointee.fetchEntries = fetchContext.pointee.fetch
    }
  }

  /// SFENCE.VMA (12.2.1): nil stands for x0, "all".
  func fenceTranslations(address: UInt64?, asid: UInt64?) {
    if let address {
      translations.clearPage(containing: address, asid: asid)
    } else {
      translations.clearAll(asid: asid)
    }
  }
}

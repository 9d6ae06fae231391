import Bus
import Glibc
import RISCV

/// Instructions that the interpreter executes on trial. The pages of RAM that they change are kept, so that they can be
/// put back as they were; and they end before an instruction that can't be executed twice. Nobody else may change RAM
/// meanwhile.
package final class Rehearsal {
  /// A page of RAM that was changed.
  package struct Page {
    package fileprivate(set) var physical: UInt64
    package fileprivate(set) var host: UnsafeMutableRawPointer
    /// What the page held before, and at the end of the rehearsal: 4096 bytes each.
    package let before: UnsafeMutableRawPointer
    package let after: UnsafeMutableRawPointer
  }

  private var places: [Page] = []
  private var count = 0
  /// The pages changed since `begin`, in the order in which they were reached.
  package var pages: ArraySlice<Page> { places[..<count] }
  /// Whether it ended before an instruction that can't be executed twice.
  package var hasMetUnrepeatable = false

  /// Stands for the remembered translations of stores, so that the first store to each page is noticed. Only the
  /// interpreter looks here, and not into the second table, though it is written.
  fileprivate let writeEntries: UnsafeMutablePointer<TranslationEntry>
  private var usedEntries: [Int] = []
  private let memory: GuestMemory
  /// A bit for each page of RAM that is kept.
  private let kept: UnsafeMutablePointer<UInt64>

  package init(_ memory: GuestMemory) {
    self.memory = memory
    writeEntries = .allocate(capacity: TranslationCache.totalCount)
    writeEntries.initialize(repeating: TranslationEntry(tag: ~0, addend: 0), count: TranslationCache.totalCount)
    let words = Int(memory.size >> 18) + 1
    kept = .allocate(capacity: words)
    kept.initialize(repeating: 0, count: words)
  }

  deinit {
    for page in places {
      page.before.deallocate()
      page.after.deallocate()
    }
    writeEntries.deallocate()
    kept.deallocate()
  }

  fileprivate func begin() {
    for page in pages {
      let number = (page.physical &- memory.base.rawValue) >> 12
      kept[Int(number >> 6)] &= ~(1 << (number & 63))
    }
    count = 0
    hasMetUnrepeatable = false
    forgetEntries()
  }

  fileprivate func forgetEntries() {
    for index in usedEntries { writeEntries[index].tag = ~0 }
    usedEntries.removeAll(keepingCapacity: true)
  }

  fileprivate func noteEntry(_ index: Int) { usedEntries.append(index) }

  /// Keeps the page of RAM that holds a physical address.
  fileprivate func keep(_ physical: UInt64) {
    let offset = (physical &- memory.base.rawValue) & TranslationCache.pageMask
    let number = offset >> 12
    let bit = UInt64(1) << (number & 63)
    guard offset < memory.size, kept[Int(number >> 6)] & bit == 0 else { return }
    kept[Int(number >> 6)] |= bit
    let host = memory.host + Int(offset)
    if count == places.count {
      places.append(
        Page(
          physical: 0, host: host, before: .allocate(byteCount: 4096, alignment: 64),
          after: .allocate(byteCount: 4096, alignment: 64)))
    }
    places[count].physical = memory.base.rawValue &+ offset
    places[count].host = host
    memcpy(places[count].before, host, 4096)
    count += 1
  }

  fileprivate func end() {
    for page in pages {
      memcpy(page.after, page.host, 4096)
      memcpy(page.host, page.before, 4096)
    }
  }

  /// Puts the changed pages back as they were before, once more.
  package func takeBack() {
    for page in pages { memcpy(page.host, page.before, 4096) }
  }

  /// Whether RAM now holds what the rehearsal had left there.
  package var agrees: Bool { pages.allSatisfy { memcmp($0.host, $0.after, 4096) == 0 } }
}

extension Hart {
  /// Has the interpreter execute at most `count` instructions on trial, from `state` on; leaves in `outcome` the state
  /// at their end, and puts RAM back as it was. `state` is undefined then.
  package func rehearse(_ count: Int, _ rehearsal: Rehearsal, outcome: UnsafeMutablePointer<HartState>) {
    rehearsal.begin()
    self.rehearsal = Unmanaged.passUnretained(rehearsal)
    useContexts()
    interpret(count)
    self.rehearsal = nil
    rehearsal.end()
    outcome.update(from: state, count: 1)
  }

  /// Puts the state back to what it was. Nothing that lies outside of `HartState` may have changed since.
  package func restore(_ saved: UnsafePointer<HartState>) {
    HartState.copy(saved, to: state)
    useTableSizes()
    selectContexts()
    useContexts()
  }

  /// Has the state say how much of the tables of remembered translations is in use.
  func useTableSizes() {
    state.pointee.secondMask = translations.secondMask
    state.pointee.fetchMask = translations.fetchMask
  }

  /// Has the state point to the remembered translations of the present contexts.
  private func useContexts() {
    state.pointee.readEntries = dataContext.pointee.read
    state.pointee.fetchEntries = fetchContext.pointee.fetch
    useWriteEntries()
  }

  func useWriteEntries() {
    guard let rehearsal else {
      state.pointee.writeEntries = dataContext.pointee.write
      return
    }
    rehearsal._withUnsafeGuaranteedRef {
      $0.forgetEntries()
      state.pointee.writeEntries = $0.writeEntries
    }
  }

  /// Forgets every remembered translation, as an implementation may at any time.
  package func forgetTranslations() { translations.clearAll() }

  // MARK: what a rehearsal has to know

  /// Called before RAM is changed at a physical address.
  @inline(__always)
  func willStore(_ physical: UInt64) {
    noteStore(physical)
    rehearsal?._withUnsafeGuaranteedRef { $0.keep(physical) }
  }

  /// Called when a translation for stores is remembered.
  @inline(__always)
  func didRememberStore(_ index: Int) {
    rehearsal?._withUnsafeGuaranteedRef { $0.noteEntry(index) }
  }

  /// Ends a rehearsal before the present instruction, which would do something that can't be taken back. False where
  /// there is no rehearsal, and the instruction may go on; otherwise it must come back as after a trap.
  @inline(__always)
  func endsRehearsal() -> Bool {
    guard let rehearsal else { return false }
    rehearsal._withUnsafeGuaranteedRef { $0.hasMetUnrepeatable = true }
    raise(TrapCause.unrepeatable, 0)
    return true
  }

  var isRehearsalOver: Bool { rehearsal?._withUnsafeGuaranteedRef { $0.hasMetUnrepeatable } ?? false }

  /// Whether a system instruction changes only the hart's `state` and RAM, and depends on nothing else.
  func isRepeatable(_ slot: Slot) -> Bool {
    switch slot.operation {
    case .csrrw, .csrrs, .csrrc, .csrrwi, .csrrsi, .csrrci:
      switch Int(slot.immediate) {
      case ControlRegister.time, ControlRegister.mip, ControlRegister.sip, ControlRegister.stimecmp,
        ControlRegister.menvcfg, ControlRegister.pmpcfg0...ControlRegister.pmpaddr15:
        return false
      default: return true
      }
    case .ecall: return state.pointee.privilege != .supervisor
    case .mret, .sret, .sfence_w_inval, .sfence_inval_ir, .cbo_clean, .cbo_flush, .cbo_inval, .cbo_zero: return true
    default: return false
    }
  }
}

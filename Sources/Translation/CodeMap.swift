import CHost
import Hart

/// Which guest instructions the code in a translator's memory was made of, for profilers. Kept only where one asks for it.
package final class CodeMap {
  /// A block of host code.
  package struct Block {
    package var address: UInt
    package var byteCount: Int
    /// Where the guest code is in memory, and where it was executed when it was translated.
    package var physicalAddress: UInt64
    package var virtualAddress: UInt64
  }

  /// For the signal handler that looks addresses up.
  let places: UnsafeMutablePointer<chost_code_map>
  private let state: UnsafeMutablePointer<HartState>
  /// Told of each block that was made, on the hart's thread.
  var onBlock: ((Block) -> Void)?

  private var block = Block(address: 0, byteCount: 0, physicalAddress: 0, virtualAddress: 0)

  init(_ state: UnsafeMutablePointer<HartState>) {
    self.state = state
    places = .allocate(capacity: 1)
    places.initialize(to: chost_code_map())
  }

  deinit {
    places.pointee.places?.deallocate()
    places.deallocate()
  }

  /// A block of the page begins, at which the hart's pc stands.
  func begin(at code: UInt, _ page: UnsafeMutablePointer<CodePage>, offset: Int) {
    let base = state.pointee.pc & TranslationCache.pageMask
    block.address = code
    block.physicalAddress = page.pointee.physical &+ UInt64(offset)
    block.virtualAddress = base &+ UInt64(offset)
    note(code, offset: offset)
  }

  /// What comes now is of the instruction at `offset` in the page.
  func note(_ code: UInt, offset: Int) {
    if places.pointee.count == places.pointee.capacity { grow() }
    let count = Int(places.pointee.count)
    (places.pointee.places + count).initialize(
      to: chost_code_place(
        code: UInt32(truncatingIfNeeded: code), offset: UInt32(offset),
        virtual_page: block.virtualAddress & TranslationCache.pageMask,
        physical_page: block.physicalAddress & TranslationCache.pageMask))
    places.pointee.count += 1
  }

  func end(at code: UInt) {
    block.byteCount = Int(code - block.address)
    onBlock?(block)
  }

  /// All blocks are gone.
  func clear() { places.pointee.count = 0 }

  private func grow() {
    let capacity = max(1 << 16, Int(places.pointee.capacity) * 2)
    let larger = UnsafeMutablePointer<chost_code_place>.allocate(capacity: capacity)
    if let old = places.pointee.places {
      larger.moveInitialize(from: old, count: Int(places.pointee.count))
      old.deallocate()
    }
    places.pointee.places = larger
    places.pointee.capacity = UInt32(capacity)
  }
}

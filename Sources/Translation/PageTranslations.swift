import Hart

/// What the translator knows about a page with blocks, in one piece of memory: for each half-word where its code is (a
/// host address below 2^32), and the jumps in the page's code that wait for a block.
struct PageTranslations {
  let entryPoints: UnsafeMutablePointer<UInt32>
  static let none: Int32 = -1

  /// Jumps that wait are listed by the part of the page that they go to.
  static let waitingLists = 64
  static let byteCount = CodePage.slotCount * 4 + waitingLists * 4

  init(_ entryPoints: UnsafeMutablePointer<UInt32>) { self.entryPoints = entryPoints }

  /// A new one in `byteCount` bytes of memory, all of whose entry points are `absent`.
  init(_ memory: UnsafeMutableRawPointer, absent: UInt32) {
    entryPoints = memory.bindMemory(to: UInt32.self, capacity: CodePage.slotCount)
    clear(absent)
  }

  private var waiting: UnsafeMutablePointer<Int32> {
    UnsafeMutableRawPointer(entryPoints).advanced(by: CodePage.slotCount * 4).assumingMemoryBound(to: Int32.self)
  }

  /// The first of the jumps that wait for a place near the half-word `index`, as an index into the translator's list;
  /// `none`: there is none.
  subscript(waitingFor index: Int) -> Int32 {
    get { waiting[index * Self.waitingLists / CodePage.slotCount] }
    nonmutating set { waiting[index * Self.waitingLists / CodePage.slotCount] = newValue }
  }

  subscript(waitingIn list: Int) -> Int32 { waiting[list] }

  func clear(_ absent: UInt32) {
    entryPoints.update(repeating: absent, count: CodePage.slotCount)
    waiting.update(repeating: Self.none, count: Self.waitingLists)
  }
}

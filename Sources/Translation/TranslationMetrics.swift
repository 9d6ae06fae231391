/// What the translators of a machine have done, and the memory that they hold.
public struct TranslationMetrics: Equatable, Sendable {
  /// Blocks of guest code translated since the machine was new, those counted that were dropped.
  public var blocks = 0
  /// Guest instructions in these blocks.
  public var instructions = 0
  /// Bytes of code memory in use, and how many there may be.
  public var codeBytes = 0
  public var codeLimit = 0
  /// Bytes of it that lie in the host's large pages.
  public var settledBytes = 0
  /// Bytes of it that are mapped from a file of kept code, and the guest pages whose code was found there.
  public var keptBytes = 0
  public var keptPages = 0
  /// How often code memory was full, and all code dropped.
  public var flushes = 0
  /// Guest pages that have a table of entry points, and the bytes of these tables.
  public var pages = 0
  public var pageBytes = 0
  /// How often the code of a page was dropped, because the page had changed or its place was needed.
  public var forgottenPages = 0
  /// How often generated code was entered from outside.
  public var entries = 0

  public init() {}

  init(
    blocks: Int, instructions: Int, codeBytes: Int, codeLimit: Int, settledBytes: Int, keptBytes: Int, keptPages: Int,
    flushes: Int, pages: Int, pageBytes: Int, forgottenPages: Int, entries: Int
  ) {
    self.blocks = blocks
    self.instructions = instructions
    self.codeBytes = codeBytes
    self.codeLimit = codeLimit
    self.settledBytes = settledBytes
    self.keptBytes = keptBytes
    self.keptPages = keptPages
    self.flushes = flushes
    self.pages = pages
    self.pageBytes = pageBytes
    self.forgottenPages = forgottenPages
    self.entries = entries
  }

  /// The sum for several harts.
  public static func + (left: Self, right: Self) -> Self {
    TranslationMetrics(
      blocks: left.blocks + right.blocks, instructions: left.instructions + right.instructions,
      codeBytes: left.codeBytes + right.codeBytes, codeLimit: left.codeLimit + right.codeLimit,
      settledBytes: left.settledBytes + right.settledBytes, keptBytes: left.keptBytes + right.keptBytes,
      keptPages: left.keptPages + right.keptPages, flushes: left.flushes + right.flushes,
      pages: left.pages + right.pages,
      pageBytes: left.pageBytes + right.pageBytes, forgottenPages: left.forgottenPages + right.forgottenPages,
      entries: left.entries + right.entries)
  }
}

/// Where a block's host code lies, and what it was made from.
struct TranslatedBlock {
  /// The guest's physical address of its first instruction.
  var physical: UInt64
  /// The addresses of its host code.
  var start: UInt
  var end: UInt
  var instructionCount: Int

  var code: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: start), count: Int(end - start))
  }
}

/// The blocks that stand in the code memory.
final class BlockLedger {
  private var blocks: [UInt64: TranslatedBlock] = [:]

  func add(_ block: TranslatedBlock) { blocks[block.physical] = block }
  func removeAll() { blocks.removeAll() }

  /// The latest block whose first instruction lies at a physical address.
  func block(at physical: UInt64) -> TranslatedBlock? { blocks[physical] }
}

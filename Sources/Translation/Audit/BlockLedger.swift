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

/// The blocks that were translated since the code memory was last empty.
final class BlockLedger {
  private var blocks: [UInt64: [TranslatedBlock]] = [:]

  func add(_ block: TranslatedBlock) { blocks[block.physical, default: []].append(block) }
  func removeAll() { blocks.removeAll() }

  /// Those whose first instruction lies at a physical address, the oldest first: several where code changed, or where
  /// the first didn't suit.
  func blocks(at physical: UInt64) -> [TranslatedBlock] { blocks[physical] ?? [] }
}

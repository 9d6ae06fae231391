/// A row of the instruction table: an encoding and all that is known of it. Decoder, encoder, disassembler and lists are
/// made from these rows; a new extension is a file of rows in `Table/` and its operations.
package struct InstructionPattern: Sendable {
  package let operation: Operation
  package let mnemonic: String
  package let format: Format
  /// The bits of `mask` that an encoding must have.
  package let match: UInt32
  package let mask: UInt32
  /// At least one of these bits must be set, unless 0: a field for which zero is reserved.
  package let nonZero: UInt32
  /// Greater values of the immediate are reserved.
  package let largest: Int64
  /// All of these are needed.
  package let extensions: ExtensionSet
  /// Unless empty: these do as well.
  package let alternative: ExtensionSet
  package let effects: Effects

  package init(
    _ operation: Operation, _ mnemonic: String, _ format: Format, _ match: UInt32, _ mask: UInt32,
    _ extensions: ExtensionSet, _ effects: Effects, nonZero: UInt32 = 0, largest: Int64 = .max,
    or alternative: ExtensionSet = []
  ) {
    self.operation = operation
    self.mnemonic = mnemonic
    self.format = format
    self.match = match
    self.mask = mask
    self.nonZero = nonZero
    self.largest = largest
    self.extensions = extensions
    self.alternative = alternative
    self.effects = effects
  }

  /// In bytes.
  package var length: Int { match & 3 == 3 ? 4 : 2 }

  /// Whether `bits` is an encoding of this row, reserved values of fields aside.
  package func covers(_ bits: UInt32) -> Bool { bits & mask == match }

  /// Whether harts with these extensions have the row's instruction.
  package func isPart(of set: ExtensionSet) -> Bool {
    set.isSuperset(of: extensions) || !alternative.isEmpty && set.isSuperset(of: alternative)
  }

  /// Every row. Where the encodings of two rows overlap, the one with more bits in its mask is meant.
  package static let all: [InstructionPattern] = [
    baseRows, systemRows, multiplyDivideRows, atomicRows, singlePrecisionRows, doublePrecisionRows,
    bitManipulationRows, cryptographyRows, cacheBlockRows, compressedRows,
  ].flatMap { $0 }

  /// The 32-bit row of each operation (the first), by raw value; nil for `reserved`.
  package static let byOperation: [InstructionPattern?] = {
    var rows = [InstructionPattern?](repeating: nil, count: Operation.allCases.count)
    for row in all.reversed() where row.length == 4 { rows[Int(row.operation.rawValue)] = row }
    return rows
  }()
}

extension Operation {
  package var pattern: InstructionPattern? { InstructionPattern.byOperation[Int(rawValue)] }

  /// The mnemonic of the 32-bit encoding; nil for `reserved`.
  public var mnemonic: String? { pattern?.mnemonic }
  public var effects: Effects { Self.effects[Int(rawValue)] }

  /// By raw value; never freed. Plain memory, for translators ask at each instruction.
  private static let effects: UnsafePointer<Effects> = {
    let table = UnsafeMutablePointer<Effects>.allocate(capacity: allCases.count)
    for (index, row) in InstructionPattern.byOperation.enumerated() {
      (table + index).initialize(to: row?.effects ?? [.mayTrap, .endsBlock])
    }
    return UnsafePointer(table)
  }()
}

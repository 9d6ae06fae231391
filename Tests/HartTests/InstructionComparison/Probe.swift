/// One instruction (or a short sequence) with its registers, and the operands it is tried with.
///
/// Each case is a record of 64-bit words: a value for each input register, then for fcsr and four words of memory where
/// they take part. What comes out is a record of the same shape for the output registers.
struct Probe {
  /// Registers the surrounding loop needs for itself: a probe uses x1 to x26 and f0 to f31.
  static let integerRegisters = (1...26).map { "x\($0)" }
  static let floatingPointRegisters = (0...31).map { "f\($0)" }
  /// The registers most compressed instructions can name.
  static let compressedRegisters = (8...15).map { "x\($0)" }
  static let compressedFloatingPointRegisters = (8...15).map { "f\($0)" }

  let assembly: String
  let inputs: [String]
  let outputs: [String]
  var usesControl = false
  var usesMemory = false
  /// The records of all cases, one after the other.
  var words: [UInt64] = []

  init(
    _ assembly: String, inputs: [String], outputs: [String], usesControl: Bool = false, usesMemory: Bool = false
  ) {
    self.assembly = assembly
    self.inputs = inputs
    self.outputs = outputs
    self.usesControl = usesControl
    self.usesMemory = usesMemory
  }

  var inputWords: Int { inputs.count + extraWords }
  var outputWords: Int { outputs.count + extraWords }
  var caseCount: Int { words.count / inputWords }
  private var extraWords: Int { (usesControl ? 1 : 0) + (usesMemory ? 4 : 0) }

  /// The first words of a record's name, for a message.
  func describe(_ record: ArraySlice<UInt64>, registers: [String]) -> String {
    var names = registers
    if usesControl { names.append("fcsr") }
    if usesMemory { names += (0..<4).map { "memory[\($0 * 8)]" } }
    return zip(names, record).map { "\($0) = 0x\(String($1, radix: 16))" }.joined(separator: ", ")
  }
}

/// How many random cases each instruction gets. The unoptimised interpreter of a debug build gets fewer.
#if DEBUG
  let randomCaseCount = 100
#else
  let randomCaseCount = 2000
#endif

import Synchronization

/// The decoder's lookup tables: the encoding's leading fields give a bucket, the bucket a short list of rows, most
/// specific first, of which the first that matches decides.
struct DecoderTables: @unchecked Sendable {
  struct Bucket {
    var start: UInt16
    var count: UInt16
  }

  struct Candidate {
    var mask: UInt32
    var match: UInt32
    var row: UInt16
  }

  /// What decoding needs of a row of `InstructionPattern.all`.
  struct Record {
    var nonZero: UInt32
    /// A field whose values above the greatest are reserved, in its place; all bits zero: none.
    var limited: UInt32
    var greatest: UInt32
    var operation: Operation
    var rd: RegisterField
    var rs1: RegisterField
    var rs2: RegisterField
    var rs3: RegisterField
    var roundingModeMask: UInt8
    var firstSegment: UInt16
    var segmentCount: UInt8
    /// How far left the immediate's sign lies from bit 63; 0 for immediates without one.
    var signShift: UInt8
  }

  /// For each of the 32 major opcodes: where its buckets begin, and which bits of funct7 take part in choosing one.
  struct MajorOpcode {
    var firstBucket: UInt16
    var funct7Mask: UInt16
  }

  static let noRow = UInt16.max

  // Written once before anyone else sees them, never freed.
  let majorOpcodes: UnsafePointer<MajorOpcode>
  let buckets: UnsafePointer<Bucket>
  let compressedBuckets: UnsafePointer<Bucket>
  let candidates: UnsafePointer<Candidate>
  let records: UnsafePointer<Record>
  let segments: UnsafePointer<ImmediateField.Segment>

  private static let made = Mutex<[ExtensionSet: DecoderTables]>([:])

  static func shared(for extensions: ExtensionSet) -> DecoderTables {
    made.withLock { made in
      if let tables = made[extensions] { return tables }
      let tables = DecoderTables(extensions)
      made[extensions] = tables
      return tables
    }
  }

  @inline(__always)
  func row(covering word: UInt32, compressed: Bool) -> UInt16 {
    let bucket: Bucket
    if compressed {
      bucket = compressedBuckets[Int(word & 3) << 6 | Int(word >> 10)]
    } else {
      let major = majorOpcodes[Int(word >> 2 & 31)]
      let funct7 = Int(word >> 25) & Int(major.funct7Mask)
      bucket = buckets[Int(major.firstBucket) &+ (funct7 << 3 | Int(word >> 12 & 7))]
    }
    var candidate = candidates + Int(bucket.start)
    let end = candidate + Int(bucket.count)
    while candidate < end {
      if word & candidate.pointee.mask == candidate.pointee.match {
        return isReserved(word, records + Int(candidate.pointee.row)) ? Self.noRow : candidate.pointee.row
      }
      candidate += 1
    }
    return Self.noRow
  }

  /// Whether a field of `word` has a value that its row reserves.
  @inline(__always)
  private func isReserved(_ word: UInt32, _ record: UnsafePointer<Record>) -> Bool {
    let nonZero = record.pointee.nonZero
    if nonZero != 0 && word & nonZero == 0 { return true }
    if word & record.pointee.limited > record.pointee.greatest { return true }
    let roundingMode = UInt8(truncatingIfNeeded: word >> 12) & record.pointee.roundingModeMask
    return roundingMode == 5 || roundingMode == 6
  }

  @inline(__always)
  func immediate(of record: UnsafePointer<Record>, in word: UInt32) -> Int64 {
    var value: UInt64 = 0
    var segment = segments + Int(record.pointee.firstSegment)
    let end = segment + Int(record.pointee.segmentCount)
    while segment < end {
      let mask: UInt32 = 1 &<< UInt32(segment.pointee.width) &- 1
      value |= UInt64(word &>> UInt32(segment.pointee.from) & mask) &<< UInt64(segment.pointee.to)
      segment += 1
    }
    let signShift = Int64(record.pointee.signShift)
    return (Int64(bitPattern: value) &<< signShift) &>> signShift
  }
}

// Making the tables.
extension DecoderTables {
  /// Majors with more rows than this are told apart by funct7 too.
  private static let rowsWithoutFunct7 = 12

  init(_ extensions: ExtensionSet) {
    var lists = CandidateLists()
    let patterns = InstructionPattern.all
    var full: [Candidate] = []
    var compressed: [Candidate] = []
    for (index, row) in patterns.enumerated() where row.isPart(of: extensions) {
      let candidate = Candidate(mask: row.mask, match: row.match, row: UInt16(index))
      if row.length == 4 { full.append(candidate) } else { compressed.append(candidate) }
    }
    full.sort { $0.mask.nonzeroBitCount > $1.mask.nonzeroBitCount }
    compressed.sort { $0.mask.nonzeroBitCount > $1.mask.nonzeroBitCount }

    var majors: [MajorOpcode] = []
    var buckets: [Bucket] = []
    for opcode in UInt32(0)..<32 {
      let ofMajor = full.filter { $0.match >> 2 & 31 == opcode }
      let funct7Mask: UInt32 = ofMajor.count > Self.rowsWithoutFunct7 ? 0x7f : 0
      majors.append(MajorOpcode(firstBucket: UInt16(buckets.count), funct7Mask: UInt16(funct7Mask)))
      for funct7 in 0...funct7Mask {
        for funct3 in UInt32(0)..<8 {
          let word = funct7 << 25 | funct3 << 12
          let keyMask = funct7Mask << 25 | 7 << 12
          buckets.append(lists.bucket(ofMajor) { ($0.match ^ word) & $0.mask & keyMask == 0 })
        }
      }
    }

    var compressedBuckets: [Bucket] = []
    for quadrant in UInt32(0)..<4 {
      for high in UInt32(0)..<64 {
        let word = high << 10 | quadrant
        compressedBuckets.append(lists.bucket(compressed) { ($0.match ^ word) & $0.mask & 0xfc03 == 0 })
      }
    }

    var segments: [ImmediateField.Segment] = []
    let records = patterns.map { row in
      let format = row.format
      defer { segments += format.immediate.segments }
      return Record(
        nonZero: row.nonZero, limited: row.largest == .max ? 0 : format.immediate.insert(-1),
        greatest: row.largest == .max ? 0 : format.immediate.insert(row.largest), operation: row.operation,
        rd: format.rd, rs1: format.rs1, rs2: format.rs2, rs3: format.rs3,
        roundingModeMask: format.hasRoundingMode ? 7 : 0,
        firstSegment: UInt16(segments.count), segmentCount: UInt8(format.immediate.segments.count),
        signShift: format.immediate.signed ? 64 - format.immediate.width : 0)
    }

    majorOpcodes = Self.immortal(majors)
    self.buckets = Self.immortal(buckets)
    self.compressedBuckets = Self.immortal(compressedBuckets)
    candidates = Self.immortal(lists.candidates)
    self.records = Self.immortal(records)
    self.segments = Self.immortal(segments)
  }

  private static func immortal<Element>(_ elements: [Element]) -> UnsafePointer<Element> {
    let memory = UnsafeMutablePointer<Element>.allocate(capacity: max(elements.count, 1))
    memory.initialize(from: elements, count: elements.count)
    return UnsafePointer(memory)
  }

  /// The lists of all buckets, equal ones kept once.
  private struct CandidateLists {
    var candidates: [Candidate] = []
    /// By the sum of their rows; those with the same sum one after the other.
    private var known: [Int: [Bucket]] = [:]
    private var present: [Candidate] = []

    @inline(__always)
    mutating func bucket(_ rows: [Candidate], where isPart: (Candidate) -> Bool) -> Bucket {
      present.removeAll(keepingCapacity: true)
      var sum = 0
      for row in rows where isPart(row) {
        present.append(row)
        sum = sum &* 31 &+ Int(row.row) &+ 1
      }
      let equal = known[sum]?.first { bucket in
        bucket.count == present.count
          && candidates[Int(bucket.start)..<Int(bucket.start) + Int(bucket.count)].elementsEqual(present) {
            $0.row == $1.row
          }
      }
      if let equal { return equal }
      let bucket = Bucket(start: UInt16(candidates.count), count: UInt16(present.count))
      candidates += present
      known[sum, default: []].append(bucket)
      return bucket
    }
  }
}

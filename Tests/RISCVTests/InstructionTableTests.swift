import RISCV
import Testing

@Suite struct InstructionTableTests {
  @Test func operationsAreDenseAndHaveARow() {
    for (index, operation) in Operation.allCases.enumerated() {
      #expect(Int(operation.rawValue) == index)
      #expect(operation.mnemonic == (operation == .reserved ? nil : "\(operation)".replacing("_", with: ".")))
    }
  }

  @Test func rowsOfLikeEncodingsAreNested() {
    for (index, one) in InstructionPattern.all.enumerated() {
      #expect(one.match & ~one.mask == 0, "\(one.mnemonic)")
      for other in InstructionPattern.all[(index + 1)...] where one.length == other.length {
        let overlap = (one.match ^ other.match) & one.mask & other.mask == 0
        guard overlap else { continue }
        let nested =
          one.mask != other.mask && (one.mask & other.mask == one.mask || one.mask & other.mask == other.mask)
        #expect(nested, "\(one.mnemonic) and \(other.mnemonic) have encodings in common")
      }
    }
  }

  @Test func everyBitOfAnEncodingHasOneMeaning() {
    // Their other fields are ignored.
    for row in InstructionPattern.all where row.mnemonic != "fence" && row.mnemonic != "fence.i" {
      let format = row.format
      var fields: [UInt32] = [format.rd, format.rs1, format.rs2, format.rs3].map { UInt32($0.mask) << $0.shift }
      // rd and rs1 of compressed encodings may be one field; rows for one value only fix the bits of their fields.
      if fields[0] == fields[1] { fields[1] = 0 }
      fields.append(format.immediate.insert(-1))
      if format.hasRoundingMode { fields.append(7 << 12) }
      var free = row.length == 2 ? ~row.mask & 0xffff : ~row.mask
      guard free != 0 else { continue }
      for field in fields {
        #expect(free & field == field, "\(row.mnemonic)")
        free &= ~field
      }
      #expect(free == 0, "\(row.mnemonic)")
    }
  }

  @Test func compressedRowsExpandToRowsOfTheBase() throws {
    for row in InstructionPattern.all where row.length == 2 {
      #expect(row.extensions.contains(.c))
      #expect(row.operation.pattern?.length == 4)
    }
  }

  @Test func extensionsOfRowsAreKnown() {
    for row in InstructionPattern.all {
      #expect(!row.extensions.isEmpty && ExtensionSet.yadori.isSuperset(of: row.extensions), "\(row.mnemonic)")
    }
  }

  @Test func effects() {
    for operation in [.lb, .ld, .lr_w, .amoadd_d, .fld] as [Operation] {
      #expect(operation.effects.isSuperset(of: [.readsMemory, .mayTrap]), "\(operation)")
    }
    for operation in [.sb, .sd, .sc_w, .amoadd_d, .fsd, .cbo_zero] as [Operation] {
      #expect(operation.effects.isSuperset(of: [.writesMemory, .mayTrap]), "\(operation)")
    }
    for operation in [.jal, .jalr, .beq, .mret, .sret] as [Operation] {
      #expect(operation.effects.isSuperset(of: [.branches, .endsBlock]), "\(operation)")
    }
    for operation in [.ecall, .ebreak, .wfi, .fence_i, .sfence_vma, .csrrw, .reserved] as [Operation] {
      #expect(operation.effects.contains(.endsBlock) && !operation.effects.contains(.branches), "\(operation)")
    }
    for operation in [.add, .addi, .mul, .div, .lui, .clz] as [Operation] {
      #expect(operation.effects == [.writesInteger], "\(operation)")
    }
    for operation in Operation.allCases {
      let floats = operation.pattern?.format.operands.contains { [.fd, .fs1, .fs2].contains($0) } ?? false
      #expect(operation.effects.contains(.usesFloatingPoint) == floats, "\(operation)")
      let writesFloat = operation.pattern?.format.operands.contains(.fd) ?? false
      #expect(operation.effects.contains(.writesFloatingPoint) == writesFloat, "\(operation)")
      let writesInteger = operation.pattern?.format.operands.contains(.rd) ?? false
      #expect(operation.effects.contains(.writesInteger) == writesInteger, "\(operation)")
    }
  }
}

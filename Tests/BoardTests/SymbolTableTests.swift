import Board
import Foundation
import Testing

/// Names for addresses, from the files that people have.
@Suite struct SymbolTableTests {
  private func table(_ text: String) throws -> SymbolTable {
    try SymbolTable(BootFile(name: "map", contents: Data(text.utf8)))
  }

  @Test func systemMaps() throws {
    let table = try table(
      """
      ffffffff80001000 T second
      ffffffff80000000 T _start
      ffffffff80000000 t $x
      ffffffff80000100 t inner
      ffffffff80002000 D data
      ffffffff01000000 t helper\t[module]
      0000000000000000 A zero
      """)
    #expect(table.name(of: 0xFFFF_FFFF_8000_0000) == "_start")
    #expect(table.name(of: 0xFFFF_FFFF_8000_00FF) == "_start")
    #expect(table.name(of: 0xFFFF_FFFF_8000_0100) == "inner")
    #expect(table.name(of: 0xFFFF_FFFF_8000_1FFF) == "second")
    #expect(table.name(of: 0xFFFF_FFFF_8000_2000) == nil)
    #expect(table.name(of: 0xFFFF_FFFF_0100_0004) == "helper")
    #expect(table.name(of: 0x8000_0000) == nil)
  }

  @Test func programs() throws {
    var builder = ELFBuilder(instructions: [0x13, 0x13, 0x13, 0x13, 0x13, 0x13])
    builder.symbols = [("_start", 0x8000_0000), ("loop", 0x8000_0008), ("$x", 0x8000_0008), ("outside", 0x9000_0000)]
    let table = SymbolTable(try ELFFile(builder.build(), name: "program"))
    #expect(table.name(of: 0x8000_0004) == "_start")
    #expect(table.name(of: 0x8000_000F) == "loop")
    // Symbols say how long they are.
    #expect(table.name(of: 0x8000_0010) == nil)
    #expect(table.name(of: 0x9000_0000) == nil)
  }

  @Test func tablesAreJoined() throws {
    let both = try table("1000 T one\n1100 T end") + table("2000 T two")
    #expect(both.name(of: 0x1010) == "one")
    #expect(both.name(of: 0x2010) == "two")
    #expect(both.name(of: ~0) == nil)
    #expect(SymbolTable().name(of: 0) == nil)
  }

  @Test(arguments: ["", "one two three", "1000 T", "00001000 D data", "\u{7F}ELF"])
  func whatIsNone(text: String) { #expect(throws: BootError.self) { try table(text) } }
}

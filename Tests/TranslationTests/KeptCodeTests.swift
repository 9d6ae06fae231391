import Bus
import CHost
import Foundation
import Hart
import HostSystem
import RISCV
import Testing
import Translation

/// Code that one translator keeps in a file, and another one begins with.
@Suite struct KeptCodeTests {
  private let base = TranslationHarness.base

  /// A folder for one test, gone with it.
  private final class Folder {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("kept-\(UUID().uuidString)")
    var file: String { url.appendingPathComponent("code").path }
    init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(at: url) }
  }

  private func translator(
    _ harness: TranslationHarness, codeSize: Int = 4 << 20, quietLimit: Int = Translator.usualQuietLimit,
    kept: KeptCode? = nil
  ) throws -> Translator {
    let translator = try Translator(
      harness.hart, threshold: 1, codeSize: codeSize, quietLimit: quietLimit, beginningWith: kept)
    harness.hart.engine = translator
    return translator
  }

  /// The file, which is sound.
  private func require(_ path: String) throws -> KeptCode { try #require(load(path)) }

  /// The file, after it was checked; nil where it isn't to be used.
  private func load(_ path: String) -> KeptCode? {
    KeptCode(path: path).flatMap { $0.waitUntilChecked() ? $0 : nil }
  }

  /// A call into another page; a branch there that is taken once only, behind many turns.
  private func placeProgram(_ harness: TranslationHarness, at offset: UInt64 = 0) {
    harness.place([encode(.jal, rd: 1, 0x2000), encode(.jal, -4)], at: base + offset)
    harness.place(
      [
        encode(.addi, rd: 5, rs1: 5, 1), encode(.beq, rs1: 5, rs2: 6, 12), encode(.sd, rs1: 9, rs2: 5, 8),
        encode(.jalr, rs1: 1), encode(.addi, rd: 7, rs1: 7, 1), encode(.jalr, rs1: 1),
      ], at: base + offset + 0x2000)
    harness.hart[x: 6] = 1000
    harness.hart[x: 9] = TranslationHarness.data
  }

  @Test func aTranslatorThatBeginsWithKeptCodeMakesNoneOfIt() throws {
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first)
    placeProgram(first)
    _ = first.hart.run(limit: 2500)
    try maker.keepCode(at: folder.file)

    // At another place, and with a jump to be led elsewhere that the first run left open.
    for offset in [UInt64(0), 0x5000] {
      let second = try TranslationHarness(.interpreter)
      let user = try translator(second, kept: try require(folder.file))
      placeProgram(second, at: offset)
      second.hart.pc = base + offset
      _ = second.hart.run(limit: 2500)
      #expect(user.metrics.blocks == 0 && user.metrics.keptPages == 2)
      _ = second.hart.run(limit: 20_000)
      #expect(second.hart[x: 7] == 1 && (1...3).contains(user.metrics.blocks))

      let plain = try TranslationHarness(.interpreter)
      placeProgram(plain, at: offset)
      plain.hart.pc = base + offset
      _ = plain.hart.run(limit: 2500)
      _ = plain.hart.run(limit: 20_000)
      #expect(second.description() == plain.description())
    }
  }

  /// More than the stubs that are read at once: blocks whose accesses together cross a page's end find another one behind
  /// their own stub's jump, once.
  @Test func whatIsFoundOutLaterIsFoundOutOnce() throws {
    let count = 20_000
    func place(_ harness: TranslationHarness, at address: UInt64) {
      let block = [encode(.ld, rd: 10, rs1: 9, 0), encode(.ld, rd: 11, rs1: 9, 8), encode(.fence_i)]
      harness.place(
        (0..<count).flatMap { _ in block } + [encode(.jal, Int64(count) * -12)], at: base)
      harness.hart[x: 9] = address
    }
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first, codeSize: 32 << 20)
    let turn = UInt64(count * 3 + 1)
    place(first, at: TranslationHarness.data)
    _ = first.hart.run(limit: turn * 3)
    try maker.keepCode(at: folder.file)
    #expect(maker.metrics.blocks >= count)

    let second = try TranslationHarness(.interpreter)
    let user = try translator(second, codeSize: 32 << 20, kept: try require(folder.file))
    place(second, at: TranslationHarness.data + 4096 - 8)
    _ = second.hart.run(limit: turn * 2)
    let made = user.metrics.blocks
    #expect((1...count).contains(made))
    _ = second.hart.run(limit: turn * 3)
    #expect(user.metrics.blocks < made + count)
  }

  @Test func codeOfAPageThatDiffersInOneInstructionIsNotTaken() throws {
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first)
    placeProgram(first)
    _ = first.hart.run(limit: 2500)
    try maker.keepCode(at: folder.file)

    // One that compares all pages after a fence.
    let second = try TranslationHarness(.interpreter, isAlone: false)
    let user = try translator(second, kept: try require(folder.file))
    placeProgram(second)
    second.place([encode(.addi, rd: 5, rs1: 5, 2)], at: base + 0x2000)
    // x5 goes up by 2 in each turn of six instructions.
    _ = second.hart.run(limit: 2400)
    #expect(second.hart[x: 5] == 800 && user.metrics.keptPages == 1)
    // Back to what it was.
    second.place([encode(.addi, rd: 5, rs1: 5, 1)], at: base + 0x2000)
    second.place([encode(.fence_i), encode(.jal, rd: 1, 0x2000 - 0x6004)], at: base + 0x6000)
    second.hart.pc = base + 0x6000
    _ = second.hart.run(limit: 6)
    #expect(user.metrics.keptPages == 2)
  }

  /// Each byte of the trailer, and some of all the rest.
  @Test func aDamagedFileIsNoFile() throws {
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first)
    placeProgram(first)
    _ = first.hart.run(limit: 2500)
    try maker.keepCode(at: folder.file)
    #expect(KeptCode.fits(folder.file) && !KeptCode.fits(folder.file + ".none"))
    let whole = try Data(contentsOf: URL(fileURLWithPath: folder.file))
    #expect(load(folder.file) != nil)
    let places =
      Array(whole.count - 4096..<whole.count - 3968) + Array(stride(from: 1, to: whole.count - 4096, by: 1777))
    for place in places {
      var damaged = whole
      damaged[place] ^= 0x10
      try damaged.write(to: URL(fileURLWithPath: folder.file))
      #expect(load(folder.file) == nil, "byte \(place)")
    }
    for count in [0, 1, 4095, 4096, whole.count - 4096, whole.count - 1] {
      try whole.prefix(count).write(to: URL(fileURLWithPath: folder.file))
      #expect(load(folder.file) == nil, "\(count) bytes")
    }
    #expect(KeptCode(path: folder.url.path) == nil && !KeptCode.fits(folder.file))
    #expect(KeptCode(path: folder.file + ".none") == nil)
  }

  /// A code memory of another size has its second half elsewhere.
  @Test func aFileForAnotherSizeIsLeftAlone() throws {
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first)
    placeProgram(first)
    _ = first.hart.run(limit: 2500)
    try maker.keepCode(at: folder.file)
    let second = try TranslationHarness(.interpreter)
    let user = try translator(second, codeSize: 8 << 20, kept: load(folder.file))
    placeProgram(second)
    _ = second.hart.run(limit: 2400)
    #expect(user.metrics.keptPages == 0 && user.metrics.blocks > 0 && second.hart[x: 5] == 400)
  }

  /// More than a large page of code: most of it is mapped. Kept again with more in it, and dropped when it is full.
  @Test func muchCodeIsMappedAndGrows() throws {
    let folder = try Folder()
    var words: [UInt32] = []
    // No page is like another.
    for turn in 0..<60_000 {
      words += [
        encode(.addi, rd: 5, rs1: 5, 1),
        encode(.orc_b, rd: UInt8(6 + turn / 512 / 16), rs1: UInt8(5 + turn / 512 % 16)),
      ]
    }
    words.append(encode(.jal, 0))
    func run(_ kept: KeptCode?, turns: Int, more: Bool) throws -> (translator: Translator, harness: TranslationHarness)
    {
      let harness = try TranslationHarness(.interpreter)
      let translator = try translator(harness, codeSize: 16 << 20, quietLimit: 1, kept: kept)
      harness.place(words, at: base + (4 << 20))
      if more { harness.place(words.map { $0 ^ 0x80 << 20 }.dropLast() + [encode(.jal, 0)], at: base + (8 << 20)) }
      for turn in 1...turns {
        harness.hart.pc = base + (4 << 20)
        for _ in 0..<16 { _ = harness.hart.run(limit: 10_000) }
        #expect(harness.hart[x: 5] == UInt64(60_000 * turn))
      }
      if more {
        harness.hart[x: 5] = 0
        harness.hart.pc = base + (8 << 20)
        for _ in 0..<16 { _ = harness.hart.run(limit: 10_000) }
      }
      return (translator, harness)
    }
    let (first, firstHarness) = try run(nil, turns: 2, more: false)
    defer { withExtendedLifetime(firstHarness) {} }
    #expect(first.metrics.keptBytes == 0 && first.newCodeBytes > 2 << 20)
    try first.keepCode(at: folder.file)
    let (second, secondHarness) = try run(try require(folder.file), turns: 2, more: true)
    defer { withExtendedLifetime(secondHarness) {} }
    #expect(second.metrics.keptBytes >= 2 << 20 && second.metrics.keptPages > 100)
    #expect(second.metrics.codeBytes > first.metrics.codeBytes && second.newCodeBytes < second.metrics.codeBytes)
    try second.keepCode(at: folder.file)
    let (third, thirdHarness) = try run(try require(folder.file), turns: 1, more: true)
    defer { withExtendedLifetime(thirdHarness) {} }
    #expect(third.metrics.keptPages > second.metrics.keptPages && third.metrics.instructions < 1000)
  }

  // MARK: code memory that another process had a share in

  /// What is mapped a second time in this process stands for the other one.
  private final class OtherShare {
    let start: UnsafeMutablePointer<UInt8>
    let count: Int

    /// Of the code memory of a translator; no other has so many bytes.
    init(codeSize: Int) throws {
      count = codeSize
      let maps = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8)
      let ends = maps.split(separator: "\n").filter { $0.contains(" rw-s ") }.map {
        $0.prefix { $0 != " " }.split(separator: "-").map { UInt($0, radix: 16)! }
      }
      let all = ends.filter { $0[1] - $0[0] == UInt(codeSize) }
      try #require(all.count == 1)
      let found = all[0]
      let place = mmap(nil, codeSize, PROT_NONE, Int32(MAP_PRIVATE) | Int32(MAP_ANONYMOUS), -1, 0)!
      try #require(place != MAP_FAILED)
      let again = chost_map_again(UnsafeMutableRawPointer(bitPattern: found[0]), codeSize, place)
      start = try #require(again).assumingMemoryBound(to: UInt8.self)
    }

    /// Has all of it be the same byte.
    func fill(_ byte: UInt8) { memset(start, Int32(byte), count) }
    func isAll(_ byte: UInt8) -> Bool {
      let part = [UInt8](repeating: byte, count: 64 << 10)
      return stride(from: 0, to: count, by: part.count).allSatisfy {
        memcmp(start + $0, part, min(part.count, count - $0)) == 0
      }
    }

    deinit { munmap(start, count) }
  }

  /// What becomes of the program without a translator.
  private func interpreted() throws -> [String] {
    let plain = try TranslationHarness(.interpreter)
    placeProgram(plain)
    _ = plain.hart.run(limit: 2500)
    _ = plain.hart.run(limit: 20_000)
    return plain.description()
  }

  /// Neither sees what the other writes: int3, which ends the process where it is executed.
  @Test func anIndependentTranslatorSharesNothing() throws {
    let codeSize = 5 << 20 | 64 << 10
    let harness = try TranslationHarness(.interpreter)
    let translator = try translator(harness, codeSize: codeSize)
    let other = try OtherShare(codeSize: codeSize)
    // What all blocks share.
    #expect(!other.isAll(0))
    try translator.becomeIndependent()
    other.fill(0xCC)
    placeProgram(harness)
    _ = harness.hart.run(limit: 2500)
    _ = harness.hart.run(limit: 20_000)
    #expect(translator.metrics.blocks > 0 && other.isAll(0xCC))

    #expect(harness.description() == (try interpreted()))
  }

  @Test func anIndependentTranslatorHasItsKeptCode() throws {
    let codeSize = 6 << 20 | 64 << 10
    let folder = try Folder()
    let first = try TranslationHarness(.interpreter)
    let maker = try translator(first, codeSize: codeSize)
    placeProgram(first)
    _ = first.hart.run(limit: 2500)
    try maker.keepCode(at: folder.file)
    for isPrepared in [false, true] {
      let second = try TranslationHarness(.interpreter)
      let user = try translator(second, codeSize: codeSize, kept: try require(folder.file))
      placeProgram(second)
      if isPrepared { second.hart.prepareCode([base, base + 0x2000, base + 0x9_0000, 0, .max & ~0xFFF]) }
      #expect(user.metrics.keptPages == (isPrepared ? 2 : 0))
      try user.becomeIndependent()
      _ = second.hart.run(limit: 2500)
      #expect(user.metrics.blocks == 0 && user.metrics.keptPages == 2)
      _ = second.hart.run(limit: 20_000)
      #expect(second.hart[x: 7] == 1 && (1...3).contains(user.metrics.blocks))

      #expect(second.description() == (try interpreted()))
    }
  }

  /// The tails of what is mapped of the file, stubs of the file that become the translator's own, and the beginning anew
  /// when all is full: with what the other process had a share in written over.
  @Test func muchKeptCodeIsIndependentUntilAllBeginsAnew() throws {
    let codeSize = 16 << 20 | 64 << 10
    let folder = try Folder()
    let count = 20_000
    func place(_ harness: TranslationHarness, at address: UInt64) {
      let block = [encode(.ld, rd: 10, rs1: 9, 0), encode(.ld, rd: 11, rs1: 9, 8), encode(.fence_i)]
      harness.place((0..<count).flatMap { _ in block } + [encode(.jal, Int64(count) * -12)], at: base + (4 << 20))
      harness.hart.pc = base + (4 << 20)
      harness.hart[x: 9] = address
      for (offset, value) in [(-8, 1), (0, 2), (8, 3), (4088, 4), (4096, 5)] as [(Int64, UInt64)] {
        #expect(harness.memory.store(value, at: PhysicalAddress(TranslationHarness.data &+ UInt64(bitPattern: offset))))
      }
    }
    let turn = UInt64(count * 3 + 1)
    do {
      let first = try TranslationHarness(.interpreter)
      let maker = try translator(first, codeSize: codeSize)
      place(first, at: TranslationHarness.data)
      _ = first.hart.run(limit: turn * 3)
      try maker.keepCode(at: folder.file)
      first.hart.engine = nil
    }
    let second = try TranslationHarness(.interpreter)
    let user = try translator(second, codeSize: codeSize, kept: try require(folder.file))
    let other = try OtherShare(codeSize: codeSize)
    try user.becomeIndependent()
    other.fill(0xCC)
    #expect(user.metrics.keptBytes > 0)
    place(second, at: TranslationHarness.data)
    _ = second.hart.run(limit: turn)
    #expect(user.metrics.blocks <= 2 && second.hart[x: 10] == 2 && second.hart[x: 11] == 3)
    // Across a page's end, where each block's stub leads to another one.
    second.hart[x: 9] = TranslationHarness.data + 4096 - 8
    _ = second.hart.run(limit: turn * 2)
    #expect(user.metrics.blocks > 0 && second.hart[x: 10] == 4 && second.hart[x: 11] == 5)
    // Other code, till there is room for no more; it begins with a fence, before which the one before may be run still.
    for number in 1...64 where user.metrics.flushes == 0 {
      second.place(
        (0..<60_000).flatMap { _ in [encode(.fence_i), encode(.addi, rd: 5, rs1: 5, Int64(number))] }
          + [encode(.jal, 0)], at: base + (8 << 20))
      for _ in 0..<2 {
        second.hart[x: 5] = 0
        second.hart.pc = base + (8 << 20)
        _ = second.hart.run(limit: 120_000)
        #expect(second.hart[x: 5] == UInt64(60_000 * number))
      }
    }
    #expect(user.metrics.flushes > 0)
    place(second, at: TranslationHarness.data)
    _ = second.hart.run(limit: turn)
    #expect(second.hart[x: 10] == 2 && second.hart[x: 11] == 3 && other.isAll(0xCC))
  }
}

import Images
import Testing

/// Control files and package lists (Debian Policy, chapters 5 and 7).
@Suite struct PackageListTests {
  @Test func readsParagraphs() throws {
    let text = """
      # a comment
      Package: one
      Description: short
       long, first line
       .
       last line
      Empty:

      \u{20}
      Package:two\t
      version: 2:1~rc1-3

      """
    let paragraphs = try ControlParagraph.parse(text, name: "list")
    #expect(paragraphs.count == 2)
    #expect(paragraphs[0].fields.map(\.name) == ["Package", "Description", "Empty"])
    #expect(paragraphs[0]["description"] == "short\n long, first line\n .\n last line")
    #expect(paragraphs[0]["Empty"] == "")
    #expect(paragraphs[1]["PACKAGE"] == "two")
    #expect(paragraphs[1]["Version"] == "2:1~rc1-3")
    #expect(paragraphs[1]["Nothing"] == nil)
    // What is written reads as it was.
    #expect(try ControlParagraph.parse(paragraphs[0].text, name: "list") == [paragraphs[0]])
  }

  @Test func takesLinesOfOtherSystems() throws {
    let paragraphs = try ControlParagraph.parse("A: 1\r\nB: 2\r\n\r\nA: 3\r\n", name: "list")
    #expect(paragraphs.map { $0["A"] } == ["1", "3"])
  }

  @Test func saysWhereAControlFileIsDamaged() {
    imageError(.corrupt, says: "list, line 2") { _ = try ControlParagraph.parse("A: 1\nno field\n", name: "list") }
    imageError(.corrupt, says: "list, line 1") { _ = try ControlParagraph.parse(" goes on\n", name: "list") }
    imageError(.corrupt, says: "list, line 1") { _ = try ControlParagraph.parse(": value\n", name: "list") }
  }

  @Test func readsRelations() throws {
    let field = "libc6 (>= 2.38), perl:any, a|b (<<1:2~),\n c (=  3) [riscv64], "
    let groups = try PackageRelation.parse(field, name: "Depends")
    #expect(
      groups.map { $0.map(\.description) } == [["libc6 (>= 2.38)"], ["perl"], ["a", "b (<< 1:2~)"], ["c (= 3)"]])
    #expect(try PackageRelation.parse("", name: "Depends").isEmpty)
  }

  @Test(arguments: ["a (", "a ()", "a (>= )", "a (~ 1)", "a (=> 1)", "(>= 1)", "a b", "a (1)", ":any"])
  func refusesOtherRelations(text: String) {
    imageError(.corrupt, says: "Depends of x") { _ = try PackageRelation.parse(text, name: "Depends of x") }
  }

  private static let list = """
    Package: bash
    Version: 5.2-1
    Architecture: riscv64
    Essential: yes
    Priority: required
    Pre-Depends: libc6 (>= 2.38)
    Depends: base-files
    Installed-Size: 7168
    Provides: shell, bash-static (= 5.2), sh:any
    Filename: pool/main/b/bash.deb
    Size: 1234
    SHA256: ABCDEF

    Package: bash-doc
    Version: 5.2-1
    Priority: optional
    Description: not essential
     Essential: yes
     Package: fake

    Package: bash
    Version: 5.10-1
    Priority: optional
    """

  @Test func findsPackages() throws {
    let index = PackageIndex()
    index.add(list: Array(Self.list.utf8), mirror: "http://mirror/debian")
    index.add(list: Array("Package: bash\nVersion: 5.3-1\n".utf8), mirror: "http://mirror/debian-security")
    #expect(Set(index.names) == ["bash", "bash-doc"])
    #expect(try index.packages(named: "bash").map(\.version.text) == ["5.10-1", "5.3-1", "5.2-1"])
    #expect(try index.packages(named: "bash").map(\.mirror).contains("http://mirror/debian-security"))
    #expect(try index.latest("fake") == nil)
    #expect(try index.packages(providing: "sh").map(\.name) == ["bash"])
    #expect(try index.names(withPriority: "required") == ["bash"])
    #expect(try index.essentialNames() == ["bash"])
    #expect(index.nearest(to: "bahs-doc") == "bash-doc")
    #expect(index.nearest(to: "emacs") == nil)
    let bash = try #require(try index.packages(named: "bash").last)
    #expect(bash.isEssential)
    #expect(bash.dependencies.map { $0.map(\.description) } == [["base-files"], ["libc6 (>= 2.38)"]])
    #expect(bash.preDependencies.map { $0.map(\.description) } == [["libc6 (>= 2.38)"]])
    #expect(bash.installedByteCount == 7 << 20)
    #expect(bash.byteCount == 1234)
    #expect(bash.sha256 == "abcdef")
  }

  @Test func hostileListsAreRefusedOrIgnored() throws {
    let index = PackageIndex()
    for text in [
      "", "\n\n\n", "Package: ", "Package: no-version\n", "Package: size\nVersion: 1\nSize: 99999999999999999999\n",
      "Package: big\nVersion: 1\nInstalled-Size: 18446744073709551615\n", "Package: odd\nVersion: 1\nDepends: (((\n",
      "Package: \u{0}\nVersion: 1\nProvides: ,,, ,",
    ] { index.add(list: Array(text.utf8), mirror: "m") }
    index.add(list: [0xFF, 0x0A, 0x50, 0x0A], mirror: "m")
    imageError(.corrupt, says: "without Package or Version") { _ = try index.latest("no-version") }
    imageError(.corrupt, says: "Depends of odd") { _ = try index.latest("odd") }
    #expect(try index.latest("size")?.byteCount == 0)
    #expect(try index.latest("big")?.installedByteCount != nil)
    #expect(try index.names(withPriority: "required").isEmpty)
  }
}

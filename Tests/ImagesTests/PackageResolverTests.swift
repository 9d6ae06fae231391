import Images
import Testing

@Suite struct PackageResolverTests {
  /// Package lists as an archive has them, without the fields that don't matter here.
  private func index(_ lists: String...) -> PackageIndex {
    let index = PackageIndex()
    for list in lists { index.add(list: Array(list.utf8), mirror: "http://mirror/debian") }
    return index
  }

  private func names(_ packages: [DebianPackage]) -> [String] { packages.map(\.name) }

  private func package(_ name: String, _ version: String = "1", _ more: String...) -> String {
    "Package: \(name)\nVersion: \(version)\n" + more.map { $0 + "\n" }.joined() + "\n"
  }

  @Test func takesWhatIsNeededAndNothingElse() throws {
    let index = index(
      package("shell", "1", "Depends: libc, terminal"), package("libc"), package("terminal", "1", "Depends: libc"),
      package("unneeded", "1", "Depends: libc"))
    #expect(names(try PackageResolver.resolve(["shell"], in: index)) == ["shell", "libc", "terminal"])
  }

  /// What a package pre-depends on is configured, with all that it needs, before that package is unpacked; nothing else is
  /// configured by then, for what it needs may still have to come.
  @Test func preDependenciesAreConfiguredFirst() throws {
    let index = index(
      package("compiler", "1", "Depends: preprocessor"), package("preprocessor"),
      package("python", "1", "Depends: minimal", "Pre-Depends: minimal, kernel"), package("kernel"),
      package("minimal", "1", "Depends: library | other"), package("library", "1", "Depends: minimal"),
      package("module", "1", "Pre-Depends: minimal, python"))
    let all = try ["compiler", "python", "module", "library", "minimal", "preprocessor"].map {
      try #require(try index.latest($0))
    }
    let late = LatePackages(all)
    #expect(
      late.words == [
        "compiler.deb", "library.deb", "minimal.deb", "configure:library,minimal", "python.deb", "configure:python",
        "module.deb", "preprocessor.deb",
      ])
    #expect(LatePackages([]).words == [])
  }

  @Test func takesTheFirstAlternativeThatExists() throws {
    let index = index(
      package("mail", "1", "Depends: gone | exim | postfix"), package("exim"), package("postfix"))
    #expect(names(try PackageResolver.resolve(["mail"], in: index)) == ["mail", "exim"])
    // A person's wish decides, wherever it stands.
    #expect(names(try PackageResolver.resolve(["mail", "postfix"], in: index)) == ["mail", "postfix"])
  }

  @Test func takesTheMostImportantProvider() throws {
    let index = index(
      package("system", "1", "Depends: awk"), package("another", "1", "Provides: awk", "Priority: optional"),
      package("mawk", "1", "Provides: awk", "Priority: required"), package("gawk", "1", "Provides: awk"))
    #expect(names(try PackageResolver.resolve(["system"], in: index)) == ["system", "mawk"])
    #expect(names(try PackageResolver.resolve(["awk"], in: index)) == ["mawk"])
    #expect(names(try PackageResolver.resolve(["system", "gawk"], in: index)) == ["system", "gawk"])
  }

  @Test func versionsOfProvidedNamesCount() throws {
    func providing(_ provided: String) -> PackageIndex {
      index(package("program", "1", "Depends: api (>= 2)"), package("library", "9", "Provides: \(provided)"))
    }
    #expect(names(try PackageResolver.resolve(["program"], in: providing("api (= 2.1)"))) == ["program", "library"])
    // A provided name without a version fulfils no relation with one (Debian Policy 7.5).
    for provided in ["api", "api (= 1)"] {
      imageError(.notFound, says: "program 1 needs api (>= 2)") {
        _ = try PackageResolver.resolve(["program"], in: providing(provided))
      }
    }
  }

  @Test(arguments: [
    ("<<", ["1"]), ("<=", ["1", "2"]), ("=", ["2"]), (">=", ["2", "3"]), (">>", ["3"]), ("<", ["1", "2"]),
    (">", ["2", "3"]),
  ])
  func comparesVersions(symbol: String, accepted: [String]) throws {
    for version in ["1", "2", "3"] {
      let index = index(package("program", "1", "Depends: library (\(symbol) 2)"), package("library", version))
      let resolved = try? PackageResolver.resolve(["program"], in: index)
      #expect((resolved != nil) == accepted.contains(version), "\(version) \(symbol) 2")
    }
  }

  @Test func takesTheLatestVersionThatFits() throws {
    let old = package("library", "1.9"), new = package("library", "1.10")
    let index = index(package("a", "1", "Depends: library"), package("b", "1", "Depends: library (<< 1.10)"), old + new)
    #expect(try PackageResolver.resolve(["a"], in: index).last?.version.text == "1.10")
    #expect(try PackageResolver.resolve(["b"], in: index).last?.version.text == "1.9")
  }

  @Test func conflictsDecideAlternatives() throws {
    let index = index(
      package("base", "1", "Depends: logger"), package("logger"),
      package("service", "1", "Depends: fancy-log | plain-log"), package("fancy-log", "1", "Conflicts: logger"),
      package("plain-log"))
    #expect(
      names(try PackageResolver.resolve(["base", "logger", "service"], in: index))
        == ["base", "logger", "service", "plain-log"])
  }

  @Test func conflictsAreRefused() throws {
    let index = index(
      package("exim", "1", "Provides: mta", "Conflicts: mta"), package("postfix", "1", "Provides: mta"),
      package("old", "1"), package("new", "1", "Breaks: old (<< 2)"))
    // What conflicts with a name that it provides doesn't conflict with itself.
    #expect(names(try PackageResolver.resolve(["exim"], in: index)) == ["exim"])
    imageError(.usage, says: "exim", "postfix", "leave one of them out") {
      _ = try PackageResolver.resolve(["exim", "postfix"], in: index)
    }
    imageError(.usage, says: "new", "old") { _ = try PackageResolver.resolve(["new", "old"], in: index) }
  }

  @Test func saysWhatCanNotBeHad() throws {
    let index = index(
      package("openssh-server", "1", "Depends: libssl (>= 3) | libtls, libc"), package("libssl", "1.1"), package("libc")
    )
    imageError(.notFound, says: "openssh-server 1 needs libssl (>= 3) | libtls") {
      _ = try PackageResolver.resolve(["openssh-server"], in: index)
    }
    imageError(.notFound, says: "no package opensh-server", "did you mean openssh-server?") {
      _ = try PackageResolver.resolve(["opensh-server"], in: index)
    }
  }

  @Test func dependenciesMayGoInCircles() throws {
    let index = index(package("a", "1", "Depends: b"), package("b", "1", "Depends: c"), package("c", "1", "Depends: a"))
    #expect(Set(names(try PackageResolver.resolve(["b"], in: index))) == ["a", "b", "c"])
  }

  @Test func preDependenciesComeFirst() throws {
    let index = index(
      package("init", "1", "Depends: tools", "Pre-Depends: libc (>= 1), base"),
      package("tools", "1", "Pre-Depends: libc"),
      package("libc"), package("base", "1", "Pre-Depends: libc"))
    let order = names(try PackageResolver.resolve(["init"], in: index))
    #expect(order == ["libc", "base", "init", "tools"])
    // A circle of them ends, too.
    let circle = self.index(package("x", "1", "Pre-Depends: y"), package("y", "1", "Pre-Depends: x"))
    #expect(Set(names(try PackageResolver.resolve(["x"], in: circle))) == ["x", "y"])
  }

  @Test func whatIsThereAlreadyNeedsNoPackage() throws {
    let index = index(package("kernel", "1", "Depends: ramdisk-tool | generator"), package("generator"))
    let control = try ControlParagraph.parse(package("ours", "1", "Provides: ramdisk-tool"), name: "ours")[0]
    let own = try DebianPackage(control, mirror: "")
    #expect(names(try PackageResolver.resolve(["kernel"], in: index, alreadyProvided: [own])) == ["kernel"])
    #expect(names(try PackageResolver.resolve(["kernel"], in: index)) == ["kernel", "generator"])
  }
}

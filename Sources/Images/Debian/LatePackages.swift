/// The packages that the guest's own dpkg unpacks, and when it configures those that others pre-depend on: these must be
/// configured before the others are unpacked, with all that they need in turn (Debian Policy, 7.2).
package struct LatePackages {
  /// A group that is unpacked together, after which these packages are configured. What is left at the end is
  /// configured all at once.
  private struct Group {
    var unpacked: [String] = []
    var configured: [String] = []
  }

  private var groups: [Group] = []
  private let packages: [DebianPackage]
  private var placed: Set<String> = []
  private var configured: Set<String> = []
  private var group = Group()

  /// - Parameter packages: in an order of which as much is kept as can be. All that they need besides is configured.
  package init(_ packages: [DebianPackage]) {
    self.packages = packages
    for package in packages { place(package) }
    if !group.unpacked.isEmpty { groups.append(group) }
  }

  private mutating func place(_ package: DebianPackage) {
    guard placed.insert(package.name).inserted else { return }
    var waitsFor: [DebianPackage] = []
    var visited: Set<String> = [package.name]
    for other in fulfilling(package.preDependencies) { collect(other, &visited, &waitsFor) }
    for other in waitsFor { place(other) }
    let names = waitsFor.map(\.name).filter { !configured.contains($0) }
    if !names.isEmpty {
      configured.formUnion(names)
      group.configured = names
      groups.append(group)
      group = Group()
    }
    group.unpacked.append(package.name)
  }

  private func fulfilling(_ dependencies: [[PackageRelation]]) -> [DebianPackage] {
    packages.filter { package in dependencies.contains { $0.contains { package.fulfils($0) } } }
  }

  /// Appends a package behind all that it needs; a circle is broken where it is met.
  private func collect(_ package: DebianPackage, _ visited: inout Set<String>, _ result: inout [DebianPackage]) {
    guard visited.insert(package.name).inserted else { return }
    for other in fulfilling(package.dependencies) { collect(other, &visited, &result) }
    result.append(package)
  }

  /// The groups in words for the guest's shell: names of package files, and "configure:a,b".
  package var words: [String] {
    groups.flatMap { group in
      group.unpacked.map { "\($0).deb" }
        + (group.configured.isEmpty ? [] : ["configure:" + group.configured.joined(separator: ",")])
    }
  }
}

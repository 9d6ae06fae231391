/// Chooses packages so that all dependencies hold.
///
/// The choice is the one a person would make by hand: what was asked for first, then for each dependency what is already
/// chosen, else its first alternative that exists and agrees with the choice so far, else the most important package that
/// provides it. Recommendations are left out.
package struct PackageResolver {
  private let index: PackageIndex
  private var chosen: [String: DebianPackage] = [:]
  private var order: [String] = []
  /// What is chosen, by its own name and by the names it provides.
  private var byName: [String: [String]] = [:]

  package init(index: PackageIndex) { self.index = index }

  /// - Parameters:
  ///   - names: packages that must be there; those that other parts of the image need.
  ///   - alreadyProvided: packages that the image has without the archive's help.
  /// - Returns: the chosen packages, those that others pre-depend on before these, else in the order of choice.
  package static func resolve(
    _ names: [String], in index: PackageIndex, alreadyProvided: [DebianPackage] = []
  ) throws -> [DebianPackage] {
    var resolver = PackageResolver(index: index)
    for package in alreadyProvided { resolver.choose(package) }
    var pending: [DebianPackage] = []
    // All that is asked for is chosen before any dependency is looked at, so that a person's wish decides alternatives.
    for name in names where resolver.chosen[name] == nil {
      guard let package = try index.latest(name) ?? resolver.provider(of: PackageRelation(name)) else {
        let hint = index.nearest(to: name).map { "; did you mean \($0)?" } ?? ""
        throw ImageError(.notFound, "no package \(name) in the archive\(hint)")
      }
      if resolver.chosen[package.name] != nil { continue }
      resolver.choose(package)
      pending.append(package)
    }
    var position = 0
    while position < pending.count {
      let package = pending[position]
      position += 1
      for group in package.dependencies where !resolver.isFulfilled(group) {
        guard let next = try resolver.candidate(for: group) else {
          let wish = group.map(\.description).joined(separator: " | ")
          throw ImageError(.notFound, "\(package.name) \(package.version) needs \(wish), which can't be chosen")
        }
        resolver.choose(next)
        pending.append(next)
      }
    }
    try resolver.checkConflicts()
    let given = Set(alreadyProvided.map(\.name))
    return resolver.sorted().filter { !given.contains($0.name) }
  }

  private mutating func choose(_ package: DebianPackage) {
    chosen[package.name] = package
    order.append(package.name)
    for name in Set([package.name] + package.provides.map(\.name)) { byName[name, default: []].append(package.name) }
  }

  private func isFulfilled(_ group: [PackageRelation]) -> Bool {
    group.contains { relation in
      (byName[relation.name] ?? []).contains { chosen[$0]?.fulfils(relation) ?? false }
    }
  }

  private func candidate(for group: [PackageRelation]) throws -> DebianPackage? {
    for relation in group {
      let real = try index.packages(named: relation.name).first { relation.accepts($0.version) && agrees($0) }
      if let real { return real }
      if let provider = try provider(of: relation) { return provider }
    }
    return nil
  }

  private func provider(of relation: PackageRelation) throws -> DebianPackage? {
    let ranks = ["required": 0, "important": 1, "standard": 2, "optional": 3]
    return try index.packages(providing: relation.name)
      .filter { $0.fulfils(relation) && agrees($0) }
      .min { (ranks[$0.priority] ?? 4, $0.name) < (ranks[$1.priority] ?? 4, $1.name) }
  }

  /// Whether nothing chosen conflicts with it, or it with something chosen.
  private func agrees(_ package: DebianPackage) -> Bool {
    if let other = chosen[package.name], other.version != package.version { return false }
    return conflict(of: package) == nil
  }

  private func conflict(of package: DebianPackage) -> String? {
    for relation in package.conflicts {
      for name in byName[relation.name] ?? [] where name != package.name {
        if let other = chosen[name], other.fulfils(relation) { return name }
      }
    }
    for name in order {
      guard let other = chosen[name], other.name != package.name else { continue }
      if other.conflicts.contains(where: { package.fulfils($0) }) { return name }
    }
    return nil
  }

  private func checkConflicts() throws {
    for name in order {
      guard let package = chosen[name] else { continue }
      for relation in package.conflicts {
        for rival in byName[relation.name] ?? [] where rival != name {
          if let other = chosen[rival], other.fulfils(relation) {
            throw ImageError(.usage, "\(name) and \(rival) can't be installed together; leave one of them out")
          }
        }
      }
    }
  }

  /// Pre-dependencies before what needs them; a circle is broken where it is met.
  private func sorted() -> [DebianPackage] {
    var result: [DebianPackage] = []
    var visited: Set<String> = []
    func visit(_ name: String) {
      guard visited.insert(name).inserted, let package = chosen[name] else { return }
      for group in package.preDependencies {
        for relation in group {
          for provider in byName[relation.name] ?? [] where chosen[provider]?.fulfils(relation) ?? false {
            visit(provider)
          }
        }
      }
      result.append(package)
    }
    for name in order { visit(name) }
    return result
  }
}

extension PackageRelation {
  fileprivate init(_ name: String) {
    self.name = name
    comparison = nil
    version = nil
  }
}

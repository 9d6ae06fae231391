/// Knows every path of a root file system that is being put together, and where symbolic links lead.
package struct RootTree {
  package enum Node: Equatable, Sendable {
    case directory
    case symbolicLink(String)
    /// Anything else, with the package that brought it.
    case other(owner: String)
  }

  private var nodes: [String: Node] = ["": .directory]

  package init() {}

  package subscript(path: String) -> Node? {
    get { nodes[path] }
    set { nodes[path] = newValue }
  }

  /// The same place with no symbolic link on the way: "lib/x" is "usr/lib/x" where lib is a link to usr/lib. The last
  /// part is followed only when `followingLast`. Links lead nowhere above the root, as in a chroot.
  ///
  /// - Throws: when links go in circles.
  package func resolve(_ path: String, followingLast: Bool = false) throws -> String {
    var pending = Array(path.split(separator: "/").map(String.init).reversed())
    var done: [String] = []
    var followed = 0
    while let part = pending.popLast() {
      if part == "." { continue }
      if part == ".." {
        _ = done.popLast()
        continue
      }
      done.append(part)
      if pending.isEmpty && !followingLast { break }
      guard case .symbolicLink(let target) = nodes[done.joined(separator: "/")] else { continue }
      followed += 1
      if followed > 40 { throw ImageError(.corrupt, "the symbolic links on the way to /\(path) go in circles") }
      if target.hasPrefix("/") { done = [] } else { _ = done.popLast() }
      pending += target.split(separator: "/").map(String.init).reversed()
    }
    return done.joined(separator: "/")
  }
}

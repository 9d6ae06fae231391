/// Writes the files that modprobe and udev look modules up in, as depmod makes them (modules.dep(5), and kmod's
/// libkmod/libkmod-index.c for the binary form), so that the guest needn't read thousands of modules itself.
package struct ModuleIndex {
  private let modules: KernelModules

  package init(_ modules: KernelModules) { self.modules = modules }

  /// The files by name.
  ///
  /// - Parameters:
  ///   - builtin: the text of the kernel's modules.builtin.
  ///   - builtinInformation: the content of its modules.builtin.modinfo.
  package func files(builtin: String, builtinInformation: [UInt8]) -> [(name: String, content: [UInt8])] {
    let sorted = modules.modules.values.sorted { $0.path < $1.path }
    var dependencies = IndexTrie()
    var aliases = IndexTrie()
    var dependencyText = ""
    var aliasText = "# Aliases extracted from modules themselves.\n"
    var softText = "# Soft dependencies extracted from modules themselves.\n"
    var deviceText = "# Device nodes to trigger on-demand module loading.\n"
    for (priority, module) in sorted.enumerated() {
      // The nearest first, as modprobe expects it.
      let needed = modules.dependencies(of: module.name).reversed().compactMap { modules.modules[$0]?.path }
      let line = "\(module.path):" + needed.map { " " + $0 }.joined()
      dependencyText += line + "\n"
      dependencies.insert(module.name, value: line, priority: UInt32(priority))
      for alias in module.aliases {
        let key = Self.underscored(alias)
        aliasText += "alias \(key) \(module.name)\n"
        aliases.insert(key, value: module.name, priority: UInt32(priority))
      }
      for soft in module.softDependencies { softText += "softdep \(module.name) \(soft)\n" }
      if let device = Self.deviceLine(module) { deviceText += device }
    }
    var builtins = IndexTrie()
    for line in builtin.split(separator: "\n") {
      builtins.insert(KernelModule.name(ofPath: String(line)), value: "", priority: 0)
    }
    return [
      ("modules.dep", Array(dependencyText.utf8)),
      ("modules.dep.bin", dependencies.serialized()),
      ("modules.alias", Array(aliasText.utf8)),
      ("modules.alias.bin", aliases.serialized()),
      ("modules.softdep", Array(softText.utf8)),
      ("modules.devname", Array(deviceText.utf8)),
      ("modules.symbols", Array("# Aliases for symbols, used by symbol_request().\n".utf8)),
      ("modules.symbols.bin", IndexTrie().serialized()),
      ("modules.builtin.bin", builtins.serialized()),
      ("modules.builtin.alias.bin", Self.builtinAliases(builtinInformation).serialized()),
    ]
  }

  /// Records of the form "module.key=value", each ended by a zero byte.
  private static func builtinAliases(_ information: [UInt8]) -> IndexTrie {
    var trie = IndexTrie()
    for record in information.split(separator: 0) {
      let text = String(decoding: record, as: UTF8.self)
      guard let dot = text.firstIndex(of: "."), text[dot...].hasPrefix(".alias=") else { continue }
      let alias = text[text.index(dot, offsetBy: 7)...]
      trie.insert(underscored(String(alias)), value: String(text[..<dot].replacing("-", with: "_")), priority: 0)
    }
    return trie
  }

  /// "_" for "-", but not within brackets, where "-" is a range.
  private static func underscored(_ alias: String) -> String {
    var inBrackets = false
    return String(
      alias.map { character in
        if character == "[" { inBrackets = true }
        if character == "]" { inBrackets = false }
        return character == "-" && !inBrackets ? "_" : character
      })
  }

  /// "fuse fuse c10:229": the device node that makes the kernel load a module when it is opened.
  private static func deviceLine(_ module: KernelModule) -> String? {
    var device: Substring?
    var number: String?
    for alias in module.aliases {
      if alias.hasPrefix("devname:") { device = alias.dropFirst(8) }
      for (prefix, letter) in [("char-major-", "c"), ("block-major-", "b")] where alias.hasPrefix(prefix) {
        let parts = alias.dropFirst(prefix.count).split(separator: "-")
        if parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) {
          number = "\(letter)\(major):\(minor)"
        }
      }
    }
    guard let device, let number else { return nil }
    return "\(module.name) \(device) \(number)\n"
  }
}

/// The prefix tree of kmod's binary index files.
struct IndexTrie {
  private struct Node {
    var prefix: [UInt8] = []
    var children: [UInt8: Int] = [:]
    var values: [(value: String, priority: UInt32)] = []
  }

  private var nodes = [Node()]

  mutating func insert(_ key: String, value: String, priority: UInt32) {
    let key = Array(key.utf8)
    // Keys are ASCII; what isn't has no place in the tree.
    guard key.allSatisfy({ (1..<0x80).contains($0) }) else { return }
    var node = 0
    var position = 0
    while true {
      let prefix = nodes[node].prefix
      let shared = zip(prefix, key[position...]).prefix { $0 == $1 }.count
      if shared < prefix.count {
        // The node splits: what it was goes below what is shared.
        var lower = nodes[node]
        lower.prefix = Array(prefix[(shared + 1)...])
        nodes.append(lower)
        nodes[node] = Node(prefix: Array(prefix[..<shared]), children: [prefix[shared]: nodes.count - 1])
      }
      position += shared
      if position == key.count {
        nodes[node].values.append((value, priority))
        return
      }
      let next = key[position]
      position += 1
      if let child = nodes[node].children[next] {
        node = child
      } else {
        nodes.append(Node(prefix: Array(key[position...]), values: [(value, priority)]))
        nodes[node].children[next] = nodes.count - 1
        return
      }
    }
  }

  /// Magic number, version 2.1 and the root's place, then the nodes, each after its children. Numbers are big-endian.
  func serialized() -> [UInt8] {
    var bytes: [UInt8] = []
    func append(_ value: UInt32) {
      bytes += [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }
    func write(_ index: Int) -> UInt32 {
      let node = nodes[index]
      var places: [UInt32] = []
      let first = node.children.keys.min() ?? 0
      let last = node.children.keys.max() ?? 0
      if !node.children.isEmpty {
        for letter in first...last { places.append(node.children[letter].map(write) ?? 0) }
      }
      var place = UInt32(truncatingIfNeeded: bytes.count)
      if !node.prefix.isEmpty {
        bytes += node.prefix + [0]
        place |= 0x8000_0000
      }
      if !places.isEmpty {
        bytes += [first, last]
        places.forEach(append)
        place |= 0x2000_0000
      }
      if !node.values.isEmpty {
        append(UInt32(node.values.count))
        for value in node.values.sorted(by: { $0.priority < $1.priority }) {
          append(value.priority)
          bytes += Array(value.value.utf8) + [0]
        }
        place |= 0x4000_0000
      }
      return place
    }
    append(0xB007_F457)
    append(0x0002_0001)
    append(0)
    let root = write(0)
    for index in 0..<4 { bytes[8 + index] = UInt8(truncatingIfNeeded: root >> (24 - 8 * UInt32(index))) }
    return bytes
  }
}

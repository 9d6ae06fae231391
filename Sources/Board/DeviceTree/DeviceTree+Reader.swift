import Foundation

extension DeviceTree {
  /// Nodes within nodes that a reader follows; real trees have fewer than ten.
  static let maximumDepth = 64
  /// Longest name of a node or property, in bytes with its end. The specification allows 31 and few keep to it.
  static let maximumNameLength = 256
  /// Largest tree in bytes.
  static let maximumSize = 16 << 20

  /// Reads a flattened tree of version 16 or later. `name` stands in messages. Safe with any bytes; throws `BootError`.
  public init(flattened data: Data, name: String = "device tree") throws {
    func damaged(_ what: String) -> BootError { BootError(.data, "\(name): damaged device tree (\(what))") }
    let whole = ByteReader(data)
    guard whole.big(0, as: UInt32.self) == DeviceTree.magic else {
      throw BootError(.data, "\(name): not a flattened device tree (.dtb); compile it with dtc")
    }
    guard let size = whole.big(4, as: UInt32.self), size >= 40, size <= DeviceTree.maximumSize,
      let blob = whole.slice(0, UInt64(size))
    else { throw damaged("its size is wrong or it is truncated") }
    let reader = ByteReader(blob)
    guard let structureOffset = reader.big(8, as: UInt32.self), let stringsOffset = reader.big(12, as: UInt32.self),
      let version = reader.big(20, as: UInt32.self), let compatible = reader.big(24, as: UInt32.self),
      let stringsSize = reader.big(32, as: UInt32.self)
    else { throw damaged("its header is truncated") }
    guard version >= DeviceTree.lastCompatibleVersion, compatible <= DeviceTree.version else {
      throw BootError(.data, "\(name): device tree version \(version) is unknown; use version 17")
    }
    // Version 16 doesn't say how long the structure is.
    let structureSize = version >= 17 ? reader.big(36, as: UInt32.self) ?? 0 : size - min(size, structureOffset)
    guard let structure = reader.slice(UInt64(structureOffset), UInt64(structureSize)),
      let strings = reader.slice(UInt64(stringsOffset), UInt64(stringsSize))
    else { throw damaged("a block lies outside the file") }
    guard let root = try DeviceTree.readStructure(ByteReader(structure), ByteReader(strings), damaged) else {
      throw damaged("it has no root")
    }
    self.root = root
  }

  private static func readStructure(
    _ reader: ByteReader, _ strings: ByteReader, _ damaged: (String) -> BootError
  ) throws -> Node? {
    var open: [Node] = []
    var root: Node?
    var at: UInt64 = 0
    func align() { at = (at + 3) & ~3 }
    while true {
      guard let token = reader.big(at, as: UInt32.self) else { throw damaged("its structure ends early") }
      at += 4
      switch token {
      case Token.beginNode:
        guard root == nil else { throw damaged("it has a second root") }
        guard open.count < maximumDepth else { throw damaged("nodes lie too deep") }
        guard let name = reader.string(at, limit: maximumNameLength) else { throw damaged("a node's name has no end") }
        at += UInt64(reader.byteCount(ofStringAt: at) + 1)
        align()
        open.append(Node(name))
      case Token.endNode:
        guard let node = open.popLast() else { throw damaged("a node ends that never began") }
        if open.isEmpty { root = node } else { open[open.count - 1].children.append(node) }
      case Token.property:
        guard !open.isEmpty else { throw damaged("a property stands outside every node") }
        guard let length = reader.big(at, as: UInt32.self), let nameOffset = reader.big(at + 4, as: UInt32.self),
          let value = reader.slice(at + 8, UInt64(length))
        else { throw damaged("a property is truncated") }
        guard let name = strings.string(UInt64(nameOffset), limit: maximumNameLength) else {
          throw damaged("a property's name lies outside the strings")
        }
        open[open.count - 1].append(Property(name: name, value: Array(value)))
        at += 8 + UInt64(length)
        align()
      case Token.nop: break
      case Token.end:
        guard open.isEmpty else { throw damaged("a node doesn't end") }
        return root
      default: throw damaged("unknown token \(token)")
      }
    }
  }
}

extension ByteReader {
  /// Bytes of the zero-terminated string at `offset`, which may not be UTF-8.
  fileprivate func byteCount(ofStringAt offset: UInt64) -> Int {
    var length = 0
    while let byte = little(offset + UInt64(length), as: UInt8.self), byte != 0 { length += 1 }
    return length
  }
}

import Foundation

extension DeviceTree {
  static let magic: UInt32 = 0xD00D_FEED
  static let version: UInt32 = 17
  static let lastCompatibleVersion: UInt32 = 16

  /// The tags of the structure block (Devicetree Specification 0.4, 5.4.1).
  enum Token {
    static let beginNode: UInt32 = 1
    static let endNode: UInt32 = 2
    static let property: UInt32 = 3
    static let nop: UInt32 = 4
    static let end: UInt32 = 9
  }

  /// The flattened tree, version 17 (Devicetree Specification 0.4, chapter 5).
  public func flattened() -> [UInt8] {
    var strings = StringsBlock()
    var structure: [UInt8] = []
    DeviceTree.append(root, to: &structure, &strings)
    DeviceTree.append(Token.end, to: &structure)
    let headerSize = 40
    let reservationSize = 16
    let structureOffset = headerSize + reservationSize
    let stringsOffset = structureOffset + structure.count
    var blob: [UInt8] = []
    for field in [
      DeviceTree.magic, UInt32(stringsOffset + strings.bytes.count), UInt32(structureOffset), UInt32(stringsOffset),
      UInt32(headerSize), DeviceTree.version, DeviceTree.lastCompatibleVersion, 0, UInt32(strings.bytes.count),
      UInt32(structure.count),
    ] {
      DeviceTree.append(field, to: &blob)
    }
    blob.append(contentsOf: [UInt8](repeating: 0, count: reservationSize))
    return blob + structure + strings.bytes
  }

  /// Property names, each once.
  private struct StringsBlock {
    var bytes: [UInt8] = []
    private var offsets: [String: UInt32] = [:]

    mutating func offset(of name: String) -> UInt32 {
      if let offset = offsets[name] { return offset }
      let offset = UInt32(bytes.count)
      offsets[name] = offset
      bytes.append(contentsOf: Array(name.utf8) + [0])
      return offset
    }
  }

  private static func append(_ node: Node, to structure: inout [UInt8], _ strings: inout StringsBlock) {
    append(Token.beginNode, to: &structure)
    structure.append(contentsOf: Array(node.name.utf8) + [0])
    pad(&structure)
    for property in node.properties {
      append(Token.property, to: &structure)
      append(UInt32(property.value.count), to: &structure)
      append(strings.offset(of: property.name), to: &structure)
      structure.append(contentsOf: property.value)
      pad(&structure)
    }
    for child in node.children { append(child, to: &structure, &strings) }
    append(Token.endNode, to: &structure)
  }

  private static func append(_ word: UInt32, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: word.bigEndian) { bytes.append(contentsOf: $0) }
  }

  private static func pad(_ bytes: inout [UInt8]) { while bytes.count % 4 != 0 { bytes.append(0) } }
}

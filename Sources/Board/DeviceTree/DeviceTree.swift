import Foundation

/// A device tree: nodes with properties, as the Devicetree Specification 0.4 has them. Written to and read from the
/// flattened form in `DeviceTree+Writer.swift` and `DeviceTree+Reader.swift`.
public struct DeviceTree: Equatable, Sendable {
  public struct Property: Equatable, Sendable {
    public let name: String
    public var value: [UInt8]

    public init(name: String, value: [UInt8]) {
      self.name = name
      self.value = value
    }
  }

  public struct Node: Equatable, Sendable {
    /// With its unit address ("cpu@0"); empty for the root.
    public let name: String
    public private(set) var properties: [Property] = []
    public var children: [Node] = []

    public init(_ name: String) { self.name = name }

    /// The value of a property, nil where there is none.
    public subscript(property: String) -> [UInt8]? {
      get { properties.first { $0.name == property }?.value }
      set {
        let index = properties.firstIndex { $0.name == property }
        switch (index, newValue) {
        case (let index?, let value?): properties[index].value = value
        case (nil, let value?): properties.append(Property(name: property, value: value))
        case (let index?, nil): properties.remove(at: index)
        case (nil, nil): break
        }
      }
    }

    mutating func append(_ property: Property) { properties.append(property) }

    /// A property without a value: its presence speaks.
    public mutating func set(_ property: String) { self[property] = [] }

    /// Big-endian 32-bit cells.
    public mutating func set(_ property: String, cells: [UInt32]) {
      self[property] = cells.flatMap { cell in withUnsafeBytes(of: cell.bigEndian) { Array($0) } }
    }

    public mutating func set(_ property: String, _ cell: UInt32) { set(property, cells: [cell]) }

    /// Big-endian 64-bit numbers, each of two cells.
    public mutating func set(_ property: String, numbers: [UInt64]) {
      set(property, cells: numbers.flatMap { [UInt32(truncatingIfNeeded: $0 >> 32), UInt32(truncatingIfNeeded: $0)] })
    }

    public mutating func set(_ property: String, _ strings: String...) { set(property, strings: strings) }

    /// Zero-terminated strings, one after the other.
    public mutating func set(_ property: String, strings: [String]) {
      self[property] = strings.flatMap { Array($0.utf8) + [0] }
    }

    /// The first string of a property.
    public func string(_ property: String) -> String? {
      self[property].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// All strings of a property.
    public func strings(_ property: String) -> [String] {
      (self[property] ?? []).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// A property as big-endian cells; bytes beyond the last whole cell are left out.
    public func cells(_ property: String) -> [UInt32] {
      let bytes = self[property] ?? []
      return (0..<bytes.count / 4).map { index in
        bytes[index * 4..<index * 4 + 4].reduce(0) { $0 << 8 | UInt32($1) }
      }
    }

    /// A property as big-endian 64-bit numbers.
    public func numbers(_ property: String) -> [UInt64] {
      let cells = cells(property)
      return (0..<cells.count / 2).map { UInt64(cells[$0 * 2]) << 32 | UInt64(cells[$0 * 2 + 1]) }
    }

    public subscript(child name: String) -> Node? { children.first { $0.name == name } }

    /// Changes the child `name`, after adding it where there is none.
    public mutating func withChild(_ name: String, _ body: (inout Node) -> Void) {
      let index = children.firstIndex { $0.name == name } ?? children.count
      if index == children.count { children.append(Node(name)) }
      body(&children[index])
    }
  }

  public var root: Node

  public init(root: Node = Node("")) { self.root = root }

  /// The node at an absolute path ("/soc/serial@10000000").
  public subscript(path: String) -> Node? {
    path.split(separator: "/").reduce(root as Node?) { node, name in node?[child: String(name)] }
  }
}

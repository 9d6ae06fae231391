/// What a kernel module says about itself in its section `.modinfo` (Linux: include/linux/moduleinfo.h) and what its
/// symbol table offers.
package struct KernelModule: Sendable {
  /// With "_" for "-", as the kernel and kmod compare names.
  package var name: String
  /// Below the folder of the kernel's modules, for example "kernel/fs/ext4/ext4.ko.xz".
  package var path: String
  package var dependencies: [String]
  package var aliases: [String]
  /// "pre: a b post: c", one string for each MODULE_SOFTDEP.
  package var softDependencies: [String]

  /// - Parameters:
  ///   - path: below the folder of the kernel's modules.
  ///   - object: the decompressed module, an ELF relocatable file.
  package init(path: String, object: [UInt8]) throws {
    self.path = path
    name = Self.name(ofPath: path)
    dependencies = []
    aliases = []
    softDependencies = []
    guard let section = try Self.section(".modinfo", of: object, path: path) else { return }
    for record in object[section].split(separator: 0) {
      guard let equals = record.firstIndex(of: UInt8(ascii: "=")) else { continue }
      let value = String(decoding: record[(equals + 1)...], as: UTF8.self)
      switch String(decoding: record[..<equals], as: UTF8.self) {
      case "depends": dependencies = value.split(separator: ",").map { String($0.replacing("-", with: "_")) }
      case "alias": aliases.append(value)
      case "softdep": softDependencies.append(value)
      default: break
      }
    }
  }

  /// "kernel/fs/9p/9p.ko.xz" is the module "9p".
  package static func name(ofPath path: String) -> String {
    let file = path.split(separator: "/").last ?? ""
    return String(file.prefix { $0 != "." }.replacing("-", with: "_"))
  }

  /// The modules that want to be loaded before this one, if they are there.
  package var softPredecessors: [String] {
    softDependencies.flatMap { line -> [String] in
      var isBefore = false
      return line.split(separator: " ").compactMap { word in
        if word.hasSuffix(":") {
          isBefore = word == "pre:"
          return nil
        }
        return isBefore ? String(word.replacing("-", with: "_")) : nil
      }
    }
  }

  /// Where a section's bytes are in a 64-bit little-endian ELF file (ELF-64 Object File Format, chapters 3 and 4).
  private static func section(_ wanted: String, of object: [UInt8], path: String) throws -> Range<Int>? {
    func damaged() -> ImageError { ImageError(.corrupt, "the kernel module \(path) isn't a whole ELF file") }
    func number(_ offset: Int, _ count: Int) throws -> Int {
      guard offset >= 0, offset <= object.count - count else { throw damaged() }
      let value = (0..<count).reduce(UInt64(0)) { $0 | UInt64(object[offset + $1]) << (8 * UInt64($1)) }
      guard value < 1 << 40 else { throw damaged() }
      return Int(value)
    }
    guard object.starts(with: [0x7F, 0x45, 0x4C, 0x46, 2, 1]) else { throw damaged() }
    let headers = try number(0x28, 8)
    let count = try number(0x3C, 2)
    let names = try number(headers + 64 * number(0x3E, 2) + 0x18, 8)
    for index in 0..<count {
      let header = headers + 64 * index
      let start = names + (try number(header, 4))
      guard start < object.count, object[start...].starts(with: Array(wanted.utf8) + [0]) else { continue }
      let offset = try number(header + 0x18, 8)
      let length = try number(header + 0x20, 8)
      guard offset <= object.count, length <= object.count - offset else { throw damaged() }
      return offset..<offset + length
    }
    return nil
  }
}

/// Writes an initial ramdisk: a cpio archive in the "newc" form (Linux: Documentation/driver-api/early-userspace/
/// buffer-format.rst). It isn't compressed: copying costs the guest less than decompressing.
package final class InitialRamdiskWriter {
  private let sink: ByteSink
  private var nextInode: UInt32 = 1
  private var directories: Set<String> = []
  private var offset = 0

  package init(_ sink: ByteSink) { self.sink = sink }

  package func add(directory path: String) throws {
    var parent = ""
    for part in path.split(separator: "/") {
      parent += (parent.isEmpty ? "" : "/") + part
      if directories.insert(parent).inserted { try add(parent, mode: 0o040755, content: []) }
    }
  }

  package func add(file path: String, mode: UInt32 = 0o644, content: [UInt8]) throws {
    try addParent(of: path)
    try add(path, mode: 0o100000 | mode, content: content)
  }

  package func add(symbolicLink path: String, to target: String) throws {
    try addParent(of: path)
    try add(path, mode: 0o120777, content: Array(target.utf8))
  }

  package func add(characterDevice path: String, major: UInt32, minor: UInt32, mode: UInt32 = 0o600) throws {
    try addParent(of: path)
    try add(path, mode: 0o020000 | mode, content: [], major: major, minor: minor)
  }

  package func finish() throws {
    try add("TRAILER!!!", mode: 0, content: [], inode: 0)
    try put([UInt8](repeating: 0, count: (512 - offset % 512) % 512))
  }

  private func addParent(of path: String) throws {
    if let slash = path.lastIndex(of: "/") { try add(directory: String(path[..<slash])) }
  }

  private func add(
    _ path: String, mode: UInt32, content: [UInt8], major: UInt32 = 0, minor: UInt32 = 0, inode: UInt32? = nil
  ) throws {
    guard let byteCount = UInt32(exactly: content.count) else {
      throw ImageError(.usage, "\(path) is too large for an initial ramdisk")
    }
    let name = Array(path.utf8) + [0]
    let number = inode ?? nextInode
    if inode == nil { nextInode += 1 }
    let links: UInt32 = mode & 0o170000 == 0o040000 ? 2 : 1
    // Inode, mode, uid, gid, links, time, size, device, rdevice, name length, checksum.
    let fields: [UInt32] = [number, mode, 0, 0, links, 0, byteCount, 0, 0, major, minor, UInt32(name.count), 0]
    var header = Array("070701".utf8)
    for field in fields {
      let digits = String(field, radix: 16, uppercase: true)
      header += Array((String(repeating: "0", count: 8 - digits.utf8.count) + digits).utf8)
    }
    try put(header + name)
    try align()
    try put(content)
    try align()
  }

  private func align() throws { try put([UInt8](repeating: 0, count: (4 - offset % 4) % 4)) }

  private func put(_ bytes: [UInt8]) throws {
    try sink.write(bytes)
    offset += bytes.count
  }
}

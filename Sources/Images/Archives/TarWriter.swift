/// Writes a tar archive in the ustar form, with GNU long names where ustar has no room for them.
package final class TarWriter {
  private let sink: ByteSink
  package private(set) var entryCount = 0

  package init(_ sink: ByteSink) { self.sink = sink }

  /// Writes an entry whose content is in memory.
  package func add(_ entry: TarEntry, content: [UInt8] = []) throws {
    try add(entry, content: MemorySource(content), byteCount: UInt64(content.count))
  }

  /// Writes an entry and takes `entry.byteCount` bytes from `content`.
  package func add(_ entry: TarEntry, from content: ByteSource) throws {
    try add(entry, content: content, byteCount: entry.byteCount)
  }

  /// Writes the end of the archive. Its size is then a multiple of 1024 bytes.
  package func finish() throws { try sink.write([UInt8](repeating: 0, count: 1024)) }

  private func add(_ entry: TarEntry, content: ByteSource, byteCount: UInt64) throws {
    var name = Array(("./" + entry.path).utf8)
    if entry.kind == .directory && name.last != UInt8(ascii: "/") { name.append(UInt8(ascii: "/")) }
    var link: [UInt8] = []
    switch entry.kind {
    case .hardLink(let target): link = Array(("./" + target).utf8)
    case .symbolicLink(let target): link = Array(target.utf8)
    default: break
    }
    if link.count > 100 { try addLongName(link, type: "K") }
    if name.count > 100 { try addLongName(name, type: "L") }
    try sink.write(block(entry, name: name, link: link, byteCount: byteCount))
    var left = byteCount
    var chunk = [UInt8](repeating: 0, count: Int(min(max(byteCount, 1), 1 << 17)))
    while left > 0 {
      let wanted = Int(min(left, UInt64(chunk.count)))
      let count = try chunk.withUnsafeMutableBytes {
        try content.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<wanted]))
      }
      if count == 0 { throw ImageError(.corrupt, "\(entry.path) is cut short") }
      try chunk.withUnsafeBytes { try sink.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
      left -= UInt64(count)
    }
    try pad(byteCount)
    entryCount += 1
  }

  private func addLongName(_ text: [UInt8], type: Unicode.Scalar) throws {
    let holder = TarEntry(path: "", kind: .file, mode: 0)
    var header = block(holder, name: Array("././@LongLink".utf8), link: [], byteCount: UInt64(text.count + 1))
    header[156] = UInt8(ascii: type)
    setChecksum(&header)
    try sink.write(header)
    try sink.write(text + [0])
    try pad(UInt64(text.count + 1))
  }

  private func pad(_ byteCount: UInt64) throws {
    let rest = Int((512 - byteCount % 512) % 512)
    if rest > 0 { try sink.write([UInt8](repeating: 0, count: rest)) }
  }

  private func block(_ entry: TarEntry, name: [UInt8], link: [UInt8], byteCount: UInt64) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ bytes: some Collection<UInt8>, at offset: Int) {
      for (index, byte) in bytes.enumerated() { block[offset + index] = byte }
    }
    func put(_ value: UInt64, at offset: Int, count: Int) {
      let digits = String(value, radix: 8)
      if digits.utf8.count < count {
        put((String(repeating: "0", count: count - 1 - digits.utf8.count) + digits).utf8, at: offset)
      } else {
        // Larger than the field's octal digits: GNU's binary form.
        for index in 0..<min(8, count) {
          block[offset + count - 1 - index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))
        }
        block[offset] |= 0x80
      }
    }
    put(name.prefix(100), at: 0)
    put(UInt64(entry.mode & 0o7777), at: 100, count: 8)
    put(UInt64(entry.user), at: 108, count: 8)
    put(UInt64(entry.group), at: 116, count: 8)
    put(byteCount, at: 124, count: 12)
    put(entry.modified, at: 136, count: 12)
    put(link.prefix(100), at: 157)
    put("ustar\u{0}00".utf8, at: 257)
    switch entry.kind {
    case .file: block[156] = UInt8(ascii: "0")
    case .hardLink: block[156] = UInt8(ascii: "1")
    case .symbolicLink: block[156] = UInt8(ascii: "2")
    case .characterDevice(let major, let minor):
      block[156] = UInt8(ascii: "3")
      put(UInt64(major), at: 329, count: 8)
      put(UInt64(minor), at: 337, count: 8)
    case .blockDevice(let major, let minor):
      block[156] = UInt8(ascii: "4")
      put(UInt64(major), at: 329, count: 8)
      put(UInt64(minor), at: 337, count: 8)
    case .directory: block[156] = UInt8(ascii: "5")
    case .namedPipe: block[156] = UInt8(ascii: "6")
    }
    setChecksum(&block)
    return block
  }

  private func setChecksum(_ block: inout [UInt8]) {
    for index in 148..<156 { block[index] = 0x20 }
    let sum = block.reduce(0) { $0 + Int($1) }
    let digits = String(sum, radix: 8)
    let text = String(repeating: "0", count: 6 - digits.count) + digits
    for (index, byte) in text.utf8.enumerated() { block[148 + index] = byte }
    block[154] = 0
    block[155] = 0x20
  }
}

import Board
import Foundation
import FuzzSupport

@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutableRawPointer?, _ arguments: UnsafeMutableRawPointer?) -> Int32 {
  writeSeeds([program(symbols: false), program(symbols: true)])
  return 0
}

/// Any bytes are an executable or an error; what is in it lies within the file.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer?, _ size: Int) -> Int32 {
  let bytes = Data(UnsafeRawBufferPointer(start: data, count: size))
  // A slice whose indices don't begin at zero, as callers may have one.
  for contents in [bytes, (Data([0]) + bytes).dropFirst()] {
    do {
      let file = try ELFFile(contents, name: "fuzz")
      precondition(!file.segments.isEmpty)
      for segment in file.segments {
        precondition(file.contents(of: segment).count == Int(segment.fileSize))
        precondition(segment.memorySize >= segment.fileSize)
        precondition(segment.physicalAddress <= UInt64.max - segment.memorySize)
      }
      _ = file.symbol("tohost")
      _ = file.symbol("")
    } catch {
      precondition(!"\(error)".isEmpty && !"\(error)".contains("\n"))
    }
  }
  return 0
}

/// A program of two segments.
private func program(symbols: Bool) -> [UInt8] {
  let sections: UInt64 = symbols ? 512 : 0
  var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8)
  file += little(UInt16(2)) + little(UInt16(243)) + little(UInt32(1)) + little(UInt64(0x8000_0000))
  file += little(UInt64(64)) + little(sections) + little(UInt32(0)) + little(UInt16(64)) + little(UInt16(56))
  file += little(UInt16(2)) + little(UInt16(64)) + little(UInt16(symbols ? 3 : 0)) + little(UInt16(0))
  for number: UInt64 in 0..<2 {
    let address = 0x8000_0000 + number * 4096
    file += little(UInt32(1)) + little(UInt32(5)) + little(256 + number * 16) + little(address) + little(address)
    file += little(UInt64(16)) + little(UInt64(32)) + little(UInt64(16))
  }
  func pad(_ count: Int) { file += [UInt8](repeating: 0, count: count - file.count) }
  pad(256)
  file += [UInt8](repeating: 0x13, count: 32)
  guard symbols else { return file }
  pad(320)
  file += [UInt8](repeating: 0, count: 24)
  file += little(UInt32(1)) + [0x11, 0] + little(UInt16(1)) + little(UInt64(0x8000_1000)) + little(UInt64(8))
  pad(400)
  file += [0] + Array("tohost".utf8) + [0]
  pad(512 + 64)
  func section(type: UInt32, offset: UInt64, size: UInt64, link: UInt32, entry: UInt64) {
    file += little(UInt32(0)) + little(type) + little(UInt64(0)) + little(UInt64(0)) + little(offset) + little(size)
    file += little(link) + little(UInt32(0)) + little(UInt64(8)) + little(entry)
  }
  section(type: 2, offset: 320, size: 48, link: 2, entry: 24)
  section(type: 3, offset: 400, size: 8, link: 0, entry: 0)
  return file
}

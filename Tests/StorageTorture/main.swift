// Writes to a disk at random until somebody kills it. Before each operation a record of it goes to standard output, and
// after each flush another: four 64-bit words, kind, first sector, sectors, stamp. Every sector holds its stamp.
//
//   storage-torture IMAGE SEED
import Foundation
import Storage

struct Numbers: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return (state ^ state >> 29) &* 0x9E37_79B9_7F4A_7C15
  }
}

func report(_ kind: UInt64, _ first: UInt64, _ count: UInt64, _ stamp: UInt64) {
  withUnsafeBytes(of: (kind, first, count, stamp)) { bytes in
    guard write(1, bytes.baseAddress, bytes.count) == bytes.count else { exit(1) }
  }
}

guard CommandLine.arguments.count == 3, let seed = UInt64(CommandLine.arguments[2]) else {
  FileHandle.standardError.write(Data("storage-torture: give an image and a seed\n".utf8))
  exit(64)
}
var random = Numbers(state: seed)
do {
  let disk = try DiskImage.open(path: CommandLine.arguments[1])
  let sectors = disk.byteCount / 512
  for number in UInt64(1)... {
    let count = UInt64.random(in: 1...(number % 4 == 0 ? 2048 : 64), using: &random)
    let first = UInt64.random(in: 0...(sectors - count), using: &random)
    let stamp = seed << 32 | number
    switch Int.random(in: 0..<16, using: &random) {
    case 0..<9:
      report(1, first, count, stamp)
      let words = [UInt64](repeating: stamp, count: Int(count) * 64)
      try words.withUnsafeBytes { try disk.write(at: first * 512, from: $0) }
    case 9..<11:
      report(1, first, count, 0)
      try disk.writeZeroes(at: first * 512, count: count * 512, mayUnmap: number % 2 == 0)
    case 11..<13:
      report(2, first, count, 0)
      try disk.discard(at: first * 512, count: count * 512)
    default:
      try disk.flush()
      report(3, 0, 0, 0)
    }
  }
} catch {
  FileHandle.standardError.write(Data("storage-torture: \(error)\n".utf8))
  exit(1)
}

import Foundation
import FuzzSupport
import Storage

/// The image, a file in memory without a name; opened anew by its path for each look.
private let descriptor: Int32 = {
  var name = Array("/dev/shm/yadori-fuzz-XXXXXX".utf8CString)
  let descriptor = mkstemp(&name)
  unlink(name)
  return descriptor
}()
private let path = "/proc/self/fd/\(descriptor)"

@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutableRawPointer?, _ arguments: UnsafeMutableRawPointer?) -> Int32 {
  precondition(descriptor >= 0)
  var seeds: [[UInt8]] = []
  for (clusterSize, version, isLazy) in [(512, 3, false), (512, 2, false), (1024, 3, true), (4096, 3, false)] {
    let folder = NSTemporaryDirectory() + "/yadori-fuzz-\(getpid())"
    try! FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let file = folder + "/seed.qcow2"
    try! DiskImage.create(
      path: file, format: .qcow2, size: 256 << 10,
      options: .init(clusterSize: clusterSize, lazyRefcounts: isLazy, version: version))
    seeds.append(Array(FileManager.default.contents(atPath: file)!))
    let disk = try! DiskImage.open(path: file)
    work(on: disk, seed: 1)
    try! disk.close()
    seeds.append(Array(FileManager.default.contents(atPath: file)!))
    if version == 3 {
      // As a program leaves it that postponed the refcounts and died.
      seeds.append(seeds[seeds.count - 1])
      seeds[seeds.count - 1][79] |= 1
    }
  }
  writeSeeds(seeds)
  return 0
}

/// Any bytes are an image or an error, for reading and for writing.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer?, _ size: Int) -> Int32 {
  var image = Array(UnsafeRawBufferPointer(start: data, count: size))
  // No backing file: it would be one of this host's.
  for index in 8..<20 where index < image.count { image[index] = 0 }
  ftruncate(descriptor, 0)
  precondition(pwrite(descriptor, image, image.count, 0) == image.count)
  let seed = image.reduce(0) { ($0 &* 31) &+ Int($1) }
  attempt {
    _ = try DiskImage.information(path: path)
    let disk = try DiskImage.open(path: path, readOnly: true, format: .qcow2)
    work(on: disk, seed: seed)
    try disk.close()
  }
  attempt {
    let disk = try DiskImage.open(path: path, format: .qcow2)
    work(on: disk, seed: seed)
    try disk.close()
  }
  attempt {
    let disk = try DiskImage.open(path: path, readOnly: true, format: .qcow2)
    work(on: disk, seed: seed)
    try disk.close()
  }
  return 0
}

/// An error is one line.
private func attempt(_ body: () throws -> Void) {
  do { try body() } catch {
    let message = "\((error as? StorageError)?.message ?? "no StorageError: \(error)")"
    precondition(error is StorageError && !message.isEmpty && !message.contains("\n"))
  }
}

/// Reads, writes, discards and flushes here and there.
private func work(on disk: any BlockStorage, seed: Int) {
  precondition(disk.byteCount % 512 == 0)
  let sectors = disk.byteCount / 512
  guard sectors > 0 else { return }
  var buffer = [UInt8](repeating: 0x5a, count: 8192)
  let places = [0, sectors / 2, sectors - 1, UInt64(truncatingIfNeeded: seed) % sectors]
  for (number, sector) in places.enumerated() {
    let offset = sector * 512
    let count = Int(min(UInt64(buffer.count), disk.byteCount - offset))
    attempt { try buffer.withUnsafeMutableBytes { try disk.read(at: offset, into: .init(rebasing: $0[..<count])) } }
    if disk.isReadOnly { continue }
    attempt { try buffer.withUnsafeBytes { try disk.write(at: offset, from: .init(rebasing: $0[..<count])) } }
    if number == 1 { attempt { try disk.flush() } }
    attempt { try disk.writeZeroes(at: offset, count: 512, mayUnmap: number % 2 == 0) }
    attempt { try disk.discard(at: offset, count: UInt64(count)) }
    attempt { try buffer.withUnsafeBytes { try disk.write(at: offset, from: .init(rebasing: $0[..<512])) } }
  }
  attempt { try disk.flush() }
}

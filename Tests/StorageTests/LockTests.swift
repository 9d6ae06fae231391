import Foundation
import Storage
import Testing

@Suite struct LockTests {
  let folder = try! ImageFolder()

  @Test(arguments: [DiskFormat.raw, .qcow2])
  func oneMachineWrites(format: DiskFormat) throws {
    let image = folder["disk.image"]
    try DiskImage.create(path: image, format: format, size: 1 << 20)
    let first = try DiskImage.open(path: image)
    let writer = storageError { _ = try DiskImage.open(path: image) }
    #expect(writer?.code == .inUse)
    #expect(writer?.message == "\(image) is in use by another machine; stop it first or open it read-only")
    #expect(storageError { _ = try DiskImage.open(path: image, readOnly: true) }?.code == .inUse)
    #expect(try DiskImage.information(path: image).format == format)
    try first.close()

    let reader = try DiskImage.open(path: image, readOnly: true)
    let other = try DiskImage.open(path: image, readOnly: true)
    #expect(storageError { _ = try DiskImage.open(path: image) }?.code == .inUse)
    try reader.close()
    try other.close()
    try DiskImage.open(path: image).close()
  }

  @Test func backingFilesAreShared() throws {
    try DiskImage.create(path: folder["base.qcow2"], format: .qcow2, size: 1 << 20)
    for name in ["a", "b"] {
      try DiskImage.create(path: folder[name], format: .qcow2, size: nil, backing: ("base.qcow2", .qcow2))
    }
    let first = try DiskImage.open(path: folder["a"])
    let second = try DiskImage.open(path: folder["b"])
    let error = storageError { _ = try DiskImage.open(path: folder["base.qcow2"]) }
    #expect(error?.code == .inUse)
    try first.close()
    try second.close()
    let writer = try DiskImage.open(path: folder["base.qcow2"])
    let overlay = storageError { _ = try DiskImage.open(path: folder["a"]) }
    #expect(overlay?.code == .inUse)
    #expect(overlay?.message.contains(folder["base.qcow2"]) == true)
    try writer.close()
  }

  @Test func qemuSeesTheLock() throws {
    let image = folder["disk.qcow2"]
    try DiskImage.create(path: image, format: .qcow2, size: 1 << 20)
    let disk = try DiskImage.open(path: image)
    #expect(throws: ImageFolder.ToolFailure.self) { try folder.qemuIO(image, "write 0 512") }
    try disk.close()
    try folder.qemuIO(image, "write 0 512")
  }
}

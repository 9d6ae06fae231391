import Foundation
import Images
import Storage

/// An image for tests, whose files hold noise, as a folder or as an archive.
struct SampleImage {
  var manifest: [String: Any]
  /// The files besides the manifest.
  var files: [(name: String, content: [UInt8])]

  init(name: String = "sample", disk: (name: String, format: String, size: Int, content: [UInt8])? = nil) {
    let kernel = noise(5000, seed: 1)
    let ramdisk = noise(70_000, seed: 2)
    files = [("kernel", kernel), ("initrd", ramdisk)]
    manifest = [
      "formatVersion": 1, "name": name, "distribution": "debian", "version": "13.1", "variant": "standard",
      "architecture": "riscv64", "created": "2026-01-01T00:00:00Z", "commandLine": "root=/dev/vda rw",
      "hostname": "sample", "mirror": "http://mirror/debian", "signatureChecked": true,
      "packages": [["name": "bash", "version": "5.2-1"]], "kernel": Self.file("kernel", kernel),
      "initialRamdisk": Self.file("initrd", ramdisk),
    ]
    if let disk {
      files.append((disk.name, disk.content))
      manifest["disk"] = [
        "file": Self.file(disk.name, disk.content), "format": disk.format, "virtualByteCount": disk.size,
      ]
    }
  }

  static func file(_ name: String, _ content: [UInt8]) -> [String: Any] {
    ["name": name, "byteCount": content.count, "sha256": sha256(content)]
  }

  var manifestBytes: [UInt8] { try! [UInt8](JSONSerialization.data(withJSONObject: manifest)) }

  /// Puts the image's folder into a store.
  func install(in store: ImageStore) throws {
    let folder = store.folder.appendingPathComponent(manifest["name"] as! String)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for (name, content) in files + [("manifest.json", manifestBytes)] {
      try Data(content).write(to: folder.appendingPathComponent(name))
    }
  }

  /// The image as a tar archive, with the manifest last, as another program might write it.
  func archive(folder: String = "", adding more: [(TarEntry, [UInt8])] = []) -> [UInt8] {
    let sink = MemorySink()
    let writer = TarWriter(sink)
    for (entry, content) in more { try! writer.add(entry, content: content) }
    for (name, content) in files + [("manifest.json", manifestBytes)] {
      try! writer.add(TarEntry(path: folder + name, kind: .file, mode: 0o644), content: content)
    }
    try! writer.finish()
    return sink.bytes
  }
}

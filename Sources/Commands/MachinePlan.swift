import Foundation
import HostSystem
import Images
import Storage
import Yadori

/// The configuration of a machine to run, and what it leaves to be cleaned up.
struct MachinePlan {
  var configuration = VirtualMachineConfiguration(boot: .init())
  private var temporaryFolder: URL?

  /// Fills in what an image says. Each image has one machine of its own name, whose disk keeps what changes in an
  /// overlay of the image's disk.
  mutating func use(
    image name: String, diskSize: UInt64?, isTemporary: Bool, append: String?, mirror: String?
  ) throws {
    let store = ImageStore()
    if !store.contains(name), name == "debian" || name == "tiny" {
      report("there is no image '\(name)' yet; building it")
      var options = ImageBuildOptions(name: name, variant: name == "tiny" ? .tiny : .standard)
      options.mirror = mirror
      _ = try ImageBuilding.build(options, engine: configuration.engine)
    }
    let image = try store.find(name)
    configuration.boot.kernel = image.kernel.path
    configuration.boot.initialRAMDisk = image.initialRamdisk.path
    // Debian's kernel has PCI built in, virtio-mmio as a module: this way the console is there from the start.
    configuration.transport = .pci
    let parameters = [image.manifest.commandLine, "console=hvc0", append ?? ""].filter { !$0.isEmpty }
    configuration.boot.commandLine = parameters.joined(separator: " ")
    guard let disk = image.disk, let description = image.manifest.disk else { return }
    if let diskSize, diskSize < description.virtualByteCount {
      throw CommandFailure(
        .usage, "--disk-size: the image '\(name)' needs at least \(description.virtualByteCount >> 20)M")
    }
    let folder: URL
    if isTemporary {
      folder = store.folder.deletingLastPathComponent().appendingPathComponent("temporary/\(UUID().uuidString)")
      temporaryFolder = folder
    } else {
      folder = store.folder.deletingLastPathComponent().appendingPathComponent("machines/\(name)")
    }
    do {
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    } catch {
      throw CommandFailure(.cannotCreate, "can't make the folder '\(folder.path)'; check its permissions")
    }
    let overlay = folder.appendingPathComponent("disk.qcow2").path
    if !FileManager.default.fileExists(atPath: overlay) {
      try DiskImage.create(
        path: overlay, format: .qcow2, size: diskSize ?? description.virtualByteCount,
        backing: (disk.path, DiskFormat(rawValue: description.format.rawValue)))
    } else if let diskSize, try DiskImage.information(path: overlay).virtualSize != diskSize {
      throw CommandFailure(
        .usage, "--disk-size: the machine '\(name)' has its disk already; remove '\(overlay)' to begin anew")
    }
    configuration.disks = [.init(path: overlay, format: "qcow2")]
  }

  func cleanUp() {
    if let temporaryFolder { try? FileManager.default.removeItem(at: temporaryFolder) }
  }
}

import Foundation
import HostSystem
import Images
import Storage
import Supervisor
import Yadori

extension VirtualMachineConfiguration {
  /// Fills in what an image says. What the machine changes is kept in its folder, in an overlay of the image's disk;
  /// without a folder it has no disk yet.
  /// - Parameter existing: the disk that a machine of the image has already.
  mutating func use(
    image name: String, in folder: MachineFolder?, existing: Disk? = nil, diskSize: UInt64?, append: String?,
    mirror: String?
  ) throws {
    let store = ImageStore()
    if !store.contains(name), name == "debian" || name == "tiny" {
      report("there is no image '\(name)' yet; building it")
      var options = ImageBuildOptions(name: name, variant: name == "tiny" ? .tiny : .standard)
      options.mirror = mirror
      _ = try ImageBuilding.build(options, engine: engine)
    }
    let image = try store.find(name)
    boot.kernel = image.kernel.path
    boot.initialRAMDisk = image.initialRamdisk.path
    keptCode = [image.keptCode.path]
    // Debian's kernel has PCI built in, virtio-mmio as a module: this way the console is there from the start.
    transport = .pci
    hasPowerButton = true
    let parameters = [image.manifest.commandLine, "console=hvc0", append ?? ""].filter { !$0.isEmpty }
    boot.commandLine = parameters.joined(separator: " ")
    guard let disk = image.disk, let description = image.manifest.disk else { return }
    if let diskSize, diskSize < description.virtualByteCount {
      throw CommandFailure(
        .usage, "--disk-size: the image '\(name)' needs at least \(description.virtualByteCount >> 20)M")
    }
    guard let folder else { return }
    try folder.create()
    let overlay = existing?.path ?? folder.disk
    if existing == nil, !FileManager.default.fileExists(atPath: overlay) {
      try DiskImage.create(
        path: overlay, format: .qcow2, size: diskSize ?? description.virtualByteCount,
        backing: (disk.path, DiskFormat(rawValue: description.format.rawValue)))
    } else if let diskSize, try DiskImage.information(path: overlay, format: .qcow2).virtualSize != diskSize {
      throw CommandFailure(
        .usage, "--disk-size: the machine has its disk already ('\(overlay)'); remove the machine to begin anew")
    }
    disks = [existing ?? .init(path: overlay, format: "qcow2")]
  }

  /// Notes what is behind disks that a user names, before a guest can change what they say of it. Where the machine had
  /// such a disk `before`, it is what was noted then; unless somebody says now that it is of another format.
  mutating func noteBackingFiles(besides folder: MachineFolder, before: VirtualMachineConfiguration?) {
    for index in disks.indices where disks[index].behind == nil && !disks[index].path.hasPrefix(folder.url.path + "/") {
      guard FileManager.default.fileExists(atPath: disks[index].path) else { continue }
      let disk = disks[index]
      let noted = before?.disks.first { $0.path == disk.path && $0.knownFormat == disk.knownFormat }?.behind
      disks[index].behind = noted ?? disks[index].backingFiles
    }
  }

  /// Has it mean the same wherever it is started.
  mutating func makePathsAbsolute() {
    func absolute(_ path: String) -> String { URL(fileURLWithPath: path).path }
    boot.kernel = boot.kernel.map(absolute)
    boot.initialRAMDisk = boot.initialRAMDisk.map(absolute)
    boot.deviceTree = boot.deviceTree.map(absolute)
    if case .file(let path) = boot.firmware { boot.firmware = .file(path: absolute(path)) }
    for index in disks.indices { disks[index].path = absolute(disks[index].path) }
  }
}

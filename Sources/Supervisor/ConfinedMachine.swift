import Foundation
import HostSystem
import Images
import Storage
import Yadori

/// What a machine's process keeps of the host's files: its own folder, and what the registry says that it is made of.
package struct ConfinedMachine {
  /// For a process with mounts of its own. The machine's folder comes first.
  private var kept: [Confinement.Kept]
  /// Where the shared folders are there, by their names: nothing leads from there to what is beside them on the host.
  private var folderPlaces: [String: String] = [:]

  /// - Parameter folder: nil: the machine has none.
  package init(_ configuration: VirtualMachineConfiguration, _ folder: MachineFolder?) {
    let images = ImageStore.standardFolder().path
    kept = folder.map { [.folder($0.url.path, isReadOnly: false)] } ?? []
    // What clones, and saved machines, have by links, too.
    for place in Self.bases(configuration, folder) { kept.append(.ownFolder(place, isReadOnly: true)) }
    kept.append(.folder(images, isReadOnly: true))
    let known = [folder?.url.path, images].compactMap { $0.map { $0 + "/" } }
    func keep(_ path: String, isReadOnly: Bool = true) {
      if !known.contains(where: path.hasPrefix) { kept.append(.file(path, isReadOnly: isReadOnly)) }
    }
    let boot = configuration.boot
    for path in [boot.kernel, boot.initialRAMDisk, boot.deviceTree] { path.map { keep($0) } }
    if case .file(let path) = boot.firmware { keep(path) }
    for path in configuration.keptCode ?? [] { keep(path) }
    for disk in configuration.disks {
      keep(disk.path, isReadOnly: disk.isReadOnly)
      let isOwn = known.contains(where: disk.path.hasPrefix)
      // Never a folder, with all that is in it.
      for file in disk.behind ?? (isOwn ? [] : disk.backingFiles) where DiskImage.canHoldDisk(file) { keep(file) }
    }
    switch configuration.network?.attachment {
    case .user?: kept += Confinement.Kept.file("/etc/resolv.conf")
    case .tap?: keep("/dev/net/tun", isReadOnly: false)
    case nil: break
    }
    if configuration.pinnedProcessors != nil { keep("/sys/devices/system/cpu/online") }
    for (index, shared) in (configuration.sharedFolders ?? []).enumerated() {
      let place = "/.shared/\(index)"
      kept.append(.folder(shared.path, isReadOnly: shared.isReadOnly, at: place))
      folderPlaces[shared.name] = place
    }
  }

  /// The folders in the machine's own in which there is what its disks are overlays of, as the registry has them: whatever
  /// else has such a name was made by the machine's process.
  private static func bases(_ configuration: VirtualMachineConfiguration, _ folder: MachineFolder?) -> Set<String> {
    guard let own = folder?.url.path else { return [] }
    let places = configuration.disks.compactMap(\.base).compactMap { base -> String? in
      let parts = base.dropFirst(own.count).split(separator: "/", omittingEmptySubsequences: false)
      guard base.hasPrefix(own), parts.count == 3, parts[0].isEmpty, parts[1].hasPrefix(SavedMachines.diskPrefix) else {
        return nil
      }
      return "\(own)/\(parts[1])"
    }
    return Set(places)
  }

  /// Leaves the host's files, and all that can be left before there is a second thread. Returns the paths by which shared
  /// folders are reached from then on, by their names, where that isn't how they were.
  package func enter(keepingNetwork network: Bool) -> [String: String] {
    let hasLeft = Confinement.leaveFiles(keeping: kept)
    Confinement.restrict(to: withHost, keepingNetwork: network)
    return hasLeft ? folderPlaces : [:]
  }

  /// For a process that sees the host's files where they are, and what they say of the host and of the process itself.
  package var withHost: [Confinement.Kept] { kept + ["/proc", "/sys"].map { .folder($0, isReadOnly: true) } }
}

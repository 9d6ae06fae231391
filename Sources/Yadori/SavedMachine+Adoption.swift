import Foundation
import HostSystem

/// What is believed of a saved machine that a machine's own process wrote, which a guest may have owned: its RAM, devices
/// and disks are the guest's affair, but what they are connected to on the host isn't.
extension SavedMachine {
  /// The same machine, in what concerns the host as it is known; see `VirtualMachineConfiguration.goingOn`. Throws
  /// `MachineError` where it doesn't fit that.
  ///
  /// - Parameters:
  ///   - known: the machine as the registry has it.
  ///   - name: the machine's.
  ///   - isCommon: whether a file may be behind any disk: images are.
  package func adopted(
    by known: VirtualMachineConfiguration, name: String, isCommon: (String) -> Bool
  ) throws -> SavedMachine {
    var manifest = self.manifest
    manifest.configuration = try known.goingOn(
      as: manifest.configuration, savedDisks: Set(savedDisks), name: name, isCommon: isCommon)
    let disks = manifest.configuration.disks
    let files = Set(disks.filter(\.isReadOnly).map(\.path) + disks.flatMap { $0.behind ?? [] })
    manifest.neighbours.removeAll { !files.contains($0.path) }
    return SavedMachine(folder, manifest)
  }

  /// What is in its file `machine`.
  package var text: Data { get throws { try Self.text(of: manifest) } }
}

extension VirtualMachineConfiguration {
  /// What this machine is when it goes on as a saved one: what RAM and devices need is as it was saved, all else (shared
  /// folders, networks, files, its share of the processors) as it is here. Throws `MachineError` where one can't be without
  /// the other.
  fileprivate func goingOn(
    as saved: Self, savedDisks: Set<Int>, name: String, isCommon: (String) -> Bool
  ) throws -> Self {
    func misfit(_ words: String) -> MachineError {
      MachineError(.data, "the machine '\(name)' can't go on as it was saved: \(words)")
    }
    let sizes: ClosedRange<UInt64> = 1 << 20...1 << 46
    guard (1...64).contains(saved.hartCount), (saved.hartCount...64).contains(saved.boardHartCount),
      sizes.contains(saved.memorySize), (saved.memorySize...sizes.upperBound).contains(saved.boardMemorySize),
      [saved.memorySize, saved.boardMemorySize].allSatisfy({ $0 % 4096 == 0 }),
      [39, 48, 57].contains(saved.virtualAddressBits)
    else { throw misfit("there is no such machine") }
    var result = self
    result.hartCount = saved.hartCount
    result.memorySize = saved.memorySize
    result.maximumHartCount = saved.maximumHartCount
    result.maximumMemorySize = saved.maximumMemorySize
    result.transport = saved.transport
    result.virtualAddressBits = saved.virtualAddressBits
    result.hasPowerButton = saved.hasPowerButton
    result.hasBalloon = saved.hasBalloon
    result.guestSocket = saved.guestSocket == nil ? nil : guestSocket
    result.sharedFolders = saved.sharedFolders == nil ? nil : sharedFolders ?? []
    switch (saved.network, network) {
    case (nil, _): result.network = nil
    case (let card?, let own?): result.network = .init(own.attachment, address: card.address)
    case (_?, nil): throw misfit("it had a network card then, and has none now")
    }
    guard saved.disks.count == disks.count else {
      throw misfit("its disks were \(saved.disks.count) then, and are \(disks.count) now")
    }
    for index in disks.indices {
      let (then, now) = (saved.disks[index], disks[index])
      guard then.isReadOnly == now.isReadOnly, savedDisks.contains(index) != now.isReadOnly else {
        throw misfit("its disk '\(now.path)' is another one")
      }
      if now.isReadOnly { continue }
      for file in then.behind ?? [] where now.behind?.contains(file) != true && !isCommon(file) {
        throw misfit("its disk shows '\(file)', which nobody said of '\(now.path)'")
      }
      result.disks[index].path = "disk-\(index)"
      result.disks[index].format = ["raw", "qcow2"].contains(then.format) ? then.format : nil
      result.disks[index].wasProbed = nil
      result.disks[index].base = nil
      result.disks[index].behind = now.behind ?? then.behind ?? []
    }
    return result
  }
}

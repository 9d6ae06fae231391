import Board
import Console
import Foundation
import Hart
import HostSystem
import Network
import Storage
import Virtio

/// Turns a configuration into a board: opens the files that it names and checks it against the host.
struct BoardAssembly {
  let configuration: VirtualMachineConfiguration
  let board: Board
  let disks: [any BlockStorage]
  /// The disks' devices.
  let drives: [VirtioBlock]
  /// Nil: the machine has none.
  let powerButton: VirtioInput?
  /// Nil: it has none.
  let card: VirtioNet?
  /// Nil: nobody on the host reaches the guest's sockets.
  let socket: VirtioSocket?
  /// Nil: it isn't on one.
  let userNetwork: UserNetwork?
  /// Nil: it has none.
  let balloon: VirtioBalloon?
  /// Nil: it has none.
  let fileSystem: VirtioFileSystem?
  /// Stops what the virtio devices are connected to, which the board leaves to its owner. Before the board stops.
  let stopBackends: () -> Void

  /// - Parameters:
  ///   - copiesKeptCode: see `BoardConfiguration`.
  ///   - openDisk: opens one, to be read only or not.
  init(
    _ configuration: VirtualMachineConfiguration, console: any ConsoleBackend, folderPlaces: [String: String],
    copiesKeptCode: Bool = false,
    openDisk: (VirtualMachineConfiguration.Disk) throws -> any BlockStorage = { try $0.open(readOnly: $0.isReadOnly) }
  ) throws {
    self.configuration = configuration
    try configuration.check()
    let boot = configuration.boot
    let description = BootDescription(
      firmware: try Self.firmware(boot.firmware),
      kernel: try boot.kernel.map { try Self.file($0, "--kernel") },
      initialRAMDisk: try boot.initialRAMDisk.map { try Self.file($0, "--initrd") },
      commandLine: Self.commandLine(configuration),
      deviceTree: try boot.deviceTree.map { try Self.file($0, "--dtb") })
    var disks: [any BlockStorage] = []
    do {
      for disk in configuration.disks { disks.append(try openDisk(disk)) }
      // The UART and the virtio console share the one terminal: whichever the guest uses last gets the input.
      let shared = SharedConsole(console)
      drives = zip(disks, configuration.disks).map { VirtioBlock(storage: $0, serial: $1.serial) }
      var devices: [any VirtioDevice] = drives
      let network = try configuration.network.map { try Self.backend($0.attachment) }
      if let network, let address = configuration.network?.address {
        card = VirtioNet(backend: network, mac: address)
        devices.append(card!)
      } else {
        card = nil
      }
      let uartEnd = shared.makeEnd()
      let consoleEnd = shared.makeEnd()
      devices.append(VirtioConsole(ports: [.init(backend: consoleEnd, isConsole: true)]))
      socket = configuration.guestSocket.map { VirtioSocket(path: $0) }
      userNetwork = network as? UserNetwork
      stopBackends = { [network, socket] in
        network?.stop()
        socket?.stop()
        consoleEnd.stop()
      }
      devices.append(VirtioEntropy())
      do {
        fileSystem = try configuration.sharedFolders.map { try VirtioFileSystem($0, places: folderPlaces) }
      } catch {
        throw MachineError(.noInput, "\(error); make it anew, or take it away ('yadori unshare')")
      }
      powerButton = configuration.hasPowerButton == true ? VirtioInput() : nil
      if let powerButton { devices.append(powerButton) }
      if let socket { devices.append(socket) }
      balloon = Self.balloon(configuration)
      if let balloon { devices.append(balloon) }
      if let fileSystem { devices.append(fileSystem) }
      var boardConfiguration =
        BoardConfiguration(
          hartCount: configuration.boardHartCount, memorySize: configuration.boardMemorySize,
          hart: HartConfiguration(virtualAddressBits: configuration.virtualAddressBits), engine: configuration.engine,
          boot: description,
          console: uartEnd, devices: devices, transport: configuration.transport == .pci ? .pci : .mmio)
      boardConfiguration.keptCode = configuration.keptCode ?? []
      boardConfiguration.copiesKeptCode = copiesKeptCode
      board = try Board(boardConfiguration)
    } catch {
      for disk in disks { try? disk.close() }
      throw error
    }
    self.disks = disks
  }

  /// Nil: the device tree's.
  private static func commandLine(_ configuration: VirtualMachineConfiguration) -> String? {
    let given = configuration.boot.commandLine
    if configuration.boardHartCount == configuration.hartCount { return given }
    return [given ?? "", "maxcpus=\(configuration.hartCount)"].filter { !$0.isEmpty }.joined(separator: " ")
  }

  private static func balloon(_ configuration: VirtualMachineConfiguration) -> VirtioBalloon? {
    let beyond = configuration.boardMemorySize - configuration.memorySize
    guard configuration.boardHasBalloon else { return nil }
    // What it wasn't given isn't the guest's to take, however short it is.
    return VirtioBalloon(target: beyond, deflatesWhenShort: configuration.maximumMemorySize == nil)
  }

  private static func firmware(
    _ firmware: VirtualMachineConfiguration.Boot.Firmware
  ) throws -> BootDescription.Firmware {
    switch firmware {
    case .builtIn: .builtIn
    case .none: .none
    case .file(let path): .file(try file(path, "--firmware"))
    }
  }

  private static func file(_ path: String, _ flag: String) throws -> BootFile {
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
      throw MachineError(.noInput, "\(flag): there is no file '\(path)'; check the name")
    }
    guard !isFolder.boolValue else { throw MachineError(.noInput, "\(flag): '\(path)' is a folder; name a file in it") }
    do {
      return try BootFile(path: path)
    } catch {
      throw MachineError(.noInput, "\(flag): can't read '\(path)'; check its permissions")
    }
  }

  private static func backend(
    _ attachment: VirtualMachineConfiguration.Network.Attachment
  ) throws -> any NetworkBackend {
    switch attachment {
    case .user(let forwards):
      return UserNetwork(UserNetworkConfiguration(portForwards: try forwards.map { try PortForward(parsing: $0) }))
    case .tap(let name): return TapNetwork(name: name)
    }
  }
}

import Board
import Bus
import Console
import Foundation
import Hart
import HostSystem
import Storage
import Translation

/// A saved machine that is ready to go on, as far as all machines are alike that do: in each copy of the process that made
/// it (fork), it becomes one of them. They share with it, and with each other, what none of them changes.
///
/// It makes no threads, opens no disk and no connection to the host, and needs no descriptor: that is for who it becomes.
/// What it reads may have been written by a process that a guest owned.
public final class MachineMould {
  private let machine: VirtualMachine
  private let console: RecordedConsole
  private let clock: UInt64

  /// Throws `MachineError` where the saved machine doesn't fit, or can't be one of many.
  /// - Parameters:
  ///   - configuration: of one of the machines.
  ///   - mayHaveThreads: whether there may be other threads, which copies of the process wouldn't have.
  package init(
    _ saved: SavedMachine, _ configuration: VirtualMachineConfiguration, mayHaveThreads: Bool = false
  ) throws {
    guard Self.isPossible(configuration), !saved.isOff, configuration.disks.count == saved.configuration.disks.count
    else {
      throw MachineError(.unavailable, "machines of this kind are made one by one")
    }
    console = RecordedConsole(path: "")
    var known = saved.configuration.disks
    let assembly = try BoardAssembly(configuration, console: console, folderPlaces: [:], copiesKeptCode: true) { disk in
      let then = known.removeFirst()
      let size = try DiskImage.information(path: then.path, format: then.knownFormat).virtualSize
      return AbsentDisk(byteCount: size, isReadOnly: disk.isReadOnly)
    }
    machine = VirtualMachine(assembling: assembly)
    machine.board.holdDeviceStates()
    try machine.restore(saved)
    clock = saved.manifest.clock
    let most = Self.mostCodePages / min(machine.board.harts.count, 4)
    for (hart, pages) in zip(machine.board.harts.prefix(4), saved.manifest.codePages ?? []) {
      hart.prepareCode(
        pages.withUnsafeBytes { bytes in
          (0..<min(bytes.count / 8, most)).map {
            UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self))
          }
        })
    }
    if !mayHaveThreads, try HostResources.threads().count > 1 {
      throw MachineError(.unavailable, "there are threads, which a copy of the process wouldn't have")
    }
  }

  /// Pages with code that are made ready, of all harts.
  static let mostCodePages = 2304

  /// Whether machines can be made that way: not where they begin with connections to the host.
  package static func isPossible(_ configuration: VirtualMachineConfiguration) -> Bool {
    if case .audit? = configuration.engine { return false }
    if case .tap? = configuration.network?.attachment { return false }
    return (configuration.sharedFolders ?? []).isEmpty
  }

  /// In a copy of the process that made it: the machine of this configuration, and its console. Once. Throws
  /// `MachineError`, and the error of the room that refuses.
  package func become(
    _ configuration: VirtualMachineConfiguration, consoleLog: String
  ) throws -> (machine: VirtualMachine, console: RecordedConsole) {
    let before = machine.configuration
    guard Self.isPossible(configuration), configuration.hasSameBoard(as: before),
      configuration.network?.attachment == before.network?.attachment,
      (configuration.guestSocket == nil) == (before.guestSocket == nil)
    else { throw MachineError(.software, "the machine isn't like the others that are made with it") }
    console.path = consoleLog
    try machine.become(configuration)
    machine.begin(at: clock)
    return (machine, console)
  }
}

extension VirtualMachine {
  fileprivate func become(_ configuration: VirtualMachineConfiguration) throws {
    for hart in board.harts { try (hart.engine as? Translator)?.becomeIndependent() }
    try board.loop.becomeIndependent()
    try configuration.check()
    var configuration = configuration
    configuration.noteFormats()
    for (index, disk) in configuration.disks.enumerated() {
      let storage = try disk.open(readOnly: disk.isReadOnly)
      guard drives[index].replaceStorage(storage) else {
        try? storage.close()
        throw MachineError(.data, "the disk '\(disk.path)' isn't like the one that was saved")
      }
      disks[index] = storage
    }
    if let address = configuration.network?.address { card?.hardwareAddress = address }
    if let path = configuration.guestSocket { socket?.path = path }
    savedDisks = try Self.savedDisks(configuration, disks)
    share.setLimit(configuration.processorLimit)
    self.configuration = configuration
    changed.withLock { $0 = configuration }
    do {
      try board.releaseDeviceStates()
    } catch let error as StateError {
      throw MachineError(.data, "the saved machine doesn't fit: \(error.message)")
    }
  }
}

/// Holds the place of a disk that is opened later.
final class AbsentDisk: BlockStorage {
  let byteCount: UInt64
  let isReadOnly: Bool

  init(byteCount: UInt64, isReadOnly: Bool) {
    self.byteCount = byteCount
    self.isReadOnly = isReadOnly
  }

  private var absence: HostError { HostError(code: EIO, message: "the disk isn't there yet") }
  func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws { throw absence }
  func write(at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws { throw absence }
  func flush() throws { throw absence }
  func discard(at offset: UInt64, count: UInt64) throws { throw absence }
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws { throw absence }
  func close() {}
}

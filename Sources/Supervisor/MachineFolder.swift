import CHost
import Foundation
import HostSystem
import Yadori

/// Where a machine's files are: its disk's overlay, what its console printed, its lock and its control socket.
public struct MachineFolder: Sendable {
  public let url: URL

  public init(_ url: URL) { self.url = url }

  public var disk: String { file("disk.qcow2") }
  /// A saved machine as which it goes on at its next start.
  public var resumption: String { file("resumption") }
  public var snapshots: URL { url.appendingPathComponent("snapshots") }
  public var consoleLog: String { file("console.log") }
  /// Code that its translators made, see `VirtualMachine.codeFile`.
  public var keptCode: String { file("kept-code") }
  /// What its process said on its way.
  public var processLog: String { file("process.log") }
  /// The control socket, and the one that leads to the guest's sockets.
  var controlSocket: String { file("control") }
  public var guestSocket: String { file("vsock") }
  private var lock: String { file("lock") }

  private func file(_ name: String) -> String { url.appendingPathComponent(name).path }

  /// Makes the folder, for this user only. Throws `MachineError`.
  public func create() throws {
    do {
      try FileManager.default.createDirectory(
        at: url, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw MachineError(.cannotCreate, "can't make the folder '\(url.path)'; check its permissions")
    }
  }

  /// Whether a process runs the machine: then it holds the lock, which goes with it, however it ends.
  public var isInUse: Bool {
    let descriptor = chost_open(lock, O_RDWR, 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return HostFileLock.isHeld(descriptor)
  }

  /// The lock of a running machine, held as long as this is.
  public final class Lock {
    private let descriptor: Int32

    fileprivate init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }
  }

  /// Takes the lock. Nil: another process runs the machine. Throws `HostError`.
  public func takeLock() throws -> Lock? {
    let descriptor = chost_open(lock, O_RDWR | O_CREAT, 0o600)
    guard descriptor >= 0 else { throw HostError.last("can't open '\(lock)'") }
    guard HostFileLock.lock(descriptor, exclusive: true) else {
      close(descriptor)
      return nil
    }
    return Lock(descriptor)
  }
}

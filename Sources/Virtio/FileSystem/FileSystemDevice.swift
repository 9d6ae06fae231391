import Bus
import Glibc
import HostSystem
import Synchronization

/// Folders of the host in the guest (virtio 1.2, 5.11): one file system, in the root of which is each shared folder under
/// its name. It is mounted by its tag: `mount -t virtiofs yadori /mnt`.
///
/// It is served in this process, by what the user of this process may do. See `FuseServer`.
public final class VirtioFileSystem: VirtioDevice {
  public static let tag = "yadori"

  static let priorityQueue = 0
  static let requestQueue = 1

  public let deviceType = VirtioDeviceType.fileSystem
  public let pciClassCode: UInt32 = 0x01_80_00
  public let deviceFeatures: UInt64 = 0
  public let queueMaximumSizes: [UInt16] = [128, 1024]
  public let configuration = ConfigurationSpace(count: 40)
  public let stateIdentifier = "file-system"

  let server = FuseServer()
  let counters = Mutex(FileSystemMetrics())
  weak var transport: VirtioTransport?
  /// Requests that aren't answered yet.
  var waiting: [Waiting] = []
  var timer: EventLoop.Token?

  /// Throws `HostError` where a folder isn't there.
  /// - Parameter places: other paths by which this process reaches them, by their names.
  public init(_ folders: [SharedFolder], places: [String: String] = [:]) throws {
    for folder in folders { server.add(try ServedFolder(folder, at: places[folder.name])) }
    configuration.update { $0.replaceSubrange(0..<Self.tag.utf8.count, with: Self.tag.utf8) }
    configuration.set(UInt32(1), at: 36)
  }

  public func attach(to transport: VirtioTransport) { self.transport = transport }
  public func activate(features: UInt64) { askAgain() }
  public func reset() {
    server.reset()
    forgetWaiting()
  }

  /// Shares one more folder, or another one under a name that is there. Throws `HostError` where it isn't there. Any thread.
  /// - Parameter place: another path by which this process reaches it.
  public func share(_ folder: SharedFolder, at place: String? = nil) throws {
    let folder = try ServedFolder(folder, at: place)
    onLoop {
      _ = self.server.remove(folder.folder.name)
      self.server.add(folder)
    }
  }

  /// Takes a folder from the guest, whose open files in it lead nowhere then. False: none of this name is shared. Any thread.
  public func stopSharing(_ name: String) -> Bool { onLoop { self.server.remove(name) } }

  /// The guest stands still, and its clock with it, or goes on. Any thread.
  public func setStandsStill(_ standsStill: Bool) {
    onLoop {
      self.server.standsStill = standsStill
      if !standsStill { self.server.renewTold() }
    }
  }

  /// Those that are shared. Any thread.
  public var sharedFolders: [SharedFolder] { onLoop { self.server.served.map(\.folder) } }

  private func onLoop<Result>(_ body: @escaping () -> Result) -> Result {
    guard let loop = transport?.loop else { return body() }
    return loop.performAndWait(body)
  }

  public func queueNotified(_ index: Int) {
    counters.withLock { $0.notifications += 1 }
    transport?.process(index) { chain in
      switch try self.answer(chain) {
      case .written(let count): return count
      case .waits(let unique, let wait):
        guard !self.keep(chain.head, queue: index, unique, wait) else { return VirtioTransport.kept }
        self.server.locks.endWait(unique)
        return try self.reply(chain, unique, code: ENOLCK)
      }
    }
    if server.locks.wereReleased { askAgain() }
  }

  enum Answer {
    case written(UInt32)
    case waits(unique: UInt64, FuseWait)
  }

  /// A request is a header, its arguments, room for the reply's header and for the reply (5.11.6).
  /// - Parameter unique: the request's number, where it was asked before.
  func answer(_ chain: DescriptorChain, asked unique: UInt64? = nil) throws -> Answer {
    var arguments = FuseArguments(reader: chain.reader)
    guard let header = FuseHeader(&arguments.reader) else {
      throw VirtqueueError.requestMalformed("a file system request shorter than its header")
    }
    guard unique == nil || unique == header.unique else {
      throw VirtqueueError.requestMalformed("a file system request that has become another one while it waits")
    }
    var payload = chain.writer
    payload.skip(Self.replyHeader)
    var (count, code): (Int?, Int32) = (0, 0)
    do {
      if header.operation == Fuse.Operation.interrupt.rawValue { interrupt(try arguments.take()) }
      count = try server.answer(header, &arguments, &payload)
    } catch let error as FuseError {
      code = error.code
    } catch let wait as FuseWait {
      return .waits(unique: header.unique, wait)
    }
    counters.withLock {
      $0.requests += 1
      if code != 0 { $0.errors += 1 }
    }
    // What is forgotten isn't answered.
    guard let count, chain.writableCount > 0 else { return .written(0) }
    return .written(try reply(chain, header.unique, count, code: code))
  }

  /// Writes a reply's header, before so many bytes.
  func reply(_ chain: DescriptorChain, _ unique: UInt64, _ count: Int = 0, code: Int32) throws -> UInt32 {
    guard chain.writableCount >= Self.replyHeader else {
      throw VirtqueueError.requestMalformed("a file system request without room for its reply")
    }
    var head = chain.writer
    head.write(UInt32(Self.replyHeader + count))
    head.write(-code)
    head.write(unique)
    return UInt32(Self.replyHeader + count)
  }

  private static let replyHeader = 16
}

/// What a file system device did since its machine was made.
public struct FileSystemMetrics: Codable, Equatable, Sendable {
  public var notifications: UInt64 = 0
  public var requests: UInt64 = 0
  /// Requests that were refused, by the host as well.
  public var errors: UInt64 = 0
  public init() {}
}

extension VirtioFileSystem {
  /// Any thread.
  public var metrics: FileSystemMetrics { counters.withLock { $0 } }
}

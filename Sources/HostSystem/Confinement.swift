import CHost
import Glibc

/// What a process that runs a hostile guest gives up before it does. Needs no privileges.
public enum Confinement: String, CaseIterable, Codable, Sendable {
  /// Memory isn't written to a file when the process crashes.
  case noCoreFiles = "no core files"
  /// Nothing that it could start would have more rights (no_new_privs, prctl(2)).
  case noNewPrivileges = "no new privileges"
  /// System calls that start programs, make processes, reach into others or change the host's system are refused
  /// (seccomp(2)); on x86-64 hosts.
  case systemCallFilter = "system call filter"
  /// What communicates by System V's and POSIX's means isn't that of other processes (namespaces(7)).
  case ownCommunication = "own IPC namespace"
  /// There is no network that the process could reach; not for machines that have one by this process.
  case noNetwork = "own network namespace"
  /// There are no other processes that the process could see.
  case ownProcesses = "own PID namespace"
  /// Of the host's files there are the machine's own, and what the process has open.
  case ownFiles = "own mount namespace"
  /// Of the host's files the same by Landlock (landlock(7)), for a process without mounts of its own.
  case fileRules = "Landlock file rules"
  /// By Landlock, signals and abstract sockets reach no other process, and no TCP where the machine has no network.
  case scopes = "Landlock scopes"
  /// Root's rights beyond files, ports and weights are gone; another user's process has none.
  case fewCapabilities = "few capabilities"

  /// Gives this process namespaces of its own. Only at its start, while there is one thread: it may go on as another
  /// process.
  /// - Parameter network: whether the machine uses the host's network.
  public static func isolate(keepingNetwork network: Bool) {
    let isolation = chost_isolate(network ? 0 : 1)
    if isolation == 0 { return }
    isolated = network ? [.ownCommunication] : [.ownCommunication, .noNetwork]
    if isolation == 2 { isolated.insert(.ownProcesses) }
  }

  /// Finds out what isolation will come to, for processes that are copies of this one.
  public static func tryIsolation() {
    chost_try_isolation()
    // The type of the set, too, takes its time to make.
    isolated = [.ownFiles]
    isolated = []
  }

  /// What is kept of the host's files.
  public struct Kept: Sendable {
    /// Absolute where it is to be found at the same place.
    var path: String
    var isReadOnly = true
    var isDevice = false
    /// Whether it is left out where it is anything but a folder, even a link to one.
    var isOwnFolder = false
    var link: String?
    /// Where it is from then on; nil: where it was.
    var place: String?

    /// - Parameter place: where it is for a process with mounts of its own; nil: where it was.
    public static func folder(_ path: String, isReadOnly: Bool, at place: String? = nil) -> Kept {
      Kept(path: path, isReadOnly: isReadOnly, place: place)
    }

    /// A folder at which the process itself may have put something else.
    public static func ownFolder(_ path: String, isReadOnly: Bool) -> Kept {
      Kept(path: path, isReadOnly: isReadOnly, isOwnFolder: true)
    }

    /// A file that stays the same, or a device.
    public static func file(_ path: String, isReadOnly: Bool) -> Kept {
      var status = stat()
      let kind = stat(path, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
      return Kept(path: path, isReadOnly: isReadOnly, isDevice: kind == S_IFBLK || kind == S_IFCHR)
    }

    /// A file that may be replaced while it is used, where it is a link into another folder: then that is kept.
    public static func file(_ path: String) -> [Kept] {
      guard let real = realpath(path, nil) else { return [] }
      defer { free(real) }
      let target = String(cString: real)
      let folder = target[..<(target.lastIndex(of: "/") ?? target.startIndex)]
      if folder.isEmpty || path.hasPrefix(folder + "/") { return [Kept(path: path)] }
      return [Kept(path: String(folder)), Kept(path: path, link: target)]
    }
  }

  /// Leaves an isolated process nothing of the host's files but these, and what it has open; and takes its capabilities.
  /// The first is a folder. For this thread, and those that it makes from now on: so before there are others. False: it has
  /// no mounts of its own, and sees everything where it was.
  public static func leaveFiles(keeping kept: [Kept]) -> Bool {
    if isolated.contains(.ownProcesses), withEntries(kept, { chost_enter_root($0, $1) }) != 0 {
      isolated.insert(.ownFiles)
    }
    if chost_drop_capabilities() != 0 { isolated.insert(.fewCapabilities) }
    return isolated.contains(.ownFiles)
  }

  /// Restricts this thread, and those that it makes from now on, by Landlock: to these files where there are no mounts of
  /// its own, and to itself; and takes its capabilities. False: the host lets it not, or there are other threads already.
  /// - Parameter network: whether the machine uses the host's network.
  @discardableResult
  public static func restrict(to kept: [Kept], keepingNetwork network: Bool) -> Bool {
    let others = (try? HostResources.threads().count > 1) ?? true
    if others { return false }
    // Some of root's go past Landlock's ptrace rules.
    if !isolated.contains(.fewCapabilities), chost_drop_capabilities() != 0 { isolated.insert(.fewCapabilities) }
    let rules = isolated.contains(.ownFiles) ? [] : kept
    let applied = withEntries(rules) { chost_restrict($0, $1, network ? 1 : 0) }
    if applied & CHOST_RESTRICTED_FILES != 0 { isolated.insert(.fileRules) }
    if applied & CHOST_RESTRICTED_REACH != 0 { isolated.insert(.scopes) }
    return applied != 0
  }

  private static func withEntries<Result>(_ kept: [Kept], _ body: ([chost_kept], Int) -> Result) -> Result {
    let entries = kept.map {
      chost_kept(
        path: strdup($0.path), place: $0.place.flatMap { strdup($0) }, is_read_only: $0.isReadOnly ? 1 : 0,
        is_device: $0.isDevice ? 1 : 0, is_own_folder: $0.isOwnFolder ? 1 : 0, link: $0.link.flatMap { strdup($0) })
    }
    defer {
      for entry in entries {
        for text in [entry.path, entry.place, entry.link] { free(UnsafeMutablePointer(mutating: text)) }
      }
    }
    return body(entries, entries.count)
  }

  /// Whether a folder that is named to this process from now on can't be reached, whoever opened it.
  public static var isHeldByFileRules: Bool { isolated.contains(.fileRules) }

  // Written before machines run.
  nonisolated(unsafe) private static var isolated: Set<Confinement> = []

  /// Applies all else that the host lets it to this process and its threads, for good. Returns what is applied by then.
  ///
  /// - Parameters:
  ///   - network: whether the machine uses the host's network.
  ///   - lock: a descriptor whose lock lasts until the process ends, where there is a system call filter.
  public static func apply(keepingNetwork network: Bool, holding lock: Int32 = -1) -> [Confinement] {
    let applied = chost_confine(network ? 1 : 0, lock)
    return allCases.filter { confinement in
      switch confinement {
      case .noCoreFiles: applied & CHOST_CONFINED_CORE != 0
      case .noNewPrivileges: applied & CHOST_CONFINED_PRIVILEGES != 0
      case .systemCallFilter: applied & CHOST_CONFINED_CALLS != 0
      default: isolated.contains(confinement)
      }
    }
  }
}

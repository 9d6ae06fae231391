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
  /// Of the host's files there are those that Yadori keeps, and what the process has open.
  case ownFiles = "own mount namespace"
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
  public static func tryIsolation() { chost_try_isolation() }

  /// What is kept of the host's files.
  public struct Kept {
    /// Absolute, and without symbolic links of its own but the last part.
    var path: String
    var isReadOnly = true
    var isDevice = false
    var link: String?

    public static func folder(_ path: String, isReadOnly: Bool) -> Kept { Kept(path: path, isReadOnly: isReadOnly) }

    public static func device(_ path: String) -> Kept { Kept(path: path, isReadOnly: false, isDevice: true) }

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
  /// The first is a folder. For this thread, and those that it makes from now on.
  public static func leaveFiles(keeping kept: [Kept]) {
    if isolated.contains(.ownProcesses) {
      let entries = kept.map {
        chost_kept(
          path: strdup($0.path), is_read_only: $0.isReadOnly ? 1 : 0, is_device: $0.isDevice ? 1 : 0,
          link: $0.link.flatMap { strdup($0) })
      }
      if chost_enter_root(entries, entries.count) != 0 { isolated.insert(.ownFiles) }
      for entry in entries {
        free(UnsafeMutablePointer(mutating: entry.path))
        free(UnsafeMutablePointer(mutating: entry.link))
      }
    }
    if chost_drop_capabilities() != 0 { isolated.insert(.fewCapabilities) }
  }

  // Written before machines run.
  nonisolated(unsafe) private static var isolated: Set<Confinement> = []

  /// Applies all else that the host lets it to this process and its threads, for good. Returns what is applied by then.
  public static func apply() -> [Confinement] {
    let applied = chost_confine()
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

import CHost

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

  /// Gives this process namespaces of its own. Only at its start, while there is one thread.
  /// - Parameter network: whether the machine uses the host's network.
  public static func isolate(keepingNetwork network: Bool) {
    if chost_isolate(network ? 0 : 1) != 0 {
      isolated = network ? [.ownCommunication] : [.ownCommunication, .noNetwork]
    }
  }

  // Written before there is a second thread.
  nonisolated(unsafe) private static var isolated: [Confinement] = []

  /// Applies all else that the host lets it to this process and its threads, for good. Returns what is applied by then.
  public static func apply() -> [Confinement] {
    let applied = chost_confine()
    return allCases.filter { confinement in
      switch confinement {
      case .noCoreFiles: applied & CHOST_CONFINED_CORE != 0
      case .noNewPrivileges: applied & CHOST_CONFINED_PRIVILEGES != 0
      case .systemCallFilter: applied & CHOST_CONFINED_CALLS != 0
      case .ownCommunication, .noNetwork: isolated.contains(confinement)
      }
    }
  }
}

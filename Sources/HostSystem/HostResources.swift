import CHost
import Foundation

/// What the host can give to machines: processors and memory, within the limits set for this process.
public enum HostResources {
  /// Processors that this process may run on (its affinity), at least 1.
  public static var processorCount: Int { max(1, ProcessInfo.processInfo.activeProcessorCount) }

  /// The numbers of the host's processors (kernel documentation, "How CPU topology info is exported via sysfs").
  public static var processors: [Int] {
    let list = lines("/sys/devices/system/cpu/online").first.flatMap { processors(in: String($0)) }
    return list ?? Array(0..<processorCount)
  }

  /// The numbers of a list as the kernel writes them: "0,2-3". Nil: it isn't one.
  public static func processors(in list: String) -> [Int]? {
    var numbers: Set<Int> = []
    for part in list.split(separator: ",", omittingEmptySubsequences: false) {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1],
        0 <= first, first <= last, last < 8192
      else { return nil }
      numbers.formUnion(first...last)
    }
    return numbers.sorted()
  }

  /// The threads of a process (nil: of this one) by their numbers. Throws where there is no such process any more.
  package static func threads(of process: Int32? = nil) throws -> [Int32] {
    let folder = "/proc/\(process.map(String.init) ?? "self")/task"
    return try FileManager.default.contentsOfDirectory(atPath: folder).compactMap { Int32($0) }
  }

  /// Has all threads of a process (nil: of this one), and those that they make, run on these processors only; nil: on all
  /// that it may. Throws `HostError`, with the code ESRCH where there is no such process any more.
  public static func pin(to processors: [Int]?, process: Int32? = nil) throws {
    let numbers = (processors ?? []).map { Int32($0) }
    var pinned: Set<Int32> = []
    // Until there are none that were made meanwhile, by threads that weren't pinned yet.
    while true {
      guard let present = try? threads(of: process) else {
        guard let process else { throw HostError(message: "can't find this process's threads in /proc") }
        throw HostError(code: ESRCH, message: "the process \(process) has ended")
      }
      let others = present.filter { !pinned.contains($0) }
      if others.isEmpty { return }
      for thread in others {
        pinned.insert(thread)
        // A thread that has ended meanwhile runs nowhere.
        guard chost_pin(thread, numbers, numbers.count) != 0, errno != ESRCH else { continue }
        throw HostError.last("can't use the processors \(numbers.map(String.init).joined(separator: ","))")
      }
    }
  }

  /// The most memory, in bytes, that this process can ever have: the host's RAM, or the control group's limit where
  /// that is lower. Nil when the host doesn't say.
  public static let memoryLimit: UInt64? = {
    // What is available isn't asked: the kernel counts for that.
    let pages = sysconf(Int32(_SC_PHYS_PAGES))
    guard pages > 0 else { return memory(fileSystemRoot: "").limit }
    var limit = UInt64(pages) * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    for group in controlGroups(fileSystemRoot: "") { limit = min(limit, maximum(of: group) ?? limit) }
    return limit
  }()

  /// Memory, in bytes, that can be had now without swapping, within the control group's limit.
  public static var availableMemory: UInt64? { memory(fileSystemRoot: "").available }

  /// Bytes of memory that are this process's alone, and of what other processes have, too; nil where the host doesn't say.
  /// What is mapped of a file and as that has it (the program, a saved machine) is the host's cache, which it may drop: that
  /// is in neither, but where others use it now. See proc(5).
  public static var memoryUse: (alone: UInt64, shared: UInt64)? {
    // The whole text would be a good part of a small machine's memory.
    memoryUse(in: LinesOfFile("/proc/self/smaps"))
  }

  /// The same of what smaps says.
  private static func memoryUse(in lines: some Sequence<String>) -> (alone: UInt64, shared: UInt64)? {
    var (isFile, isShareable, isEmpty) = (false, false, true)
    var (alone, shared, dirty) = (UInt64(0), UInt64(0), UInt64(0))
    for line in lines {
      isEmpty = false
      let words = line.split(separator: " ", maxSplits: 5)
      if words.count > 2, words[0].contains("-") {
        // 7f00-7f10 rw-p offset device inode path; memory without a file may have an inode, too.
        let hasFile = words.count > 5 && words[4] != "0"
        isFile = hasFile && !words[5].hasPrefix("/memfd:") && !words[5].hasPrefix("/dev/zero")
        // Else the other who has it is this process: it maps its code twice.
        isShareable = isFile || !hasFile
        continue
      }
      guard words.count > 1, let kilobytes = UInt64(words[1]) else { continue }
      switch words[0] {
      case "Shared_Clean:", "Shared_Dirty:": if isShareable { shared += kilobytes }
      case "Private_Dirty:": dirty = kilobytes
      // It stands behind.
      case "Anonymous:": alone += isFile ? min(dirty, kilobytes) : dirty
      default: break
      }
    }
    return isEmpty ? nil : (alone << 10, shared << 10)
  }

  /// Bytes that this user could still write where a file is, or is to be; nil where the host doesn't say.
  public static func freeSpace(forFile path: String) -> UInt64? {
    var status = statvfs()
    guard statvfs(URL(fileURLWithPath: path).deletingLastPathComponent().path, &status) == 0 else { return nil }
    return UInt64(status.f_bavail) &* UInt64(status.f_frsize)
  }

  /// Whether a program that asks for large pages (madvise(2), MADV_HUGEPAGE) gets them for memory of its own.
  public static let hasLargePages =
    number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") == 2 << 20
    && lines("/sys/kernel/mm/transparent_hugepage/enabled").first.map { !$0.contains("[never]") } == true

  /// Lets this process have as many descriptors open as it ever may (getrlimit(2)). Returns how many, 1 Mi at most.
  public static func raiseDescriptorLimit() -> Int {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    guard getrlimit(resource, &limit) == 0 else { return 1024 }
    let wanted = min(limit.rlim_max, 1 << 20)
    if limit.rlim_cur < wanted {
      let before = limit.rlim_cur
      limit.rlim_cur = wanted
      if setrlimit(resource, &limit) != 0 { limit.rlim_cur = before }
    }
    return Int(min(limit.rlim_cur, 1 << 20))
  }

  /// The bits that this process takes from the modes of new files (umask(2)).
  public static var fileModeMask: mode_t {
    // Asking by umask would change it for a moment.
    let line = lines("/proc/self/status").first { $0.hasPrefix("Umask:") }
    return line.flatMap { mode_t($0.dropFirst(6).trimmingCharacters(in: .whitespaces), radix: 8) } ?? 0o777
  }

  /// Reads proc(5) meminfo and the control groups (kernel documentation, cgroup-v2, "Memory Interface Files") below
  /// `fileSystemRoot`.
  package static func memory(fileSystemRoot: String) -> (limit: UInt64?, available: UInt64?) {
    var limit: UInt64?
    var available: UInt64?
    for line in lines(fileSystemRoot + "/proc/meminfo") {
      let words = line.split(whereSeparator: { $0 == " " || $0 == ":" })
      guard words.count >= 2, let kibibytes = UInt64(words[1]) else { continue }
      if words[0] == "MemTotal" { limit = kibibytes.multipliedReportingOverflow(by: 1024).partialValue }
      if words[0] == "MemAvailable" { available = kibibytes.multipliedReportingOverflow(by: 1024).partialValue }
    }
    for group in controlGroups(fileSystemRoot: fileSystemRoot) {
      guard let maximum = maximum(of: group) else { continue }
      let used = number(group + "/memory.current") ?? number(group + "/memory.usage_in_bytes") ?? 0
      // File pages that nobody used lately go as soon as memory is short.
      let reclaimable = min(used, statistic("inactive_file", in: group + "/memory.stat") ?? 0)
      let rest = maximum > used - reclaimable ? maximum - (used - reclaimable) : 0
      limit = min(limit ?? maximum, maximum)
      available = min(available ?? rest, rest)
    }
    return (limit, available)
  }

  /// The memory control groups of this process, from its own up to the topmost: each of them limits it.
  private static func controlGroups(fileSystemRoot: String) -> [String] {
    var folders: [String] = []
    for line in lines(fileSystemRoot + "/proc/self/cgroup") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let mount: String
      if fields[0] == "0" && fields[1].isEmpty {
        mount = "/sys/fs/cgroup"
      } else if fields[1].split(separator: ",").contains("memory") {
        mount = "/sys/fs/cgroup/memory"
      } else {
        continue
      }
      var path = fields[2].split(separator: "/").filter { $0 != ".." && $0 != "." }
      while true {
        folders.append(fileSystemRoot + mount + path.map { "/" + $0 }.joined())
        if path.isEmpty { break }
        path.removeLast()
      }
    }
    return folders
  }

  private static func maximum(of group: String) -> UInt64? {
    number(group + "/memory.max") ?? number(group + "/memory.limit_in_bytes")
  }

  /// Of one of the kernel's files.
  private static func lines(_ path: String) -> [String] {
    Array(LinesOfFile(path))
  }

  /// The number a file holds; nil for "max", and where there is no such file.
  private static func number(_ path: String) -> UInt64? { lines(path).first.flatMap { UInt64($0) } }

  private static func statistic(_ name: String, in path: String) -> UInt64? {
    for line in lines(path) {
      let words = line.split(separator: " ")
      if words.count == 2, words[0] == name { return UInt64(words[1]) }
    }
    return nil
  }
}

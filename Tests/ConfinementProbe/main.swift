// Does what a machine's process does before its first instruction, then what a guest would try that owned the process, and
// says as JSON what became of each: the error's number, 0 where it worked.
//
//   confinement-probe background|terminal FOLDER SHARED NETWORK VICTIM PORT [FILE...]
//   confinement-probe ask SOCKET: asks a machine's control socket how it is, and prints the answer.
//   confinement-probe machine FOLDER ANSWER: is the process of the machine of this folder, as a guest may be that owned it:
//     it answers whatever it is asked so, and then says nothing more, "none": doesn't take connections.
//
// FOLDER: the machine's. SHARED: a folder that it shares. NETWORK: yes or no. VICTIM: a process of the same user. PORT:
// somebody listens there on 127.0.0.1. FILE: files to read and to write to.
import Foundation
import HostSystem
import Supervisor
import Yadori

let arguments = Array(CommandLine.arguments.dropFirst())

if arguments.count == 2, arguments[0] == "ask" {
  let descriptor = UnixSocket.make()
  guard UnixSocket.use(arguments[1], descriptor, connect) == 0 else { exit(2) }
  _ = Array("{\"verb\":\"status\"}\n".utf8).withUnsafeBytes { UnixSocket.sendAll($0, to: descriptor) }
  print(String(decoding: UnixSocket.readLine(from: descriptor, longest: 64 << 10) ?? [], as: UTF8.self))
  exit(0)
}

if arguments.count == 3, arguments[0] == "machine" {
  let folder = MachineFolder(URL(fileURLWithPath: arguments[1]))
  guard let lock = try folder.takeLock() else { exit(2) }
  BrokenPipes.becomeErrors()
  let listener = try UnixSocket.listen(arguments[1] + "/control", backlog: 0, isBlocking: true)
  // Of one backlog, that is all there is.
  print("ready")
  fflush(nil)
  while arguments[2] != "none" {
    let connection = UnixSocket.accept(listener, isBlocking: true)
    _ = UnixSocket.readLine(from: connection, longest: 64 << 10)
    _ = Array(arguments[2].utf8).withUnsafeBytes { UnixSocket.sendAll($0, to: connection) }
  }
  sleep(600)
  withExtendedLifetime(lock) { exit(0) }
}

guard arguments.count >= 6, let victim = Int(arguments[4]), let port = UInt16(arguments[5]) else { exit(64) }
let (folder, shared, hasNetwork) = (arguments[1], arguments[2], arguments[3] == "yes")

var configuration = VirtualMachineConfiguration(boot: .init())
configuration.sharedFolders = [.init(name: "shared", path: shared)]
// However many there are.
for number in 0..<80 { configuration.sharedFolders?.append(.init(name: "more-\(number)", path: shared)) }
if hasNetwork { configuration.network = .init(.user(forwards: [])) }
let machine = ConfinedMachine(configuration, MachineFolder(URL(fileURLWithPath: folder)))
// Stands for the machine's lock.
let held = open("/dev/null", O_RDWR | O_CLOEXEC)
var places: [String: String] = [:]
if arguments[0] == "background" {
  Confinement.isolate(keepingNetwork: hasNetwork)
  places = machine.enter(keepingNetwork: hasNetwork)
} else {
  Confinement.restrict(to: machine.withHost, keepingNetwork: hasNetwork)
}
let place = places["shared"] ?? shared
let applied = Confinement.apply(keepingNetwork: hasNetwork, holding: held)

// syscall(2) is variadic; the host's convention passes whole numbers the same way.
typealias SystemCall = @convention(c) (Int, Int, Int, Int, Int, Int, Int) -> Int
let systemCall = unsafeBitCast(dlsym(nil, "syscall"), to: SystemCall.self)

var results: [String: Int32] = [:]

func attempt(_ name: String, _ body: () -> Int) {
  errno = 0
  results[name] = body() < 0 ? errno : 0
}

/// By its number on x86-64.
func attempt(_ name: String, call number: Int, _ arguments: Int...) {
  let all = arguments + Array(repeating: 0, count: 6 - arguments.count)
  attempt(name) { systemCall(number, all[0], all[1], all[2], all[3], all[4], all[5]) }
}

func attempt(_ name: String, open path: String, _ flags: Int32) {
  attempt(name) {
    let descriptor = open(path, flags | O_CLOEXEC, 0o600)
    if descriptor >= 0 { close(descriptor) }
    return Int(descriptor)
  }
}

// What a machine needs.
attempt("own folder", open: folder + "/file", O_RDWR | O_CREAT)
attempt("own file renamed") { Int(rename(folder + "/file", folder + "/other")) }
attempt("shared folder", open: place + "/file", O_RDWR | O_CREAT)
attempt("folder in the shared one") { Int(mkdir(place + "/within", 0o700)) }
attempt("moved there") { Int(rename(place + "/file", place + "/within/file")) }
attempt("itself", call: 234, Int(getpid()), Int(systemCall(186, 0, 0, 0, 0, 0, 0)), 0)
attempt("own limits", call: 302, 0, 7, 0, 0)
attempt("Unix socket") { Int(UnixSocket.make()) }
var ends: [Int32] = [-1, -1]
attempt("pair of Unix sockets") { Int(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)) }
let thread = HostThread(name: "thread") {}
thread.join()

// Files.
for file in arguments[6...] {
  attempt("read \(file)", open: file, O_RDONLY)
  attempt("write \(file)", open: file, O_WRONLY)
}
let up = open(place, O_RDONLY | O_DIRECTORY)
attempt("way up from the shared folder") { Int(openat(up, "../secret", O_RDONLY)) }
attempt("file in the root", open: "/yadori-probe", O_WRONLY | O_CREAT)
attempt("file cut by its path") { Int(truncate(folder + "/other", 0)) }
attempt("device") { Int(mknod(folder + "/device", S_IFCHR | 0o600, 0x103)) }

// Others.
attempt("list of processes") { FileManager.default.fileExists(atPath: "/proc/\(victim)/status") ? 0 : -1 }
for (name, number, rest) in [
  ("kill", 62, [0]), ("tgkill", 234, [victim, 0]), ("tkill", 200, [0]), ("ptrace", 101, [victim, 0, 0]),
  ("process_vm_readv", 310, [0, 0, 0, 0, 0]), ("prlimit64", 302, [7, 0, 0]), ("sched_setaffinity", 203, [0, 0]),
  ("kcmp", 312, [victim, 0, 0, 0]), ("pidfd_open", 434, [0]), ("process_madvise", 440, [0, 0, 0, 0]),
] {
  // PTRACE_SEIZE comes before its process.
  let all = name == "ptrace" ? [0x4206, victim, 0, 0] : [victim] + rest
  let filled = all + Array(repeating: 0, count: 6 - all.count)
  attempt(name) { systemCall(number, filled[0], filled[1], filled[2], filled[3], filled[4], filled[5]) }
}
attempt("setpriority", call: 141, 0, victim, 19)
attempt("memory of another", open: "/proc/\(victim)/mem", O_RDWR)
attempt("environment of another", open: "/proc/\(victim)/environ", O_RDONLY)

// Networks.
attempt("TCP") {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  if descriptor < 0 { return -1 }
  return withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      Int(connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)))
    }
  }
}
attempt("UDP") { Int(socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)) }
attempt("netlink") { Int(socket(16, Int32(SOCK_RAW.rawValue), 0)) }
attempt("pair of other sockets") { Int(socketpair(AF_INET, Int32(SOCK_STREAM.rawValue), 0, &ends)) }
attempt("packets") { Int(socket(17, Int32(SOCK_RAW.rawValue), 0)) }

// The lock.
attempt("lock closed") { Int(close(held)) }
attempt("lock's other descriptor") { Int(dup(held)) }
attempt("lock replaced") { Int(dup2(0, held)) }
attempt("lock's other number") { Int(dup2(held, 200)) }
attempt("lock given up", call: 72, Int(held), 3)
attempt("all closed", call: 436, Int(held), Int(held), 0)
attempt("descriptor sent", call: 46, 0, 0, 0)
attempt("hidden from its user", call: 157, 4, 0, 0, 0, 0)

// The system.
attempt("mount") { Int(mount("none", folder, "tmpfs", 0, nil)) }
attempt("unshare", call: 272, 0x1000_0000)
attempt("setns", call: 308, 0, 0)
attempt("bpf", call: 321, 0, 0, 0)
attempt("io_uring_setup", call: 425, 1, 0)
attempt("userfaultfd", call: 323, 0)
attempt("keyctl", call: 250, 0, 0)
attempt("reboot", call: 169, 0, 0, 0)
attempt("setuid", call: 105, 0)
attempt("typing at the terminal", call: 16, 0, 0x5412, 0)
attempt("fork", call: 57)
attempt("execve") {
  var words: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
  return Int(execve("/bin/true", &words, nil))
}

struct Report: Codable {
  var applied: [String]
  var results: [String: Int32]
}
let report = Report(applied: applied.map(\.rawValue), results: results)
FileHandle.standardOutput.write(try JSONEncoder().encode(report))

import Foundation
import HostSystem
import Testing

/// What is done with running machines, against Debian as it is built and booted here. Needs a mirror, as `DebianBootTests`.
@Suite(.enabled(if: hasMirror, "no Debian mirror: set YADORI_MIRROR"))
struct DebianMachineTests {
  private let program: Program

  init() throws { program = try Program() }

  /// Its output. Expects this exit code.
  @discardableResult
  private func yadori(
    _ arguments: String..., status: Int32 = 0, shell: String? = nil, location: SourceLocation = #_sourceLocation
  ) throws -> String {
    let outcome = try program.run(arguments, shell: shell, seconds: 600)
    #expect(outcome.status == status, "\(arguments): \(outcome.error)", sourceLocation: location)
    return outcome.output
  }

  private func write(_ text: String, to name: String) throws {
    let place = URL(fileURLWithPath: program[name])
    try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: place)
  }

  private func text(_ name: String) throws -> String { try String(contentsOfFile: program[name], encoding: .utf8) }

  /// Everything by which a machine is somebody is its own.
  private func identities(_ names: [String]) throws {
    let parts = [
      "host name": "hostname", "name in /etc/hosts": "grep '^127.0.1.1' /etc/hosts",
      "machine id": "cat /etc/machine-id",
      "address": "cat /sys/class/net/e*/address",
      "public key": "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub", "key": "cat /etc/ssh/ssh_host_ed25519_key",
    ]
    for (part, command) in parts {
      let values = try names.map { try yadori("exec", $0, "--", "sh", "-ec", command) }
      #expect(Set(values).count == names.count && !values.contains(""), "\(part): \(values)")
    }
    for name in names.dropFirst() {
      #expect(try yadori("exec", name, "--", "hostname") == name + "\n")
      #expect(try yadori("exec", name, "--", "sh", "-c", parts["name in /etc/hosts"]!) == "127.0.1.1 \(name)\n")
    }
    // Clones that have done nothing since they are.
    try yadori("clone", "web", "web-3..4")
    let numbers = try ["web", "web-3", "web-4"].map {
      try yadori(
        "exec", $0, "--", "sh", "-c", "head -c 32 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid")
    }
    #expect(Set(numbers).count == 3 && numbers.allSatisfy { $0.count > 100 }, "\(numbers)")
    try yadori("remove", "-f", "web-3", "web-4")
  }

  /// Locks in the shared folder hold among machines, and the host's programs; what they guard is what the last one left.
  private func locks(_ names: [String]) throws {
    try write("", to: "shared/lock")
    // The host has it, by both kinds.
    let held = open(program["shared/lock"], O_RDWR)
    #expect(flock(held, LOCK_EX | LOCK_NB) == 0 && HostFileLock.lock(held, exclusive: true))
    let tries = """
      use Fcntl; open(my $file, '+<', '/shared/lock') or die;
      my $range = pack('s s x4 q q i x4', F_WRLCK, 0, 0, 0, 0);
      print flock($file, 6) ? 'yes' : 'no', fcntl($file, F_SETLK, $range) ? 'yes' : 'no';
      """
    for name in names { #expect(try yadori("exec", name, "--", "perl", "-e", tries) == "nono") }
    close(held)
    #expect(try yadori("exec", names[0], "--", "perl", "-e", tries) == "yesyes")
    // One machine has it, another one and the host haven't; then that gets it.
    try yadori(
      "exec", names[0], "--", "sh", "-c",
      """
      (flock -x 9; echo > /shared/taken; until [ -e /shared/enough ]; do sleep 0.1; done) 9< /shared/lock > /dev/null 2>&1 &
      until [ -e /shared/taken ]; do sleep 0.1; done
      """)
    try yadori("exec", names[1], "--", "flock", "-n", "/shared/lock", "true", status: 1)
    let mine = open(program["shared/lock"], O_RDWR)
    #expect(flock(mine, LOCK_SH | LOCK_NB) != 0)
    close(mine)
    let letGo = "\"$@\" & : > \"$YADORI_HOME/shared/enough\"; wait $!"
    #expect(try yadori("exec", names[1], "--", "flock", "/shared/lock", "echo", "got", shell: letGo) == "got\n")
    // All count at the same time.
    try write("0\n", to: "shared/count")
    let count = """
      for i in 1 2 3 4 5 6 7 8 9 10; do
        flock /shared/lock sh -c 'read n < /shared/count; echo $((n + 1)) > /shared/count'
      done
      """
    let outcome = try program.run(
      ["exec"],
      shell: names.map { "\"$@\" \($0) -- sh -c '\(count.replacing("'", with: "'\\''"))' & " }.joined() + "wait",
      seconds: 300)
    #expect(outcome.error == "")
    #expect(try text("shared/count") == "\(10 * names.count)\n")
  }

  /// A folder of the host becomes a link that leads out of what is shared, again and again: the guest never follows it.
  private func linksInBetween() throws {
    try write("mine", to: "shared/turn/f")
    try write("secret", to: "away/f")
    let turns = """
      cd "$YADORI_HOME/shared"; ln -s ../away other
      (while :; do mv -T turn kept; mv -T other turn; mv -T turn other; mv -T kept turn; done) & t=$!
      "$@"; s=$?; kill $t; exit $s
      """
    let reads = """
      cd /shared; for i in $(seq 300); do cat turn/f; echo > turn/made; ls turn/; cat turn/../../away/f; done 2>/dev/null || :
      """
    #expect(try yadori("exec", "web", "--", "cat", "/shared/turn/f") == "mine")
    let output = try yadori("exec", "web", "--", "sh", "-c", reads, shell: turns)
    #expect(!output.contains("secret"))
    #expect(try FileManager.default.contentsOfDirectory(atPath: program["away"]) == ["f"])
    for name in ["turn", "kept", "other"] { try? FileManager.default.removeItem(atPath: program["shared/" + name]) }
  }

  private func privateBytes() throws -> UInt64 {
    struct Usage: Decodable { var privateBytes: UInt64 }
    let output = try yadori("stats", "--json", "--interval", "0.1", "web")
    return try #require(try JSONDecoder().decode([Usage].self, from: Data(output.utf8)).first).privateBytes
  }

  /// Harts and RAM: what it was started with, less, and more.
  private func hartsAndMemory() throws {
    for (harts, megabytes) in [(2, 512), (1, 384), (3, 640), (2, 512)] {
      try yadori("set", "web", "--harts", "\(harts)", "--memory", "\(megabytes)M")
      #expect(try yadori("exec", "web", "--", "nproc") == "\(harts)\n")
      // Its driver takes its time.
      let wanted = "\"memoryBytes\" : \(megabytes << 20)"
      let look = """
        n=0; while [ $n -lt 300 ] && ! "$@" | grep -q '\(wanted)'; do n=$((n + 1)); sleep 0.1; done; "$@"
        """
      #expect(try yadori("inspect", "--json", "web", shell: look).contains(wanted))
      let total = try yadori("exec", "web", "--", "sed", "-n", "s/^MemTotal: *\\([0-9]*\\) kB$/\\1/p", "/proc/meminfo")
      // What is beyond is nothing that the guest knows of, and its kernel has some for itself.
      let kilobytes = try #require(Int(total.trimmingCharacters(in: .newlines)))
      #expect((megabytes - 128..<megabytes).contains(kilobytes >> 10))
    }
  }

  /// What a program in the guest has filled goes back to the host when it has ended: what is free of whole large pages, into
  /// which the guest's kernel puts it together sooner or later; here at once.
  private func memoryThatComesBack() throws {
    let before = try privateBytes()
    try yadori("exec", "web", "--", "sh", "-c", "yes | head -c 134217728 > /dev/shm/full")
    let full = try privateBytes()
    #expect(full > before + 100 << 20)
    try yadori(
      "exec", "web", "--", "sh", "-c",
      "rm /dev/shm/full; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory")
    var after = full
    // Some of it lies among pages that can't be moved.
    for _ in 0..<300 where after > full - 64 << 20 {
      usleep(100_000)
      after = try privateBytes()
    }
    #expect(after <= full - 64 << 20, "\(before), \(full), \(after)")
  }

  /// One image and one boot for all of it, which takes a while.
  @Test func verbsOfRunningMachines() throws {
    defer { try? FileManager.default.removeItem(at: program.folder) }
    try yadori("image", "build", "debian")
    defer { _ = try? program.run(["remove", "-f", "web", "web-1", "web-2", "back"]) }
    try write("from the host", to: "shared/a")
    try write("secret", to: "outside")
    try yadori(
      "run", "-d", "--name", "web", "-c", "2", "--max-harts", "3", "-m", "512M", "--max-memory", "640M", "--share",
      program["shared"] + ":/shared", "debian")

    // Commands, and what they see of the host.
    #expect(try yadori("exec", "web", "--", "uname", "-m") == "riscv64\n")
    try yadori("exec", "web", "--", "sh", "-c", "exit 7", status: 7)
    #expect(try yadori("exec", "web", "--", "cat", "/shared/a") == "from the host")
    try yadori(
      "exec", "web", "--", "sh", "-ec",
      """
      cd /shared; mkdir d; echo guest > d/f; ln -s f d/l; ln d/f d/h; chmod 640 d/f; mv d e; [ "$(cat e/l)" = guest ]
      ln -s ../../outside out; ! cat out; tar cf t.tar e; rm -r e; tar xf t.tar; [ "$(stat -c %h e/f)" = 2 ]
      (flock -n 9 && ! flock -n t.tar true) 9< t.tar
      [ "$(ls -a ../shared/..)" = "$(ls -a /)" ]; ! ls ../shared/../outside
      """)
    #expect(try text("shared/e/f") == "guest\n" && text("outside") == "secret")
    var status = stat()
    #expect(stat(program["shared/e/f"], &status) == 0 && status.st_mode & 0o777 == 0o640 && status.st_nlink == 2)

    try linksInBetween()

    // Folders that come and go while it runs.
    try write("more", to: "more/m")
    try yadori("share", "web", program["more"] + ":/srv/more:ro")
    #expect(try yadori("exec", "web", "--", "sh", "-c", "cat /srv/more/m; touch /srv/more/n || echo no") == "moreno\n")
    try write("other", to: "other/m")
    try yadori("share", "web", program["other"] + ":/srv/more")
    #expect(try yadori("exec", "web", "--", "sh", "-c", "cat /srv/more/m; touch /srv/more/n") == "other")
    #expect(FileManager.default.fileExists(atPath: program["other/n"]))
    try program.expectRefusal(["share", "web", program["more"] + ":/srv-more"], code: 64, says: ["too much alike"])
    try yadori("unshare", "web", "/srv/./more/")
    #expect(try yadori("exec", "web", "--", "ls", "/srv/more") == "")
    try program.expectRefusal(["share", "web", program["none"] + ":/x"], code: 66, says: ["none", "check the name"])
    try program.expectRefusal(["unshare", "web", "/x"], code: 66, says: ["no shared folder at '/x'"])

    try hartsAndMemory()

    // Files there and back.
    try yadori("copy", program["shared/e"], "web:/root")
    try yadori("copy", "web:/root/e/f", program["copied"])
    #expect(try text("copied") == "guest\n")

    // Who runs a command, where, with what, and on what.
    #expect(
      try yadori(
        "exec", "-u", "daemon", "-C", "/tmp", "-e", "A=b c", "-e", "YADORI_HOME", "web", "--", "sh", "-c",
        "id -un; pwd; echo \"$A $YADORI_HOME\"") == "daemon\n/tmp\nb c \(program.folder.path)\n")
    #expect(try yadori("exec", "web", "--", "sh", "-c", "tty || :") == "not a tty\n")
    let onTerminal = try program.runOnTerminal(["exec", "-t", "web", "--", "sh", "-c", "tty; exit 6"])
    #expect(onTerminal.status == 6 && onTerminal.output.hasPrefix("/dev/pts/"), "\(onTerminal)")
    let shell = try program.runOnTerminal(
      ["shell", "web"], typing: [("# ", "tty; echo $((40 + 2))\r"), ("42", "exit 5\r")])
    #expect(shell.status == 5 && shell.output.contains("/dev/pts/"), "\(shell)")
    try yadori("copy", "-u", "daemon", program["copied"], "web:/tmp/daemons")
    #expect(try yadori("exec", "web", "--", "stat", "-c", "%U", "/tmp/daemons") == "daemon\n")

    // Its console, and what was printed there.
    let console = try program.runOnTerminal(
      ["console", "web"], typing: [("Ctrl-]", "\r"), ("# ", "echo $((40 + 2))\r"), ("42", "\u{1D}q")])
    #expect(console.status == 0 && console.output.contains("42"), "\(console)")
    #expect(try yadori("logs", "web").contains("login: root"))

    // It stands still and goes on, under whatever name.
    try yadori("pause", "web")
    #expect(try yadori("list").contains("paused"))
    try program.expectRefusal(["exec", "web", "--", "true"], code: 69, says: ["'web' is paused"])
    try yadori("resume", "web")
    try yadori("rename", "web", "site")
    #expect(try yadori("exec", "site", "--", "echo", "on") == "on\n")
    try yadori("rename", "site", "web")

    // A port of the host leads to who listens in the guest.
    let port = UInt16.random(in: 20_000..<30_000)
    try yadori("publish", "web", "\(port):80")
    try yadori(
      "exec", "web", "--", "sh", "-c",
      """
      perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
      while ($c = $l->accept) { print $c "from the guest\\n"; close $c }' > /dev/null 2>&1 < /dev/null &
      """)
    let answer =
      "n=0; until r=$(timeout 5 bash -c 'cat < /dev/tcp/127.0.0.1/\(port)') && [ \"$r\" ] || [ $n -ge 50 ]; do "
    #expect(
      try yadori("list", shell: answer + "n=$((n + 1)); sleep 0.1; done; echo \"$r\"") == "from the guest\n")

    // What is for wireless networks only isn't loaded.
    let rules = try yadori("exec", "web", "--", "cat", "/etc/modprobe.d/yadori.conf")
    #expect(rules == "alias net-pf-16-proto-16-family-nl80211 off\n")
    #expect(try yadori("exec", "web", "--", "sh", "-c", "grep -c cfg80211 /proc/modules || :") == "0\n")

    // Copies of it, each somebody else, all with the same memory.
    try yadori(
      "exec", "web", "--", "sh", "-c",
      """
      echo kept > /dev/shm/note; mkdir -p /etc/ssh; echo own > /etc/ssh/ssh_host_ed25519_key
      echo ssh-ed25519 own > /etc/ssh/ssh_host_ed25519_key.pub; sync
      """)
    try yadori("snapshot", "create", "web", "first")
    try yadori("clone", "web", "web-1..2")
    for name in ["web", "web-1", "web-2"] {
      #expect(try yadori("exec", name, "--", "cat", "/dev/shm/note", "/shared/a") == "kept\nfrom the host")
    }
    try identities(["web", "web-1", "web-2"])
    try locks(["web", "web-1", "web-2"])
    try yadori("exec", "web-1", "--", "sh", "-c", "echo changed > /dev/shm/note")
    #expect(try yadori("exec", "web-2", "--", "cat", "/dev/shm/note") == "kept\n")
    try yadori("exec", "web", "--", "sh", "-c", "echo later > /dev/shm/note; echo later > /root/note; sync")
    try yadori("save", "web", program["saved"])
    try yadori("snapshot", "revert", "web", "first")
    #expect(try yadori("exec", "web", "--", "sh", "-c", "cat /dev/shm/note; ls /root/note || :") == "kept\n")
    try yadori("restore", program["saved"], "--name", "back", "--no-publish")
    #expect(try yadori("exec", "back", "--", "cat", "/dev/shm/note", "/root/note") == "later\nlater\n")

    try memoryThatComesBack()

    // It starts anew, and switches itself off when it is asked to; who waits for that hears it.
    let boot = try yadori("exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id")
    try yadori("restart", "web")
    let patient = "n=0; until \"$@\" 2> /dev/null || [ $n -ge 300 ]; do n=$((n + 1)); sleep 0.2; done"
    let later = try yadori("exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id", shell: patient)
    #expect(later.count == boot.count && later != boot)
    #expect(try yadori("stop", "web", shell: "\"$1\" wait web & w=$!; \"$@\"; wait $w; echo $?") == "0\n")
    #expect(try yadori("list").contains("stopped"))

    // It has the disk that it went back to, and that the image's, of which there are machines.
    try program.expectRefusal(
      ["image", "build", "debian", "--replace"], code: 69, says: ["stands on the image 'debian'"])
    try yadori("run", "-d", "--name", "web", "debian")
    #expect(try yadori("exec", "web", "--", "cat", "/root/e/f") == "guest\n")
    try yadori("kill", "web")

    // The machine that brings the image up for the first command ends with it, however that ends.
    for signal in ["KILL", "TERM"] {
      let script = """
        "$@" & p=$!; until "$1" list | grep -q '^warm-.*running'; do kill -0 $p || exit; sleep 0.1; done
        kill -\(signal) $p; n=0
        while "$1" list | grep -q '^warm-.*running' && [ $n -lt 100 ]; do n=$((n + 1)); sleep 0.1; done; "$1" list
        """
      #expect(try !yadori("run", "--rm", "debian", "--", "echo", "done", shell: script).contains("warm-"))
    }
    // Of two at the same time, one brings it up for both.
    let both = try program.run(
      ["run", "--rm", "debian", "--", "echo", "done"], shell: "\"$@\" & \"$@\"; wait", seconds: 600)
    #expect(both.output == "done\ndone\n" && both.complaints.filter { $0.contains("bringing the image") }.count == 1)

    // And with what its programs need translated.
    let warmed = try program.run(["image", "warm", "debian", "--", "perl", "-e", "1"], seconds: 600)
    #expect(warmed.status == 0 && warmed.complaints.count == 1, "\(warmed.error)")
    let next = try program.run(["run", "--rm", "debian", "--", "echo", "done"])
    #expect(next.output == "done\n" && next.complaints.isEmpty, "\(next.error)")

    // Its input, and signals, which are the command's.
    #expect(try yadori("run", "--rm", "debian", "--", "tr", "a-z", "A-Z", shell: "echo abc | \"$@\"") == "ABC\n")
    let interrupted = """
      env --default-signal=INT "$@" > "$0/said" & n=0
      until grep -q ready "$0/said" || [ $n -ge 300 ]; do n=$((n + 1)); sleep 0.1; done
      kill -INT $!; wait $!; s=$?; cat "$0/said"; exit $s
      """
    let loop = "while :; do sleep 0.1; done"
    #expect(
      try yadori(
        "run", "--rm", "debian", "--", "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; \(loop)", status: 9,
        shell: interrupted) == "ready\ncaught\n")
    try yadori("run", "--rm", "debian", "--", "sh", "-c", "echo ready; \(loop)", status: 130, shell: interrupted)
    #expect(try !yadori("list").contains("debian-"))

    // A machine for one command, which sees where it was started.
    let here = "cd \"$YADORI_HOME/shared\" && exec \"$@\""
    #expect(
      try yadori(
        "run", "--rm", "debian", "--", "sh", "-c", "pwd; cat a; echo > made; exit 3", status: 3, shell: here)
        == "/src\nfrom the host")
    #expect(FileManager.default.fileExists(atPath: program["shared/made"]))
    #expect(try yadori("run", "--rm", "debian", "--", "cat", "e/f", shell: here) == "guest\n")
    #expect(try yadori("run", "--rm", "--no-share", "debian", "--", "pwd", shell: here) == "/root\n")
    #expect(
      try yadori("run", "--rm", "--share", program["more"] + ":/m:ro", "debian", "--", "cat", "/m/m", "a", shell: here)
        == "morefrom the host")
  }
}

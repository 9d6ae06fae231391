import Foundation
import HostSystem
import Yadori

/// What tells a clone from the machine that it was made of.
public enum GuestIdentity {
  /// In the guest: reseeds the kernel's random numbers first, for all that follows is made of them.
  private static let script = #"""
    set -e
    perl -e 'open(my $f, ">", "/dev/urandom") or die; print $f $ARGV[0]; close $f;
      open($f, "+<", "/dev/random") or die; ioctl($f, 0x5207, 0)' "$2"
    echo "$1" > /etc/hostname
    hostname "$1"
    sed -i "s/^127\.0\.1\.1.*/127.0.1.1 $1/" /etc/hosts
    rm -f /etc/machine-id
    printf '%s\n' "$3" > /etc/machine-id
    rm -f /etc/ssh/ssh_host_*
    if [ -x /usr/bin/ssh-keygen ]; then
      ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
      systemctl --no-block try-restart ssh.service 2>/dev/null || true
    fi
    for card in /sys/class/net/e*; do
      [ -e "$card" ] && [ -n "$4" ] || continue
      ip link set "${card##*/}" address "$4" 2>/dev/null || {
        ip link set "${card##*/}" down && ip link set "${card##*/}" address "$4" && ip link set "${card##*/}" up
      }
    done
    """#

  /// Gives a running machine a host name (its own), machine id, entropy, SSH host keys and the address of its network
  /// card. Throws `MachineError` where its guest has no agent, or it fails there.
  public static func renew(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    func random(_ count: Int) -> String {
      (0..<count).map { _ in String(format: "%02x", UInt8.random(in: .min ... .max)) }.joined()
    }
    let hostName = record.name.replacing("_", with: "-").replacing(".", with: "-")
    let card = record.configuration.network?.address.description ?? ""
    let command = try GuestCommand(
      registry, record, .init(["sh", "-c", script, "sh", hostName, random(64), random(16), card]))
    command.endInput()
    let (ending, problems) = try command.waitForDiagnostics()
    guard ending == .exit(code: 0) else {
      let line = problems.split(separator: "\n").first.map { ": \($0)" } ?? ""
      throw MachineError(.software, "the clone '\(record.name)' runs, but hasn't got an identity of its own\(line)")
    }
  }
}

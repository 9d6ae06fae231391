import Foundation
import Yadori

/// Shows a machine's shared folders in its guest, where they are wanted there.
public enum GuestShares {
  /// Where guests have the file system in which all of them are.
  static let place = "/run/yadori/shares"

  /// Whether a shared folder is mounted at a place, even one that isn't there any more.
  private static let shown = #"""
    shown() { grep -q " $1 .* - virtiofs " /proc/self/mountinfo; }

    """#

  /// In the guest. What is mounted already stays, as in a machine that was saved and goes on; behind another folder of the
  /// same name it may take a moment until the new one is seen.
  private static let script = #"""
    reached() { shown "$1" && find "$1" -maxdepth 0 -empty > /dev/null; }
    place=$1; shift
    mkdir -p "$place" || exit 1
    mountpoint -q "$place" || mount -t virtiofs yadori "$place" || exit 1
    problem=/run/yadori/problem
    while [ $# -gt 0 ]; do
      name=$1 target=$2 mode=$3; shift 3
      reached "$target" 2> "$problem" && continue
      tries=0
      until reached "$target" || [ $tries -ge 15 ]; do
        [ $tries = 0 ] || sleep 0.1
        tries=$((tries + 1))
        while shown "$target"; do umount -l "$target" || break; done
        mkdir -p "$target" && mount --bind "$place/$name" "$target"
      done 2> "$problem"
      reached "$target" 2>> "$problem" || { tail -n 1 "$problem" >&2; exit 1; }
      [ "$mode" = rw ] || mount -o remount,bind,ro "$target" || exit 1
    done
    """#

  private static let removal = #"""
    for target; do
      while shown "$target"; do umount -l "$target" || exit 1; done
    done
    """#

  /// Mounts them at their targets, in a guest that is up or on its way; those without a target are left alone. Throws
  /// `MachineError` where the guest has no agent, or can't.
  public static func mount(
    _ registry: MachineRegistry, _ record: MachineRecord, _ folders: [SharedFolder], patience: Double = 60
  ) throws {
    let words = folders.flatMap { folder in
      folder.target.map { [folder.name, $0, folder.isReadOnly ? "ro" : "rw"] } ?? []
    }
    if words.isEmpty { return }
    try GuestCommand.perform(
      ["sh", "-c", shown + script, "sh", place] + words, registry, record, patience: patience,
      failure: "the guest of '\(record.name)' can't mount the shared folder")
  }

  /// Waits until a machine that has just been started shows its shared folders. Throws `MachineError` where it ends before.
  public static func wait(_ registry: MachineRegistry, _ record: MachineRecord) throws {
    guard record.configuration.sharedFolders?.contains(where: { $0.target != nil }) == true else { return }
    while registry.folder(of: record).isInUse, try ControlClient(registry, record).status().awaitsSharedFolders == true
    {
      usleep(50_000)
    }
  }

  /// Takes them from where they are mounted.
  public static func unmount(
    _ registry: MachineRegistry, _ record: MachineRecord, _ targets: [String]
  ) throws {
    try GuestCommand.perform(
      ["sh", "-c", shown + removal, "sh"] + targets, registry, record,
      failure: "the guest of '\(record.name)' can't unmount the shared folder")
  }
}

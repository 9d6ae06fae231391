import Foundation
import Yadori

/// Which of its harts a running guest uses.
public enum GuestHarts {
  /// In the guest: takes processors off line from the last one on, and back; the first one stays.
  private static let script = #"""
    for file in /sys/devices/system/cpu/cpu*/online; do
      [ -e "$file" ] || continue
      number=${file%/online}
      number=${number##*/cpu}
      wanted=0
      [ "$number" -lt "$1" ] && wanted=1
      [ "$(cat "$file")" = "$wanted" ] || echo "$wanted" > "$file" || exit 1
    done
    """#

  /// Has the guest use its first `count` harts. Throws `MachineError` where it has no agent, or can't.
  public static func use(_ count: Int, _ registry: MachineRegistry, _ record: MachineRecord) throws {
    try GuestCommand.perform(
      ["sh", "-c", script, "sh", "\(max(1, count))"], registry, record,
      failure: "the guest of '\(record.name)' can't change its harts")
  }
}

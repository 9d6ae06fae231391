/// Keys that are for Yadori and not for the guest: a prefix, then a letter. The prefix is Ctrl-], which telnet uses for
/// the same purpose and no shell binds.
public struct EscapeSequence {
  /// Ctrl-].
  public static let prefix: UInt8 = 0x1D

  public enum Command: Sendable {
    case quit, pause, sendBreak, help
  }

  /// What a key sequence means: bytes for the guest, or a command.
  enum Event: Equatable {
    case input([UInt8])
    case command(Command)
  }

  /// One line that says what can be typed, for the start.
  public static let summary = "Ctrl-] q quits, Ctrl-] p pauses or resumes, Ctrl-] b sends break, Ctrl-] ? shows help"

  /// What Ctrl-] ? shows.
  public static let help = [
    "Ctrl-] q       quit: switch the machine off at once",
    "Ctrl-] p       pause or resume the machine",
    "Ctrl-] b       send a break to the guest",
    "Ctrl-] Ctrl-]  send Ctrl-] to the guest",
    "Ctrl-] ?       show this help",
  ]

  /// The same for a console of a machine in the background.
  public static let attachedSummary =
    "Ctrl-] q leaves the console, Ctrl-] p pauses or resumes the machine, Ctrl-] ? shows help"
  public static let attachedHelp = [
    "Ctrl-] q       leave the console; the machine goes on",
    "Ctrl-] p       pause or resume the machine",
    "Ctrl-] Ctrl-]  send Ctrl-] to the guest",
    "Ctrl-] ?       show this help",
  ]

  private var sawPrefix = false

  /// Takes what was typed, in any portions. A letter that means nothing after the prefix shows the help.
  mutating func events(in bytes: some Sequence<UInt8>) -> [Event] {
    var events: [Event] = []
    var input: [UInt8] = []
    for byte in bytes {
      guard sawPrefix else {
        if byte == EscapeSequence.prefix { sawPrefix = true } else { input.append(byte) }
        continue
      }
      sawPrefix = false
      let command: Command
      switch byte {
      case EscapeSequence.prefix:
        input.append(byte)
        continue
      case UInt8(ascii: "q"), UInt8(ascii: "Q"): command = .quit
      case UInt8(ascii: "p"), UInt8(ascii: "P"): command = .pause
      case UInt8(ascii: "b"), UInt8(ascii: "B"): command = .sendBreak
      default: command = .help
      }
      if !input.isEmpty { events.append(.input(input)) }
      input = []
      events.append(.command(command))
    }
    if !input.isEmpty { events.append(.input(input)) }
    return events
  }
}

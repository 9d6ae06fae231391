import Board
import Foundation

/// Where a guest spent its time: samples of the harts' pc, counted by place.
public struct Profile: Sendable {
  /// What was executed at the moment of a sample.
  public struct Place: Hashable, Sendable {
    public var address: UInt64
    public var mode: Mode
    /// satp: which address space it was in.
    public var satp: UInt64
  }

  /// The guest's privilege.
  public enum Mode: Int, Sendable, CaseIterable {
    case user = 0
    case supervisor = 1
    case machine = 3

    var name: String { String(describing: self) }
  }

  /// Samples by place.
  public internal(set) var counts: [Place: Int] = [:]
  /// How many of them found the hart in code that the translator made.
  public internal(set) var generatedCount = 0
  /// How often a hart slept when it would have been asked.
  public internal(set) var asleepCount = 0
  /// Samples that were taken and had to be dropped.
  public internal(set) var lostCount = 0
  public internal(set) var seconds = 0.0
  public internal(set) var hartCount = 1

  public var sampleCount: Int { counts.values.reduce(0, +) }

  /// A line of the table: samples that share a symbol, or a page where there is no symbol.
  public struct Row: Hashable, Sendable {
    public var mode: Mode
    public var place: String
    public var samples: Int
  }

  /// Samples by symbol, the most first. Symbols are the kernel's, or those of a program without address translation; a
  /// user's pages are told apart by address space.
  public func rows(_ symbols: SymbolTable) -> [Row] {
    var sums: [Row: Int] = [:]
    for (place, count) in counts {
      sums[Row(mode: place.mode, place: Self.name(place, symbols), samples: 0), default: 0] += count
    }
    return sums.map { Row(mode: $0.key.mode, place: $0.key.place, samples: $0.value) }
      .sorted { ($1.samples, $0.place, $0.mode.rawValue) < ($0.samples, $1.place, $1.mode.rawValue) }
  }

  private static func name(_ place: Place, _ symbols: SymbolTable) -> String {
    let isTranslated = place.satp >> 60 != 0
    if place.mode != .user || !isTranslated, let name = symbols.name(of: place.address) { return name }
    let page = "0x" + String(place.address & ~0xFFF, radix: 16)
    guard place.mode == .user, isTranslated else { return "page \(page)" }
    let identifier = place.satp >> 44 & 0xFFFF
    // A kernel that doesn't number address spaces still has a root table for each.
    let space =
      identifier != 0 ? "asid \(identifier)" : "root 0x\(String((place.satp & 0xFFF_FFFF_FFFF) << 12, radix: 16))"
    return "page \(page) \(space)"
  }

  /// A table to read: share, samples, mode and symbol, the largest share first.
  public func table(_ symbols: SymbolTable) -> String {
    let total = sampleCount
    func percent(_ count: Int) -> String { String(format: "%.1f", 100 * Double(count) / Double(max(1, total))) }
    var text = "# \(total) samples of \(hartCount) \(hartCount == 1 ? "hart" : "harts") in "
    text += String(format: "%.1f s", seconds)
    text += ", about a millisecond apart; \(asleepCount) times a hart was asleep"
    if lostCount > 0 { text += "; \(lostCount) samples lost" }
    text += "\n#"
    for mode in Mode.allCases {
      let count = counts.reduce(0) { $1.key.mode == mode ? $0 + $1.value : $0 }
      text += " \(mode.name) \(percent(count)) %,"
    }
    text += " in translated code \(percent(generatedCount)) %\n"
    text += "# percent   samples  mode        symbol or page\n"
    for row in rows(symbols) {
      let share = String(format: "%9.2f", 100 * Double(row.samples) / Double(total))
      let samples = String(repeating: " ", count: max(0, 9 - "\(row.samples)".count)) + "\(row.samples)"
      text += "\(share) \(samples)  \(row.mode.name.padding(toLength: 10, withPad: " ", startingAt: 0))  \(row.place)\n"
    }
    return text
  }

  /// The same for tools that draw flame graphs: a line "mode;symbol samples" each.
  public func foldedStacks(_ symbols: SymbolTable) -> String {
    rows(symbols).map { "\($0.mode.name);\($0.place) \($0.samples)\n" }.joined()
  }
}

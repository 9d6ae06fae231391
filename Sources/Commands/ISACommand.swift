import ArgumentParser
import RISCV

/// `yadori isa`: what the processor implements.
struct ISACommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "isa", abstract: "Shows what the processor implements: profile, extensions, ISA string.")

  @Flag(help: "Print the ISA string alone, as a device tree has it.")
  var string = false

  func run() {
    let set = ExtensionSet.yadori
    if string {
      print(set.isaString)
      return
    }
    print("ISA string  \(set.isaString)")
    print("Base        \(ExtensionSet.base), privilege modes M, S and U, PMP with 16 entries")
    print("Translation Bare, Sv39, Sv48, Sv57")
    print("")
    let width = set.extensions.map(\.name.count).max() ?? 0
    for item in set.extensions {
      let name = item.name.padding(to: width)
      print("\(name)  \(item.version.padding(to: 5)) \(item.summary)")
    }
  }
}

extension String {
  /// The text with spaces after it, up to `width` characters.
  func padding(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}

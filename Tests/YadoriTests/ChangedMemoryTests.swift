import CHost
import Console
import Foundation
import HostSystem
import RISCV
import Testing
import Yadori

/// Machines that are saved as what is otherwise in their RAM than in what they were restored from.
@Suite struct ChangedMemoryTests {
  private let temporary: TestFolder
  private var folder: URL { temporary.url }
  private static let memorySize = 32 << 20
  private static let page = 4096

  init() throws { temporary = try TestFolder() }

  private subscript(_ name: String) -> String { temporary[name] }

  /// Writes to two pages at 1 MiB, and prints a point. For each byte that it gets then, it changes one of these, has the
  /// other be zero, writes to one of the pages at 16 MiB that nobody has used, reads one and has another be zero, and
  /// prints the byte.
  private func program() throws -> String {
    func encode(
      _ operation: RISCV.Operation, rd: UInt8 = 0, rs1: UInt8 = 0, rs2: UInt8 = 0, _ immediate: Int64 = 0
    ) -> UInt32 {
      Encoder.encode(operation, rd: rd, rs1: rs1, rs2: rs2, immediate: immediate)!
    }
    // x5: the UART; x6: 4096; x8, x9: the pages.
    return try BareProgram.write(
      [
        encode(.auipc, rd: 8, 0x10_0000), encode(.auipc, rd: 9, 0x100_0000), encode(.addi, rd: 9, rs1: 9, -4),
        encode(.lui, rd: 5, 0x1000_0000), encode(.lui, rd: 6, 0x1000),
        encode(.addi, rd: 7, rs1: 0, 0x55), encode(.sd, rs1: 8, rs2: 7, 0), encode(.add, rd: 10, rs1: 8, rs2: 6),
        encode(.sd, rs1: 10, rs2: 7, 0), encode(.addi, rd: 7, rs1: 0, 0x2E), encode(.sb, rs1: 5, rs2: 7, 0),
        // Waits.
        encode(.lbu, rd: 7, rs1: 5, 5), encode(.andi, rd: 7, rs1: 7, 1), encode(.beq, rs1: 7, rs2: 0, -8),
        encode(.lbu, rd: 29, rs1: 5, 0),
        encode(.sd, rs1: 8, rs2: 29, 0), encode(.sd, rs1: 10, rs2: 0, 0),
        encode(.sd, rs1: 9, rs2: 29, 0), encode(.add, rd: 11, rs1: 9, rs2: 6), encode(.ld, rd: 12, rs1: 11, 0),
        encode(.add, rd: 11, rs1: 11, rs2: 6), encode(.sd, rs1: 11, rs2: 0, 0),
        // The next one is another page's turn.
        encode(.add, rd: 9, rs1: 11, rs2: 6), encode(.sb, rs1: 5, rs2: 29, 0), encode(.jal, -52),
      ], to: folder)
  }

  /// A machine that runs beside the test.
  private final class Running {
    let machine: VirtualMachine
    let console: BufferConsole
    private let thread: HostThread

    init(_ make: (BufferConsole) throws -> VirtualMachine) throws {
      let console = BufferConsole()
      let machine = try make(console)
      (self.machine, self.console) = (machine, console)
      thread = HostThread(name: "machine") { _ = try? machine.run() }
      machine.wait(while: [.ready])
    }

    func expect(_ text: String, typing keys: String = "", location: SourceLocation = #_sourceLocation) {
      let position = console.position
      console.type(keys)
      #expect(console.wait(for: text, after: keys.isEmpty ? 0 : position, timeout: 60) != nil, sourceLocation: location)
    }

    func end() {
      machine.stop()
      thread.join()
    }
  }

  /// Saves one that runs the program, and returns its path.
  private func saveFirst() throws -> String {
    let configuration = VirtualMachineConfiguration(
      memorySize: UInt64(Self.memorySize), boot: .init(firmware: .none, kernel: try program()))
    let running = try Running { try VirtualMachine(configuration, console: $0) }
    running.expect(".")
    try running.machine.save(to: self["first"], isDurable: false)
    running.end()
    return self["first"]
  }

  /// Restores a machine, types keys, and saves it twice as it is then: as changes, and whole.
  private func saveChanges(of path: String, typing keys: [String], _ number: Int) throws -> (
    changes: String, whole: String
  ) {
    let running = try Running { try VirtualMachine(restoring: path, console: $0) }
    for key in keys { running.expect(key, typing: key) }
    running.machine.pause()
    running.machine.wait(while: [.running])
    let places = (self["changes-\(number)"], self["whole-\(number)"])
    try running.machine.save(to: places.0, isDurable: false, asChanges: true)
    try running.machine.save(to: places.1, isDurable: false, asChanges: false)
    running.end()
    return places
  }

  /// Gives a saved machine the files that its RAM was restored from.
  private func link(_ base: String, into path: String) throws {
    for name in try SavedMachine(path: base).stateFiles where name.hasPrefix("memory-") && name != "memory-changes" {
      try FileManager.default.linkItem(atPath: "\(base)/\(name)", toPath: "\(path)/\(name)")
    }
  }

  /// All of the RAM of a saved machine that is whole.
  private func content(_ path: String) throws -> Data {
    let names = try SavedMachine(path: path).stateFiles.filter { $0.hasPrefix("memory-") }
    return try names.reduce(into: Data()) { $0 += try Data(contentsOf: URL(fileURLWithPath: "\(path)/\($1)")) }
  }

  /// The RAM of a machine that was restored, before its first instruction.
  private func restoredContent(_ path: String) throws -> Data {
    let machine = try VirtualMachine(restoring: path, console: BufferConsole())
    let again = self["again-\(UUID().uuidString)"]
    #expect(try machine.run(until: .init(instructions: machine.retiredInstructions, path: again)) == .saved)
    return try content(again)
  }

  private func names(_ path: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path).sorted()
  }

  private func version(_ path: String) throws -> Substring {
    let data = try Data(contentsOf: URL(fileURLWithPath: path + "/machine"))
    return String(decoding: data.prefix(40), as: UTF8.self).split(separator: " ")[1]
  }

  @Test func whatHasChangedIsSavedAlone() throws {
    let first = try saveFirst()
    let (changes, whole) = try saveChanges(of: first, typing: ["x"], 1)
    #expect(try names(changes) == ["machine", "memory-changes"])
    // The changed page, the one that became zero, and the new one.
    let size = try Data(contentsOf: URL(fileURLWithPath: changes + "/memory-changes")).count
    #expect(size == 3 * Self.page)
    #expect(try names(whole).contains("memory-0") && !names(whole).contains("memory-changes"))
    #expect(try version(changes) == "4" && version(whole) == "3" && version(first) == "3")
    try link(first, into: changes)
    #expect(try SavedMachine(path: changes).stateFiles == ["machine"] + names(first).dropFirst() + ["memory-changes"])
    try SavedMachine(path: changes).check()
    let expected = try content(whole)
    #expect(try expected.count == Self.memorySize && expected != content(first))
    #expect(try restoredContent(changes) == expected)
    #expect(try restoredContent(whole) == expected)
  }

  /// Of a machine that goes on from changes all is saved again that is otherwise than in what those are changes to.
  @Test func changesOfChangesAreChangesOfTheFirst() throws {
    let first = try saveFirst()
    var path = first
    for (number, key) in ["a", "b", "c"].enumerated() {
      let (changes, whole) = try saveChanges(of: path, typing: [key], number)
      #expect(try names(changes) == ["machine", "memory-changes"])
      try link(first, into: changes)
      #expect(try restoredContent(changes) == content(whole))
      path = changes
    }
    let size = try Data(contentsOf: URL(fileURLWithPath: path + "/memory-changes")).count
    #expect(size == 5 * Self.page)
    // It is still the program.
    let running = try Running { try VirtualMachine(restoring: path, console: $0) }
    running.expect("d", typing: "d")
    running.end()
  }

  @Test func aMachineThatWasNotRestoredIsSavedWhole() throws {
    let configuration = VirtualMachineConfiguration(
      memorySize: UInt64(Self.memorySize), boot: .init(firmware: .none, kernel: try program()))
    let running = try Running { try VirtualMachine(configuration, console: $0) }
    running.expect(".")
    try running.machine.save(to: self["saved"], isDurable: false, asChanges: true)
    running.end()
    #expect(try names(self["saved"]).contains("memory-0") && version(self["saved"]) == "3")
    #expect(try !names(self["saved"]).contains("memory-changes"))
  }

  /// Changes what a saved machine says of itself, and has it be sound.
  private func forge(_ path: String, _ change: (inout [String: Any]) -> Void) throws {
    let place = URL(fileURLWithPath: path + "/machine")
    let data = try Data(contentsOf: place)
    let end = try #require(data.firstIndex(of: UInt8(ascii: "\n")))
    var manifest = try #require(try JSONSerialization.jsonObject(with: data[(end + 1)...]) as? [String: Any])
    change(&manifest)
    let json = try JSONSerialization.data(withJSONObject: manifest)
    let sum = json.withUnsafeBytes { chost_crc32c(0, $0.baseAddress, $0.count) }
    let words = String(decoding: data[..<end], as: UTF8.self).split(separator: " ").prefix(2)
    try Data("\(words.joined(separator: " ")) \(String(sum, radix: 16))\n".utf8 + json).write(to: place)
  }

  private func refusal(_ path: String, location: SourceLocation = #_sourceLocation) -> String {
    let error = #expect(throws: MachineError.self, sourceLocation: location) {
      _ = try VirtualMachine(restoring: path, console: BufferConsole())
    }
    return error?.message ?? ""
  }

  @Test func damagedChangesAreRefused() throws {
    let first = try saveFirst()
    let (changes, _) = try saveChanges(of: first, typing: ["x"], 1)
    let words = "the saved machine '\(changes)' is damaged or incomplete"
    // What it was restored from is missing.
    #expect(refusal(changes).contains(words))
    try link(first, into: changes)
    let good = try Data(contentsOf: URL(fileURLWithPath: changes + "/machine"))
    _ = try VirtualMachine(restoring: changes, console: BufferConsole())

    let pages = UInt32(Self.memorySize / Self.page)
    let lists: [[UInt32]] = [
      [5, 1, 3, 1, 7, 1], [5, 1, 5, 1, 7, 1], [5, 2, 6, 1], [5, 0, 7, 3], [pages, 1], [pages - 1, 2], [.max, 1],
      [1, .max], [pages + 1, 0], [0, pages + 1], [5, 1, 7], [5],
    ]
    for list in lists {
      let runs = list.withUnsafeBytes { Data($0) }
      try forge(changes) { $0["changes"] = ["runs": runs.base64EncodedString()] }
      #expect(refusal(changes).contains(words), "\(list)")
    }
    try forge(changes) { $0["changes"] = ["runs": Data([1, 2, 3, 4, 5, 6, 7, 8, 9]).base64EncodedString()] }
    #expect(refusal(changes).contains(words))
    // In order, but more than there is in the file.
    let runs = [0, 4].map { UInt32($0) }.withUnsafeBytes { Data($0) }
    try forge(changes) { $0["changes"] = ["runs": runs.base64EncodedString()] }
    #expect(refusal(changes).contains(words))

    try good.write(to: URL(fileURLWithPath: changes + "/machine"))
    _ = try VirtualMachine(restoring: changes, console: BufferConsole())
    for size in [3 * Self.page - 1, Self.page + 1, 0] {
      #expect(truncate(changes + "/memory-changes", off_t(size)) == 0)
      #expect(refusal(changes).contains(words))
    }
    unlink(changes + "/memory-changes")
    #expect(refusal(changes).contains(words))
    #expect(symlink(first + "/memory-0", changes + "/memory-changes") == 0)
    #expect(refusal(changes).contains(words))
  }

  @Test func versionsAreReadThatAreKnown() throws {
    let first = try saveFirst()
    let (changes, whole) = try saveChanges(of: first, typing: ["x"], 1)
    try link(first, into: changes)
    for (path, known) in [(changes, "4"), (whole, "3")] {
      let place = URL(fileURLWithPath: path + "/machine")
      let good = try Data(contentsOf: place)
      for other in ["2", "5"] {
        var data = Data("YADORI-MACHINE \(other)".utf8)
        data += good.dropFirst("YADORI-MACHINE \(known)".utf8.count)
        try data.write(to: place)
        #expect(refusal(path).contains("was saved in version \(other) of the format; this program reads 3 and 4"))
      }
      try good.write(to: place)
      _ = try VirtualMachine(restoring: path, console: BufferConsole())
    }
  }
}

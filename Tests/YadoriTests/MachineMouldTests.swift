import Console
import Foundation
import Testing
import Translation
import Yadori

/// Saved machines that are ready to go on, in the process that made them: copies of it aren't different.
@Suite struct MachineMouldTests {
  private let temporary: TestFolder
  private var folder: URL { temporary.url }

  init() throws { temporary = try TestFolder() }

  private subscript(_ name: String) -> String { temporary[name] }

  /// Prints "a", mixes registers and memory for 20,480 rounds of ten instructions, prints "b", and ends with its checksum's
  /// low bits.
  private func program() throws -> String {
    let (first, second): ([UInt32], [UInt32]) = (
      [
        0x1000_02B7,  // lui   t0, 0x10000
        0x0610_0313,  // li    t1, 'a'
        0x0062_8023,  // sb    t1, 0(t0)
      ],
      [
        0x0620_0E93,  // li    t4, 'b'
        0x01D2_8023,  // sb    t4, 0(t0)
      ]
    )
    return try BareProgram.write(first + BareProgram.rounds + second + BareProgram.end, to: folder)
  }

  private func configuration(disks: [String] = []) throws -> VirtualMachineConfiguration {
    VirtualMachineConfiguration(
      memorySize: 32 << 20, boot: .init(firmware: .none, kernel: try program()),
      disks: disks.map { .init(path: $0, format: "raw") })
  }

  private func disk(_ name: String, size: Int) throws -> String {
    #expect(FileManager.default.createFile(atPath: self[name], contents: Data(repeating: 3, count: size)))
    return self[name]
  }

  /// How a machine of this configuration ends that nobody has cut, and one that is saved after so many instructions.
  private func run(
    _ configuration: VirtualMachineConfiguration, savedAt instructions: UInt64
  ) throws -> (outcome: VirtualMachine.Outcome, instructions: UInt64, saved: SavedMachine) {
    let console = BufferConsole()
    let whole = try VirtualMachine(configuration, console: console)
    let outcome = try whole.run()
    #expect(console.text == "ab")
    let cut = try VirtualMachine(configuration, console: BufferConsole())
    let path = self["saved-\(UUID().uuidString)"]
    #expect(try cut.run(until: .init(instructions: instructions, path: path)) == .saved)
    return (outcome, whole.retiredInstructions, try SavedMachine(path: path))
  }

  private func message(_ body: () throws -> Void) -> String {
    do {
      try body()
      return "nothing was refused"
    } catch { return (error as? MachineError)?.message ?? "\(error)" }
  }

  @Test(arguments: [EngineChoice?.none, .interpreter, .translator(threshold: 1)])
  func aMachineGoesOnWhereTheSavedOneStood(engine: EngineChoice?) throws {
    var configuration = try configuration()
    configuration.engine = engine
    let (outcome, instructions, saved) = try run(configuration, savedAt: 18_001)
    let mould = try MachineMould(saved, configuration, mayHaveThreads: true)
    let (machine, _) = try mould.become(configuration, consoleLog: self["log"])
    #expect(machine.retiredInstructions == 18_001)
    #expect(try machine.run() == outcome)
    #expect(machine.retiredInstructions == instructions)
    #expect(try String(contentsOfFile: self["log"], encoding: .utf8) == "b")
  }

  /// What one has done isn't seen by another one, nor by the saved one.
  @Test func severalGoOnFromOne() throws {
    let configuration = try configuration()
    let (outcome, _, saved) = try run(configuration, savedAt: 50_000)
    for number in 0..<3 {
      let (machine, _) = try MachineMould(saved, configuration, mayHaveThreads: true).become(
        configuration, consoleLog: self["log-\(number)"])
      #expect(try machine.run() == outcome)
      #expect(try String(contentsOfFile: self["log-\(number)"], encoding: .utf8) == "b")
    }
    try saved.check()
  }

  /// It can be saved itself, and that goes on like it.
  @Test func whatIsMadeIsSavedAgain() throws {
    let configuration = try configuration()
    let (outcome, _, saved) = try run(configuration, savedAt: 20_000)
    let (machine, _) = try MachineMould(saved, configuration, mayHaveThreads: true).become(
      configuration, consoleLog: self["log"])
    #expect(try machine.run(until: .init(instructions: 40_000, path: self["later"])) == .saved)
    let later = try VirtualMachine(restoring: self["later"], console: BufferConsole())
    #expect(later.retiredInstructions == 40_000)
    #expect(try later.run() == outcome)
  }

  @Test func theDisksAreTheMachinesOwn() throws {
    let path = try disk("disk.img", size: 1 << 20)
    let configuration = try configuration(disks: [path])
    let (outcome, _, saved) = try run(configuration, savedAt: 1000)
    let mould = try MachineMould(saved, configuration, mayHaveThreads: true)
    // It is nobody's before.
    var own = configuration
    own.disks[0].path = try disk("own.img", size: 1 << 20)
    let (machine, _) = try mould.become(own, consoleLog: self["log"])
    #expect(machine.configuration.disks.map(\.path) == [self["own.img"]])
    #expect(machine.currentConfiguration.disks.map(\.path) == [self["own.img"]])
    #expect(try machine.run() == outcome)
  }

  @Test func aDiskOfAnotherSizeIsRefused() throws {
    let configuration = try configuration(disks: [try disk("disk.img", size: 1 << 20)])
    let (_, _, saved) = try run(configuration, savedAt: 1000)
    for (number, size) in [512 << 10, (1 << 20) + 512].enumerated() {
      var other = configuration
      other.disks[0].path = try disk("other-\(number).img", size: size)
      let mould = try MachineMould(saved, configuration, mayHaveThreads: true)
      let words = message { _ = try mould.become(other, consoleLog: self["log"]) }
      #expect(words == "the disk '\(self["other-\(number).img"])' isn't like the one that was saved")
    }
    var readOnly = configuration
    readOnly.disks[0].isReadOnly = true
    let mould = try MachineMould(saved, configuration, mayHaveThreads: true)
    let words = message { _ = try mould.become(readOnly, consoleLog: self["log"]) }
    #expect(words.contains("isn't like the one that was saved"))
  }

  @Test func whatBeginsWithAConnectionToTheHostIsMadeByItself() throws {
    let plain = try configuration()
    let (_, _, saved) = try run(plain, savedAt: 1000)
    var audited = plain
    audited.engine = .audit(threshold: 1)
    var sharing = plain
    sharing.sharedFolders = [.init(name: "here", path: folder.path)]
    var tapped = plain
    tapped.network = .init(.tap(name: "tap0"))
    for configuration in [audited, sharing, tapped] {
      #expect(!MachineMould.isPossible(configuration))
      #expect(
        message { _ = try MachineMould(saved, configuration, mayHaveThreads: true) }.contains("are made one by one"))
    }
    #expect(MachineMould.isPossible(plain))
    var empty = plain
    empty.sharedFolders = []
    #expect(MachineMould.isPossible(empty))
    // None of them is made with one for others, either.
    let mould = try MachineMould(saved, plain, mayHaveThreads: true)
    for configuration in [audited, sharing, tapped] {
      #expect(
        message { _ = try mould.become(configuration, consoleLog: self["log"]) }.contains("isn't like the others"))
    }
  }

  @Test func aMachineWithAnotherBoardIsRefused() throws {
    let plain = try configuration()
    let (outcome, _, saved) = try run(plain, savedAt: 1000)
    var larger = plain
    larger.memorySize = 64 << 20
    var wider = plain
    wider.hartCount = 2
    var withButton = plain
    withButton.hasPowerButton = true
    var withSocket = plain
    withSocket.guestSocket = self["socket"]
    var withNetwork = plain
    withNetwork.network = .init(.user(forwards: []))
    let withDisk = try configuration(disks: [try disk("disk.img", size: 1 << 20)])
    let mould = try MachineMould(saved, plain, mayHaveThreads: true)
    for configuration in [larger, wider, withButton, withSocket, withNetwork, withDisk] {
      #expect(
        message { _ = try mould.become(configuration, consoleLog: self["log"]) }.contains("isn't like the others"))
    }
    // What was refused has changed nothing.
    let (machine, _) = try mould.become(plain, consoleLog: self["log"])
    #expect(try machine.run() == outcome)
  }

  /// A copy of the process would have one thread only.
  @Test func threadsAreRefused() throws {
    let configuration = try configuration()
    let (_, _, saved) = try run(configuration, savedAt: 1000)
    let isOver = DispatchSemaphore(value: 0)
    let thread = Thread { isOver.wait() }
    thread.start()
    defer { isOver.signal() }
    #expect(message { _ = try MachineMould(saved, configuration) }.contains("there are threads"))
  }

  @Test func aMachineThatWasOffHasNothingToGoOnWith() throws {
    let configuration = try configuration()
    try VirtualMachine.saveStopped(configuration, to: self["off"])
    let saved = try SavedMachine(path: self["off"])
    #expect(
      message { _ = try MachineMould(saved, configuration, mayHaveThreads: true) }.contains("are made one by one"))
  }
}

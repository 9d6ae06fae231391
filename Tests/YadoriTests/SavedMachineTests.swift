import Console
import Foundation
import Testing
import Yadori

/// Machines that are cut and go on in a new object, as a new process would.
@Suite struct SavedMachineTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  /// A program that computes for a while, then ends with its checksum's low bits.
  private func program() throws -> String {
    try BareProgram.write(BareProgram.rounds + BareProgram.end, to: folder)
  }

  private func configuration() throws -> VirtualMachineConfiguration {
    VirtualMachineConfiguration(memorySize: 64 << 20, boot: .init(firmware: .none, kernel: try program()))
  }

  @Test func aMachineCutInTenPlacesEndsLikeOneThatWasNot() throws {
    let whole = try VirtualMachine(try configuration(), console: BufferConsole())
    let expected = try whole.run()
    guard case .shutdown(let code) = expected, code != 0 else {
      Issue.record("the program ended as \(expected)")
      return
    }
    var machine = try VirtualMachine(try configuration(), console: BufferConsole())
    for cut in 1...10 {
      let path = folder.appendingPathComponent("cut-\(cut)").path
      let point = VirtualMachine.SavePoint(instructions: UInt64(cut) * 18_001, path: path)
      #expect(try machine.run(until: point) == .saved)
      #expect(machine.retiredInstructions == point.instructions)
      machine = try VirtualMachine(restoring: path, console: BufferConsole())
      #expect(machine.retiredInstructions == point.instructions)
    }
    #expect(try machine.run() == expected)
  }

  @Test func damagedFilesAreRefused() throws {
    let machine = try VirtualMachine(try configuration(), console: BufferConsole())
    let path = folder.appendingPathComponent("saved").path
    #expect(try machine.run(until: .init(instructions: 5_000, path: path)) == .saved)
    try SavedMachine(path: path).check()
    let machineFile = URL(fileURLWithPath: path + "/machine")
    let good = try Data(contentsOf: machineFile)
    func refusal(_ data: Data) throws -> String {
      try data.write(to: machineFile)
      let error = #expect(throws: MachineError.self) { try VirtualMachine(restoring: path, console: BufferConsole()) }
      return error?.message ?? ""
    }
    #expect(try refusal(Data("YADORI".utf8)).contains("isn't a saved machine"))
    let text = String(decoding: good.prefix(40), as: UTF8.self)
    #expect(try refusal(Data(text.replacing("MACHINE 3", with: "MACHINE 99").utf8)).contains("version 99"))
    #expect(try refusal(good.prefix(good.count - 20)).contains("damaged"))
    var changed = good
    changed[good.count - 40] ^= 0x10
    #expect(try refusal(changed).contains("damaged"))
    try good.write(to: machineFile)
    // A byte of RAM, in a part that was all zero.
    let name = try #require(SavedMachine(path: path).stateFiles.last)
    let memory = try FileHandle(forUpdating: URL(fileURLWithPath: path + "/" + name))
    try memory.seek(toOffset: try memory.seekToEnd() - 100)
    try memory.write(contentsOf: [1])
    try memory.close()
    let error = #expect(throws: MachineError.self) { try SavedMachine(path: path).check() }
    #expect(error?.message.contains("damaged") == true)
    #expect(throws: MachineError.self) {
      try VirtualMachine(restoring: folder.appendingPathComponent("none").path, console: BufferConsole())
    }
  }
}

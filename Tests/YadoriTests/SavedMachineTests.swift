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

  /// A program of 16 instructions a round that mixes registers and memory, 20,000 rounds, then ends with its checksum's
  /// low bits by the test finisher.
  private func program() throws -> String {
    let code: [UInt32] = [
      0x0000_5337,  // lui   t1, 5           t1 = 20480 rounds
      0x0000_1397,  // auipc t2, 1           t2 = scratch memory
      0x0000_0513,  // li    a0, 0
      0x0065_0533,  // add   a0, a0, t1
      0x00D5_1593,  // slli  a1, a0, 13
      0x00B5_4533,  // xor   a0, a0, a1
      0x0075_5593,  // srli  a1, a0, 7
      0x00B5_4533,  // xor   a0, a0, a1
      0x00A3_B023,  // sd    a0, 0(t2)
      0x0003_B583,  // ld    a1, 0(t2)
      0x00B5_0533,  // add   a0, a0, a1
      0xFFF3_0313,  // addi  t1, t1, -1
      0xFC03_1EE3,  // bnez  t1, -36
      0x03F5_7513,  // andi  a0, a0, 63
      0x0015_6513,  // ori   a0, a0, 1
      0x0105_1513,  // slli  a0, a0, 16
      0x0000_3637,  // lui   a2, 3
      0x3336_0613,  // addi  a2, a2, 0x333
      0x00C5_6533,  // or    a0, a0, a2
      0x0010_05B7,  // lui   a1, 0x100
      0x00A5_A023,  // sw    a0, 0(a1)
      0x0000_006F,  // j     .
    ]
    return try BareProgram.write(code, to: folder)
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

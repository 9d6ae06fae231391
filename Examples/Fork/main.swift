// Runs a bare program up to an instruction, saves the machine there, and has two go on from it: what they don't change,
// they share. Prints what the first part and each of the two printed.
//
//   example-fork PROGRAM INSTRUCTIONS
import Foundation
import Yadori

let arguments = CommandLine.arguments
guard arguments.count == 3, let count = UInt64(arguments[2]) else {
  FileHandle.standardError.write(Data("usage: example-fork PROGRAM INSTRUCTIONS\n".utf8))
  exit(64)
}
let folder = FileManager.default.temporaryDirectory.appendingPathComponent("example-fork-\(UUID().uuidString)").path
do {
  defer { try? FileManager.default.removeItem(atPath: folder) }
  let configuration = VirtualMachineConfiguration(
    memorySize: 64 << 20, boot: .init(firmware: .none, kernel: arguments[1]))
  let console = BufferConsole()
  let original = try VirtualMachine(configuration, console: console)
  guard try original.run(until: .init(instructions: count, path: folder)) == .saved else {
    throw MachineError(.data, "the program ends before instruction \(count)")
  }
  print("until then: \(console.text.debugDescription)")
  let consoles = [BufferConsole(), BufferConsole()]
  let outcomes = try await withThrowingTaskGroup(of: VirtualMachine.Outcome.self) { group in
    for console in consoles {
      let machine = try VirtualMachine(restoring: folder, console: console)
      group.addTask {
        try await withCheckedThrowingContinuation { continuation in
          Thread.detachNewThread { continuation.resume(with: Result { try machine.run() }) }
        }
      }
    }
    return try await group.reduce(into: []) { $0.append($1) }
  }
  for (console, outcome) in zip(consoles, outcomes) { print("\(outcome): \(console.text.debugDescription)") }
} catch {
  FileHandle.standardError.write(Data("example-fork: \(error)\n".utf8))
  exit(1)
}

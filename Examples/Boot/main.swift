// Boots a kernel, or runs a bare program, in this process: its console is standard output, its states are told on standard
// error as they change.
//
//   example-boot IMAGE [INITRD [PARAMETERS]]
import Foundation
import Yadori

let arguments = CommandLine.arguments.dropFirst()
guard let kernel = arguments.first else {
  FileHandle.standardError.write(Data("usage: example-boot IMAGE [INITRD [PARAMETERS]]\n".utf8))
  exit(64)
}
do {
  let initialRAMDisk = arguments.dropFirst().first
  let configuration = VirtualMachineConfiguration(
    memorySize: 512 << 20,
    boot: .init(
      kernel: kernel, initialRAMDisk: initialRAMDisk, commandLine: arguments.dropFirst(2).first))
  let machine = try VirtualMachine(configuration, console: try FileConsole(path: "/dev/stdout", appending: true))
  let states = machine.states
  let telling = Task {
    for await state in states { FileHandle.standardError.write(Data("the machine is \(state)\n".utf8)) }
  }
  // The machine runs on a thread of its own; this one waits for its end.
  let outcome = try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Result { try machine.run() }) }
  }
  await telling.value
  switch outcome {
  case .shutdown(let code): exit(Int32(truncatingIfNeeded: code))
  case .failed(let reason): throw MachineError(.software, "the machine can't go on: \(reason)")
  case .stopped, .saved: exit(0)
  }
} catch {
  FileHandle.standardError.write(Data("example-boot: \(error)\n".utf8))
  exit(1)
}

import Foundation
import Yadori

let configuration = VirtualMachineConfiguration(
  memorySize: 64 << 20, boot: .init(firmware: .none, kernel: "program.elf"))

let console = BufferConsole()
let machine = try VirtualMachine(configuration, console: console)

let states = machine.states
Task {
  for await state in states { print("the machine is \(state)") }
}
let outcome = try await withCheckedThrowingContinuation { continuation in
  Thread.detachNewThread { continuation.resume(with: Result { try machine.run() }) }
}
print(outcome, console.text)

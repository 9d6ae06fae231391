import Foundation
import Yadori

let configuration = VirtualMachineConfiguration(
  memorySize: 64 << 20, boot: .init(firmware: .none, kernel: "program.elf"))

let console = BufferConsole()
let machine = try VirtualMachine(configuration, console: console)

let folder = "saved"
guard try machine.run(until: .init(instructions: 1_000_000, path: folder)) == .saved else {
  fatalError("it ended before")
}

for number in 1...2 {
  let console = BufferConsole()
  let copy = try VirtualMachine(restoring: folder, console: console)
  print("copy \(number): \(try copy.run()), \(console.text)")
}

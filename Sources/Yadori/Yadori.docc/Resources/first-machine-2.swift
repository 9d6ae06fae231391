import Foundation
import Yadori

let configuration = VirtualMachineConfiguration(
  memorySize: 64 << 20, boot: .init(firmware: .none, kernel: "program.elf"))

let console = BufferConsole()
let machine = try VirtualMachine(configuration, console: console)

import ArgumentParser
import Board
import Console
import Foundation
import HostSystem
import Images
import Network
import Synchronization
import Yadori

/// `yadori run`: a machine on this terminal.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Runs a machine on this terminal.",
    discussion: """
      TARGET is the name of an image ("debian": built first, if it isn't there) or a bare ELF program. Without it, \
      --kernel or --firmware say what to boot.
      """)

  @Argument(help: "An image's name, or an ELF program for a machine without firmware.")
  var target: String?

  @Option(name: [.customShort("c"), .customLong("harts")], help: "Number of harts.")
  var harts = 1

  @Option(name: [.short, .long], help: "RAM: 512M, 2G ...")
  var memory: ByteCount?

  @Option(
    name: [.customShort("p"), .customLong("publish")],
    help: "Forward a port of this host to the guest: [ADDRESS:]PORT:GUESTPORT[/udp]. May be repeated.")
  var publish: [String] = []

  @Option(help: "A Linux Image, an ELF file or a raw binary to boot.")
  var kernel: String?

  @Option(help: "The kernel's initial RAM disk.")
  var initrd: String?

  @Option(help: "The kernel's command line.")
  var append: String?

  @Option(help: "M-mode firmware (OpenSBI ...), or 'none' to start the kernel in M-mode.")
  var firmware: String?

  @Option(help: "A device tree (compiled) in place of the generated one.")
  var dtb: String?

  @Option(help: "A disk: FILE[,ro][,format=raw|qcow2][,serial=TEXT]. May be repeated.")
  var disk: [DiskArgument] = []

  @Option(help: "The size of a new machine's disk, when TARGET is an image.")
  var diskSize: ByteCount?

  @Flag(help: "Throw the changes to the image's disk away when the machine ends.")
  var temporary = false

  @Option(help: "The network card: user, tap=NAME or none (user for images, none otherwise).")
  var net: String?

  @Option(help: "What devices are attached to: mmio or pci (pci for images, mmio otherwise).")
  var transport: Transport?

  @Option(help: "The highest translation mode offered: sv39, sv48 or sv57 (which OpenJDK 21 refuses).")
  var mmu: TranslationMode = .sv48

  @OptionGroup var engine: EngineOptions

  @OptionGroup var profile: ProfileOptions

  @Option(help: "Write the memory between begin_signature and end_signature to this file at the end.")
  var dumpSignature: String?

  @Option(
    name: .customLong("save-state-at"), parsing: .upToNextOption,
    help: ArgumentHelp(
      "Save the machine after N instructions of hart 0, and end.", valueName: "N FILE"))
  var saveStateAt: [String] = []

  @Option(help: "Go on with a saved machine.")
  var loadState: String?

  @Option(help: "A Debian mirror, where an image has to be built.")
  var mirror: String?

  @Flag(help: "Print instructions and speed at the end, and what the translator has done.")
  var stats = false

  enum Transport: String, ExpressibleByArgument, CaseIterable { case mmio, pci }

  enum TranslationMode: String, ExpressibleByArgument, CaseIterable {
    case sv39, sv48, sv57
    var bits: Int { Int(rawValue.dropFirst(2))! }
  }

  func run() throws {
    BrokenPipes.becomeErrors()
    let savePoint = try self.savePoint()
    let console = TerminalConsole()
    let machine: VirtualMachine
    var plan = MachinePlan()
    if let loadState {
      let engine = try engine.choice()
      machine = try VirtualMachine(restoring: loadState, console: console) { $0.engine = engine }
    } else {
      plan = try makePlan()
      machine = try VirtualMachine(plan.configuration, console: console)
    }
    defer { plan.cleanUp() }
    console.onQuit = { machine.stop() }
    console.onPause = { machine.togglePause() }
    console.onBreak = { machine.sendBreak() }
    let profileOutput = try profile.apply(to: machine)
    // The machine stops in good order, and what is temporary goes; then the signal does what it would have done.
    let endingSignal = Mutex<Int32?>(nil)
    let signals = EndingSignals { number in
      endingSignal.withLock { $0 = number }
      machine.stop()
    }
    let start = Date()
    let outcome = try machine.run(until: savePoint) {
      if let description = console.escapeDescription { report(description) }
    }
    signals.release()
    if stats { printStatistics(machine, seconds: Date().timeIntervalSince(start)) }
    try profile.write(profileOutput, of: machine)
    if let number = endingSignal.withLock({ $0 }) {
      plan.cleanUp()
      kill(getpid(), number)
    }
    switch outcome {
    case .shutdown(let code):
      if let dumpSignature { try write(try machine.signature(), to: dumpSignature) }
      if code != 0 { throw ExitCode(Int32(code & 0xFF == 0 ? 1 : code & 0xFF)) }
    case .stopped, .saved: break
    case .failed(let reason): throw CommandFailure(.software, "the machine can't go on: \(reason)")
    }
  }

  private func savePoint() throws -> VirtualMachine.SavePoint? {
    if saveStateAt.isEmpty { return nil }
    guard saveStateAt.count == 2, let count = UInt64(saveStateAt[0]) else {
      throw CommandFailure(.usage, "--save-state-at: give a number of instructions and a file (--save-state-at N FILE)")
    }
    return VirtualMachine.SavePoint(instructions: count, path: saveStateAt[1])
  }

  /// What to run, from flags and image.
  private func makePlan() throws -> MachinePlan {
    var plan = MachinePlan()
    plan.configuration.hartCount = harts
    plan.configuration.virtualAddressBits = mmu.bits
    plan.configuration.engine = try engine.choice()
    plan.configuration.boot.commandLine = append
    plan.configuration.boot.initialRAMDisk = initrd
    plan.configuration.boot.kernel = kernel
    plan.configuration.boot.deviceTree = dtb
    switch firmware {
    case nil: break
    case "none": plan.configuration.boot.firmware = .none
    case let path?: plan.configuration.boot.firmware = .file(path: path)
    }
    var network = try net.map { try NetworkChoice(parsing: $0) }
    if let target {
      guard kernel == nil, firmware == nil || firmware == "none" else {
        throw CommandFailure(.usage, "give '\(target)' or --kernel and --firmware, not both")
      }
      if try isProgram(target) {
        plan.configuration.boot.firmware = .none
        plan.configuration.boot.kernel = target
      } else {
        try plan.use(
          image: target, diskSize: diskSize?.bytes, isTemporary: temporary, append: append, mirror: mirror)
        network = network ?? .user
      }
    } else if kernel == nil, firmware == nil || firmware == "none" {
      throw CommandFailure(
        .usage, "say what to run: an image ('yadori run debian'), an ELF program, --kernel or --firmware")
    } else if initrd != nil, kernel == nil {
      throw CommandFailure(.usage, "--initrd needs --kernel")
    }
    if let transport { plan.configuration.transport = transport == .pci ? .pci : .mmio }
    plan.configuration.disks += disk.map {
      .init(path: $0.path, format: $0.format, isReadOnly: $0.isReadOnly, serial: $0.serial)
    }
    if let memory { plan.configuration.memorySize = memory.bytes }
    switch network {
    case nil, .none?:
      guard publish.isEmpty else { throw CommandFailure(.usage, "-p needs --net user") }
    case .user?:
      for forward in publish { _ = try PortForward(parsing: forward) }
      plan.configuration.network = .init(.user(forwards: publish))
    case .tap(let name)?:
      guard publish.isEmpty else { throw CommandFailure(.usage, "-p needs --net user; a TAP network has no forwards") }
      plan.configuration.network = .init(.tap(name: name))
    }
    return plan
  }

  /// Whether the target is a file (an ELF program), not the name of an image.
  private func isProgram(_ target: String) throws -> Bool {
    if !target.contains("/"), ImageStore().contains(target) { return false }
    var isFolder: ObjCBool = false
    if FileManager.default.fileExists(atPath: target, isDirectory: &isFolder), !isFolder.boolValue { return true }
    if target.contains("/") || target.contains(".elf") {
      throw CommandFailure(.noInput, "there is no file '\(target)'; check the name")
    }
    return false
  }

  private func write(_ text: String, to path: String) throws {
    do {
      try AtomicFileWriter.write(text.utf8, to: path)
    } catch {
      throw CommandFailure(.cannotCreate, "--dump-signature: \(error)")
    }
  }

  private func printStatistics(_ machine: VirtualMachine, seconds: Double) {
    let count = machine.retiredInstructions
    let speed = Double(count) / seconds / 1e6
    report("\(count) instructions in \(seconds.formatted(2)) s, \(speed.formatted(1)) million a second")
    guard let metrics = machine.translationMetrics else { return }
    report(
      "translated \(metrics.instructions) instructions in \(metrics.blocks) blocks, entered \(metrics.entries) times")
    report(
      "code memory \(metrics.codeBytes) of \(metrics.codeLimit) bytes (\(metrics.settledBytes) in large pages), "
        + "full \(metrics.flushes) times; "
        + "\(metrics.pages) pages with \(metrics.pageBytes) bytes of tables, \(metrics.forgottenPages) times forgotten")
  }
}

/// A line for the person at the terminal, beside the guest's own output.
func report(_ line: String) { FileHandle.standardError.write(Data("yadori: \(line)\r\n".utf8)) }

extension Double {
  /// With this many digits after the point.
  func formatted(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }
}

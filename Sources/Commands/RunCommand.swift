import ArgumentParser
import Board
import Console
import Foundation
import HostSystem
import Images
import Network
import Supervisor
import Synchronization
import Yadori

/// `yadori run`: a machine on this terminal.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Runs a machine, on this terminal or in the background.",
    discussion: """
      TARGET is the name of an image ("debian": built first, if it isn't there) or a bare ELF program. Without it, \
      --kernel or --firmware say what to boot.

      yadori run --rm debian -- COMMAND runs a command in a machine of its own, which sees the current directory as \
      /src. The first time, the image's system is brought up and kept; from then on machines go on from there.
      """)

  @Argument(help: "An image's name, or an ELF program for a machine without firmware.")
  var target: String?

  @Flag(name: [.customShort("d"), .long], help: "Run in the background; print the machine's name.")
  var detach = false

  @Option(help: "The machine's name (the image's). One that is there keeps its disk, and what no flag changes.")
  var name: String?

  @Option(name: [.customShort("c"), .customLong("harts")], help: "Number of harts (1).")
  var harts: Int?

  @Option(name: [.short, .long], help: "RAM: 512M, 2G ... (1G)")
  var memory: ByteCount?

  @Option(help: "Number of harts that set can give it while it runs (as many as it has).")
  var maxHarts: Int?

  @Option(help: "RAM that set can give it while it runs (as much as it has): 4G ...")
  var maxMemory: ByteCount?

  @OptionGroup var share: ShareOptions

  @Option(
    name: [.customShort("p"), .customLong("publish")],
    help: "Forward a port of this host to the guest: [ADDRESS:]PORT:GUESTPORT[/udp]. May be repeated.")
  var publish: [String] = []

  @Option(
    name: .customLong("share"),
    help: "Have the guest see a folder of this host: FOLDER:TARGET[:ro], as in ./src:/src. May be repeated.")
  var shares: [ShareArgument] = []

  @Flag(help: "Don't share the current directory with a machine that runs a command.")
  var noShare = false

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

  @Flag(
    name: [.customLong("temporary"), .customLong("rm")],
    help: "Remove the machine, and what it changed on the image's disk, when it ends.")
  var temporary = false

  @Option(help: "The network card: user, tap=NAME or none (user for images, none otherwise).")
  var net: String?

  @Option(help: "What devices are attached to: mmio or pci (pci for images, mmio otherwise).")
  var transport: Transport?

  @Option(help: "The highest translation mode offered: sv39, sv48 (usual) or sv57 (which OpenJDK 21 refuses).")
  var mmu: TranslationMode?

  @OptionGroup var engine: EngineOptions

  @OptionGroup var profile: ProfileOptions

  @Option(help: "Write the memory between begin_signature and end_signature to this file at the end.")
  var dumpSignature: String?

  @Option(
    name: .customLong("save-state-at"), parsing: .upToNextOption,
    help: ArgumentHelp(
      "Save the machine in a folder after N instructions of hart 0, and end.", valueName: "N FOLDER"))
  var saveStateAt: [String] = []

  @Option(help: "Go on with a saved machine.")
  var loadState: String?

  @Option(help: "A Debian mirror, where an image has to be built.")
  var mirror: String?

  @Flag(help: "Print instructions and speed at the end, and what the translator has done.")
  var stats = false

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp(
      "A command of the guest: a machine for it alone, its output, its exit code. After '--'.", valueName: "command"))
  var command: [String] = []

  @OptionGroup var commandOptions: GuestCommandOptions

  enum Transport: String, ExpressibleByArgument, CaseIterable { case mmio, pci }

  enum TranslationMode: String, ExpressibleByArgument, CaseIterable {
    case sv39, sv48, sv57
    var bits: Int { Int(rawValue.dropFirst(2))! }
  }

  func run() throws {
    BrokenPipes.becomeErrors()
    let savePoint = try self.savePoint()
    if !command.isEmpty { return try runForCommand() }
    if commandOptions.isUsed {
      throw CommandFailure(.usage, "--user, --directory and --env are for a command of the guest; give one after '--'")
    }
    if noShare { throw CommandFailure(.usage, "--no-share is for a command of the guest; give one after '--'") }
    if detach { return try runInBackground() }
    let console = TerminalConsole()
    let machine: VirtualMachine
    var process: MachineProcess?
    var isNew = true
    if let loadState {
      let engine = try engine.choice()
      let saved = try MachineStarting.savedMachine(loadState)
      try saved.check()
      machine = try VirtualMachine(restoring: saved, console: console) {
        $0.engine = engine
        $0.adaptAndReport(loadState)
      }
    } else {
      let plan = try makePlan()
      // A new machine's files are ours; and where it can't be made, it goes again.
      isNew = plan.registered?.isNew ?? true
      process = try plan.registered?.first {
        try MachineProcess($0, $1, console: console, confinement: isNew ? .later : .restricted(kept))
      }
      machine = try process?.machine ?? VirtualMachine(plan.configuration, console: console)
    }
    console.onQuit = { machine.stop() }
    console.onPause = { machine.togglePause() }
    console.onBreak = { machine.sendBreak() }
    let profileOutput = try profile.apply(to: machine)
    if process == nil {
      MachineProcess.restrict(machine.configuration, keeping: kept)
    } else if isNew {
      process?.restrict(keeping: kept)
    }
    // The machine stops in good order, and what is temporary goes; then the signal does what it would have done.
    let endingSignal = Mutex<Int32?>(nil)
    let signals = CaughtSignals { number in
      endingSignal.withLock { $0 = number }
      machine.stop()
    }
    let start = Date()
    let greet = { if let description = console.escapeDescription { report(description) } }
    let isReady = {
      if process == nil { _ = Confinement.apply(keepingNetwork: machine.configuration.network != nil) }
      greet()
    }
    let outcome = try process?.run(until: savePoint, isReady: greet) ?? machine.run(until: savePoint, isReady: isReady)
    signals.release()
    if stats { printStatistics(machine, seconds: Date().timeIntervalSince(start)) }
    try profile.write(profileOutput, of: machine)
    if let number = endingSignal.withLock({ $0 }) { kill(getpid(), number) }
    switch outcome {
    case .shutdown:
      if let dumpSignature { try write(try machine.signature(), to: dumpSignature) }
      let code = MachineProcess.exitCode(of: outcome)
      if code != 0 { throw ExitCode(code) }
    case .stopped, .saved: break
    case .failed(let reason): throw CommandFailure(.software, "the machine can't go on: \(reason)")
    }
  }

  /// What this process keeps of the host's files beside the machine's: where it is to write, and what it is to read then.
  private var kept: [Confinement.Kept] {
    let written = [dumpSignature, saveStateAt.last, profile.profile].compactMap { $0 }
    let folders = written.map { URL(fileURLWithPath: $0).deletingLastPathComponent().path }
    return folders.map { .folder($0, isReadOnly: false) } + profile.kept
  }

  /// What only a machine on a terminal can have.
  private var onTerminal: [(String, Bool)] {
    [
      ("--save-state-at", !saveStateAt.isEmpty), ("--load-state", loadState != nil),
      ("--dump-signature", dumpSignature != nil), ("--stats", stats), ("--profile", profile.isUsed),
    ]
  }

  private func runInBackground() throws {
    if let (flag, _) = onTerminal.first(where: \.1) {
      throw CommandFailure(.usage, "\(flag) is for machines on a terminal; leave it or -d out")
    }
    guard let registered = try makePlan().registered else { preconditionFailure("-d registers its machine") }
    try registered.first { try MachineStarting.start($0, $1) }
    print(registered.record.name)
  }

  /// A machine for one command: it goes on from where the image's system is up, and is gone when the command has ended.
  private func runForCommand() throws {
    let others = [("-d", detach), ("--disk", !disk.isEmpty), ("--disk-size", diskSize != nil)]
    if let (flag, _) = (onTerminal + others).first(where: \.1) {
      throw CommandFailure(.usage, "\(flag) isn't for a machine that runs a command; leave it or the command out")
    }
    guard let target, try !isProgram(target) else {
      throw CommandFailure(.usage, "only a machine of an image can run a command: yadori run --rm debian -- uname -a")
    }
    let registry = try MachineStarting.registry()
    var request = GuestCommand.Request(command)
    request.hasTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
    try commandOptions.apply(to: &request)
    for forward in publish { _ = try PortForward(parsing: forward) }
    let wanted = try configuration(image: target, folder: nil, before: nil)
    let warm = WarmMachine(registry, image: try ImageStore().find(target), wanted)
    var folders = try shares.map { try $0.folder() }
    if !noShare, !folders.contains(where: { $0.name == WarmMachine.shareName }) {
      let present = FileManager.default.currentDirectoryPath
      folders.append(.init(name: WarmMachine.shareName, path: present, target: WarmMachine.shareTarget))
    }
    if folders.contains(where: { $0.name == WarmMachine.shareName }), request.folder == nil {
      request.folder = WarmMachine.shareTarget
    }
    // That one is mounted already.
    let further = folders.filter { $0.name != WarmMachine.shareName }
    func start(_ saved: SavedMachine) throws -> MachineRecord {
      let record = try SavedMachines.prepare(
        registry, saved, named: [try wantedName(registry, image: target)], image: target, isTemporary: true
      ) {
        if $0.network != nil { $0.network = wanted.network }
        $0.engine = wanted.engine
        $0.processorLimit = wanted.processorLimit
        $0.processorWeight = wanted.processorWeight
        $0.pinnedProcessors = wanted.pinnedProcessors
        // They are mounted from here, before the command.
        $0.sharedFolders = folders.map { .init(name: $0.name, path: $0.path, isReadOnly: $0.isReadOnly) }
      }[0]
      try Registered(registry: registry, record: record, isNew: true).first {
        try MachineLauncher.start($0, $1, endsWithThis: true)
      }
      return record
    }
    let record = try warm.use(start)
    let session = Result {
      try GuestShares.mount(registry, record, further)
      try GuestCommandSession(registry: registry, record: record, request: request).run()
    }
    try? ControlClient(registry, record).kill()
    let ending = registry.folder(of: record).lastEnding
    try? registry.remove(record)
    // Where the machine itself couldn't go on, that is why the command couldn't.
    if case .failure = session, let ending, ending.exitCode == MachineError.Code.software.rawValue {
      throw CommandFailure(.software, "the machine '\(record.name)' \(ending.words)")
    }
    try session.get()
  }

  private func savePoint() throws -> VirtualMachine.SavePoint? {
    if saveStateAt.isEmpty { return nil }
    guard saveStateAt.count == 2, let count = UInt64(saveStateAt[0]) else {
      throw CommandFailure(
        .usage, "--save-state-at: give a number of instructions and a folder (--save-state-at N FOLDER)")
    }
    return VirtualMachine.SavePoint(instructions: count, path: saveStateAt[1])
  }

  /// What to run, and where it is kept: machines of images, those in the background, and those with a name.
  private struct Plan {
    var configuration: VirtualMachineConfiguration
    var registered: Registered?
  }

  private struct Registered {
    let registry: MachineRegistry
    let record: MachineRecord
    /// Nothing of it was there before.
    let isNew: Bool

    /// Does the first thing with the machine. One that was made for it goes where that fails.
    func first<Result>(_ body: (MachineRegistry, MachineRecord) throws -> Result) throws -> Result {
      do {
        return try body(registry, record)
      } catch {
        if isNew { try? registry.remove(record) }
        throw error
      }
    }
  }

  private func makePlan() throws -> Plan {
    // Flags that can't be are refused before files are looked for.
    _ = try engine.choice()
    let isImage = try target.map { try !isProgram($0) } ?? false
    guard isImage || detach || name != nil else {
      return Plan(configuration: try configuration(image: nil, folder: nil, before: nil))
    }
    let registry = try MachineStarting.registry()
    let wanted = try wantedName(registry, image: isImage ? target : nil)
    let record = try registry.record(named: wanted)
    if let record {
      guard record.image == (isImage ? target : nil) else {
        let origin = record.image.map { "of the image '\($0)'" } ?? "without an image"
        throw CommandFailure(
          .unavailable, "there is a machine '\(wanted)' already, \(origin); choose another name with --name")
      }
      guard !registry.folder(of: record).isInUse else {
        throw CommandFailure(
          .unavailable,
          "the machine '\(wanted)' runs already; 'yadori console \(wanted)' shows it, --name starts another one")
      }
    }
    // Machines had folders of their names before there was a registry.
    let isOlder = record == nil && FileManager.default.fileExists(atPath: registry.folder(identifier: wanted).disk)
    let isNew = record == nil && !isOlder
    let identifier = record?.identifier ?? (isOlder ? wanted : MachineRecord.newIdentifier())
    let folder = registry.folder(identifier: identifier)
    do {
      var configuration = try self.configuration(
        image: isImage ? target : nil, folder: folder, before: record?.configuration)
      configuration.makePathsAbsolute()
      configuration.noteFormats()
      configuration.noteBackingFiles(besides: folder, before: record?.configuration)
      // Before it is written down.
      try configuration.check()
      if let record { try folder.checkResumption(configuration, as: record) }
      var ready =
        record
        ?? MachineRecord(
          identifier: identifier, name: wanted, image: isImage ? target : nil, configuration: configuration,
          isTemporary: temporary)
      ready.configuration = configuration
      ready.isTemporary = temporary
      if record == nil {
        try registry.add(ready)
      } else {
        try registry.update(identifier) {
          $0.configuration = configuration
          $0.isTemporary = temporary
        }
      }
      return Plan(
        configuration: configuration, registered: Registered(registry: registry, record: ready, isNew: isNew))
    } catch {
      if isNew { try? FileManager.default.removeItem(at: folder.url) }
      throw error
    }
  }

  /// The name asked for, or the image's; a temporary machine without one gets a name that nobody has.
  private func wantedName(_ registry: MachineRegistry, image: String?) throws -> String {
    if let name {
      try MachineRegistry.checkName(name)
      if temporary, try registry.record(named: name) != nil {
        throw CommandFailure(
          .unavailable, "there is a machine '\(name)' already, which --temporary would remove; choose another name")
      }
      return name
    }
    if let image, !temporary, command.isEmpty { return image }
    let stem = image ?? "machine"
    while true {
      let name = "\(stem)-\(String(UInt32.random(in: 0..<1 << 24), radix: 36))"
      if try registry.record(named: name) == nil { return name }
    }
  }

  /// What machines for single commands of an image are made of when nothing else is said.
  static func usualForCommands(image: String) throws -> VirtualMachineConfiguration {
    guard let usual = try Root.parseAsRoot(["run", "--rm", image, "--", "true"]) as? RunCommand else {
      preconditionFailure("that is a run")
    }
    return try usual.configuration(image: image, folder: nil, before: nil)
  }

  /// What the flags and the image say. `before`: what the machine was when it ran last.
  private func configuration(
    image: String?, folder: MachineFolder?, before: VirtualMachineConfiguration?
  ) throws -> VirtualMachineConfiguration {
    // A machine that is there keeps what isn't said, but for what it boots: that is always said.
    var configuration = before ?? VirtualMachineConfiguration(boot: .init())
    if before != nil { configuration.adaptAndReport(name ?? target ?? "") }
    configuration.boot = .init()
    if let harts { configuration.hartCount = harts }
    if let mmu { configuration.virtualAddressBits = mmu.bits }
    if let engine = try engine.choice() { configuration.engine = engine }
    configuration.boot.commandLine = append ?? (image == nil ? before?.boot.commandLine : nil)
    configuration.boot.initialRAMDisk = initrd
    configuration.boot.kernel = kernel
    configuration.boot.deviceTree = dtb
    switch firmware {
    case nil: break
    case "none": configuration.boot.firmware = .none
    case let path?: configuration.boot.firmware = .file(path: path)
    }
    if let target {
      guard kernel == nil, firmware == nil || firmware == "none" else {
        throw CommandFailure(.usage, "give '\(target)' or --kernel and --firmware, not both")
      }
      if let image {
        // The first is the image's, where that has one.
        let earlier = configuration.disks
        configuration.disks = []
        try configuration.use(
          image: image, in: folder, existing: earlier.first, diskSize: diskSize?.bytes, append: append, mirror: mirror)
        if before != nil, append == nil { configuration.boot.commandLine = before?.boot.commandLine }
        if disk.isEmpty { configuration.disks += earlier.dropFirst(configuration.disks.count) }
        // Those of a machine that is there stay, but for others in the same places.
        let folders = try shares.map { try $0.folder() }
        let names = Set(folders.map(\.name))
        configuration.sharedFolders = (before?.sharedFolders ?? []).filter { !names.contains($0.name) } + folders
      } else {
        configuration.boot.firmware = .none
        configuration.boot.kernel = target
      }
    } else if kernel == nil, firmware == nil || firmware == "none" {
      throw CommandFailure(
        .usage, "say what to run: an image ('yadori run debian'), an ELF program, --kernel or --firmware")
    } else if initrd != nil, kernel == nil {
      throw CommandFailure(.usage, "--initrd needs --kernel")
    }
    if image == nil, !shares.isEmpty {
      throw CommandFailure(.usage, "--share is for machines of images, whose agent mounts the folder; name an image")
    }
    if image != nil { configuration.transport = before?.transport ?? .pci }
    if let transport { configuration.transport = transport == .pci ? .pci : .mmio }
    if image == nil, !disk.isEmpty { configuration.disks = [] }
    configuration.disks += disk.map {
      .init(path: $0.path, format: $0.format, isReadOnly: $0.isReadOnly, serial: $0.serial)
    }
    if let memory { configuration.memorySize = memory.bytes }
    configuration.dropOutgrownMaximums()
    if let maxHarts { configuration.maximumHartCount = maxHarts }
    if let maxMemory { configuration.maximumMemorySize = maxMemory.bytes }
    share.apply(to: &configuration)
    // One in the background may have others beside it.
    if detach, image != nil { configuration.hasBalloon = true }
    // Whoever starts a machine with firmware in the background wants to stop it. Others keep the devices that they had.
    if detach, configuration.boot.firmware != .none { configuration.hasPowerButton = true }
    configuration.network = try self.network(before: before, isUsual: image != nil)
    return configuration
  }

  /// The network card. Forwards of a machine that is there stay, but for others of the same ports.
  private func network(
    before: VirtualMachineConfiguration?, isUsual: Bool
  ) throws -> VirtualMachineConfiguration.Network? {
    let earlier = before?.network
    let wanted: NetworkChoice? =
      if let net {
        try NetworkChoice(parsing: net)
      } else if before == nil {
        isUsual ? .user : nil
      } else {
        switch earlier?.attachment {
        case nil: nil
        case .user?: .user
        case .tap(let name)?: .tap(name: name)
        }
      }
    let added = try publish.map { try PortForward(parsing: $0) }
    switch wanted {
    case nil, .none?:
      guard publish.isEmpty else { throw CommandFailure(.usage, "-p needs --net user") }
      return nil
    case .user?:
      var forwards: [String] = []
      if case .user(let all)? = earlier?.attachment {
        forwards = all.filter { text in
          guard let forward = try? PortForward(parsing: text) else { return false }
          return !added.contains { $0.sharesPort(with: forward) }
        }
      }
      return .init(.user(forwards: forwards + publish), address: earlier?.address)
    case .tap(let name)?:
      guard publish.isEmpty else { throw CommandFailure(.usage, "-p needs --net user; a TAP network has no forwards") }
      return .init(.tap(name: name), address: earlier?.address)
    }
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
      "code memory \(metrics.codeBytes) of \(metrics.codeLimit) bytes (\(metrics.settledBytes) in large pages, "
        + "\(metrics.keptBytes) kept from earlier with \(metrics.keptPages) pages), "
        + "full \(metrics.flushes) times; "
        + "\(metrics.pages) pages with \(metrics.pageBytes) bytes of tables, \(metrics.forgottenPages) times forgotten")
  }
}

/// A line for the person at the terminal, beside the guest's own output.
func report(_ line: String) { FileHandle.standardError.write(Data("yadori: \(line.withoutControls)\r\n".utf8)) }

extension Double {
  /// With this many digits after the point.
  func formatted(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }
}

import Console
import Foundation
import HostSystem
import Images
import Translation
import Yadori

/// Works on images, and shows how far it is.
enum ImageBuilding {
  /// Builds an image with a machine of ours, whose instructions `engine` executes.
  static func build(_ options: ImageBuildOptions, engine: EngineChoice?) throws -> ImageStore.Image {
    try withProgress { task in
      try ImageBuilder(machine: InstallingMachine(engine: engine)).build(options, task: task) {
        try checkUnused(options.name)
      }
    }
  }

  /// Throws where a machine stands on an image: it would be lost without it, and with another one under its disk, too.
  static func checkUnused(_ name: String) throws {
    guard let machine = try MachineStarting.registry().records(image: name).first else { return }
    throw CommandFailure(
      .unavailable,
      "the machine '\(machine.name)' stands on the image '\(name)'; 'yadori remove \(machine.name)' first")
  }

  /// ^C, SIGTERM and SIGHUP stop the work, so that what it started ends and nothing half-made stays.
  static func withProgress<Result>(_ body: (ImageTask) throws -> Result) rethrows -> Result {
    let display = ProgressDisplay()
    defer { display.finish() }
    let task = ImageTask(progress: { display.show($0) }, warning: { display.warn($0) })
    let watch = CaughtSignals { _ in task.cancel() }
    defer { watch.release() }
    return try body(task)
  }
}

/// The machine that installs packages: the same as any other, with its console read by the builder.
struct InstallingMachine: ImageBuilderMachine {
  let engine: EngineChoice?

  func run(
    _ configuration: ImageBuilderConfiguration, console: @escaping @Sendable ([UInt8]) -> Void,
    isCancelled: @escaping @Sendable () -> Bool
  ) throws {
    let machine = try VirtualMachine(
      VirtualMachineConfiguration(
        hartCount: 1, memorySize: configuration.memorySize,
        boot: .init(
          kernel: configuration.kernel.path, initialRAMDisk: configuration.initialRamdisk.path,
          commandLine: configuration.commandLine + " console=hvc0"),
        disks: configuration.disks.map {
          .init(path: $0.file.path, format: $0.format.rawValue, isReadOnly: $0.isReadOnly)
        }, transport: .pci, engine: engine),
      console: ListeningConsole(receive: console))
    let watcher = DispatchSource.makeTimerSource()
    watcher.schedule(deadline: .now() + 0.2, repeating: 0.2)
    watcher.setEventHandler { if isCancelled() { machine.stop() } }
    watcher.resume()
    defer { watcher.cancel() }
    if case .failed(let reason) = try machine.run() { throw MachineError(.software, reason) }
  }
}

/// A console without input whose output goes to a function.
private final class ListeningConsole: ConsoleBackend {
  private let receive: @Sendable ([UInt8]) -> Void

  init(receive: @escaping @Sendable ([UInt8]) -> Void) { self.receive = receive }

  func start(
    on loop: EventLoop, input: @escaping (UnsafeRawBufferPointer) -> Int, resize: @escaping (Int, Int) -> Void
  ) {}
  func write(_ bytes: UnsafeRawBufferPointer) { receive([UInt8](bytes)) }
  func guestHasRoom() {}
  func stop() {}
}

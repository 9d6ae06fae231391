import Foundation

/// A machine that installs an image: whoever builds images brings it, so that this room knows nothing of devices.
public protocol ImageBuilderMachine {
  /// Starts the kernel with the built-in SBI and returns when the guest has powered off or asked for a reset.
  ///
  /// - Parameters:
  ///   - console: is given what the guest writes, in pieces of any size, on any one thread.
  ///   - isCancelled: is asked now and then; when true the machine is to be ended at once.
  /// - Throws: when the machine couldn't be started or failed. A guest that failed says so on its console.
  func run(
    _ configuration: ImageBuilderConfiguration, console: @escaping @Sendable ([UInt8]) -> Void,
    isCancelled: @escaping @Sendable () -> Bool
  ) throws
}

/// What the installing guest needs.
public struct ImageBuilderConfiguration: Sendable {
  public struct Disk: Sendable {
    public var file: URL
    public var format: ImageManifest.DiskFormat
    public var isReadOnly: Bool
  }

  public var kernel: URL
  public var initialRamdisk: URL
  /// Without a console: the machine adds the one that it listens to (`console=hvc0` or `console=ttyS0`).
  public var commandLine: String
  /// virtio block devices, in this order or any other: the guest tells them apart by their content.
  public var disks: [Disk]
  /// In bytes.
  public var memorySize: UInt64
}

/// Reads the console of the installing guest.
final class BuilderConsole: @unchecked Sendable {
  enum Outcome: Equatable {
    case running
    case done
    case failed(String)
  }

  private let lock = NSLock()
  private let task: ImageTask
  private let packageCount: Int
  private var line: [UInt8] = []
  private var lastLines: [String] = []
  private var configured: Set<String> = []
  private var state = Outcome.running
  private let log: FileHandle?

  /// - Parameter logPath: a file that keeps all that the guest said.
  init(task: ImageTask, packageCount: Int, logPath: String) {
    self.task = task
    self.packageCount = packageCount
    _ = FileManager.default.createFile(atPath: logPath, contents: nil)
    log = FileHandle(forWritingAtPath: logPath)
  }

  var outcome: Outcome { lock.withLock { state } }
  /// The end of what the guest said, for a person who looks for a reason.
  var lastWords: [String] { lock.withLock { lastLines } }

  func receive(_ bytes: [UInt8]) {
    lock.withLock {
      try? log?.write(contentsOf: Data(bytes))
      for byte in bytes {
        if byte == 0x0A {
          take(String(decoding: line, as: UTF8.self))
          line.removeAll(keepingCapacity: true)
        } else if byte != 0x0D && line.count < 4096 {
          line.append(byte)
        }
      }
    }
  }

  private func take(_ line: String) {
    lastLines.append(line)
    if lastLines.count > 12 { lastLines.removeFirst() }
    if line.hasPrefix("yadori-build: ") {
      let words = line.dropFirst(14).split(separator: " ", maxSplits: 1)
      let rest = words.count > 1 ? String(words[1]) : ""
      switch words.first ?? "" {
      case "done": if state == .running { state = .done }
      case "failed": if state == .running { state = .failed(rest.isEmpty ? "it didn't say why" : rest) }
      case "step": report(step: rest)
      default: break
      }
    } else if line.hasPrefix("status: "), line.hasSuffix(": installed") {
      // dpkg(1), --status-fd: "status: package: status".
      let name = String(line.dropFirst(8).dropLast(11))
      configured.insert(name)
      let fraction = min(1, Double(configured.count) / Double(max(packageCount, 1)))
      task.report(ImageProgress(.configuring, fraction: fraction, detail: name))
    }
  }

  private func report(step: String) {
    switch step {
    case "format": task.report(ImageProgress(.formatting))
    case "unpack": task.report(ImageProgress(.installingFiles))
    case "configure": task.report(ImageProgress(.configuring, fraction: 0))
    case "finish": task.report(ImageProgress(.finishing))
    default: break
    }
  }
}

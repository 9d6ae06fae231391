import Foundation
import Synchronization

/// Runs programs of the host (gpgv, curl) and collects what they say.
public enum Subprocess {
  /// How a program ended, and what it wrote.
  public struct Outcome: Sendable {
    /// The exit status; 128 plus the signal's number for a program that a signal ended, as shells have it.
    public let status: Int32
    public let output: Data
    public let errorOutput: Data

    public var succeeded: Bool { status == 0 }
    /// What the program wrote to its error output, as text without the last line's end.
    public var errorText: String {
      String(decoding: errorOutput, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
  }

  /// Where `name` lies in the folders of PATH, or nil. A name with a slash stands for itself.
  public static func find(_ name: String) -> String? {
    let isRunnable = { (path: String) in access(path, X_OK) == 0 && !isFolder(path) }
    if name.contains("/") { return isRunnable(name) ? name : nil }
    let folders = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
    return folders.split(separator: ":").map { "\($0)/\(name)" }.first(where: isRunnable)
  }

  /// Runs `program` (a path, or a name that PATH finds) to its end. `input` becomes its standard input, which is empty
  /// otherwise; `environment` replaces the one of this process when given. Blocks the calling thread. Throws
  /// `HostError` when the program can't be started; a failing program is not an error here but a status.
  public static func runAndWait(
    _ program: String, _ arguments: [String], input: Data = Data(), environment: [String: String]? = nil
  ) throws -> Outcome {
    guard let path = find(program) else {
      throw HostError(code: ENOENT, message: "'\(program)' isn't installed on this host")
    }
    BrokenPipes.becomeErrors()
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    if let environment { process.environment = environment }
    let (inputPipe, outputPipe, errorPipe) = (Pipe(), Pipe(), Pipe())
    process.standardOutput = outputPipe
    process.standardError = errorPipe
    process.standardInput = input.isEmpty ? FileHandle.nullDevice : inputPipe
    do {
      try process.run()
    } catch {
      throw HostError(message: "can't run '\(path)': \(error.localizedDescription)")
    }
    // All three pipes move at the same time: a program that waits for one of them must not wait for ever.
    let errorOutput = Mutex(Data())
    let errorReader = HostThread(name: "stderr") {
      let bytes = errorPipe.fileHandleForReading.readDataToEndOfFile()
      errorOutput.withLock { $0 = bytes }
    }
    let inputWriter =
      input.isEmpty
      ? nil
      : HostThread(name: "stdin") {
        // A program may end, or close its input, without reading all of it.
        try? inputPipe.fileHandleForWriting.write(contentsOf: input)
        try? inputPipe.fileHandleForWriting.close()
      }
    let output = outputPipe.fileHandleForReading.readDataToEndOfFile()
    errorReader.join()
    inputWriter?.join()
    process.waitUntilExit()
    let status =
      process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
    return Outcome(status: status, output: output, errorOutput: errorOutput.withLock { $0 })
  }

  /// `runAndWait` for asynchronous callers.
  public static func run(
    _ program: String, _ arguments: [String], input: Data = Data(), environment: [String: String]? = nil
  ) async throws -> Outcome {
    try await withCheckedThrowingContinuation { continuation in
      DispatchQueue.global().async {
        continuation.resume(
          with: Result { try runAndWait(program, arguments, input: input, environment: environment) })
      }
    }
  }

  private static func isFolder(_ path: String) -> Bool {
    var isDirectory: ObjCBool = false
    return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && isDirectory.boolValue
  }
}

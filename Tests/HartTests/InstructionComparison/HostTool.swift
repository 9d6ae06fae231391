import Foundation

/// A program of the host that a test needs, looked up in PATH.
struct HostTool {
  static let clang = HostTool("clang")
  static let objcopy = HostTool("llvm-objcopy")
  static let nm = HostTool("llvm-nm")
  static let shell = HostTool("sh")
  static let qemu = HostTool("qemu-riscv64")

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  let name: String
  private let path: String?

  private init(_ name: String) {
    self.name = name
    path = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  var exists: Bool { path != nil }

  /// Runs the program to its end; throws when it isn't there or fails.
  func run(_ arguments: [String], input: URL? = nil, output: URL? = nil) throws {
    guard let path else { throw Failure(description: "\(name) is not in PATH") }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardInput = try input.map { try FileHandle(forReadingFrom: $0) } ?? FileHandle.nullDevice
    if let output {
      try Data().write(to: output)
      process.standardOutput = try FileHandle(forWritingTo: output)
    }
    try process.run()
    process.waitUntilExit()
    guard process.terminationReason == .exit, process.terminationStatus == 0 else {
      throw Failure(description: "\(name) \(arguments.joined(separator: " ")) failed (\(process.terminationStatus))")
    }
  }
}

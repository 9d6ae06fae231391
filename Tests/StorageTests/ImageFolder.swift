import Foundation
import Storage
import Testing

/// A folder for one test's images, gone with it, and the tools that look at them from outside.
final class ImageFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "/yadori-storage-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  subscript(_ name: String) -> String { "\(path)/\(name)" }

  struct ToolFailure: Error, CustomStringConvertible { let description: String }

  /// Runs a program and returns its output; anything but exit status 0 is an error with all it said.
  @discardableResult
  func run(_ tool: String, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [tool] + arguments
    process.currentDirectoryURL = URL(fileURLWithPath: path)
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    if process.terminationStatus == 127 {
      throw ToolFailure(description: "\(tool) isn't installed; install the Debian package qemu-utils")
    }
    guard process.terminationReason == .exit, process.terminationStatus == 0 else {
      throw ToolFailure(
        description: "\(tool) \(arguments.joined(separator: " ")) ended with \(process.terminationStatus): \(text)")
    }
    return text
  }

  @discardableResult
  func qemuImg(_ arguments: String...) throws -> String { try run("qemu-img", arguments) }

  /// Runs qemu-io commands on an image.
  @discardableResult
  func qemuIO(_ image: String, _ commands: String..., options: [String] = []) throws -> String {
    try run("qemu-io", options + ["-f", "qcow2"] + commands.flatMap { ["-c", $0] } + [image])
  }

  /// `qemu-img check` finds nothing: no error, no leak.
  func check(_ image: String) throws { try qemuImg("check", "-q", "-f", "qcow2", image) }

  /// The disk content as `qemu-img` sees it.
  func content(_ image: String) throws -> [UInt8] {
    let raw = self["content-\(UUID().uuidString).raw"]
    try qemuImg("convert", "-f", "qcow2", "-O", "raw", image, raw)
    defer { try? FileManager.default.removeItem(atPath: raw) }
    return try bytes(raw)
  }

  func bytes(_ file: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: file))) }

  func write(_ bytes: [UInt8], to file: String) throws { try Data(bytes).write(to: URL(fileURLWithPath: file)) }

  /// Copies a file without its holes.
  func copy(_ from: String, to: String) throws { try run("cp", ["--sparse=always", from, to]) }
}

extension BlockStorage {
  func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
    var result = [UInt8](repeating: 0xEE, count: count)
    try result.withUnsafeMutableBytes { try read(at: offset, into: $0) }
    return result
  }

  func allBytes() throws -> [UInt8] { try bytes(at: 0, count: Int(byteCount)) }

  func write(_ bytes: [UInt8], at offset: UInt64) throws {
    try bytes.withUnsafeBytes { try write(at: offset, from: $0) }
  }
}

/// Reproducible random numbers (SplitMix64), so that a failing run can be repeated from its seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }

  /// Bytes that compress a little.
  mutating func bytes(_ count: Int) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: count)
    var index = 0
    while index < count {
      var word = next()
      for _ in 0..<min(16, count - index) {
        result[index] = UInt8(truncatingIfNeeded: word)
        word = word &>> 5 &+ 1
        index += 1
      }
    }
    return result
  }
}

/// The error that `body` throws, which must be a `StorageError` of one line.
func storageError(
  _ body: () throws -> Void, sourceLocation: SourceLocation = #_sourceLocation
) -> StorageError? {
  do {
    try body()
    Issue.record("no error", sourceLocation: sourceLocation)
  } catch let error as StorageError {
    #expect(!error.message.contains("\n"), sourceLocation: sourceLocation)
    return error
  } catch {
    Issue.record("another error: \(error)", sourceLocation: sourceLocation)
  }
  return nil
}

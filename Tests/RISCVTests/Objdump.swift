import Foundation

/// llvm-objdump as an independent disassembler.
struct Objdump {
  struct Problem: Error, CustomStringConvertible {
    let description: String
  }

  /// The extensions that Yadori has, as LLVM names them.
  static let features =
    "+m,+a,+f,+d,+c,+zicsr,+zifencei,+zicntr,+zihpm,+zba,+zbb,+zbc,+zbs,+zicond,+zicbom,+zicbop,+zicboz,"
    + "+zbkb,+zbkc,+zbkx,+zknd,+zkne,+zknh,+zawrs,+zihintpause,+zihintntl,+svinval"

  private let objdump: URL
  private let objcopy: URL

  /// Looks for the tools beside the Swift compiler, which brings them, then on PATH.
  init() throws {
    var folders: [URL] = []
    if let information = try? Self.run(URL(fileURLWithPath: "/usr/bin/env"), ["swiftc", "-print-target-info"]),
      let object = try? JSONSerialization.jsonObject(with: information) as? [String: Any],
      let paths = object["paths"] as? [String: Any], let resources = paths["runtimeResourcePath"] as? String
    {
      // .../usr/lib/swift
      folders.append(URL(fileURLWithPath: resources).appendingPathComponent("../../bin").standardized)
    }
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    folders += path.split(separator: ":").map { URL(fileURLWithPath: String($0)) }

    for folder in folders {
      let objdump = folder.appendingPathComponent("llvm-objdump")
      let objcopy = folder.appendingPathComponent("llvm-objcopy")
      guard FileManager.default.isExecutableFile(atPath: objdump.path),
        FileManager.default.isExecutableFile(atPath: objcopy.path),
        let version = try? String(decoding: Self.run(objdump, ["--version"]), as: UTF8.self),
        version.contains("riscv64"), Self.majorVersion(version) ?? 0 >= 19
      else { continue }
      self.objdump = objdump
      self.objcopy = objcopy
      return
    }
    throw Problem(
      description: "no llvm-objdump and llvm-objcopy of LLVM 19 or later with riscv64 beside swiftc or on PATH: "
        + "install a Swift toolchain from swift.org, which contains them")
  }

  private static func majorVersion(_ text: String) -> Int? {
    guard let range = text.range(of: "LLVM version ") else { return nil }
    return Int(text[range.upperBound...].prefix { $0.isNumber })
  }

  /// The text for each of `words`, all of which have 2 or all have 4 bytes, laid one after the other from address 0.
  func disassemble(_ words: [UInt32], width: Int, aliases: Bool) throws -> [String] {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("yadori-objdump-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }

    var bytes = Data(capacity: words.count * width)
    for word in words { withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0.prefix(width)) } }
    let raw = folder.appendingPathComponent("words.bin")
    let object = folder.appendingPathComponent("words.o")
    try bytes.write(to: raw)
    _ = try Self.run(
      objcopy,
      [
        "-I", "binary", "-O", "elf64-littleriscv", "--rename-section=.data=.text,code", "--strip-all", raw.path,
        object.path,
      ])
    var arguments = ["-d", "--no-show-raw-insn", "--mattr=" + Self.features, object.path]
    if !aliases { arguments += ["-M", "no-aliases"] }
    let output = try Self.run(objdump, arguments)

    var texts = [String](repeating: "", count: words.count)
    for line in output.split(separator: UInt8(ascii: "\n")) {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")),
        let address = Int(
          String(decoding: line[..<colon], as: UTF8.self).trimmingCharacters(in: .whitespaces), radix: 16),
        address % width == 0, address / width < words.count
      else { continue }
      texts[address / width] = Self.normalized(line[(colon + 1)...])
    }
    return texts
  }

  /// One space after the mnemonic, and without the name of the section that follows an address.
  private static func normalized(_ line: Data.SubSequence) -> String {
    var fields = String(decoding: line, as: UTF8.self).split(whereSeparator: \.isWhitespace)
    if fields.count > 1, let last = fields.last, last.hasPrefix("<") { fields.removeLast() }
    return fields.joined(separator: " ")
  }

  private static func run(_ tool: URL, _ arguments: [String]) throws -> Data {
    let process = Process()
    process.executableURL = tool
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Problem(description: "\(tool.path) failed with status \(process.terminationStatus)")
    }
    return data
  }
}

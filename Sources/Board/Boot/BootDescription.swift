import Foundation

/// A file that a machine boots from, with its name for messages.
public struct BootFile: Sendable {
  public let name: String
  public let contents: Data

  public init(name: String, contents: Data) {
    self.name = name
    self.contents = contents
  }

  /// Maps the file at `path`. Throws Foundation's error where it can't be read.
  public init(path: String) throws {
    name = path
    contents = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
  }
}

/// What a board runs first, and what it is given.
public struct BootDescription: Sendable {
  /// Who serves the SBI.
  public enum Firmware: Sendable {
    /// The monitor: the kernel starts in S-mode on hart 0, the others wait for SBI hart_start.
    case builtIn
    /// Nobody: the kernel, or the bare program, starts in M-mode on all harts.
    case none
    /// This firmware, in M-mode on all harts; it starts the kernel.
    case file(BootFile)
  }

  public var firmware: Firmware
  /// A RISC-V Linux Image, an ELF file or a raw binary, plain or compressed with gzip.
  public var kernel: BootFile?
  public var initialRAMDisk: BootFile?
  /// The kernel's parameters; nil or empty leaves those of the device tree.
  public var commandLine: String?
  /// A flattened device tree in place of the generated one; its memory and /chosen are set to what the machine has.
  public var deviceTree: BootFile?

  public init(
    firmware: Firmware = .builtIn, kernel: BootFile? = nil, initialRAMDisk: BootFile? = nil,
    commandLine: String? = nil, deviceTree: BootFile? = nil
  ) {
    self.firmware = firmware
    self.kernel = kernel
    self.initialRAMDisk = initialRAMDisk
    self.commandLine = commandLine
    self.deviceTree = deviceTree
  }
}

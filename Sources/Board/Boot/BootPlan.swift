import Bus
import Foundation

/// Where the parts of a boot go in RAM and where harts begin, worked out and checked before anything runs; `load` then
/// can't fail for the user's mistakes, and can be repeated at each guest reboot.
struct BootPlan {
  /// How harts begin.
  enum Start: Equatable {
    /// Hart 0 at `entry` in S-mode, under the built-in SBI.
    case supervisor(entry: UInt64)
    /// All harts in the reset ROM in M-mode, which goes on at `entry`. `next`: what firmware should start then.
    case machine(entry: UInt64, next: UInt64)
  }

  let start: Start
  /// The kernel or bare program, for its symbols.
  let program: ELFFile?
  let pieces: [KernelImage.Piece]
  let initialRAMDisk: Range<UInt64>?
  let deviceTreeAddress: UInt64
  private let initialRAMDiskContents: Data?
  private let tree: DeviceTree
  private let commandLine: String?

  /// Length of /chosen/rng-seed in bytes.
  static let seedLength = 32
  /// Linux's own default distance between RAM's start and the kernel.
  private static let kernelOffset: UInt64 = 2 << 20

  /// `generatedTree` describes the board. `hasFlash`: whether the first flash bank holds something to start. Throws
  /// `BootError`.
  init(_ boot: BootDescription, generatedTree: DeviceTree, memorySize: UInt64, hasFlash: Bool) throws {
    let ram = MemoryMap.ramBase..<MemoryMap.ramBase + memorySize
    let kernelOrigin = ram.lowerBound + BootPlan.kernelOffset
    let flash = MemoryMap.flash0.base.rawValue
    let kernel: KernelImage?
    let firmware: KernelImage?
    switch boot.firmware {
    case .builtIn, .file: kernel = try boot.kernel.map { try KernelImage($0, origin: kernelOrigin, ram: ram) }
    case .none: kernel = try boot.kernel.map { try KernelImage($0, origin: ram.lowerBound, ram: ram) }
    }
    if case .file(let file) = boot.firmware {
      firmware = try KernelImage(file, origin: ram.lowerBound, ram: ram)
    } else {
      firmware = nil
    }
    guard let first = firmware?.entry ?? kernel?.entry ?? (hasFlash ? flash : nil) else {
      throw BootError(.configuration, "there is nothing to boot: give a kernel, firmware or a flash image")
    }
    if let firmware, let kernel { try BootPlan.checkApart(firmware, kernel) }
    switch boot.firmware {
    case .builtIn: start = .supervisor(entry: first)
    case .none: start = .machine(entry: first, next: 0)
    case .file: start = .machine(entry: first, next: kernel?.entry ?? (hasFlash ? flash : 0))
    }
    program = kernel?.elf ?? firmware?.elf
    pieces = (firmware?.pieces ?? []) + (kernel?.pieces ?? [])
    commandLine = boot.commandLine
    tree = try BootPlan.tree(boot, generated: generatedTree, memorySize: memorySize)
    initialRAMDiskContents = boot.initialRAMDisk?.contents
    let programEnd = max(ram.lowerBound, pieces.map { $0.address + $0.memorySize }.max() ?? 0)
    // Everything that `load` adds to the tree has this length already.
    let treeSize = UInt64(
      BootPlan.blob(
        tree, commandLine: boot.commandLine, initialRAMDisk: boot.initialRAMDisk.map { _ in 0..<1 },
        seed: Array(repeating: 1, count: BootPlan.seedLength)
      ).count)
    (deviceTreeAddress, initialRAMDisk) = try BootPlan.place(
      treeSize: treeSize, initialRAMDisk: boot.initialRAMDisk, above: programEnd, ram: ram)
  }

  private static func checkApart(_ firmware: KernelImage, _ kernel: KernelImage) throws {
    for one in firmware.pieces {
      for other in kernel.pieces
      where one.address < other.address + other.memorySize && other.address < one.address + one.memorySize {
        throw BootError(
          .configuration,
          "\(kernel.name): lies in the same memory as the firmware \(firmware.name), at 0x\(String(other.address, radix: 16)); link it for 0x80200000"
        )
      }
    }
  }

  private static func tree(
    _ boot: BootDescription, generated: DeviceTree, memorySize: UInt64
  ) throws -> DeviceTree {
    guard let file = boot.deviceTree else { return generated }
    var tree = try DeviceTree(flattened: file.contents, name: file.name)
    tree.setMemory(base: MemoryMap.ramBase, size: memorySize)
    return tree
  }

  /// The device tree goes to the end of the first GiB of RAM and the initial RAM disk below it, out of the kernel's way
  /// and within reach of its first mappings; a larger disk goes as high as it must.
  private static func place(
    treeSize: UInt64, initialRAMDisk: BootFile?, above bottom: UInt64, ram: Range<UInt64>
  ) throws -> (tree: UInt64, disk: Range<UInt64>?) {
    let diskSize = UInt64(initialRAMDisk?.contents.count ?? 0)
    for reach in [1 << 30, 2 << 30, .max] as [UInt64] {
      let top = ram.lowerBound + min(reach, ram.upperBound - ram.lowerBound)
      for alignment in [2 << 20, 4096] as [UInt64] {
        guard let tree = below(top, treeSize, alignment, bottom) else { continue }
        guard diskSize > 0 else { return (tree, nil) }
        guard let disk = below(tree, diskSize, 4096, bottom) else { continue }
        return (tree, disk..<disk + diskSize)
      }
    }
    let free = ram.upperBound - min(bottom, ram.upperBound)
    if let initialRAMDisk, below(ram.upperBound, treeSize, 4096, bottom) != nil {
      throw BootError(
        .configuration,
        "\(initialRAMDisk.name): the initial RAM disk (\(diskSize) bytes) doesn't fit beside the kernel, which leaves \(free) bytes of RAM; give the machine more memory"
      )
    }
    throw BootError(
      .configuration, "the program leaves no room for the device tree (\(treeSize) bytes); give the machine more memory"
    )
  }

  /// The highest aligned address with room for `size` bytes under `top` and not under `bottom`.
  private static func below(_ top: UInt64, _ size: UInt64, _ alignment: UInt64, _ bottom: UInt64) -> UInt64? {
    guard size <= top else { return nil }
    let address = (top - size) / alignment * alignment
    return address >= bottom ? address : nil
  }

  private static func blob(
    _ tree: DeviceTree, commandLine: String?, initialRAMDisk: Range<UInt64>?, seed: [UInt8]
  ) -> [UInt8] {
    var tree = tree
    var chosen = ChosenParameters()
    chosen.commandLine = commandLine
    chosen.initialRAMDisk = initialRAMDisk
    chosen.randomSeed = seed
    chosen.apply(to: &tree)
    return tree.flattened()
  }

  /// Writes everything into RAM. `seed`: fresh entropy of `seedLength` bytes.
  func load(into memory: GuestMemory, seed: [UInt8]) {
    for piece in pieces {
      // Checked against RAM when the plan was made.
      guard let target = memory.bytes(at: PhysicalAddress(piece.address), count: piece.memorySize) else { continue }
      let count = min(piece.contents.count, target.count)
      piece.contents.withUnsafeBytes { source in
        UnsafeMutableRawBufferPointer(rebasing: target[..<count]).copyMemory(
          from: UnsafeRawBufferPointer(rebasing: source[..<count]))
      }
      if count < target.count {
        UnsafeMutableRawBufferPointer(rebasing: target[count...]).initializeMemory(as: UInt8.self, repeating: 0)
      }
    }
    memory.noteWriteAnywhere()
    if let initialRAMDisk, let contents = initialRAMDiskContents {
      contents.withUnsafeBytes { _ = memory.copy($0, to: PhysicalAddress(initialRAMDisk.lowerBound)) }
    }
    BootPlan.blob(tree, commandLine: commandLine, initialRAMDisk: initialRAMDisk, seed: seed).withUnsafeBytes {
      _ = memory.copy($0, to: PhysicalAddress(deviceTreeAddress))
    }
  }
}

import Board
import Foundation
import Testing

@Suite("Device tree") struct DeviceTreeTests {
  private static func boardTree(harts: Int = 2, bits: Int = 39) -> DeviceTree {
    BoardDeviceTree(
      hartCount: harts, memorySize: 1 << 30, virtualAddressBits: bits,
      instructionSet: InstructionSetDescription(
        string: "rv64imafdc_zicbom_zicsr", extensions: ["i", "m", "a", "f", "d", "c", "zicbom", "zicsr"]),
      virtioSlots: [0, 1]
    ).tree()
  }

  @Test func flattenedTreesReadBackTheSame() throws {
    var tree = DeviceTreeTests.boardTree()
    var chosen = ChosenParameters()
    chosen.commandLine = "console=ttyS0 quiet"
    chosen.initialRAMDisk = 0x8800_0000..<0x8900_0000
    chosen.randomSeed = [UInt8](0..<32)
    chosen.apply(to: &tree)
    let read = try DeviceTree(flattened: Data(tree.flattened()))
    #expect(read == tree)
    #expect(read["/chosen"]?.string("bootargs") == "console=ttyS0 quiet")
    #expect(read["/chosen"]?.numbers("linux,initrd-end") == [0x8900_0000])
    #expect(read["/cpus/cpu@1"]?.string("mmu-type") == "riscv,sv39")
    #expect(read["/cpus/cpu@0"]?.cells("riscv,cbom-block-size") == [64])
    #expect(read["/cpus/cpu@0"]?["riscv,cboz-block-size"] == nil)
    #expect(read["/soc/test@100000"]?.strings("compatible") == ["sifive,test1", "sifive,test0", "syscon"])
    #expect(read["/memory@80000000"]?.numbers("reg") == [0x8000_0000, 1 << 30])
  }

  @Test func memoryOfABroughtTreeIsReplaced() throws {
    var tree = DeviceTreeTests.boardTree()
    tree.setMemory(base: 0x8000_0000, size: 4 << 30)
    #expect(tree["/memory@80000000"]?.numbers("reg") == [0x8000_0000, 4 << 30])
    #expect(tree.root.children.filter { $0.name.hasPrefix("memory") }.count == 1)
    tree.root.set("#size-cells", 1)
    tree.setMemory(base: 0x8000_0000, size: 1 << 30)
    #expect(tree["/memory@80000000"]?.cells("reg") == [0, 0x8000_0000, 1 << 30])
  }

  /// Debian's `dtc` reads the tree, and complains about nothing that it doesn't complain about in QEMU's own.
  @Test(arguments: [1, 3, 17]) func theCompilerAcceptsIt(harts: Int) throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("tree-\(UUID().uuidString).dtb")
    try Data(DeviceTreeTests.boardTree(harts: harts, bits: 57).flattened()).write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    let dtc = Process()
    dtc.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    dtc.arguments = ["dtc", "-I", "dtb", "-O", "dts", file.path]
    let output = Pipe()
    let errors = Pipe()
    dtc.standardOutput = output
    dtc.standardError = errors
    try dtc.run()
    let source = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    let complaints = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    dtc.waitUntilExit()
    #expect(dtc.terminationStatus == 0, "dtc (package device-tree-compiler) failed or is missing: \(complaints)")
    #expect(source.contains("riscv-virtio"))
    let known = "interrupt-controller: Missing #address-cells in interrupt provider"
    for line in complaints.split(separator: "\n") { #expect(line.contains(known), "\(line)") }
  }

  @Test func damagedTreesAreRefused() throws {
    let good = DeviceTreeTests.boardTree(harts: 1).flattened()
    for length in stride(from: 0, to: good.count, by: 7) {
      #expect(throws: BootError.self) { try DeviceTree(flattened: Data(good.prefix(length))) }
    }
    // Any single damaged byte is refused or read as some other tree; it never ends the process.
    for index in good.indices {
      for value in [0, 0x7F, 0xFF] as [UInt8] {
        var bad = good
        bad[index] = value
        _ = try? DeviceTree(flattened: Data(bad))
      }
    }
    #expect(throws: BootError.self) { try DeviceTree(flattened: Data(repeating: 0xFF, count: 100)) }
  }

  @Test func deepNestingIsRefused() throws {
    var node = DeviceTree.Node("n")
    for _ in 0..<100 {
      var outer = DeviceTree.Node("n")
      outer.children = [node]
      node = outer
    }
    let bytes = Data(DeviceTree(root: node).flattened())
    #expect(throws: BootError.self) { try DeviceTree(flattened: bytes) }
  }
}

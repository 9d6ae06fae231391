import Board
import Bus
import Foundation
import Hart
import Testing

@Suite("Boot") struct BootTests {
  private static let kernelAddress: UInt64 = 0x8020_0000

  private func message(_ boot: BootDescription, change: (inout BoardConfiguration) -> Void = { _ in }) -> String {
    var configuration = BoardConfiguration(memorySize: 16 << 20, boot: boot)
    change(&configuration)
    do {
      _ = try Board(configuration)
      return "accepted"
    } catch { return "\(error)" }
  }

  /// A Linux Image: header, then a loop.
  private static func linuxImage(size: UInt64 = 0x10_0000) -> [UInt8] {
    func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
      withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
    return little(UInt32(0x6F)) + little(UInt32(0)) + little(UInt64(0x20_0000)) + little(size) + little(UInt64(0))
      + little(UInt32(2)) + little(UInt32(0)) + little(UInt64(0)) + little(UInt64(0x5643_5349_52))
      + little(UInt32(0x0543_5352)) + little(UInt32(0))
  }

  /// `bytes` as a gzip file with one stored block.
  private static func gzip(_ bytes: [UInt8]) -> Data {
    var crc = ~UInt32(0)
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 != 0 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    let count = UInt16(bytes.count)
    var file: [UInt8] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 1]
    file += [UInt8(count & 0xFF), UInt8(count >> 8), UInt8(~count & 0xFF), UInt8(~count >> 8)] + bytes
    for value in [~crc, UInt32(bytes.count)] { file += withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    return Data(file)
  }

  @Test func aKernelStartsInSupervisorModeWithItsTree() throws {
    let disk = Data((0..<5000).map { UInt8($0 & 0xFF) })
    let machine = try BoardUnderTest(
      BootDescription(
        kernel: BootFile(name: "Image", contents: Data(BootTests.linuxImage())),
        initialRAMDisk: BootFile(name: "initrd", contents: disk), commandLine: "console=hvc0"),
      harts: 2, memorySize: 64 << 20)
    let hart = machine.board.harts[0]
    #expect(machine.board.harts.map(\.lifecycle) == [.started, .stopped])
    #expect(hart.run(limit: 1) == .instructionLimit)
    #expect(hart.pc == BootTests.kernelAddress)
    #expect(hart.privilege == .supervisor)
    #expect(hart[x: 10] == 0)
    let bytes = try #require(machine.board.memory.bytes(at: PhysicalAddress(hart[x: 11]), count: 16384))
    let tree = try DeviceTree(flattened: Data(bytes))
    let chosen = try #require(tree["/chosen"])
    #expect(chosen.string("bootargs") == "console=hvc0")
    #expect(chosen["rng-seed"]?.count == 32)
    let start = try #require(chosen.numbers("linux,initrd-start").first)
    #expect(chosen.numbers("linux,initrd-end") == [start + 5000])
    #expect(start % 4096 == 0)
    let loaded = try #require(machine.board.memory.bytes(at: PhysicalAddress(start), count: 5000))
    #expect(Data(loaded) == disk)
    #expect(tree["/cpus/cpu@1"] != nil)
    #expect(hart.readCSR(0x302) == 0xB1FF)
    #expect(hart.readCSR(0x303) == 0x222)
    #expect((hart.readCSR(0x30A) ?? 0) >> 62 == 3)
  }

  @Test func compressedKernelsAreUnpacked() throws {
    let machine = try BoardUnderTest(
      BootDescription(kernel: BootFile(name: "Image.gz", contents: BootTests.gzip(BootTests.linuxImage()))))
    #expect(machine.board.memory.load(PhysicalAddress(BootTests.kernelAddress), as: UInt32.self) == 0x6F)
    let damaged = BootTests.gzip(BootTests.linuxImage()).dropLast(6)
    #expect(
      message(BootDescription(kernel: BootFile(name: "Image.gz", contents: damaged))).contains("damaged or truncated"))
  }

  @Test func anElfLinkedForVirtualAddressesIsMoved() throws {
    var builder = ELFBuilder(instructions: [0x6F])
    builder.segments = [(0, 0xFFFF_FFFF_8000_0000, [0x6F, 0, 0, 0], 4096)]
    builder.entry = 0xFFFF_FFFF_8000_0000
    let machine = try BoardUnderTest(BootDescription(kernel: BootFile("vmlinux", builder)))
    _ = machine.board.harts[0].run(limit: 1)
    #expect(machine.board.harts[0].pc == BootTests.kernelAddress)
  }

  @Test func firmwareFindsTheNextStage() throws {
    // Firmware that stores what it was given.
    let firmware = BootFile.program { assembler in
      assembler.li(TestAssembler.t0, 0x8000_8000)
      assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a0)
      assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a1, immediate: 8)
      for index in 0..<6 as Range<Int64> {
        assembler.emit(.ld, rd: TestAssembler.a3, rs1: TestAssembler.a2, immediate: index * 8)
        assembler.emit(.sd, rs1: TestAssembler.t0, rs2: TestAssembler.a3, immediate: 16 + index * 8)
      }
      assembler.store(0x5555, at: 0x10_0000, as: .sw)
      assembler.halt()
    }
    let machine = try BoardUnderTest(
      BootDescription(
        firmware: .file(firmware), kernel: BootFile(name: "u-boot.bin", contents: Data([0x6F, 0, 0, 0]))))
    #expect(machine.run() == .shutdown(code: 0))
    let stored = (0..<8).map { machine.load(0x8000_8000 + 8 * UInt64($0)) ?? 0 }
    #expect(stored[0] == 0)
    #expect(machine.board.memory.load(PhysicalAddress(stored[1]), as: UInt32.self) == UInt32(0xD00D_FEED).byteSwapped)
    #expect(Array(stored[2...]) == [0x4942_534F, 2, BootTests.kernelAddress, 1, 0, 0])
  }

  /// Debian's OpenSBI starts a kernel in S-mode, serves its SBI calls and switches the machine off.
  @Test(.enabled(if: FileManager.default.fileExists(atPath: BootTests.openSBI), "needs the Debian package opensbi"))
  func openSBIStartsAKernel() throws {
    let kernel = BootFile.program(
      { assembler in
        for byte in "S-mode!".utf8 { assembler.sbi(1, 0, UInt64(byte)) }
        assembler.sbi(0x5352_5354, 0, 0, 0)
        assembler.halt()
      }, at: BootTests.kernelAddress)
    let machine = try BoardUnderTest(
      BootDescription(firmware: .file(try BootFile(path: BootTests.openSBI)), kernel: kernel), memorySize: 64 << 20)
    #expect(machine.run(limit: 50_000_000) == .shutdown(code: 0))
    #expect(machine.console.output.contains("OpenSBI"))
    #expect(machine.console.output.contains("S-mode!"))
  }

  private static let openSBI = "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"

  @Test func aBroughtTreeIsCompleted() throws {
    var tree = DeviceTree()
    tree.root.set("#address-cells", 2)
    tree.root.set("#size-cells", 2)
    tree.root.set("model", "mine")
    let machine = try BoardUnderTest(
      BootDescription(
        kernel: BootFile(name: "Image", contents: Data(BootTests.linuxImage())), commandLine: "quiet",
        deviceTree: BootFile(name: "mine.dtb", contents: Data(tree.flattened()))))
    _ = machine.board.harts[0].run(limit: 1)
    let bytes = try #require(
      machine.board.memory.bytes(at: PhysicalAddress(machine.board.harts[0][x: 11]), count: 1024))
    let read = try DeviceTree(flattened: Data(bytes))
    #expect(read.root.string("model") == "mine")
    #expect(read["/memory@80000000"]?.numbers("reg") == [0x8000_0000, 16 << 20])
    #expect(read["/chosen"]?.string("bootargs") == "quiet")
  }

  @Test func mistakesAreNamed() {
    func kernel(_ bytes: [UInt8]) -> BootDescription {
      BootDescription(kernel: BootFile(name: "vmlinuz", contents: Data(bytes)))
    }
    #expect(message(BootDescription()).contains("nothing to boot"))
    var arm = [UInt8](repeating: 0, count: 1024)
    arm.replaceSubrange(0x38..<0x3C, with: [0x41, 0x52, 0x4D, 0x64])
    #expect(message(kernel(arm)).contains("vmlinuz: a kernel for another architecture (aarch64)"))
    var x86 = [UInt8](repeating: 0, count: 1024)
    x86.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
    #expect(message(kernel(x86)).contains("another architecture (x86)"))
    #expect(message(kernel([])).contains("the file is empty"))
    #expect(message(kernel(BootTests.linuxImage(size: 1 << 40))).contains("doesn't fit into RAM"))
    var outside = ELFBuilder(instructions: [0x6F], at: 0x1_0000)
    outside.entry = 0x1_0000
    #expect(message(BootDescription(firmware: .none, kernel: BootFile("p.elf", outside))).contains("outside RAM"))
    var overlapping = ELFBuilder(instructions: [0x6F])
    overlapping.segments = Array(repeating: (0x8000_0000, 0x8000_0000, [0x6F, 0, 0, 0], 10 << 20), count: 2)
    #expect(message(BootDescription(firmware: .none, kernel: BootFile("p.elf", overlapping))).contains("overlap"))
    let image = BootFile(name: "Image", contents: Data(BootTests.linuxImage()))
    #expect(
      message(
        BootDescription(kernel: image, initialRAMDisk: BootFile(name: "initrd.img", contents: Data(count: 15 << 20)))
      ).contains("initrd.img: the initial RAM disk"))
    let firmware = BootFile.program { $0.halt() }
    #expect(
      message(BootDescription(firmware: .file(firmware), kernel: firmware)).contains("same memory as the firmware"))
    #expect(
      message(BootDescription(kernel: image, deviceTree: BootFile(name: "x.dtb", contents: Data([1, 2, 3]))))
        .contains("x.dtb: not a flattened device tree"))
    #expect(message(BootDescription(kernel: image)) { $0.hartCount = 0 }.contains("0 harts"))
    #expect(message(BootDescription(kernel: image)) { $0.memorySize = 3 }.contains("3 bytes of RAM"))
    #expect(message(BootDescription(kernel: image)) { $0.hart.virtualAddressBits = 40 }.contains("40-bit"))
  }

  @Test func flashIsStartedWhereThereIsNothingElse() throws {
    // jal x0, 0
    let machine = try BoardUnderTest(BootDescription(firmware: .none)) { configuration in
      configuration.flash.0 = .init(contents: Data([0x6F, 0, 0, 0]))
    }
    _ = machine.board.harts[0].run(limit: 20)
    #expect(machine.board.harts[0].pc == 0x2000_0000)
  }
}

import Bus
import RISCV

/// What the device tree says about the harts' instruction set.
public struct InstructionSetDescription: Hashable, Sendable {
  /// The ISA string, lower case ("rv64imafdc_zicsr_zifencei").
  public var string: String
  /// The base alone ("rv64i").
  public var base: String
  /// Single extensions ("i", "m", "zicsr"), as riscv,isa-extensions lists them.
  public var extensions: [String]
  /// Bytes that Zicbom, Zicbop and Zicboz work on; nil where the hart has none of them.
  public var cacheBlockSize: UInt32?

  public init(string: String, base: String = "rv64i", extensions: [String], cacheBlockSize: UInt32? = 64) {
    self.string = string
    self.base = base
    self.extensions = extensions
    self.cacheBlockSize = cacheBlockSize
  }

  /// What a hart with these extensions implements.
  public init(_ extensions: ExtensionSet) {
    self.init(string: extensions.isaString, base: ExtensionSet.base, extensions: extensions.names)
  }
}

/// What a boot loader tells the kernel in the node /chosen.
package struct ChosenParameters {
  package var commandLine: String?
  package var initialRAMDisk: Range<UInt64>?
  /// Entropy for the kernel's random number generator.
  package var randomSeed: [UInt8] = []

  package init() {}

  package func apply(to tree: inout DeviceTree) {
    tree.root.withChild("chosen") { chosen in
      if let commandLine, !commandLine.isEmpty { chosen.set("bootargs", commandLine) }
      if let initialRAMDisk {
        chosen.set("linux,initrd-start", numbers: [initialRAMDisk.lowerBound])
        chosen.set("linux,initrd-end", numbers: [initialRAMDisk.upperBound])
      }
      chosen["rng-seed"] = randomSeed.isEmpty ? nil : randomSeed
    }
  }
}

/// The device tree of a board, in the shape of QEMU's `virt` machine, from what is really there.
package struct BoardDeviceTree {
  var hartCount: Int
  var memorySize: UInt64
  var virtualAddressBits: Int
  var instructionSet: InstructionSetDescription
  /// Occupied virtio-mmio slots.
  var virtioSlots: [Int]

  // Handles of nodes that others point at.
  private let interruptControllerHandle: UInt32 = 1
  private let testHandle: UInt32 = 2
  private func hartHandle(_ hart: Int) -> UInt32 { 3 + 2 * UInt32(hart) }
  private func hartInterruptHandle(_ hart: Int) -> UInt32 { 4 + 2 * UInt32(hart) }

  package init(
    hartCount: Int, memorySize: UInt64, virtualAddressBits: Int, instructionSet: InstructionSetDescription,
    virtioSlots: [Int]
  ) {
    self.hartCount = hartCount
    self.memorySize = memorySize
    self.virtualAddressBits = virtualAddressBits
    self.instructionSet = instructionSet
    self.virtioSlots = virtioSlots
  }

  package func tree() -> DeviceTree {
    var root = DeviceTree.Node("")
    root.set("#address-cells", 2)
    root.set("#size-cells", 2)
    root.set("compatible", "riscv-virtio")
    root.set("model", "riscv-virtio,yadori")
    root.withChild("chosen") { $0.set("stdout-path", "/soc/serial@10000000") }
    root.children.append(DeviceTree.memoryNode(base: MemoryMap.ramBase, size: memorySize))
    root.children.append(harts())
    root.children.append(systemControl("poweroff", "syscon-poweroff", value: TestFinisher.Command.pass))
    root.children.append(systemControl("reboot", "syscon-reboot", value: TestFinisher.Command.reset))
    root.withChild("flash@20000000") { flash in
      flash.set("compatible", "cfi-flash")
      flash.set("reg", numbers: [MemoryMap.flash0, MemoryMap.flash1].flatMap { [$0.base.rawValue, $0.size] })
      flash.set("bank-width", 4)
    }
    root.withChild("soc") { soc in
      soc.set("#address-cells", 2)
      soc.set("#size-cells", 2)
      soc.set("compatible", "simple-bus")
      soc.set("ranges")
      soc.children =
        [test(), realTimeClock(), generationIdentifier(), clint(), plic(), serial()] + virtioSlots.map(virtio) + [pci()]
    }
    return DeviceTree(root: root)
  }

  private func harts() -> DeviceTree.Node {
    var harts = DeviceTree.Node("cpus")
    harts.set("#address-cells", 1)
    harts.set("#size-cells", 0)
    harts.set("timebase-frequency", UInt32(GuestClock.frequency))
    for index in 0..<hartCount {
      harts.withChild("cpu@\(String(index, radix: 16))") { hart in
        hart.set("device_type", "cpu")
        hart.set("reg", UInt32(index))
        hart.set("status", "okay")
        hart.set("compatible", "riscv")
        hart.set("riscv,isa", instructionSet.string)
        hart.set("riscv,isa-base", instructionSet.base)
        hart.set("riscv,isa-extensions", strings: instructionSet.extensions)
        if let size = instructionSet.cacheBlockSize {
          for operation in ["cbom", "cbop", "cboz"]
          where instructionSet.extensions.contains("zi" + operation) {
            hart.set("riscv,\(operation)-block-size", size)
          }
        }
        hart.set("mmu-type", "riscv,sv\(virtualAddressBits)")
        hart.set("phandle", hartHandle(index))
        hart.withChild("interrupt-controller") { controller in
          controller.set("#interrupt-cells", 1)
          controller.set("interrupt-controller")
          controller.set("compatible", "riscv,cpu-intc")
          controller.set("phandle", hartInterruptHandle(index))
        }
      }
    }
    harts.withChild("cpu-map") { map in
      map.withChild("cluster0") { cluster in
        for index in 0..<hartCount { cluster.withChild("core\(index)") { $0.set("cpu", hartHandle(index)) } }
      }
    }
    return harts
  }

  private func systemControl(_ name: String, _ compatible: String, value: UInt32) -> DeviceTree.Node {
    var node = DeviceTree.Node(name)
    node.set("compatible", compatible)
    node.set("regmap", testHandle)
    node.set("offset", 0)
    node.set("value", value)
    return node
  }

  private func device(_ name: String, _ region: MemoryMap.Region, _ compatible: String...) -> DeviceTree.Node {
    var node = DeviceTree.Node("\(name)@\(String(region.base.rawValue, radix: 16))")
    node.set("compatible", strings: compatible)
    node.set("reg", numbers: [region.base.rawValue, region.size])
    return node
  }

  private func interrupting(_ node: DeviceTree.Node, source: Int) -> DeviceTree.Node {
    var node = node
    node.set("interrupts", UInt32(source))
    node.set("interrupt-parent", interruptControllerHandle)
    return node
  }

  private func test() -> DeviceTree.Node {
    var node = device("test", MemoryMap.testFinisher, "sifive,test1", "sifive,test0", "syscon")
    node.set("phandle", testHandle)
    return node
  }

  private func realTimeClock() -> DeviceTree.Node {
    interrupting(
      device("rtc", MemoryMap.realTimeClock, "google,goldfish-rtc"), source: MemoryMap.Source.realTimeClock)
  }

  private func generationIdentifier() -> DeviceTree.Node {
    interrupting(
      device("rng", MemoryMap.generationIdentifier, "microsoft,vmgenid"),
      source: MemoryMap.Source.generationIdentifier)
  }

  private func serial() -> DeviceTree.Node {
    var node = interrupting(device("serial", MemoryMap.uart, "ns16550a"), source: MemoryMap.Source.uart)
    node.set("clock-frequency", UART16550.clockFrequency)
    return node
  }

  private func virtio(_ slot: Int) -> DeviceTree.Node {
    var node = interrupting(
      device("virtio_mmio", MemoryMap.virtioMMIO(slot: slot), "virtio,mmio"),
      source: MemoryMap.Source.virtioMMIO(slot: slot))
    node.set("dma-coherent")
    return node
  }

  private func clint() -> DeviceTree.Node {
    var node = device("clint", MemoryMap.clint, "sifive,clint0", "riscv,clint0")
    node.set(
      "interrupts-extended",
      cells: (0..<hartCount).flatMap { [hartInterruptHandle($0), 3, hartInterruptHandle($0), 7] })
    return node
  }

  private func plic() -> DeviceTree.Node {
    var node = device("plic", MemoryMap.plic, "sifive,plic-1.0.0", "riscv,plic0")
    node.set("#address-cells", 0)
    node.set("#interrupt-cells", 1)
    node.set("interrupt-controller")
    node.set(
      "interrupts-extended",
      cells: (0..<hartCount).flatMap { [hartInterruptHandle($0), 11, hartInterruptHandle($0), 9] })
    node.set("riscv,ndev", UInt32(PLIC.sourceCount))
    node.set("phandle", interruptControllerHandle)
    return node
  }

  private func pci() -> DeviceTree.Node {
    var node = device("pci", MemoryMap.pciConfiguration, "pci-host-ecam-generic")
    node.set("device_type", "pci")
    node.set("#address-cells", 3)
    node.set("#size-cells", 2)
    node.set("#interrupt-cells", 1)
    node.set("linux,pci-domain", 0)
    node.set("bus-range", cells: [0, 0xFF])
    node.set("dma-coherent")
    node.set("ranges", cells: pciRanges())
    // Slots and pins: pin p of slot s is wire (s + p) mod 4 (PCI Local Bus 3.0, 2.2.6).
    node.set("interrupt-map-mask", cells: [0x1800, 0, 0, 7])
    node.set(
      "interrupt-map",
      cells: (0..<4).flatMap { slot in
        (0..<4).flatMap { pin -> [UInt32] in
          let source = UInt32(PCIHostBridge.interruptSource(slot: slot, pin: pin))
          return [UInt32(slot) << 11, 0, 0, UInt32(pin) + 1, interruptControllerHandle, source]
        }
      })
    return node
  }

  private func pciRanges() -> [UInt32] {
    func range(_ space: UInt32, pci: UInt64, _ region: MemoryMap.Region) -> [UInt32] {
      [space] + [pci, region.base.rawValue, region.size].flatMap { [UInt32($0 >> 32), UInt32($0 & 0xFFFF_FFFF)] }
    }
    let memory64 = MemoryMap.pciMemory64(ramSize: memorySize)
    return range(0x0100_0000, pci: 0, MemoryMap.pciPorts)
      + range(0x0200_0000, pci: MemoryMap.pciMemory32.base.rawValue, MemoryMap.pciMemory32)
      + range(0x0300_0000, pci: memory64.base.rawValue, memory64)
  }
}

extension DeviceTree {
  static func memoryNode(base: UInt64, size: UInt64) -> Node {
    var node = Node("memory@\(String(base, radix: 16))")
    node.set("device_type", "memory")
    node.set("reg", numbers: [base, size])
    return node
  }

  /// Replaces whatever the tree says about RAM: for trees that people bring.
  package mutating func setMemory(base: UInt64, size: UInt64) {
    root.children.removeAll { $0.name == "memory" || $0.name.hasPrefix("memory@") }
    var node = DeviceTree.memoryNode(base: base, size: size)
    // The cells of the root say how wide the numbers are; two each unless the tree says otherwise.
    let widths = ["#address-cells", "#size-cells"].map { root.cells($0).first ?? 2 }
    let cells = zip(widths, [base, size]).flatMap { width, number -> [UInt32] in
      width == 1 ? [UInt32(truncatingIfNeeded: number)] : [UInt32(number >> 32), UInt32(truncatingIfNeeded: number)]
    }
    node.set("reg", cells: cells)
    root.children.append(node)
  }
}

import Board
import Foundation
import FuzzSupport

@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutableRawPointer?, _ arguments: UnsafeMutableRawPointer?) -> Int32 {
  var small = DeviceTree.Node("")
  small.set("#address-cells", 2)
  var large = small
  large.set("compatible", "riscv-virtio", "virtio")
  large.withChild("cpus") { cpus in
    cpus.set("timebase-frequency", 10_000_000)
    cpus.withChild("cpu@0") { $0.set("reg", cells: [0]) }
  }
  large.withChild("chosen") { $0.set("bootargs", "console=hvc0") }
  writeSeeds([DeviceTree(root: small).flattened(), DeviceTree(root: large).flattened()])
  return 0
}

/// Any bytes are a tree or an error; a tree that was read is written, and read again as the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer?, _ size: Int) -> Int32 {
  let bytes = Data(UnsafeRawBufferPointer(start: data, count: size))
  for contents in [bytes, (Data([0]) + bytes).dropFirst()] {
    do {
      let tree = try DeviceTree(flattened: contents, name: "fuzz")
      touch(tree.root)
      _ = tree["/cpus/cpu@0"]
      // Names that aren't text are replaced by longer ones, which may be too long to be read.
      guard longestName(tree.root) < 256 else { continue }
      let written = tree.flattened()
      guard let again = try? DeviceTree(flattened: Data(written)) else { fatalError("what was written can't be read") }
      precondition(again == tree && again.flattened() == written)
    } catch {
      precondition(!"\(error)".isEmpty && !"\(error)".contains("\n"))
    }
  }
  return 0
}

private func touch(_ node: DeviceTree.Node) {
  for property in node.properties {
    _ = node.string(property.name)
    _ = node.strings(property.name)
    _ = node.cells(property.name)
    _ = node.numbers(property.name)
  }
  for child in node.children { touch(child) }
}

private func longestName(_ node: DeviceTree.Node) -> Int {
  let names = [node.name.utf8.count] + node.properties.map(\.name.utf8.count) + node.children.map(longestName)
  return names.max() ?? 0
}

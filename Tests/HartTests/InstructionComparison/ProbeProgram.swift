import Foundation

/// A guest program that runs every case of a list of probes: it reads the records of the cases from standard input and
/// writes their results to standard output with Linux system calls, so that `qemu-riscv64` runs it as it is; a hart
/// runs it in S-mode with the system calls served by the test.
struct ProbeProgram {
  static let codeAddress: UInt64 = 0x8000_0000
  static let blockPage: UInt64 = 0x8100_0000
  static let inputAddress: UInt64 = 0x8200_0000
  static let outputAddress: UInt64 = 0x8c00_0000
  static let memoryEnd: UInt64 = 0x9800_0000

  let probes: [Probe]
  let executable: URL
  let input: Data
  let outputCount: Int
  /// Where the hart's traps go: none is expected.
  var trapAddress: UInt64 { Self.codeAddress }
  var entryAddress: UInt64 { Self.codeAddress + 4 }

  /// Assembles and links the program into `directory` with the toolchain's clang and lld.
  init(_ probes: [Probe], in directory: URL) throws {
    self.probes = probes
    var bytes = Data(capacity: probes.reduce(0) { $0 + $1.words.count * 8 })
    for probe in probes { probe.words.withUnsafeBytes { bytes.append(contentsOf: $0) } }
    input = bytes
    outputCount = probes.reduce(0) { $0 + $1.caseCount * $1.outputWords * 8 }
    precondition(UInt64(bytes.count) <= Self.outputAddress - Self.inputAddress)
    precondition(UInt64(outputCount) <= Self.memoryEnd - Self.outputAddress)

    let source = directory.appendingPathComponent("probes.s")
    try Self.assembly(probes, inputCount: bytes.count, outputCount: outputCount)
      .write(to: source, atomically: true, encoding: .utf8)
    executable = directory.appendingPathComponent("probes")
    func section(_ name: String, _ address: UInt64) -> String {
      "-Wl,--section-start=.\(name)=0x\(String(address, radix: 16))"
    }
    try HostTool.clang.run([
      "--target=riscv64-unknown-none-elf",
      "-march=rv64gc_zba_zbb_zbc_zbs_zbkb_zbkx_zknd_zkne_zknh_zicond", "-mabi=lp64d", "-mno-relax",
      "-nostdlib", "-static", "-fuse-ld=lld", "-Wl,-Ttext=0x\(String(Self.codeAddress, radix: 16))",
      section("block", Self.blockPage), section("input", Self.inputAddress), section("output", Self.outputAddress),
      source.path, "-o", executable.path,
    ])
  }

  private static func assembly(_ probes: [Probe], inputCount: Int, outputCount: Int) -> String {
    var text = """
      .text
      trap: .option push
      .option norvc
      j trap
      .option pop
      .globl _start
      _start:
      li x20, \(inputAddress)
      li x21, \(inputAddress + UInt64(inputCount))
      read_input:
      li a0, 0
      mv a1, x20
      sub a2, x21, x20
      beqz a2, begin
      li a7, 63
      ecall
      blez a0, failed
      add x20, x20, a0
      j read_input
      failed:
      li a0, 1
      li a7, 93
      ecall
      begin:
      li x27, \(MemoryProbes.blockAddress)
      li x30, \(outputAddress)
      li x31, \(inputAddress)

      """
    for probe in probes { text += loop(probe) }
    text += """
      li x20, \(outputAddress)
      li x21, \(outputAddress + UInt64(outputCount))
      write_output:
      li a0, 1
      mv a1, x20
      sub a2, x21, x20
      beqz a2, end
      li a7, 64
      ecall
      blez a0, failed
      add x20, x20, a0
      j write_output
      end:
      li a0, 0
      li a7, 93
      ecall
      .section .block,"aw",@nobits
      .space 8192
      .section .input,"aw",@nobits
      .space \(inputCount + 8)
      .section .output,"aw",@nobits
      .space \(outputCount + 8)

      """
    return text
  }

  /// One pass a case. x31 and x30 walk over the records in and out, x29 counts cases, x27 points at the block of memory
  /// and x28 is free for a moment.
  private static func loop(_ probe: Probe) -> String {
    var lines = ["li x29, \(probe.caseCount)", "1:"]
    var offset = 8 * probe.inputs.count
    if probe.usesControl {
      lines += ["ld x28, \(offset)(x31)", "fscsr x28"]
      offset += 8
    }
    if probe.usesMemory {
      for word in 0..<4 { lines += ["ld x28, \(offset + 8 * word)(x31)", "sd x28, \(8 * word)(x27)"] }
    }
    for (index, register) in probe.inputs.enumerated() where register != "x0" {
      lines.append("\(register.hasPrefix("f") ? "fld" : "ld") \(register), \(8 * index)(x31)")
    }
    lines.append(probe.assembly)
    for (index, register) in probe.outputs.enumerated() {
      lines.append("\(register.hasPrefix("f") ? "fsd" : "sd") \(register), \(8 * index)(x30)")
    }
    offset = 8 * probe.outputs.count
    if probe.usesControl {
      lines += ["frcsr x28", "sd x28, \(offset)(x30)"]
      offset += 8
    }
    if probe.usesMemory {
      for word in 0..<4 { lines += ["ld x28, \(8 * word)(x27)", "sd x28, \(offset + 8 * word)(x30)"] }
    }
    lines += [
      "addi x31, x31, \(8 * probe.inputWords)", "addi x30, x30, \(8 * probe.outputWords)", "addi x29, x29, -1",
      "bnez x29, 1b",
    ]
    return lines.joined(separator: "\n") + "\n"
  }

  /// The bytes of the program's code, which begins at `codeAddress`.
  func code() throws -> Data {
    let raw = executable.appendingPathExtension("bin")
    try HostTool.objcopy.run(["-O", "binary", "--only-section=.text", executable.path, raw.path])
    return try Data(contentsOf: raw)
  }
}

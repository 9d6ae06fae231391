import Bus
import Synchronization

/// The architectural state of a hart and the few words that the run loop keeps beside it: plain integers in one block of
/// memory, reached through one pointer (and, from generated code, through one host register).
package struct HartState {
  /// x0...x31, then a place that takes the writes to x0: the decoder renames a destination of x0 to 32.
  package var x = InlineArray<33, UInt64>(repeating: 0)

  // What generated code uses most, near the registers.

  /// Translation caches of the present contexts; see `TranslationCache`.
  package var readEntries: UnsafeMutablePointer<TranslationEntry>
  package var writeEntries: UnsafeMutablePointer<TranslationEntry>
  package var fetchEntries: UnsafeMutablePointer<FetchEntry>
  /// The virtual address of the page that generated code executes.
  package var pageBase: UInt64 = 0

  /// f0...f31. A single-precision value is NaN-boxed in the low half.
  package var f = InlineArray<32, UInt64>(repeating: 0)
  package var pc: UInt64 = 0
  package var privilege = Privilege.machine
  /// fflags and frm of fcsr.
  package var floatingPointFlags: UInt8 = 0
  package var floatingPointRounding: UInt8 = 0

  /// The `TranslationCache.Context` of the present loads and stores, and the one that holds when SUM changes; nil: not
  /// known. S-mode code that generated code has been made of changes between them.
  package var dataContext: UnsafeMutableRawPointer
  package var alternateContext: UnsafeMutableRawPointer?

  /// Instructions retired since the machine was new.
  package var retired: UInt64 = 0

  /// The exception that a slow path has just found; see `Hart.raise`.
  package var trapCause: UInt64 = 0
  package var trapValue: UInt64 = 0

  // LR/SC: the reserved physical address (all ones: none), the value LR saw and the width in bytes.
  package var reservedAddress: UInt64 = ~0
  package var reservedValue: UInt64 = 0
  package var reservedWidth: UInt64 = 0

  package var mstatus: UInt64 = MachineStatus.fixed
  package var medeleg: UInt64 = 0
  package var mideleg: UInt64 = 0
  package var mie: UInt64 = 0
  package var mtvec: UInt64 = 0
  package var mcounteren: UInt64 = 0
  package var mcountinhibit: UInt64 = 0
  package var mscratch: UInt64 = 0
  package var mepc: UInt64 = 0
  package var mcause: UInt64 = 0
  package var mtval: UInt64 = 0
  /// A and D bits are the hart's business at reset, as on QEMU's board: programs without firmware (xv6) rely on it.
  /// Firmware that reads "svade" in the device tree, and the built-in SBI, switch it off for the kernel.
  package var menvcfg: UInt64 = EnvironmentConfiguration.accessedAndDirtyUpdate
  package var stvec: UInt64 = 0
  package var scounteren: UInt64 = 0
  package var sscratch: UInt64 = 0
  package var sepc: UInt64 = 0
  package var scause: UInt64 = 0
  package var stval: UInt64 = 0
  package var senvcfg: UInt64 = 0
  package var satp: UInt64 = 0
  package var stimecmp: UInt64 = ~0
  /// Interrupt lines that are raised, as bits of mip; any thread changes them, atomically: see `Hart.lines`.
  package var lines: UInt64 = 0
  /// The part of mip.SEIP that M-mode software sets; the interrupt controller's line is kept apart (3.1.9).
  package var softwareExternal: UInt64 = 0
  /// mcycle and minstret minus `retired`.
  package var cycleOffset: UInt64 = 0
  package var instretOffset: UInt64 = 0
  package var pmpcfg = InlineArray<16, UInt8>(repeating: 0)
  package var pmpaddr = InlineArray<16, UInt64>(repeating: 0)
  /// WFI was executed and nothing has woken the hart since.
  package var isWaiting = false

  // What only generated code uses; see the room Translation.

  /// Instructions left of the present stretch, as far as generated code has counted them.
  package var remaining: Int64 = 0
  /// `retired` plus `remaining`: what `retired` will be at the end of the stretch.
  package var horizon: UInt64 = 0
  /// Where the host's stack stood when generated code was entered, and the bounds of the guest return addresses on it.
  package var hostStack: UInt64 = 0
  package var returnStackBase: UInt64 = 0
  package var returnStackLimit: UInt64 = 0
  /// 1 while the pinned floating-point registers and MXCSR hold the guest's: then mstatus.FS isn't off and frm is
  /// round-to-nearest-even.
  package var isFloatReady: UInt8 = 0
  /// MXCSR for generated code: its flags are those met since they were last moved to `floatingPointFlags`.
  package var guestFloatControl: UInt32 = 0x1F80
  /// fflags by the exception flags of MXCSR (Intel SDM, volume 1, 10.2.3).
  package var flagsOfHost = InlineArray<64, UInt8> { host in
    UInt8(
      (host & 1 != 0 ? 16 : 0) | (host & 4 != 0 ? 8 : 0) | (host & 8 != 0 ? 4 : 0) | (host & 16 != 0 ? 2 : 0)
        | (host & 32 != 0 ? 1 : 0))
  }
  /// See `TranslationCache`.
  package var secondMask: UInt64 = 0
  package var fetchMask: UInt64 = 0
  /// Added to a host address in RAM gives the guest's physical address.
  package var hostToPhysical: UInt64 = 0
  /// What generated code hands to a slow path (the value of a store), and a slow path to generated code.
  package var slowValue: UInt64 = 0
  /// Addresses of access groups: see `AccessGroup`. The last is kept for the time of a slow path.
  package var groupSlots = InlineArray<9, UInt64>(repeating: 0)
  /// Of a loop whose accesses were looked up before it: how many instructions are left beyond those that it counts down,
  /// and what leads from the guest's to the host's addresses; see `LoopAccess`.
  package var loopRest: Int64 = 0
  package var loopAddends = InlineArray<8, UInt64>(repeating: 0)
  // Operands of bitwise operations on floating-point registers, 16 bytes each.
  package var singleBox: InlineArray<2, UInt64> = [0xFFFF_FFFF_0000_0000, 0]
  package var doubleSign: InlineArray<2, UInt64> = [1 << 63, 0]
  package var singleSign: InlineArray<2, UInt64> = [1 << 31, 0]
  /// The translator, for the functions that generated code calls; nil where there is none.
  package var translator: UnsafeMutableRawPointer?
}

/// Bits of mstatus and sstatus (Privileged Architecture, 3.1.6).
package enum MachineStatus {
  package static let sie: UInt64 = 1 << 1
  static let mie: UInt64 = 1 << 3
  static let spie: UInt64 = 1 << 5
  static let mpie: UInt64 = 1 << 7
  static let spp: UInt64 = 1 << 8
  static let mppShift: UInt64 = 11
  static let mpp: UInt64 = 3 << 11
  package static let fs: UInt64 = 3 << 13
  static let mprv: UInt64 = 1 << 17
  package static let sum: UInt64 = 1 << 18
  package static let mxr: UInt64 = 1 << 19
  static let tvm: UInt64 = 1 << 20
  static let tw: UInt64 = 1 << 21
  static let tsr: UInt64 = 1 << 22
  static let sd: UInt64 = 1 << 63
  /// UXL = SXL = 64 bits.
  static let fixed: UInt64 = 2 << 32 | 2 << 34
  static let writable = sie | mie | spie | mpie | spp | mpp | fs | mprv | sum | mxr | tvm | tw | tsr
  package static let supervisorVisible = sie | spie | spp | fs | sum | mxr | 3 << 32 | sd
  package static let supervisorWritable = sie | spie | spp | fs | sum | mxr
}

/// Exception codes (Privileged Architecture, table 14). Interrupts have the top bit set.
enum TrapCause {
  static let instructionAddressMisaligned: UInt64 = 0
  static let instructionAccessFault: UInt64 = 1
  static let illegalInstruction: UInt64 = 2
  static let breakpoint: UInt64 = 3
  static let loadAddressMisaligned: UInt64 = 4
  static let loadAccessFault: UInt64 = 5
  static let storeAddressMisaligned: UInt64 = 6
  static let storeAccessFault: UInt64 = 7
  static let environmentCallFromUser: UInt64 = 8
  static let environmentCallFromSupervisor: UInt64 = 9
  static let environmentCallFromMachine: UInt64 = 11
  static let instructionPageFault: UInt64 = 12
  static let loadPageFault: UInt64 = 13
  static let storePageFault: UInt64 = 15
  static let interrupt: UInt64 = 1 << 63
  /// No trap: a rehearsal ends before an instruction that can't be executed twice.
  static let unrepeatable: UInt64 = 1 << 62
}

/// Bits of menvcfg and senvcfg (Privileged Architecture, 3.1.18).
package enum EnvironmentConfiguration {
  static let fenceOfIO: UInt64 = 1 << 0
  static let cacheBlockInvalidate: UInt64 = 3 << 4
  static let cacheBlockClean: UInt64 = 1 << 6
  package static let cacheBlockZero: UInt64 = 1 << 7
  /// ADUE: the hart updates A and D bits itself (Svadu).
  static let accessedAndDirtyUpdate: UInt64 = 1 << 61
  static let pageBasedMemoryTypes: UInt64 = 1 << 62
  static let supervisorTimer: UInt64 = 1 << 63
  static let supervisorWritable = fenceOfIO | cacheBlockInvalidate | cacheBlockClean | cacheBlockZero
  static let machineWritable = supervisorWritable | accessedAndDirtyUpdate | pageBasedMemoryTypes | supervisorTimer
}

extension UnsafeMutablePointer<HartState> {
  /// Where the fetch translation of an address is, if it is remembered.
  @inline(__always)
  package func fetchEntry(_ address: UInt64) -> UnsafeMutablePointer<FetchEntry> {
    let distance = Int(address >> TranslationCache.fetchShift & pointee.fetchMask)
    return (UnsafeMutableRawPointer(pointee.fetchEntries) + distance).assumingMemoryBound(to: FetchEntry.self)
  }
}

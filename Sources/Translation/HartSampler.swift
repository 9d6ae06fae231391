import CHost
import Hart
import HostSystem

/// Finds out where a hart's guest code is at the moments that somebody asks: a signal looks at the host's registers and at
/// the hart's state, on the hart's own thread. It changes nothing that the guest could notice but time.
package final class HartSampler: @unchecked Sendable {
  package struct Sample {
    /// The guest's virtual address.
    package var pc: UInt64
    package var privilege: UInt8
    package var satp: UInt64
    /// In code that the translator made, as opposed to the interpreter, devices and the translator itself.
    package var isGenerated: Bool
  }

  package let hart: Hart
  private let sampler: UnsafeMutablePointer<chost_sampler>
  /// The sampler points into it.
  private let map: CodeMap?

  /// Before the hart runs. Throws `HostError` where the host has no such signal.
  package init(_ hart: Hart) throws {
    guard chost_sampler_install() == 0 else { throw HostError.last("can't take samples of running code") }
    self.hart = hart
    sampler = .allocate(capacity: 1)
    sampler.initialize(to: chost_sampler())
    sampler.pointee.state = UnsafeRawPointer(hart.state).assumingMemoryBound(to: UInt8.self)
    sampler.pointee.pc = Self.offset(\.pc)
    sampler.pointee.privilege = Self.offset(\.privilege)
    sampler.pointee.satp = Self.offset(\.satp)
    sampler.pointee.page_base = Self.offset(\.pageBase)
    sampler.pointee.fetch_entries = Self.offset(\.fetchEntries)
    sampler.pointee.fetch_mask = Self.offset(\.fetchMask)
    sampler.pointee.fetch_shift = UInt32(TranslationCache.fetchShift)
    sampler.pointee.fetch_tag = UInt32(MemoryLayout<FetchEntry>.offset(of: \.tag)!)
    sampler.pointee.fetch_page = UInt32(MemoryLayout<FetchEntry>.offset(of: \.page)!)
    sampler.pointee.page_physical = UInt32(MemoryLayout<CodePage>.offset(of: \.physical)!)
    map = (hart.engine as? Translator)?.keepMap()
    sampler.pointee.map = map.map { UnsafePointer($0.places) }
    if map == nil {
      // pc is exact between stretches only.
      hart.afterStretch = { [sampler] in chost_sampler_add(sampler) }
    }
  }

  deinit { sampler.deallocate() }

  private static func offset(_ path: PartialKeyPath<HartState>) -> UInt32 {
    UInt32(MemoryLayout<HartState>.offset(of: path)!)
  }

  /// The calling thread, which runs the hart, is the one that is asked.
  package func attach() { chost_sampler_attach(sampler) }

  /// The calling thread isn't asked any more. Before it ends.
  package func detach() { chost_sampler_attach(nil) }

  /// Asks for a sample, which comes a little later. Any thread.
  package func ask() { chost_sampler_ask(sampler) }

  /// Takes the samples that have come. One thread at a time.
  package func drain(_ body: (Sample) -> Void) {
    var sample = chost_sample()
    while chost_sampler_take(sampler, &sample) != 0 {
      body(
        Sample(
          pc: sample.pc, privilege: sample.privilege, satp: sample.satp, isGenerated: sample.is_generated != 0))
    }
  }

  /// How many samples found no room.
  package var lostCount: Int { Int(sampler.pointee.lost) }
}

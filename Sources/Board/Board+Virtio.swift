import Bus
import Virtio

/// A virtio device in its slot.
struct VirtioAttachment {
  let transport: VirtioTransport
  let stateKeeper: any StateKeeper
  /// Connects the device's backend.
  let start: () throws -> Void
  /// Back to the state before any driver saw it.
  let reset: () -> Void

  /// virtio 1.2, 4.2.2: writing zero to the status register resets the device.
  private static let mmioStatus: UInt64 = 0x070
  /// virtio 1.2, 4.1.4.3: the status field of the common structure, which lies at the start of BAR 0.
  private static let pciStatus: UInt64 = 0x14
  private static let messageCapability: UInt32 = 0x11

  init(_ transport: VirtioMMIO) {
    self.transport = transport.transport
    stateKeeper = transport
    start = { try transport.start() }
    reset = { transport.write(offset: VirtioAttachment.mmioStatus, width: 4, value: 0) }
  }

  init(_ transport: VirtioPCI) {
    self.transport = transport.transport
    stateKeeper = transport
    start = { try transport.start() }
    reset = {
      transport.write(bar: 0, offset: VirtioAttachment.pciStatus, width: 1, value: 0)
      VirtioAttachment.disableMessages(of: transport)
    }
  }

  /// Clears the enable bit of MSI-X (PCI 3.0, 6.8.2.3), wherever its capability stands.
  private static func disableMessages(of function: VirtioPCI) {
    var pointer = UInt64(function.capabilityPointer)
    // No list is longer than the space it lies in.
    for _ in 0..<48 where pointer >= 0x40 {
      let header = function.readConfiguration(offset: pointer, width: 4)
      if header & 0xFF == messageCapability {
        function.writeConfiguration(offset: pointer + 2, width: 2, value: 0)
      }
      pointer = UInt64(header >> 8 & 0xFC)
    }
  }
}

extension Board {
  /// Puts the devices into slots. Empty virtio-mmio slots answer too: some guests look at all of them.
  func makeVirtioAttachments() -> [VirtioAttachment] {
    var attachments: [VirtioAttachment] = []
    let devices = configuration.devices
    if configuration.transport == .pci {
      for (index, device) in devices.enumerated() {
        let slot = index + 1
        let function = VirtioPCI(
          device: device, memory: memory, loop: loop, interrupt: pciHostBridge.interruptLine(slot: slot),
          messages: { [addressSpace, memory] address, data in
            _ = addressSpace.write(address, width: 4, value: UInt64(data))
            if let bytes = memory.bytes(at: address, count: 4) { memory.noteWrite(of: bytes) }
          },
          identifier: "virtio-pci\(slot)")
        pciHostBridge.insert(function, slot: slot)
        attachments.append(VirtioAttachment(function))
      }
    }
    for slot in 0..<MemoryMap.virtioSlotCount {
      let window: any BusDevice
      if configuration.transport == .mmio, slot < devices.count {
        let transport = VirtioMMIO(
          device: devices[slot], memory: memory, loop: loop,
          interrupt: plic.line(MemoryMap.Source.virtioMMIO(slot: slot)), identifier: "virtio-mmio\(slot)")
        attachments.append(VirtioAttachment(transport))
        window = transport
      } else {
        window = VirtioMMIOEmptySlot()
      }
      let region = MemoryMap.virtioMMIO(slot: slot)
      addressSpace.attach(window, at: region.base, size: region.size)
    }
    return attachments
  }
}

/// The common configuration structure (virtio 1.2, 4.1.4.3). Fields are accessed with their own width; 64-bit ones in
/// halves, or whole.
extension VirtioPCI {
  private enum Common {
    static let deviceFeatureSelect: UInt64 = 0x00
    static let deviceFeature: UInt64 = 0x04
    static let driverFeatureSelect: UInt64 = 0x08
    static let driverFeature: UInt64 = 0x0c
    static let configurationVector: UInt64 = 0x10
    static let queueCount: UInt64 = 0x12
    static let status: UInt64 = 0x14
    static let configurationGeneration: UInt64 = 0x15
    static let queueSelect: UInt64 = 0x16
    static let queueSize: UInt64 = 0x18
    static let queueVector: UInt64 = 0x1a
    static let queueEnable: UInt64 = 0x1c
    static let queueNotifyOffset: UInt64 = 0x1e
    static let queueDescriptors: UInt64 = 0x20
    static let queueDriver: UInt64 = 0x28
    static let queueDevice: UInt64 = 0x30
    static let queueNotifyData: UInt64 = 0x38
    static let queueReset: UInt64 = 0x3a
  }

  func readCommon(_ offset: UInt64, width: Int) -> UInt64 {
    if width == 8 {
      return readCommon(offset, width: 4) & 0xffff_ffff | readCommon(offset + 4, width: 4) << 32
    }
    let selected = transport.withRegisters { Int($0.queueSelect) }
    let exists = selected < transport.queueMaximumSizes.count
    switch (offset, width) {
    case (Common.deviceFeatureSelect, 4): return UInt64(transport.withRegisters { $0.deviceFeatureSelect })
    case (Common.deviceFeature, 4):
      return UInt64(transport.offeredFeatureWord(transport.withRegisters { $0.deviceFeatureSelect }))
    case (Common.driverFeatureSelect, 4): return UInt64(transport.withRegisters { $0.driverFeatureSelect })
    case (Common.driverFeature, 4):
      return UInt64(transport.driverFeatureWord(transport.withRegisters { $0.driverFeatureSelect }))
    case (Common.configurationVector, 2): return UInt64(interrupts.configurationVector)
    case (Common.queueCount, 2): return UInt64(transport.queueMaximumSizes.count)
    case (Common.status, 1): return UInt64(transport.status.rawValue)
    case (Common.configurationGeneration, 1): return UInt64(transport.device.configuration.generation & 0xff)
    case (Common.queueSelect, 2): return UInt64(selected)
    case (Common.queueSize, 2): return UInt64(transport.selectedQueue?.layout.size ?? 0)
    case (Common.queueVector, 2): return UInt64(interrupts.queueVector(selected))
    case (Common.queueEnable, 2): return transport.selectedQueue?.isEnabled == true ? 1 : 0
    case (Common.queueNotifyOffset, 2): return exists ? UInt64(selected) : 0
    case (Common.queueDescriptors, 4): return (transport.selectedQueue?.layout.descriptors.rawValue ?? 0) & 0xffff_ffff
    case (Common.queueDescriptors + 4, 4): return (transport.selectedQueue?.layout.descriptors.rawValue ?? 0) >> 32
    case (Common.queueDriver, 4): return (transport.selectedQueue?.layout.available.rawValue ?? 0) & 0xffff_ffff
    case (Common.queueDriver + 4, 4): return (transport.selectedQueue?.layout.available.rawValue ?? 0) >> 32
    case (Common.queueDevice, 4): return (transport.selectedQueue?.layout.used.rawValue ?? 0) & 0xffff_ffff
    case (Common.queueDevice + 4, 4): return (transport.selectedQueue?.layout.used.rawValue ?? 0) >> 32
    case (Common.queueNotifyData, 2): return exists ? UInt64(selected) : 0
    // The reset was finished when the write returned.
    case (Common.queueReset, 2): return 0
    default: return 0
    }
  }

  func writeCommon(_ offset: UInt64, width: Int, value: UInt64) {
    if width == 8 {
      writeCommon(offset, width: 4, value: value & 0xffff_ffff)
      return writeCommon(offset + 4, width: 4, value: value >> 32)
    }
    let word = UInt32(truncatingIfNeeded: value)
    let half = UInt16(truncatingIfNeeded: value)
    switch (offset, width) {
    case (Common.deviceFeatureSelect, 4): transport.withRegisters { $0.deviceFeatureSelect = word }
    case (Common.driverFeatureSelect, 4): transport.withRegisters { $0.driverFeatureSelect = word }
    case (Common.driverFeature, 4): transport.setDriverFeatureWord(word)
    case (Common.configurationVector, 2): interrupts.configurationVector = half
    case (Common.status, 1): transport.writeStatus(UInt8(truncatingIfNeeded: value))
    case (Common.queueSelect, 2): transport.withRegisters { $0.queueSelect = UInt32(half) }
    case (Common.queueSize, 2): transport.withSelectedQueue { $0.layout.size = half }
    case (Common.queueVector, 2):
      interrupts.setQueueVector(transport.withRegisters { Int($0.queueSelect) }, half)
    // Only a reset disables a queue (4.1.4.3.2).
    case (Common.queueEnable, 2): if half == 1 { transport.enableSelectedQueue() }
    case (Common.queueDescriptors, 4): transport.withSelectedQueue { $0.layout.descriptors.setLow(word) }
    case (Common.queueDescriptors + 4, 4): transport.withSelectedQueue { $0.layout.descriptors.setHigh(word) }
    case (Common.queueDriver, 4): transport.withSelectedQueue { $0.layout.available.setLow(word) }
    case (Common.queueDriver + 4, 4): transport.withSelectedQueue { $0.layout.available.setHigh(word) }
    case (Common.queueDevice, 4): transport.withSelectedQueue { $0.layout.used.setLow(word) }
    case (Common.queueDevice + 4, 4): transport.withSelectedQueue { $0.layout.used.setHigh(word) }
    case (Common.queueReset, 2): if half == 1 { transport.resetSelectedQueue() }
    default: break
    }
  }
}
